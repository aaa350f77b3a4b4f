//! The keys of an issuer: a JSON Web Key Set, of which only what is taken here is kept.

use std::collections::HashMap;

use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyAlgorithm, PublicKeyUse},
};
use sha2::{Digest as _, Sha256};

/// More keys than an issuer has.
const KEYS_MAX: usize = 64;
/// An uncompressed point of P-256, and a point of Ed25519.
const P256_BYTES: usize = 65;
const ED25519_BYTES: usize = 32;

/// Keys by their ids.
#[derive(Debug)]
pub(crate) struct KeySet {
    keys: HashMap<String, VerifyingKey>,
    /// SHA-256 of the file.
    digest: [u8; 32],
}

/// A key with the one algorithm that it is for.
#[derive(Debug)]
pub(crate) struct VerifyingKey {
    pub(super) key: DecodingKey,
    pub(super) algorithm: Algorithm,
}

/// Why there are no keys in a file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeySetError {
    /// It can not be read.
    #[error("can not be read")]
    Unreadable(#[source] std::io::Error),
    /// It is no set of keys.
    #[error("is no JSON Web Key Set")]
    Malformed(#[source] serde_json::Error),
    /// Two keys have one id: which of them a token means must not be chance.
    #[error("has two keys of the id {0:?}")]
    Twice(String),
    /// It has no key that is taken here.
    #[error("has no key of kty OKP with crv Ed25519, or kty EC with crv P-256, and a kid")]
    Nothing,
    /// It has more than there can be.
    #[error("has more than {KEYS_MAX} keys")]
    TooMany,
}

impl KeySet {
    /// From the text of a file. Keys of other kinds are passed over: a set may serve others too.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, KeySetError> {
        let set: JwkSet = serde_json::from_slice(text).map_err(KeySetError::Malformed)?;
        if set.keys.len() > KEYS_MAX {
            return Err(KeySetError::TooMany);
        }
        let mut keys = HashMap::new();
        for jwk in &set.keys {
            let Some((kid, key)) = taken(jwk) else { continue };
            if keys.insert(kid.clone(), key).is_some() {
                return Err(KeySetError::Twice(kid));
            }
        }
        if keys.is_empty() {
            return Err(KeySetError::Nothing);
        }
        Ok(Self { keys, digest: Sha256::digest(text).into() })
    }

    pub(super) fn find(&self, kid: &str) -> Option<&VerifyingKey> {
        self.keys.get(kid)
    }

    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether both were read from the same text.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

/// A key that is taken here, and its id.
fn taken(jwk: &Jwk) -> Option<(String, VerifyingKey)> {
    let common = &jwk.common;
    let kid = common.key_id.clone().filter(|kid| !kid.is_empty())?;
    if common.public_key_use.as_ref().is_some_and(|usage| *usage != PublicKeyUse::Signature) {
        return None;
    }
    let (algorithm, named, bytes) = match &jwk.algorithm {
        AlgorithmParameters::EllipticCurve(params) if params.curve == EllipticCurve::P256 => {
            (Algorithm::ES256, KeyAlgorithm::ES256, P256_BYTES)
        }
        AlgorithmParameters::OctetKeyPair(params) if params.curve == EllipticCurve::Ed25519 => {
            (Algorithm::EdDSA, KeyAlgorithm::EdDSA, ED25519_BYTES)
        }
        _ => return None,
    };
    if common.key_algorithm.as_ref().is_some_and(|said| *said != named) {
        return None;
    }
    let key = DecodingKey::from_jwk(jwk).ok()?;
    let whole = key.try_get_as_bytes().is_ok_and(|point| point.len() == bytes);
    whole.then_some((kid, VerifyingKey { key, algorithm }))
}
