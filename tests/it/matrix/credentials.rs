//! Credentials that are no good: keys and tokens of every bad kind, each with the reason of its refusal.

use anyhow::Context as _;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as B64};
use drawdown_service::{identity::ApiKey, reason};
use drawdown_types::{Clock as _, SystemClock};
use ring::{
    rand::SystemRandom,
    signature::{Ed25519KeyPair, KeyPair as _},
};
use serde_json::{Value, json};

/// What the services are set up to trust.
pub(crate) const ISSUER: &str = "https://issuer.example";
pub(crate) const AUDIENCE: &str = "drawdown";

/// An issuer of tokens with one Ed25519 key.
pub(crate) struct Issuer(Ed25519KeyPair);

/// A header, and the reason for which it is refused.
pub(super) type Bad = (&'static str, String, &'static str);

pub(crate) fn bearer(text: &str) -> String {
    format!("Bearer {text}")
}

// === impl Issuer ===

impl Issuer {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).ok().context("no key")?;
        Ok(Self(Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).ok().context("no key")?))
    }

    pub(crate) fn key_set(&self) -> String {
        let x = B64.encode(self.0.public_key().as_ref());
        let key =
            json!({ "kty": "OKP", "crv": "Ed25519", "kid": "ed", "use": "sig", "alg": "EdDSA", "x": x });
        json!({ "keys": [key] }).to_string()
    }

    /// A token whose header names this algorithm, with what `signature` makes of its bytes.
    fn signed(alg: &str, claims: &Value, signature: impl Fn(&[u8]) -> Vec<u8>) -> String {
        let part = |value: &Value| B64.encode(value.to_string());
        let head = part(&json!({ "alg": alg, "typ": "JWT", "kid": "ed" }));
        let message = format!("{head}.{}", part(claims));
        let signature = B64.encode(signature(message.as_bytes()));
        format!("{message}.{signature}")
    }

    fn by_key(&self, alg: &str, claims: &Value) -> String {
        Self::signed(alg, claims, |bytes| self.0.sign(bytes).as_ref().to_vec())
    }

    /// A token of the platform's operator.
    pub(crate) fn good(&self) -> String {
        self.by_key("EdDSA", &claims(&json!({})))
    }

    /// A public key as the secret of an HMAC: what a reader who trusts the header would compute.
    fn by_hmac(&self, claims: &Value) -> String {
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, self.0.public_key().as_ref());
        Self::signed("HS256", claims, |bytes| ring::hmac::sign(&key, bytes).as_ref().to_vec())
    }
}

/// Claims of a good token, with some changed.
fn claims(changes: &Value) -> Value {
    let now = SystemClock.now().as_micros() / 1_000_000;
    let mut claims = json!({
        "iss": ISSUER, "aud": AUDIENCE, "sub": "program", "exp": now + 600,
        "drawdown_roles": ["operator"], "drawdown_account": "*",
    });
    for (name, value) in changes.as_object().into_iter().flatten() {
        claims[name.as_str()] = value.clone();
    }
    claims
}

/// Keys that are no good, made of one that is; a revoked one and an expired one come as they were given out.
pub(super) fn bad_keys(good: &str, revoked: &str, expired: &str) -> anyhow::Result<Vec<Bad>> {
    let refused = reason::CREDENTIAL_REFUSED;
    let truncated = good.get(..good.len() - 9).unwrap_or_default();
    let secret = revoked.split('_').nth(2).unwrap_or_default().to_owned();
    let mixed = ApiKey::new(ApiKey::parse(good)?.key_id(), secret.into()).context("no key")?;
    Ok(vec![
        ("truncated key", bearer(truncated), reason::KEY_MALFORMED),
        ("mistyped key", bearer(&good.replacen("drawdown_0", "drawdown_1", 1)), reason::KEY_MALFORMED),
        ("revoked key", bearer(revoked), refused),
        ("expired key", bearer(expired), refused),
        ("secret of another key", bearer(&mixed.to_text()), refused),
        ("key without its scheme", good.to_owned(), refused),
        ("key in another scheme", format!("Basic {good}"), refused),
    ])
}

/// Tokens that are no good.
pub(super) fn bad_tokens(issuer: &Issuer) -> anyhow::Result<Vec<Bad>> {
    let plain = claims(&json!({}));
    let now = SystemClock.now().as_micros() / 1_000_000;
    let good = issuer.good();
    let truncated = good.get(..good.len() - 4).unwrap_or_default().to_owned();
    let tokens = [
        ("expired token", issuer.by_key("EdDSA", &claims(&json!({ "exp": now - 60 })))),
        ("replayed token of another service", issuer.by_key("EdDSA", &claims(&json!({ "aud": "other" })))),
        ("token of another issuer's key", Issuer::new()?.by_key("EdDSA", &plain)),
        (
            "token of another issuer",
            issuer.by_key("EdDSA", &claims(&json!({ "iss": "https://other.example" }))),
        ),
        ("truncated token", truncated),
        ("token without a signature", Issuer::signed("none", &plain, |_| Vec::new())),
        ("token by HMAC of the public key", issuer.by_hmac(&plain)),
        ("token that names another algorithm", issuer.by_key("ES256", &plain)),
    ];
    let refused = reason::CREDENTIAL_REFUSED;
    Ok(tokens.into_iter().map(|(what, token)| (what, bearer(&token), refused)).collect())
}
