//! Tokens, good and of every bad kind.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as B64};
use drawdown_types::{AccountId, TeamId};
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _},
};
use serde_json::{Value, json};

use super::*;

/// An issuer with a key of each kind.
pub(crate) struct Issuer {
    ed: Ed25519KeyPair,
    ec: EcdsaKeyPair,
}

pub(crate) const NOW: i64 = 1_800_000_000;

fn now() -> Timestamp {
    Timestamp::from_secs(NOW).unwrap()
}

impl Issuer {
    pub(crate) fn new() -> Self {
        let random = SystemRandom::new();
        let ed = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
        let ec = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        Self {
            ed: Ed25519KeyPair::from_pkcs8(ed.as_ref()).unwrap(),
            ec: EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, ec.as_ref(), &random).unwrap(),
        }
    }

    pub(crate) fn key_set(&self) -> Value {
        let point = self.ec.public_key().as_ref();
        json!({ "keys": [
            { "kty": "OKP", "crv": "Ed25519", "kid": "ed", "use": "sig", "alg": "EdDSA",
              "x": B64.encode(self.ed.public_key().as_ref()) },
            { "kty": "EC", "crv": "P-256", "kid": "ec", "x": B64.encode(&point[1..33]),
              "y": B64.encode(&point[33..]) },
            { "kty": "RSA", "kid": "rsa", "n": "AQAB", "e": "AQAB" },
            { "kty": "oct", "kid": "oct", "k": B64.encode(self.ed.public_key().as_ref()) },
        ] })
    }

    /// A token whose header says this, signed by the key of the kind.
    pub(crate) fn sign(&self, header: &Value, claims: &Value, by: &str) -> String {
        let part = |value: &Value| B64.encode(value.to_string());
        let message = format!("{}.{}", part(header), part(claims));
        let signature = match by {
            "ed" => self.ed.sign(message.as_bytes()).as_ref().to_vec(),
            "ec" => self.ec.sign(&SystemRandom::new(), message.as_bytes()).unwrap().as_ref().to_vec(),
            "hmac" => {
                // a public key as the secret of an HMAC: what a reader who trusts the header would compute
                let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, self.ed.public_key().as_ref());
                ring::hmac::sign(&key, message.as_bytes()).as_ref().to_vec()
            }
            _ => Vec::new(),
        };
        format!("{message}.{}", B64.encode(signature))
    }

    pub(crate) fn good(&self, claims: &Value) -> String {
        self.sign(&json!({ "alg": "EdDSA", "typ": "JWT", "kid": "ed" }), claims, "ed")
    }

    pub(crate) fn config(&self, jwks_file: PathBuf) -> TokenConfig {
        TokenConfig {
            jwks_file,
            issuer: "https://issuer.example".to_owned(),
            audience: "drawdown".to_owned(),
            leeway: Duration::from_secs(5),
            lifetime_max: Duration::from_secs(3_600),
            reload_interval: Duration::from_millis(10),
            keys: Arc::new(KeySet::parse(self.key_set().to_string().as_bytes()).unwrap()),
        }
    }
}

/// Claims of a good token, with some changed; null takes a claim away.
pub(crate) fn claims(changes: &Value) -> Value {
    let mut claims = json!({
        "iss": "https://issuer.example", "aud": "drawdown", "sub": "program", "exp": NOW + 600,
        "drawdown_roles": ["operator"], "drawdown_account": "*",
    });
    for (name, value) in changes.as_object().into_iter().flatten() {
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(name);
        } else {
            claims[name.as_str()] = value.clone();
        }
    }
    claims
}

#[test]
fn good_tokens_of_both_kinds_are_taken() {
    let issuer = Issuer::new();
    let tokens = Tokens::new(issuer.config(PathBuf::new()));
    for (alg, kid) in [("EdDSA", "ed"), ("ES256", "ec")] {
        let token = issuer.sign(&json!({ "alg": alg, "kid": kid }), &claims(&Value::Null), kid);
        let good = tokens.verify(&token, now()).unwrap();
        assert_eq!(good.caller.roles, Roles::of(&[Role::Operator]));
        assert_eq!(good.caller.to_string(), "token program at https://issuer.example");
        assert!(tokens.holds(&good, now()));
        assert!(!tokens.holds(&good, Timestamp::from_secs(NOW + 605).unwrap()));
    }
    let (account_id, team_id) = (AccountId::generate(), TeamId::generate());
    let user_id = UserId::generate();
    let of_team = json!({ "drawdown_roles": ["team_admin", "billing_reader"], "drawdown_account": account_id,
        "drawdown_team": team_id, "drawdown_user": user_id, "aud": ["other", "drawdown"], "nbf": NOW + 5 });
    let good = tokens.verify(&issuer.good(&claims(&of_team)), now()).unwrap();
    assert_eq!(good.caller.scope, Scope::Team { account_id, team_id });
    assert_eq!(good.caller.user_id, Some(user_id));
}

#[test]
fn every_other_claim_is_refused() {
    let issuer = Issuer::new();
    let tokens = Tokens::new(issuer.config(PathBuf::new()));
    assert!(tokens.verify(&issuer.good(&claims(&json!({ "exp": NOW - 4 }))), now()).is_ok(), "leeway");
    for changes in [
        json!({ "exp": NOW - 5 }),
        json!({ "exp": NOW + 3_601 }),
        json!({ "exp": null }),
        json!({ "exp": "never" }),
        json!({ "exp": i64::MAX }),
        json!({ "nbf": NOW + 6 }),
        json!({ "iss": "https://other.example" }),
        json!({ "iss": null }),
        json!({ "aud": "other" }),
        json!({ "aud": null }),
        json!({ "sub": null }),
        json!({ "sub": "" }),
        json!({ "sub": "a\nb" }),
        json!({ "drawdown_roles": [] }),
        json!({ "drawdown_roles": null }),
        json!({ "drawdown_roles": ["root"] }),
        json!({ "drawdown_roles": ["contract_manager"] }),
        json!({ "drawdown_account": null }),
        json!({ "drawdown_account": "" }),
        json!({ "drawdown_account": AccountId::generate() }),
        json!({ "drawdown_team": TeamId::generate() }),
        json!({ "drawdown_user": "somebody" }),
    ] {
        assert!(tokens.verify(&issuer.good(&claims(&changes)), now()).is_err(), "{changes}");
    }
}

