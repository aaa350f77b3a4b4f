//! Principals and their keys: made once, shown once, replaced without a gap, revoked for everybody within the time for
//! which keys are remembered.

use std::time::Duration;

use drawdown_client::{Channel, ChannelOptions, connect, reason_of};
use drawdown_entitlement::Options;
use drawdown_proto::entitlement::v1::{
    AuthenticateKeyRequest, CreateHubRequest, CreateKeyRequest, CreateKeyResponse, CreatePrincipalRequest,
    EndPrincipalRequest, GetAccountRequest, ListAuditRequest, ListKeysRequest, ListPrincipalsRequest,
    PrincipalRole, RevokeKeyRequest, RotateKeyRequest, principal_service_server::PrincipalService as _,
};
use drawdown_service::{
    Context, Telemetry,
    config::{ListenAddress, Millis},
    identity::{ApiKey, Mode},
};
use drawdown_types::Timestamp;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Status};

use crate::world::{Chain, World, at, instant, ok, refused, wire};

/// Which principal is to be made.
pub(crate) fn principal(role: PrincipalRole, account_id: &str, team_id: &str) -> CreatePrincipalRequest {
    CreatePrincipalRequest {
        name: "Program".to_owned(),
        roles: vec![role.into()],
        account_id: account_id.to_owned(),
        team_id: team_id.to_owned(),
        ..CreatePrincipalRequest::default()
    }
}

impl World {
    /// The id of a new principal.
    async fn principal(&self, request: CreatePrincipalRequest) -> String {
        let made = self.principals.create_principal(Request::new(request)).await;
        ok(made).principal.unwrap().principal_id
    }

    async fn new_key(&self, principal_id: &str) -> Result<CreateKeyResponse, Status> {
        let request =
            CreateKeyRequest { principal_id: principal_id.to_owned(), ..CreateKeyRequest::default() };
        self.principals.create_key(Request::new(request)).await.map(tonic::Response::into_inner)
    }

    /// A key of a new principal.
    pub(crate) async fn key_of(&self, request: CreatePrincipalRequest) -> String {
        let principal_id = self.principal(request).await;
        self.new_key(&principal_id).await.unwrap().text
    }

    async fn is_good(&self, text: &str) -> bool {
        let digest = ApiKey::parse(text).unwrap().digest();
        let request = AuthenticateKeyRequest {
            key_id: digest.key_id.to_string(),
            secret_digest: digest.digest.to_vec(),
        };
        ok(self.principals.authenticate_key(Request::new(request)).await).principal.is_some()
    }
}

fn reason_and_field(reason: &str, field: &str) -> (String, Vec<String>) {
    (reason.to_owned(), vec![field.to_owned()])
}

#[tokio::test]
async fn the_text_of_a_key_is_shown_once_and_stored_nowhere() {
    let world = World::new().await;
    let principal_id = world.principal(principal(PrincipalRole::Operator, "", "")).await;
    let request = || CreateKeyRequest {
        principal_id: principal_id.clone(),
        expires_at: None,
        request_id: "once".to_owned(),
    };
    let made = ok(world.principals.create_key(Request::new(request())).await);
    let again = ok(world.principals.create_key(Request::new(request())).await);
    assert_eq!((again.key.clone(), again.text.as_str()), (made.key.clone(), ""));
    let key = ApiKey::parse(&made.text).unwrap();
    assert_eq!(key.key_id().to_string(), made.key.unwrap().key_id);
    assert!(world.is_good(&made.text).await);
    let dump = world.dump().await;
    let secret = made.text.split('_').nth(2).unwrap();
    assert!(dump.contains("principal_key") && !dump.contains(secret), "the secret is in the database");
    let digest = key.digest().digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert!(!dump.contains(&digest), "what services look up by is in the database");
}

