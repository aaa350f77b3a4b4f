//! Secrets of credentials: made here, shown once, kept as HMAC-SHA256 under a pepper.
//!
//! Doctrine: a secret has 256 random bits, so a fast hash is enough; the pepper keeps a stolen table
//! useless. The hash covers the client id as well, so that hashes cannot be swapped between rows.
//! Nothing in here prints, compares early or outlives its use: buffers are wiped when dropped. The answer that shows a new secret is an
//! ordinary message, and neither it nor the buffers of the transport are wiped.

use std::fmt;

use drawdown_service::identity::{ApiKey, KeyDigest};
use drawdown_types::{ClientId, CredentialId, KeyId};
use hmac::{Hmac, KeyInit as _, Mac as _};
use rand::Rng as _;
use sha2::Sha256;
use subtle::ConstantTimeEq as _;
use zeroize::{Zeroize as _, Zeroizing};

/// Bytes of a hash.
pub(crate) const HASH_BYTES: usize = 32;
const SECRET_BYTES: usize = 32;
const SECRET_PREFIX: &str = "secret_";
/// A longer text is no secret of ours; it is not even hashed.
const SECRET_TEXT_MAX: usize = 128;
/// The block of SHA-256: a shorter key is padded with zeros, which changes nothing (RFC 2104).
const BLOCK_BYTES: usize = 64;
const PEPPER_BYTES_MIN: usize = 32;

/// The key of all hashes of one installation.
#[derive(Clone)]
pub struct Pepper(Zeroizing<[u8; BLOCK_BYTES]>);

/// Why a text is no pepper. It does not say what the text was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PepperError {
    /// Not pairs of hexadecimal digits.
    #[error("is not written in pairs of hexadecimal digits")]
    NotHex,
    /// Too short or too long.
    #[error("has {0} bytes, 32 to 64 are needed")]
    Length(usize),
}

/// A new secret, in the text its owner gets.
pub(crate) struct Secret(Zeroizing<String>);

impl fmt::Debug for Pepper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pepper(…)")
    }
}

// === impl Pepper ===

impl Pepper {
    /// From 32 to 64 bytes in hexadecimal digits.
    ///
    /// # Errors
    /// [`PepperError`].
    pub fn from_hex(text: &str) -> Result<Self, PepperError> {
        let digits = text.as_bytes();
        let bytes = digits.len() / 2;
        if !digits.len().is_multiple_of(2) {
            return Err(PepperError::NotHex);
        }
        if !(PEPPER_BYTES_MIN..=BLOCK_BYTES).contains(&bytes) {
            return Err(PepperError::Length(bytes));
        }
        let mut key = Zeroizing::new([0; BLOCK_BYTES]);
        for (byte, pair) in key.iter_mut().zip(digits.chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| PepperError::NotHex)?;
            let valid = pair.bytes().all(|digit| digit.is_ascii_hexdigit());
            *byte = valid.then(|| u8::from_str_radix(pair, 16).ok()).flatten().ok_or(PepperError::NotHex)?;
        }
        Ok(Self(key))
    }

    /// What is stored for a secret.
    pub(crate) fn hash(&self, client_id: &str, secret: &str) -> [u8; HASH_BYTES] {
        self.mac(&[b"credential", client_id.as_bytes(), secret.as_bytes()])
    }

    /// What is stored for an API key.
    pub(crate) fn hash_key(&self, key: &KeyDigest) -> [u8; HASH_BYTES] {
        self.mac(&[b"principal key", key.key_id.as_uuid().as_bytes(), &key.digest])
    }

    /// Whether a key is the one that was hashed. Takes as long for a key that nobody knows.
    pub(crate) fn verify_key(&self, key: &KeyDigest, stored: Option<&[u8]>) -> bool {
        equals(&self.hash_key(key), stored)
    }

    /// Tells this pepper from another one, and nothing else about it.
    pub(crate) fn mark(&self) -> [u8; HASH_BYTES] {
        self.mac(&[b"mark"])
    }

    /// Whether `secret` is the one that was hashed. Takes as long for a client id that nobody knows.
    pub(crate) fn verify(&self, client_id: &str, secret: &str, stored: Option<&[u8]>) -> bool {
        if secret.len() > SECRET_TEXT_MAX || client_id.len() > ClientId::MAX_LEN {
            return false;
        }
        equals(&self.hash(client_id, secret), stored)
    }

    fn mac(&self, parts: &[&[u8]]) -> [u8; HASH_BYTES] {
        let mut key = (*self.0).into();
        let mut mac = Hmac::<Sha256>::new(&key);
        for part in parts {
            // lengths keep ("ab", "c") and ("a", "bc") apart
            mac.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            mac.update(part);
        }
        key.as_mut_slice().zeroize();
        mac.finalize().into_bytes().into()
    }
}

fn equals(hash: &[u8; HASH_BYTES], stored: Option<&[u8]>) -> bool {
    // no secret hashes to this, and the comparison runs all the same
    let nobody = [0; HASH_BYTES];
    let known = stored.filter(|hash| hash.len() == HASH_BYTES);
    let equal = hash.ct_eq(known.unwrap_or(&nobody));
    known.is_some() & bool::from(equal)
}

