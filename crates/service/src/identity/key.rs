//! API keys as text: `drawdown_<id>_<secret>_<checksum>`.
//!
//! The prefix is for scanners of secrets, the id finds the key without its secret, the secret has 256 random
//! bits, and the checksum tells a mistyped key from a wrong one before anybody looks it up. A service never sends
//! the secret on: it asks about its SHA-256, which opens nothing by itself.

use std::fmt;

use drawdown_types::KeyId;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

/// What every key begins with; no token does.
pub const KEY_PREFIX: &str = "drawdown_";
/// Digits of a secret: 256 bits in base 32.
pub const SECRET_DIGITS: usize = 52;
const ID_DIGITS: usize = 26;
const CHECKSUM_DIGITS: usize = 7;
const KEY_CHARS: usize = KEY_PREFIX.len() + ID_DIGITS + 1 + SECRET_DIGITS + 1 + CHECKSUM_DIGITS;
const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// A key that is written rightly. Its secret is wiped when dropped and never printed.
#[derive(Clone)]
pub struct ApiKey {
    key_id: KeyId,
    secret: Zeroizing<String>,
}

/// What a key is known by, without its secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyDigest {
    /// Which key.
    pub key_id: KeyId,
    /// SHA-256 of its secret.
    pub digest: [u8; 32],
}

/// A text that is no key: mistyped, cut off, or something else. It does not say what it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not written as a key is, or its checksum does not fit: was it copied whole?")]
pub struct KeyError;

impl ApiKey {
    /// From the id and the digits of a new secret; `None` where those are not as many as there have to be.
    #[must_use]
    pub fn new(key_id: KeyId, secret: Zeroizing<String>) -> Option<Self> {
        let good = secret.len() == SECRET_DIGITS && secret.bytes().all(|byte| DIGITS.contains(&byte));
        good.then_some(Self { key_id, secret })
    }

    /// From its text.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        if text.len() != KEY_CHARS {
            return Err(KeyError);
        }
        let rest = text.strip_prefix(KEY_PREFIX).ok_or(KeyError)?;
        let (body, sum) = text.rsplit_once('_').ok_or(KeyError)?;
        let mut parts = rest.split('_');
        let (Some(id), Some(secret), Some(_), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(KeyError);
        };
        if *checksum(body) != *sum {
            return Err(KeyError);
        }
        let key_id = format!("{}_{id}", KeyId::PREFIX).parse().map_err(|_| KeyError)?;
        Self::new(key_id, Zeroizing::new(secret.to_owned())).ok_or(KeyError)
    }

    /// The text that its owner keeps.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let id = self.key_id.to_string();
        let id = id.rsplit('_').next().unwrap_or_default();
        let mut text = Zeroizing::new(String::with_capacity(KEY_CHARS));
        for part in [KEY_PREFIX, id, "_", self.secret.as_str()] {
            text.push_str(part);
        }
        let sum = checksum(&text);
        text.push('_');
        text.push_str(&sum);
        text
    }

    /// Which key it is.
    #[must_use]
    pub const fn key_id(&self) -> KeyId {
        self.key_id
    }

    /// What it is looked up by.
    #[must_use]
    pub fn digest(&self) -> KeyDigest {
        KeyDigest { key_id: self.key_id, digest: Sha256::digest(self.secret.as_bytes()).into() }
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiKey({}, …)", self.key_id)
    }
}

impl fmt::Debug for KeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyDigest({}, …)", self.key_id)
    }
}

/// CRC-32 of everything before it, in seven digits.
fn checksum(body: &str) -> String {
    let sum = crc32fast::hash(body.as_bytes());
    let digit = |shift: u32| {
        let index = usize::try_from((sum >> shift) & 31).unwrap_or_default();
        char::from(DIGITS.get(index).copied().unwrap_or(b'0'))
    };
    [30, 25, 20, 15, 10, 5, 0].into_iter().map(digit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "0123456789abcdefghjkmnpqrstvwxyz0123456789abcdefghjk";

    fn key() -> ApiKey {
        let key_id = "key_01j2gv5gymfsfrn6rc3mq3yjjv".parse().unwrap();
        ApiKey::new(key_id, Zeroizing::new(SECRET.to_owned())).unwrap()
    }

    #[test]
    fn a_key_reads_back_and_never_prints() {
        let text = key().to_text();
        assert_eq!(*text, format!("drawdown_01j2gv5gymfsfrn6rc3mq3yjjv_{SECRET}_19n7zaf"));
        let read = ApiKey::parse(&text).unwrap();
        assert_eq!(read.digest(), key().digest());
        for shown in [format!("{:?}", key()), format!("{:?}", key().digest())] {
            assert!(shown.contains("key_01j2gv5gymfsfrn6rc3mq3yjjv") && !shown.contains("0123"), "{shown}");
        }
    }

    #[test]
    fn every_typo_and_every_cut_is_told_without_a_look_up() {
        let text = key().to_text();
        for index in 0..text.len() {
            let mut typed = text.to_string();
            let other = if &text[index..=index] == "x" { "y" } else { "x" };
            typed.replace_range(index..=index, other);
            assert_eq!(ApiKey::parse(&typed).map(drop), Err(KeyError), "{typed}");
            assert_eq!(ApiKey::parse(&text[..index]).map(drop), Err(KeyError));
        }
        assert_eq!(ApiKey::parse(&format!("{}0", *text)).map(drop), Err(KeyError));
        assert_eq!(ApiKey::parse(&text.to_uppercase()).map(drop), Err(KeyError));
    }

    #[test]
    fn a_secret_has_its_length_and_its_digits() {
        for secret in [&SECRET[1..], "", &SECRET.replace('a', "l")] {
            assert!(ApiKey::new(key().key_id(), Zeroizing::new(secret.to_owned())).is_none(), "{secret}");
        }
    }
}