#[tokio::test]
async fn two_keys_are_good_at_once_and_one_takes_the_place_of_the_other() {
    let world = World::new().await;
    let principal_id = world.principal(principal(PrincipalRole::Gateway, "", "")).await;
    let old = world.new_key(&principal_id).await.unwrap();
    let old_id = old.key.unwrap().key_id;
    let until = world.now().checked_add(Duration::from_secs(3_600)).unwrap();
    let rotate =
        RotateKeyRequest { key_id: old_id.clone(), old_until: wire(until), ..RotateKeyRequest::default() };
    let new = ok(world.principals.rotate_key(Request::new(rotate)).await);
    assert_eq!(instant(new.old.unwrap().ends_at.as_ref()), until);
    assert!(world.is_good(&old.text).await && world.is_good(&new.text).await);
    let third = world.new_key(&principal_id).await.map(tonic::Response::new);
    assert_eq!(refused(third), reason_and_field("KEYS_TOO_MANY", "principal_id"));
    world.clock.set(until);
    assert!(!world.is_good(&old.text).await && world.is_good(&new.text).await);
    let rotate = RotateKeyRequest { key_id: old_id.clone(), ..RotateKeyRequest::default() };
    assert_eq!(
        refused(world.principals.rotate_key(Request::new(rotate)).await),
        reason_and_field("KEY_REVOKED", "key_id")
    );
    world.new_key(&principal_id).await.unwrap();
    let list = ListKeysRequest { principal_id, ..ListKeysRequest::default() };
    let keys = ok(world.principals.list_keys(Request::new(list)).await).keys;
    assert_eq!((keys.len(), keys[0].key_id.as_str()), (3, old_id.as_str()));
}

#[tokio::test]
async fn an_end_is_only_ever_brought_forward() {
    let world = World::new().await;
    let principal_id = world.principal(principal(PrincipalRole::BillingReader, "", "")).await;
    let key = world.new_key(&principal_id).await.unwrap();
    let key_id = key.key.unwrap().key_id;
    let revoke = |at: Option<Timestamp>| {
        let request =
            RevokeKeyRequest { key_id: key_id.clone(), at: at.and_then(wire), ..RevokeKeyRequest::default() };
        world.principals.revoke_key(Request::new(request))
    };
    let hours = |hours: u64| world.now().checked_add(Duration::from_secs(3_600 * hours));
    for (asked, expected) in [(hours(4), hours(4)), (hours(9), hours(4)), (hours(2), hours(2))] {
        let ends_at = ok(revoke(asked).await).key.unwrap().ends_at;
        assert_eq!(Some(instant(ends_at.as_ref())), expected);
    }
    let past = refused(revoke(world.now().checked_sub(Duration::from_secs(1))).await);
    assert_eq!(past, reason_and_field("INSTANT_IN_PAST", "at"));
    assert_eq!(instant(ok(revoke(None).await).key.unwrap().ends_at.as_ref()), world.now());
    assert!(!world.is_good(&key.text).await);
    for statement in [
        "UPDATE entitlement.principal_key SET to_at = NULL",
        "UPDATE entitlement.principal_key SET to_at = to_at + interval '1 hour'",
        "UPDATE entitlement.principal SET roles = ARRAY['operator']",
        "DELETE FROM entitlement.principal_key",
    ] {
        let refused = sqlx::query(statement).execute(world.database.pool()).await.unwrap_err();
        let code = refused.as_database_error().and_then(|error| error.code().map(|code| code.into_owned()));
        assert_eq!(code.as_deref(), Some("23001"), "{statement}");
    }
}

#[tokio::test]
async fn with_a_principal_all_of_its_keys_end() {
    let world = World::new().await;
    let principal_id = world.principal(principal(PrincipalRole::Gateway, "", "")).await;
    let key = world.new_key(&principal_id).await.unwrap().text;
    let end = || {
        Request::new(EndPrincipalRequest {
            principal_id: principal_id.clone(),
            note: "left".to_owned(),
            ..EndPrincipalRequest::default()
        })
    };
    let ended_at = ok(world.principals.end_principal(end()).await).ended_at;
    assert_eq!(instant(ended_at.as_ref()), world.now());
    assert!(!world.is_good(&key).await);
    world.clock.advance(Duration::from_secs(60));
    assert_eq!(ok(world.principals.end_principal(end()).await).ended_at, ended_at);
    let made = world.new_key(&principal_id).await.map(tonic::Response::new);
    assert_eq!(refused(made), reason_and_field("PRINCIPAL_ENDED", "principal_id"));
}

