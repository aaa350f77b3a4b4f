//! The API key that the calls of a channel carry.
//!
//! It comes from a file or from the environment, never from a command line, where everybody on the machine can read it. What is
//! read is wiped when dropped and never printed; the copy in the header of a call lives as long as its channel, marked as
//! sensitive, so that nothing prints it either.

use std::{fmt, path::Path};

use tonic::metadata::{Ascii, MetadataValue};
use zeroize::Zeroizing;

/// The header that it travels in.
pub(crate) const HEADER: &str = "authorization";
/// A longer text is no key and no token.
const TEXT_BYTES_MAX: usize = 8_192;

/// An API key or a token. It is wiped when dropped and never printed.
#[derive(Clone)]
pub struct KeyText(Zeroizing<String>);

/// Why there is no key. It does not say what was read.
#[derive(Debug, thiserror::Error)]
pub enum KeyTextError {
    /// The file can not be read.
    #[error("the file of the API key can not be read")]
    Unreadable(#[source] std::io::Error),
    /// It is empty, too long, or has characters that no key has.
    #[error("is no API key or token: one word of visible ASCII is needed")]
    Malformed,
}

impl KeyText {
    /// From its text, with or without space around it.
    ///
    /// # Errors
    /// [`KeyTextError::Malformed`].
    pub fn new(text: &str) -> Result<Self, KeyTextError> {
        let text = text.trim();
        let plain = !text.is_empty()
            && text.len() <= TEXT_BYTES_MAX
            && text.bytes().all(|byte| byte.is_ascii_graphic());
        if plain { Ok(Self(Zeroizing::new(text.to_owned()))) } else { Err(KeyTextError::Malformed) }
    }

    /// From a file.
    ///
    /// # Errors
    /// [`KeyTextError`].
    pub fn read(path: &Path) -> Result<Self, KeyTextError> {
        let text = std::fs::read_to_string(path).map(Zeroizing::new).map_err(KeyTextError::Unreadable)?;
        Self::new(&text)
    }

    /// What a call carries.
    pub(crate) fn header(&self) -> Option<MetadataValue<Ascii>> {
        let text = Zeroizing::new(format!("Bearer {}", *self.0));
        let mut value: MetadataValue<Ascii> = text.parse().ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

impl fmt::Debug for KeyText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyText(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_one_word_and_never_printed() {
        let key = KeyText::new(" drawdown_key\n").unwrap();
        let header = key.header().unwrap();
        assert_eq!(header.to_str().unwrap(), "Bearer drawdown_key");
        for shown in [format!("{key:?}"), format!("{header:?}")] {
            assert!(!shown.contains("drawdown_key"), "{shown}");
        }
        for text in ["", " ", "two words", "é", &"x".repeat(TEXT_BYTES_MAX + 1)] {
            assert!(matches!(KeyText::new(text), Err(KeyTextError::Malformed)));
        }
    }

    #[test]
    fn a_key_comes_from_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        assert!(matches!(KeyText::read(&path), Err(KeyTextError::Unreadable(_))));
        std::fs::write(&path, "drawdown_key\n").unwrap();
        assert_eq!(*KeyText::read(&path).unwrap().0, "drawdown_key");
    }
}