#[test]
fn the_key_fixes_the_algorithm_and_not_the_header() {
    let issuer = Issuer::new();
    let tokens = Tokens::new(issuer.config(PathBuf::new()));
    let stranger = Issuer::new();
    let claims = claims(&Value::Null);
    for (header, by) in [
        (json!({ "alg": "none", "kid": "ed" }), ""),
        (json!({ "alg": "HS256", "kid": "ed" }), "hmac"),
        (json!({ "alg": "HS256", "kid": "oct" }), "hmac"),
        (json!({ "alg": "ES256", "kid": "ed" }), "ed"),
        (json!({ "alg": "ES256", "kid": "ed" }), "ec"),
        (json!({ "alg": "EdDSA", "kid": "ec" }), "ed"),
        (json!({ "alg": "EdDSA", "kid": "ec" }), "ec"),
        (json!({ "alg": "EdDSA", "kid": "ed" }), "ec"),
        (json!({ "alg": "EdDSA", "kid": "ed" }), ""),
        (json!({ "alg": "EdDSA", "kid": "gone" }), "ed"),
        (json!({ "alg": "EdDSA" }), "ed"),
        (json!({ "alg": "EdDSA", "kid": "ed", "crit": ["b64"], "b64": false }), "ed"),
        (json!({ "alg": "RS256", "kid": "rsa" }), "ed"),
        (json!({ "kid": "ed" }), "ed"),
    ] {
        assert!(tokens.verify(&issuer.sign(&header, &claims, by), now()).is_err(), "{header} {by}");
    }
    assert!(tokens.verify(&stranger.good(&claims), now()).is_err(), "a key of somebody else");
    let good = issuer.good(&claims);
    for length in 0..good.len() {
        assert!(tokens.verify(&good[..length], now()).is_err(), "cut at {length}");
    }
    let (message, signature) = good.rsplit_once('.').unwrap();
    let (header, _) = message.split_once('.').unwrap();
    let other = B64.encode(self::claims(&json!({ "sub": "other" })).to_string());
    assert!(tokens.verify(&format!("{header}.{other}.{signature}"), now()).is_err());
    assert!(tokens.verify(&format!("{good}{}", "A".repeat(TOKEN_BYTES_MAX)), now()).is_err());
}

#[test]
fn a_set_holds_what_is_taken_and_nothing_twice() {
    let issuer = Issuer::new();
    let set = KeySet::parse(issuer.key_set().to_string().as_bytes()).unwrap();
    assert_eq!(set.len(), 2);
    assert!(set.find("rsa").is_none() && set.find("oct").is_none());
    let mut twice = issuer.key_set();
    twice["keys"][1]["kid"] = json!("ed");
    assert!(
        matches!(KeySet::parse(twice.to_string().as_bytes()), Err(KeySetError::Twice(kid)) if kid == "ed")
    );
    for (pointer, value) in [
        ("/keys/0/crv", json!("Ed448")),
        ("/keys/0/use", json!("enc")),
        ("/keys/0/alg", json!("ES256")),
        ("/keys/0/x", json!("AQAB")),
        ("/keys/0/kid", json!("")),
    ] {
        let mut set = issuer.key_set();
        *set.pointer_mut(pointer).unwrap() = value;
        set["keys"].as_array_mut().unwrap().truncate(1);
        assert!(KeySet::parse(set.to_string().as_bytes()).is_err(), "{pointer}");
    }
    for text in ["", "{}", "[]", "{\"keys\": []}"] {
        assert!(KeySet::parse(text.as_bytes()).is_err(), "{text}");
    }
}

#[tokio::test]
async fn keys_are_read_anew_without_a_restart_and_a_bad_file_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.json");
    let (old, new) = (Issuer::new(), Issuer::new());
    std::fs::write(&file, old.key_set().to_string()).unwrap();
    let tokens = Arc::new(Tokens::new(old.config(file.clone())));
    let claims = claims(&Value::Null);
    let good = tokens.verify(&old.good(&claims), now()).unwrap();
    std::fs::write(&file, "{").unwrap();
    tokens.look_again().await;
    assert!(tokens.holds(&good, now()), "what does not read changes nothing");
    std::fs::write(&file, old.key_set().to_string()).unwrap();
    tokens.look_again().await;
    assert!(tokens.holds(&good, now()), "the same keys again are the same keys");
    let stop = CancellationToken::new();
    let mut changes = tokens.keys.subscribe();
    let reloading = tokio::spawn(Arc::clone(&tokens).reload(stop.clone()));
    std::fs::write(&file, new.key_set().to_string()).unwrap();
    tokio::time::timeout(Duration::from_secs(10), changes.changed()).await.unwrap().unwrap();
    assert!(!tokens.holds(&good, now()), "what the old keys said is looked at again");
    assert!(tokens.verify(&old.good(&claims), now()).is_err());
    assert!(tokens.verify(&new.good(&claims), now()).is_ok());
    stop.cancel();
    reloading.await.unwrap();
}