#[tokio::test]
async fn roles_fit_whose_things_a_principal_may_touch() {
    use PrincipalRole::{BillingReader, ContractManager, Gateway, Operator, TeamAdmin};
    let world = World::new().await;
    let (mine, other) = (world.chain().await, world.chain().await);
    let (account, team) = (mine.account_id.as_str(), mine.team_id.as_str());
    for (role, account, team, expected) in [
        (Operator, "", "", Ok(())),
        (Gateway, "", "", Ok(())),
        (BillingReader, "", "", Ok(())),
        (BillingReader, account, "", Ok(())),
        (BillingReader, account, team, Ok(())),
        (ContractManager, account, "", Ok(())),
        (TeamAdmin, account, team, Ok(())),
        (Operator, account, "", Err("ROLE_MISFIT")),
        (Gateway, account, team, Err("ROLE_MISFIT")),
        (ContractManager, "", "", Err("ROLE_MISFIT")),
        (ContractManager, account, team, Err("ROLE_MISFIT")),
        (TeamAdmin, account, "", Err("ROLE_MISFIT")),
        (TeamAdmin, other.account_id.as_str(), team, Err("TEAM_UNKNOWN")),
        (TeamAdmin, "", team, Err("REQUEST_INVALID")),
        (PrincipalRole::Unspecified, "", "", Err("REQUEST_INVALID")),
    ] {
        let made = world.principals.create_principal(Request::new(principal(role, account, team))).await;
        let made = made.map(drop).map_err(|status| crate::world::reason(&status));
        assert_eq!(made, expected.map_err(str::to_owned), "{role:?} {account} {team}");
    }
    let list = |account_id: &str| {
        let account_id = account_id.to_owned();
        let request = ListPrincipalsRequest { account_id, page_size: 3, ..ListPrincipalsRequest::default() };
        world.principals.list_principals(Request::new(request))
    };
    let all = ok(list("").await);
    assert_eq!((all.principals.len(), all.next_page_token.is_empty()), (3, false));
    let of_account = ok(list(account).await);
    assert_eq!(of_account.principals.len(), 3);
    assert!(of_account.principals.iter().all(|principal| principal.account_id == account));
}

