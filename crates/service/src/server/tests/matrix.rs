//! The authorisation matrix: every method of the contracts, by every kind of credential, over the wire.
//!
//! Methods and requests are generated from the descriptors, what is expected from the table. The routes behind the layers
//! are empty, so a call that is admitted answers UNIMPLEMENTED, and any other answer is a refusal of the layers.

use std::collections::BTreeMap;

use bytes::{Buf as _, BufMut as _, Bytes};
use drawdown_types::{AccountId, Clock as _, TeamId, UserId};
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, ReflectMessage as _, Value};
use serde_json::json;
use tonic::{
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

use zeroize::Zeroizing;

use super::{
    identity::{Guarded, bearer},
    *,
};
use crate::identity::{
    self, ApiKey, Kind, Owner, Reach, Role, Roles, Rule, Scope, Who,
    token_tests::{Issuer, NOW, claims},
};

/// Messages as they are.
#[derive(Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

/// What came of a call: a reason, or admitted.
type Outcome = (Code, String);

const ADMITTED: (Code, &str) = (Code::Unimplemented, "");

async fn call(server: &Guarded, rule: &Rule, header: &str, message: Bytes) -> Outcome {
    let mut client = Grpc::new(server.channel.clone());
    client.ready().await.unwrap();
    let mut request = Call::new(message);
    if !header.is_empty() {
        request.metadata_mut().insert("authorization", header.parse().unwrap());
    }
    let path = format!("/{}", rule.method).parse().unwrap();
    // no stream is waited for: what counts is how it begins
    match client.server_streaming(request, path, Raw).await {
        // health is the one service that is there
        Ok(_) => (ADMITTED.0, String::new()),
        Err(status) => {
            let details = status.get_error_details();
            let reason = details.error_info().map(|info| info.reason.clone()).unwrap_or_default();
            match status.code() {
                // a message of health or reflection that is none
                Code::InvalidArgument | Code::NotFound | Code::Internal if reason.is_empty() => {
                    (ADMITTED.0, String::new())
                }
                code => (code, reason),
            }
        }
    }
}

/// The ids of one tenant, by kind.
struct Things {
    account_id: AccountId,
    team_id: TeamId,
    user_id: UserId,
    ids: BTreeMap<&'static str, String>,
}

const KINDS: [(Kind, &str); 9] = [
    (Kind::Account, "account"),
    (Kind::Team, "team"),
    (Kind::App, "app"),
    (Kind::Credential, "credential"),
    (Kind::Client, "client"),
    (Kind::Transfer, "transfer"),
    (Kind::Hub, "hub"),
    (Kind::Change, "change"),
    (Kind::Budget, "budget"),
];

fn name(kind: Kind) -> &'static str {
    KINDS.iter().find(|(of, _)| *of == kind).unwrap().1
}

impl Things {
    /// New ones, known to the book of the server.
    fn new(server: &Guarded) -> Self {
        let (account_id, team_id) = (AccountId::generate(), TeamId::generate());
        let team = Owner::Team { account_id, team_id };
        let mut ids = BTreeMap::new();
        for (kind, name) in KINDS {
            let (id, owner) = match kind {
                Kind::Account => (account_id.to_string(), Owner::Account(account_id)),
                Kind::Team => (team_id.to_string(), team),
                Kind::Hub => (format!("hub of {account_id}"), Owner::Account(account_id)),
                _ => (format!("{name} of {team_id}"), team),
            };
            server.own((kind, id.clone()), owner);
            ids.insert(name, id);
        }
        Self { account_id, team_id, user_id: UserId::generate(), ids }
    }
}

/// A request that names these things in every field that the rule looks at, and acts as a person where it can.
fn request(pool: &DescriptorPool, rule: &Rule, things: Option<&Things>, actor: Option<UserId>) -> Bytes {
    let (service, method) = rule.method.split_once('/').unwrap();
    let Some(service) = pool.get_service_by_name(service) else { return Bytes::new() };
    let method = service.methods().find(|found| found.name() == method).unwrap();
    let mut message = DynamicMessage::new(method.input());
    if let (Reach::Named(fields), Some(things)) = (rule.reach, things) {
        for field in fields {
            set(&mut message, field.path, &things.ids[name(field.kind)]);
        }
    }
    if let (Some(path), Some(actor)) = (rule.actor, actor) {
        set(&mut message, path, &actor.to_string());
    }
    message.encode_to_vec().into()
}

