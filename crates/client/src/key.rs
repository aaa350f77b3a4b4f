//! The API key that the calls of a channel carry.
//!
//! It comes from a file or from the environment, never from a command line, where everybody on the machine can read it. What is
//! read is wiped when dropped and never printed; the copy in the header of a call lives as long as its channel, marked as
//! sensitive, so that nothing prints it either.
//!
//! A file is read again by a call, where the last look is [`LOOK_INTERVAL`] ago: so whoever rotates a key writes the new one
//! and takes the old one back a little later, and no program is started again. A file that is no key (half written, gone
//! for a moment) leaves the one before in use. Reading a line blocks the call that does it, once an interval.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use tonic::metadata::{Ascii, MetadataValue};
use zeroize::Zeroizing;

/// The header that it travels in.
pub(crate) const HEADER: &str = "authorization";
/// A longer text is no key and no token.
const TEXT_BYTES_MAX: usize = 8_192;
/// How long what was read of a file is taken for what it holds.
pub(crate) const LOOK_INTERVAL: Duration = Duration::from_secs(1);

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

/// Where the calls of a channel have their key from. Its `Debug` does not show it.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// It stays.
    Given(MetadataValue<Ascii>),
    /// It is what the file holds.
    File(Arc<KeyFile>),
}

/// The key in a file.
#[derive(Debug)]
pub(crate) struct KeyFile {
    path: PathBuf,
    seen: Mutex<Seen>,
}

#[derive(Debug)]
struct Seen {
    header: MetadataValue<Ascii>,
    looked_at: Instant,
    broken: bool,
}

// === impl Source ===

impl Source {
    /// What the next call carries.
    pub(crate) fn header(&self) -> MetadataValue<Ascii> {
        match self {
            Self::Given(header) => header.clone(),
            Self::File(file) => file.header(Instant::now()),
        }
    }
}

// === impl KeyFile ===

impl KeyFile {
    /// Reads it for the first time; blocks.
    pub(crate) fn new(path: &Path) -> Result<Self, KeyTextError> {
        let header = read_header(path)?;
        let seen = Seen { header, looked_at: Instant::now(), broken: false };
        Ok(Self { path: path.to_owned(), seen: Mutex::new(seen) })
    }

    fn header(&self, now: Instant) -> MetadataValue<Ascii> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_duration_since(seen.looked_at) >= LOOK_INTERVAL {
            seen.looked_at = now;
            match read_header(&self.path) {
                Ok(header) => (seen.header, seen.broken) = (header, false),
                Err(error) => {
                    // once until it is whole again
                    if !std::mem::replace(&mut seen.broken, true) {
                        let path = self.path.display();
                        tracing::warn!(%path, error = %error, "an API key can not be read again: the one before stays");
                    }
                }
            }
        }
        seen.header.clone()
    }
}

fn read_header(path: &Path) -> Result<MetadataValue<Ascii>, KeyTextError> {
    KeyText::read(path)?.header().ok_or(KeyTextError::Malformed)
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
    fn a_key_that_is_rotated_in_its_file_is_taken_within_a_second() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        assert!(matches!(KeyFile::new(&path), Err(KeyTextError::Unreadable(_))));
        std::fs::write(&path, "drawdown_old\n").unwrap();
        let file = KeyFile::new(&path).unwrap();
        let began = Instant::now();
        let carried =
            |millis| file.header(began + Duration::from_millis(millis)).to_str().unwrap().to_owned();
        // as long, and maybe at the same instant of the file system: what counts is what it holds
        std::fs::write(&path, "drawdown_new\n").unwrap();
        assert_eq!(carried(0), "Bearer drawdown_old", "not looked at for each call");
        assert_eq!(carried(1_001), "Bearer drawdown_new");
        // what is no key leaves the one before
        for broken in ["", "two words"] {
            std::fs::write(&path, broken).unwrap();
            assert_eq!(carried(3_000), "Bearer drawdown_new");
        }
        std::fs::remove_file(&path).unwrap();
        assert_eq!(carried(5_000), "Bearer drawdown_new");
        std::fs::write(&path, "drawdown_third").unwrap();
        assert_eq!(carried(5_500), "Bearer drawdown_new");
        assert_eq!(carried(6_001), "Bearer drawdown_third");
        assert!(!format!("{:?}", Source::File(Arc::new(file))).contains("drawdown_third"));
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