/// Entitlement as it runs, with identity on, on the database and the clock of a world.
pub(crate) struct Guarded {
    pub(crate) world: World,
    pub(crate) channel: Channel,
    stop: CancellationToken,
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Guarded {
    pub(crate) async fn start() -> Self {
        let world = World::new().await;
        let mut options =
            Options { credential_pepper: "5a".repeat(32).as_str().into(), ..Options::default() };
        options.server.listen = ListenAddress::ANY_LOOPBACK;
        options.server.metrics_listen = ListenAddress::ANY_LOOPBACK;
        options.server.identity.mode = Mode::On;
        options.server.identity.key_cache_ms = Millis::from_millis(1);
        options.server.identity.owner_cache_ms = Millis::from_millis(1);
        options.database.url = world.database.url().into();
        options.database.role = drawdown_entitlement::SERVICE_ROLE.to_owned();
        let stop = CancellationToken::new();
        let telemetry = Telemetry::detached("entitlement").unwrap();
        let (context, mut bound) = Context::new(telemetry, world.clock.clone(), stop.clone());
        tokio::spawn(drawdown_entitlement::run(options.validate().unwrap(), context));
        let address = bound.wait().await.unwrap().grpc;
        let channel = connect(&ChannelOptions::to(format!("http://{address}"))).unwrap();
        Self { world, channel, stop }
    }

    /// A key of a new principal of a chain's account.
    pub(crate) async fn manager(&self, chain: &Chain) -> String {
        self.world.key_of(principal(PrincipalRole::ContractManager, &chain.account_id, "")).await
    }
}

/// A call with a key.
pub(crate) fn with_key<T>(message: T, key: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {key}").parse().unwrap());
    request
}

async fn account(guarded: &Guarded, key: &str, account_id: &str) -> Result<String, (Code, String)> {
    let mut hierarchy = drawdown_client::entitlement::hierarchy(&guarded.channel);
    let request = GetAccountRequest { account_id: account_id.to_owned() };
    let answer = hierarchy.get_account(with_key(request, key)).await;
    answer
        .map(|answer| answer.into_inner().account.unwrap().account_id)
        .map_err(|status| (status.code(), reason_of(&status).unwrap_or_default()))
}

#[tokio::test]
async fn a_revoked_or_expired_key_is_refused_by_the_running_service() {
    let guarded = Guarded::start().await;
    let world = &guarded.world;
    let chain = world.chain().await;
    let operator = world.key_of(principal(PrincipalRole::Operator, "", "")).await;
    let ask = |key: String| account(&guarded, key.leak(), chain.account_id.clone().leak());
    assert_eq!(ask(operator.clone()).await, Ok(chain.account_id.clone()));
    let refused = Err((Code::Unauthenticated, "CREDENTIAL_REFUSED".to_owned()));
    // a key of that id with another secret, and one whose secret is another's
    let other = world.key_of(principal(PrincipalRole::Operator, "", "")).await;
    let (mine, theirs) = (ApiKey::parse(&operator).unwrap(), other.split('_').nth(2).unwrap().to_owned());
    let mixed = ApiKey::new(mine.key_id(), zeroize::Zeroizing::new(theirs)).unwrap();
    assert_eq!(ask(mixed.to_text().to_string()).await, refused);
    let principal_id = world.principal(principal(PrincipalRole::Operator, "", "")).await;
    let expires_at = world.now().checked_add(Duration::from_secs(60)).and_then(wire);
    let request = CreateKeyRequest { principal_id, expires_at, ..CreateKeyRequest::default() };
    let expiring = ok(world.principals.create_key(Request::new(request)).await).text;
    assert!(ask(expiring.clone()).await.is_ok());
    world.clock.advance(Duration::from_secs(60));
    assert_eq!(ask(expiring).await, refused);
    // revoked over the wire by an operator, whose own key it is not
    let request = RevokeKeyRequest {
        key_id: ApiKey::parse(&other).unwrap().key_id().to_string(),
        ..RevokeKeyRequest::default()
    };
    let mut principals = drawdown_client::entitlement::principals(&guarded.channel);
    assert!(ask(other.clone()).await.is_ok());
    principals.revoke_key(with_key(request, &operator)).await.unwrap();
    let until_refused = async {
        while ask(other.clone()).await != refused {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(2), until_refused).await.unwrap();
}

#[tokio::test]
async fn the_audit_log_says_who_called_and_on_whose_behalf() {
    let guarded = Guarded::start().await;
    let world = &guarded.world;
    let chain = world.chain().await;
    let operator = world.key_of(principal(PrincipalRole::Operator, "", "")).await;
    let manager = guarded.manager(&chain).await;
    let user_id = world.user("manager@example.com").await;
    let person = CreatePrincipalRequest {
        user_id: user_id.clone(),
        ..principal(PrincipalRole::ContractManager, &chain.account_id, "")
    };
    let person = world.key_of(person).await;
    let mut hubs = drawdown_client::entitlement::hubs(&guarded.channel);
    for key in [&operator, &manager, &person] {
        let request = CreateHubRequest {
            account_id: chain.account_id.clone(),
            name: "Hub".to_owned(),
            request_id: String::new(),
        };
        hubs.create_hub(with_key(request, key)).await.unwrap();
    }
    let mut history = drawdown_client::entitlement::histories(&guarded.channel);
    let mut request =
        ListAuditRequest { account_id: chain.account_id.clone(), ..ListAuditRequest::default() };
    let mut lines = Vec::new();
    loop {
        let page = history.list_audit(with_key(request.clone(), &manager)).await.unwrap().into_inner();
        lines.extend(page.records);
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            break;
        }
    }
    let told: Vec<_> = lines
        .into_iter()
        .filter(|line| line.method == "CreateHub")
        .map(|line| (line.actor, line.caller))
        .collect();
    let caller = |key: &str| format!("/{}", ApiKey::parse(key).unwrap().key_id());
    assert_eq!(told.len(), 3);
    for ((actor, called), key) in told.iter().zip([&operator, &manager, &person]) {
        assert!(called.starts_with("key prin_") && called.ends_with(&caller(key)), "{called}");
        let expected = match key {
            key if *key == operator => "operator",
            key if *key == manager => called,
            _ => &user_id,
        };
        assert_eq!(actor, expected);
    }
    let process = world.dump().await;
    assert!(process.contains("CreateAccount") && process.contains(",process,"), "{process}");
    assert!(at("2026-03-01T12:00:00Z") <= world.now());
}