/// Sets a text by its path. Of a oneof the last one stays.
fn set(message: &mut DynamicMessage, path: &str, text: &str) {
    let (first, rest) = path.split_once('.').map_or((path, None), |(first, rest)| (first, Some(rest)));
    let field = message.descriptor().get_field_by_name(first).unwrap();
    let single = match rest {
        None => Value::String(text.to_owned()),
        Some(rest) => {
            let present = message.get_field(&field).as_message().cloned();
            let kind = field.kind().as_message().unwrap().clone();
            let mut inner = present.unwrap_or_else(|| DynamicMessage::new(kind));
            set(&mut inner, rest, text);
            Value::Message(inner)
        }
    };
    message.set_field(&field, if field.is_list() { Value::List(vec![single]) } else { single });
}

/// Credentials that are no good, with the reason of their refusal.
fn bad(server: &Guarded, issuer: &Issuer) -> Vec<(&'static str, String, &'static str)> {
    let operator = || server.key(Role::Operator, Scope::Platform);
    let (good, gone) = (operator(), operator());
    server.forget(&gone);
    let expired = server.key_until(Role::Operator, Scope::Platform, Some(server.clock.now()));
    let secret = gone.split('_').nth(2).unwrap();
    let mixed = ApiKey::new(ApiKey::parse(&good).unwrap().key_id(), Zeroizing::new(secret.to_owned()));
    let mixed = mixed.unwrap().to_text().to_string();
    let header = |alg: &str, kid: &str| json!({ "alg": alg, "kid": kid });
    let plain = claims(&serde_json::Value::Null);
    let token = issuer.good(&plain);
    let refused = reason::CREDENTIAL_REFUSED;
    vec![
        ("none", String::new(), reason::IDENTITY_NEEDED),
        ("truncated key", bearer(&good[..good.len() - 9]), reason::KEY_MALFORMED),
        ("mistyped key", bearer(&good.replacen("drawdown_0", "drawdown_1", 1)), reason::KEY_MALFORMED),
        ("revoked key", bearer(&gone), refused),
        ("expired key", bearer(&expired), refused),
        ("secret of another key", bearer(&mixed), refused),
        ("key without its scheme", good.clone(), refused),
        ("another scheme", format!("Basic {good}"), refused),
        ("expired token", bearer(&issuer.good(&claims(&json!({ "exp": NOW - 60 })))), refused),
        (
            "replayed token of another service",
            bearer(&issuer.good(&claims(&json!({ "aud": "other" })))),
            refused,
        ),
        ("token of another issuer", bearer(&Issuer::new().good(&plain)), refused),
        ("truncated token", bearer(&token[..token.len() - 4]), refused),
        ("token without a signature", bearer(&issuer.sign(&header("none", "ed"), &plain, "")), refused),
        (
            "token by HMAC of the public key",
            bearer(&issuer.sign(&header("HS256", "ed"), &plain, "hmac")),
            refused,
        ),
        (
            "token by a key of another kind",
            bearer(&issuer.sign(&header("ES256", "ed"), &plain, "ec")),
            refused,
        ),
    ]
}

/// Whether a caller of this scope can be admitted to what a request of the rule names.
fn reaches(rule: &Rule, scope: Scope) -> bool {
    match (rule.reach, scope) {
        (Reach::Shared, _) | (_, Scope::Platform) | (Reach::Named(_), Scope::Account(_)) => true,
        (Reach::Platform, _) => false,
        (Reach::Named(fields), Scope::Team { .. }) => {
            fields.iter().any(|field| !matches!(field.kind, Kind::Account | Kind::Hub))
        }
    }
}