/// A new API key; `None` never, as long as a secret has the digits of a key.
pub(crate) fn new_key() -> Option<ApiKey> {
    let digits = Secret::generate().0;
    ApiKey::new(KeyId::generate(), Zeroizing::new(digits.trim_start_matches(SECRET_PREFIX).to_owned()))
}

// === impl Secret ===

impl Secret {
    /// 256 random bits.
    pub(crate) fn generate() -> Self {
        const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
        let mut bytes = Zeroizing::new([0_u8; SECRET_BYTES]);
        rand::rng().fill_bytes(bytes.as_mut_slice());
        let mut text = Zeroizing::new(String::with_capacity(SECRET_PREFIX.len() + SECRET_BYTES * 2));
        text.push_str(SECRET_PREFIX);
        let (mut held, mut bits) = (0_u32, 0_u32);
        for byte in bytes.iter() {
            held = (held << 8) | u32::from(*byte);
            bits += 8;
            while bits >= 5 {
                bits -= 5;
                text.push(digit(DIGITS, held >> bits));
            }
            held &= (1 << bits) - 1;
        }
        text.push(digit(DIGITS, held << (5 - bits)));
        Self(text)
    }

    /// For its hash and for the one answer that shows it.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

fn digit(digits: &[u8; 32], value: u32) -> char {
    let index = usize::try_from(value & 31).unwrap_or_default();
    char::from(digits.get(index).copied().unwrap_or(b'0'))
}

/// A client id that was never used: `client_` and 26 base-32 digits of a fresh UUIDv7.
pub(crate) fn new_client_id() -> String {
    let fresh = CredentialId::generate().to_string();
    format!("client_{}", fresh.trim_start_matches("cred_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pepper() -> Pepper {
        Pepper::from_hex(&"0b".repeat(32)).unwrap()
    }

    #[test]
    fn peppers_are_32_to_64_bytes_in_hex_and_never_printed() {
        for (text, problem) in [
            ("00".repeat(31), PepperError::Length(31)),
            ("00".repeat(65), PepperError::Length(65)),
            ("0".repeat(65), PepperError::NotHex),
            ("+0".repeat(32), PepperError::NotHex),
            ("é".repeat(32), PepperError::NotHex),
        ] {
            assert_eq!(Pepper::from_hex(&text).map(drop), Err(problem));
        }
        assert_eq!(format!("{:?}", pepper()), "Pepper(…)");
    }

    #[test]
    fn the_hash_is_hmac_sha256() {
        // RFC 4231, test case 1, whose key is 20 bytes: padded by hand to what a pepper holds
        let mut key = [0_u8; BLOCK_BYTES];
        key[..20].fill(0x0b);
        let mut mac = Hmac::<Sha256>::new(&key.into());
        mac.update(b"Hi There");
        let hex: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
    }

    #[test]
    fn a_secret_fits_its_own_client_id_under_its_own_pepper_only() {
        let secret = Secret::generate();
        let hash = pepper().hash("client_a", secret.expose());
        assert!(pepper().verify("client_a", secret.expose(), Some(&hash)));
        assert!(!pepper().verify("client_b", secret.expose(), Some(&hash)));
        assert!(!pepper().verify("client_a", Secret::generate().expose(), Some(&hash)));
        assert!(!pepper().verify("client_a", secret.expose(), None));
        assert!(!pepper().verify("client_a", secret.expose(), Some(&[])));
        assert!(!pepper().verify("client_a", &"x".repeat(SECRET_TEXT_MAX + 1), Some(&hash)));
        let other = Pepper::from_hex(&"0c".repeat(32)).unwrap();
        assert!(!other.verify("client_a", secret.expose(), Some(&hash)));
        assert_ne!(other.mark(), pepper().mark());
    }

    #[test]
    fn a_key_fits_its_own_id_under_its_own_pepper_only() {
        let key = new_key().unwrap().digest();
        let hash = pepper().hash_key(&key);
        assert!(pepper().verify_key(&key, Some(&hash)));
        for stored in [None, Some(&[][..]), Some(&[0; HASH_BYTES][..])] {
            assert!(!pepper().verify_key(&key, stored));
        }
        let other = new_key().unwrap().digest();
        assert!(!pepper().verify_key(&other, Some(&hash)));
        assert!(!pepper().verify_key(&KeyDigest { key_id: other.key_id, ..key }, Some(&hash)));
        let elsewhere = Pepper::from_hex(&"0c".repeat(32)).unwrap();
        assert!(!elsewhere.verify_key(&key, Some(&hash)));
    }

    #[test]
    fn secrets_and_client_ids_have_their_form() {
        let secret = Secret::generate();
        assert_eq!(secret.expose().len(), SECRET_PREFIX.len() + 52);
        assert!(secret.expose().starts_with(SECRET_PREFIX));
        assert_ne!(secret.expose(), Secret::generate().expose());
        let client_id = new_client_id();
        assert_eq!((client_id.len(), ClientId::new(&client_id).is_ok()), (33, true));
        assert_ne!(client_id, new_client_id());
    }
}