#[tokio::test]
async fn every_method_refuses_every_bad_credential_and_admits_the_right_ones() {
    let issuer = Issuer::new();
    let server = Guarded::with_issuer(&issuer, |options| {
        options.identity.failures_per_second_max = Count::of(usize::MAX);
        options.identity.key_cache_ms = Millis::from_millis(10_000);
    })
    .await;
    let pool = DescriptorPool::decode(drawdown_proto::FILE_DESCRIPTOR_SET).unwrap();
    let (mine, other) = (Things::new(&server), Things::new(&server));
    let bad = bad(&server, &issuer);
    let (mut refused, mut admitted) = (0_u32, 0_u32);
    for rule in identity::RULES.iter().copied().flatten() {
        let own = |actor| request(&pool, rule, Some(&mine), actor);
        for (kind, header, reason) in &bad {
            let expected = if rule.who == Who::Anyone { ADMITTED } else { (Code::Unauthenticated, *reason) };
            let outcome = call(&server, rule, header, own(None)).await;
            assert_eq!((outcome.0, outcome.1.as_str()), expected, "{}: {kind}", rule.method);
            refused += 1;
        }
        for role in Role::ALL {
            let team = Scope::Team { account_id: mine.account_id, team_id: mine.team_id };
            for scope in [Scope::Platform, Scope::Account(mine.account_id), team] {
                if !role.fits(scope) {
                    continue;
                }
                let (header, token) = server.credentials(&issuer, role, scope, &mine);
                let expected = expected(rule, role, scope);
                for header in [header, token] {
                    let outcome = call(&server, rule, &header, own(Some(mine.user_id))).await;
                    let told = (outcome.0, outcome.1.as_str());
                    assert_eq!(told, expected, "{}: {role} of {scope:?}", rule.method);
                    if expected == ADMITTED {
                        admitted += 1
                    } else {
                        refused += 1
                    }
                    if expected == ADMITTED && scope != Scope::Platform && rule.reach != Reach::Shared {
                        refused += tenant(&server, &pool, rule, &header, (&mine, &other)).await;
                    }
                }
            }
        }
    }
    assert!(refused > 3_000 && admitted > 500, "{refused} refused, {admitted} admitted");
}

/// What the table says of a role with a scope, naming its own things.
fn expected(rule: &Rule, role: Role, scope: Scope) -> (Code, &'static str) {
    let has_role = match rule.who {
        Who::Anyone | Who::Known => true,
        Who::Some(roles, _) => roles.has(role),
    };
    match (has_role, reaches(rule, scope)) {
        (true, true) => ADMITTED,
        (false, _) => (Code::PermissionDenied, reason::ROLE_NEEDED),
        (true, false) => (Code::PermissionDenied, reason::NOT_IN_SCOPE),
    }
}

/// What a tenant is refused, who is admitted with its own things; how many refusals there were.
async fn tenant(
    server: &Guarded,
    pool: &DescriptorPool,
    rule: &Rule,
    header: &str,
    (mine, other): (&Things, &Things),
) -> u32 {
    let me = Some(mine.user_id);
    let own = request(pool, rule, Some(mine), me);
    let scope = (Code::PermissionDenied, reason::NOT_IN_SCOPE);
    let unknown =
        Things { ids: KINDS.map(|(_, name)| (name, format!("no {name}"))).into(), ..Things::new(server) };
    let mut cases = vec![
        ("other tenant", request(pool, rule, Some(other), me), scope),
        ("what does not exist", request(pool, rule, Some(&unknown), me), scope),
        ("nothing named", request(pool, rule, None, me), scope),
        (
            "truncated request",
            own.slice(..own.len() - 1),
            (Code::InvalidArgument, reason::REQUEST_UNREADABLE),
        ),
    ];
    if rule.actor.is_some() {
        let actor = (Code::PermissionDenied, reason::ACTOR_DIFFERS);
        cases.push(("another person", request(pool, rule, Some(mine), Some(other.user_id)), actor));
        cases.push(("no person", request(pool, rule, Some(mine), None), actor));
    }
    let count = u32::try_from(cases.len()).unwrap();
    for (kind, message, expected) in cases {
        let outcome = call(server, rule, header, message).await;
        assert_eq!((outcome.0, outcome.1.as_str()), expected, "{}: {kind}", rule.method);
    }
    count
}

impl Guarded {
    /// A key and a token of the same rights, for a person.
    fn credentials(&self, issuer: &Issuer, role: Role, scope: Scope, of: &Things) -> (String, String) {
        let user_id = (scope != Scope::Platform).then_some(of.user_id);
        let key = self.key_for(Roles::of(&[role]), scope, user_id);
        let team_id = match scope {
            Scope::Team { team_id, .. } => json!(team_id),
            Scope::Platform | Scope::Account(_) => serde_json::Value::Null,
        };
        let account = scope.account().map_or_else(|| json!("*"), |account_id| json!(account_id));
        let token = issuer.good(&claims(&json!({
            "drawdown_roles": [role.name()], "drawdown_account": account, "drawdown_team": team_id,
            "drawdown_user": user_id,
        })));
        (bearer(&key), bearer(&token))
    }
}
