//! Callers at a running server: known, refused, bounded, and ended in the middle of a stream.

use std::{
    collections::HashMap,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use drawdown_proto::entitlement::v1::{
    CreateHubRequest, CreateHubResponse, ListHubsRequest, ListHubsResponse, MoveAppRequest, MoveAppResponse,
    hub_service_client::HubServiceClient,
    hub_service_server::{HubService, HubServiceServer},
};
use drawdown_types::{
    AccountId, AppId, Clock as _, HubId, KeyId, ManualClock, PrincipalId, TeamId, Timestamp, UserId,
};
use futures::future::BoxFuture;
use zeroize::Zeroizing;

use super::*;
use crate::identity::{
    self, ApiKey, Caller, GoodKey, KeyDigest, Keys, Kind, Mode, Named, Owner, Owners, Proof, Role, Roles,
    Scope, Sources,
    token_tests::{Issuer, NOW},
};

/// Says who called.
struct Echo;

#[tonic::async_trait]
impl HubService for Echo {
    async fn create_hub(&self, _: Call<CreateHubRequest>) -> Result<Answer<CreateHubResponse>, Status> {
        Ok(Answer::new(CreateHubResponse::default()))
    }

    async fn list_hubs(&self, request: Call<ListHubsRequest>) -> Result<Answer<ListHubsResponse>, Status> {
        assert!(!request.metadata().contains_key("authorization"), "the secret went on");
        let next_page_token = format!("{} {:?}", identity::current(), identity::current_account());
        Ok(Answer::new(ListHubsResponse { hubs: Vec::new(), next_page_token }))
    }

    async fn move_app(&self, _: Call<MoveAppRequest>) -> Result<Answer<MoveAppResponse>, Status> {
        Ok(Answer::new(MoveAppResponse::default()))
    }
}

/// What entitlement would know.
#[derive(Default)]
struct Book {
    keys: Mutex<HashMap<KeyDigest, GoodKey>>,
    owners: Mutex<HashMap<Named, Vec<Owner>>>,
    lookups: AtomicUsize,
    away: AtomicBool,
}

impl Keys for Book {
    fn look_up(&self, key: KeyDigest) -> BoxFuture<'_, anyhow::Result<Option<GoodKey>>> {
        Box::pin(async move {
            self.lookups.fetch_add(1, Ordering::SeqCst);
            anyhow::ensure!(!self.away.load(Ordering::SeqCst), "away");
            Ok(self.keys.lock().unwrap().get(&key).cloned())
        })
    }
}

impl Owners for Book {
    fn owners(&self, things: Vec<Named>) -> BoxFuture<'_, anyhow::Result<Vec<Vec<Owner>>>> {
        Box::pin(async move {
            let owners = self.owners.lock().unwrap();
            let of = |(kind, text): &Named| match (kind, text.parse()) {
                (Kind::Account, Ok(account_id)) => vec![Owner::Account(account_id)],
                _ => owners.get(&(*kind, text.clone())).cloned().unwrap_or_default(),
            };
            Ok(things.iter().map(of).collect())
        })
    }
}

pub(super) struct Guarded {
    pub(super) channel: Channel,
    addresses: Addresses,
    book: Arc<Book>,
    pub(super) clock: Arc<ManualClock>,
    shutdown: CancellationToken,
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl Guarded {
    async fn with(change: impl FnOnce(&mut ServerOptions)) -> Self {
        Self::start(None, change).await
    }

    /// One that takes the tokens of this issuer too.
    pub(super) async fn with_issuer(issuer: &Issuer, change: impl FnOnce(&mut ServerOptions)) -> Self {
        Self::start(Some(issuer), change).await
    }

    async fn start(issuer: Option<&Issuer>, change: impl FnOnce(&mut ServerOptions)) -> Self {
        let mut options = ServerOptions::default();
        options.identity.mode = Mode::On;
        change(&mut options);
        let mut config = options.validate().unwrap();
        config.identity.tokens = issuer.map(|issuer| issuer.config(std::path::PathBuf::new()));
        let shutdown = CancellationToken::new();
        let telemetry = Telemetry::detached("entitlement").unwrap();
        let clock = Arc::new(ManualClock::new(Timestamp::from_secs(NOW).unwrap()));
        let (context, mut bound) = Context::new(telemetry, clock.clone(), shutdown.clone());
        let book = Arc::new(Book::default());
        let sources = Sources { keys: book.clone(), owners: book.clone() };
        let server = Server::bind(&config, &context).await.unwrap().identify(sources);
        let server = if issuer.is_some() { server } else { server.add_service(HubServiceServer::new(Echo)) };
        tokio::spawn(server.serve());
        let addresses = bound.wait().await.unwrap();
        let channel = Channel::from_shared(format!("http://{}", addresses.grpc)).unwrap().connect_lazy();
        Self { channel, addresses, book, clock, shutdown }
    }

    /// A key of a new principal.
    pub(super) fn key(&self, role: Role, scope: Scope) -> String {
        self.key_until(role, scope, None)
    }

    pub(super) fn key_until(&self, role: Role, scope: Scope, until: Option<Timestamp>) -> String {
        self.new_key((Roles::of(&[role]), scope, None), until)
    }

    pub(super) fn key_for(&self, roles: Roles, scope: Scope, user_id: Option<UserId>) -> String {
        self.new_key((roles, scope, user_id), None)
    }

    fn new_key(
        &self,
        (roles, scope, user_id): (Roles, Scope, Option<UserId>),
        until: Option<Timestamp>,
    ) -> String {
        let key_id = KeyId::generate();
        let text = key_id.to_string().trim_start_matches("key_").repeat(2);
        let key = ApiKey::new(key_id, Zeroizing::new(text)).unwrap();
        let proof = Proof::Key { principal_id: PrincipalId::generate(), key_id };
        let caller = Caller { proof, roles, scope, user_id, peer: None };
        self.book.keys.lock().unwrap().insert(key.digest(), GoodKey { caller, until });
        key.to_text().to_string()
    }

    /// As if a key had never been.
    pub(super) fn forget(&self, key: &str) {
        let digest = ApiKey::parse(key).unwrap().digest();
        self.book.keys.lock().unwrap().remove(&digest);
    }

    /// Says whose a thing is.
    pub(super) fn own(&self, thing: Named, owner: Owner) {
        self.book.owners.lock().unwrap().insert(thing, vec![owner]);
    }

    fn lookups(&self) -> usize {
        self.book.lookups.load(Ordering::SeqCst)
    }

    async fn list(&self, header: &str, account_id: &str) -> Result<String, Status> {
        let request = ListHubsRequest { account_id: account_id.to_owned(), ..ListHubsRequest::default() };
        let call = with_header(request, header);
        let answer = HubServiceClient::new(self.channel.clone()).list_hubs(call).await?;
        Ok(answer.into_inner().next_page_token)
    }

    async fn move_app(&self, header: &str, app_id: &str, hub_id: &str) -> Result<(), Status> {
        let request = MoveAppRequest {
            app_id: app_id.to_owned(),
            hub_id: hub_id.to_owned(),
            ..MoveAppRequest::default()
        };
        HubServiceClient::new(self.channel.clone()).move_app(with_header(request, header)).await.map(drop)
    }
}

fn with_header<T>(message: T, header: &str) -> Call<T> {
    let mut call = Call::new(message);
    if !header.is_empty() {
        call.metadata_mut().insert("authorization", header.parse().unwrap());
    }
    call
}

pub(super) fn bearer(key: &str) -> String {
    format!("Bearer {key}")
}

#[track_caller]
fn assert_refused<T: std::fmt::Debug>(answer: Result<T, Status>, code: Code, reason: &str) {
    let status = answer.unwrap_err();
    let told = status.get_error_details().error_info().map(|info| info.reason.clone()).unwrap_or_default();
    assert_eq!((status.code(), told.as_str()), (code, reason), "{status:?}");
}

#[tokio::test]
async fn callers_are_known_by_their_keys_or_refused() {
    let server = Guarded::with(|_| {}).await;
    let account = AccountId::generate().to_string();
    let good = server.key(Role::Operator, Scope::Platform);
    let said = server.list(&bearer(&good), &account).await.unwrap();
    assert!(said.starts_with("key prin_") && said.ends_with(" None"), "{said}");
    for (header, reason) in [
        (String::new(), reason::IDENTITY_NEEDED),
        (bearer(&good[..good.len() - 1]), reason::KEY_MALFORMED),
        (format!("Basic {good}"), reason::CREDENTIAL_REFUSED),
        (bearer("eyJhbGciOiJub25lIn0.e30."), reason::CREDENTIAL_REFUSED),
        (good.clone(), reason::CREDENTIAL_REFUSED),
    ] {
        assert_refused(server.list(&header, &account).await, Code::Unauthenticated, reason);
    }
    assert_eq!(server.lookups(), 1, "only what is written rightly is looked up");
    server.book.keys.lock().unwrap().clear();
    let wrong = server.key(Role::Operator, Scope::Platform);
    server.book.keys.lock().unwrap().clear();
    assert_refused(
        server.list(&bearer(&wrong), &account).await,
        Code::Unauthenticated,
        reason::CREDENTIAL_REFUSED,
    );
    let gateway = server.key(Role::Gateway, Scope::Platform);
    assert_refused(
        server.list(&bearer(&gateway), &account).await,
        Code::PermissionDenied,
        reason::ROLE_NEEDED,
    );
}

#[tokio::test]
async fn health_is_for_everybody_and_contracts_are_for_who_is_known() {
    let server = Guarded::with(|_| {}).await;
    let health =
        HealthClient::new(server.channel.clone()).check(HealthCheckRequest { service: String::new() }).await;
    assert!(health.is_ok());
    let ask = || tokio_stream::iter([ServerReflectionRequest::default()]);
    let mut client = ServerReflectionClient::new(server.channel.clone());
    assert_refused(
        client.server_reflection_info(ask()).await,
        Code::Unauthenticated,
        reason::IDENTITY_NEEDED,
    );
    let tenant = server.key(Role::ContractManager, Scope::Account(AccountId::generate()));
    assert!(client.server_reflection_info(with_header(ask(), &bearer(&tenant))).await.is_ok());
}

#[tokio::test]
async fn a_tenant_names_nothing_but_its_own() {
    let server = Guarded::with(|_| {}).await;
    let (mine, other) = (AccountId::generate(), AccountId::generate());
    let key = bearer(&server.key(Role::ContractManager, Scope::Account(mine)));
    let said = server.list(&key, &mine.to_string()).await.unwrap();
    assert!(said.ends_with(&format!("Some({mine})")), "{said}");
    for named in [other.to_string(), String::new(), "acct_nonsense".to_owned()] {
        assert_refused(server.list(&key, &named).await, Code::PermissionDenied, reason::NOT_IN_SCOPE);
    }
    let (app, hub, theirs) = (AppId::generate(), HubId::generate(), HubId::generate());
    {
        let mut owners = server.book.owners.lock().unwrap();
        let team = Owner::Team { account_id: mine, team_id: TeamId::generate() };
        owners.insert((Kind::App, app.to_string()), vec![team]);
        owners.insert((Kind::Hub, hub.to_string()), vec![Owner::Account(mine)]);
        owners.insert((Kind::Hub, theirs.to_string()), vec![Owner::Account(other)]);
    }
    let (app, hub, theirs) = (app.to_string(), hub.to_string(), theirs.to_string());
    assert!(server.move_app(&key, &app, &hub).await.is_ok());
    assert!(server.move_app(&key, &app, "").await.is_ok());
    let unknown = HubId::generate().to_string();
    for (app, hub) in [(&app, &theirs), (&app, &unknown), (&theirs, &hub)] {
        assert_refused(server.move_app(&key, app, hub).await, Code::PermissionDenied, reason::NOT_IN_SCOPE);
    }
}

#[tokio::test]
async fn a_team_reaches_neither_its_account_nor_the_teams_beside_it() {
    let server = Guarded::with(|_| {}).await;
    let (account_id, team_id) = (AccountId::generate(), TeamId::generate());
    let key = bearer(&server.key(Role::BillingReader, Scope::Team { account_id, team_id }));
    assert_refused(
        server.list(&key, &account_id.to_string()).await,
        Code::PermissionDenied,
        reason::NOT_IN_SCOPE,
    );
}

#[tokio::test]
async fn one_look_up_serves_all_calls_until_it_is_too_old() {
    let server = Guarded::with(|options| options.identity.key_cache_ms = Millis::from_millis(10_000)).await;
    let account = AccountId::generate().to_string();
    let until = server.clock.now().checked_add(Duration::from_secs(60));
    let key = bearer(&server.key_until(Role::Operator, Scope::Platform, until));
    let calls = (0..32).map(|_| server.list(&key, &account));
    let answers = futures::future::join_all(calls).await;
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(server.lookups(), 1);
    // what is remembered holds while nobody can be asked, and to the key's own end
    server.book.away.store(true, Ordering::SeqCst);
    assert!(server.list(&key, &account).await.is_ok());
    server.clock.advance(Duration::from_secs(60));
    assert_refused(server.list(&key, &account).await, Code::Unauthenticated, reason::CREDENTIAL_REFUSED);
    let other = bearer(&server.key(Role::Operator, Scope::Platform));
    assert_refused(server.list(&other, &account).await, Code::Unavailable, reason::IDENTITY_UNAVAILABLE);
}

#[tokio::test]
async fn who_guesses_is_refused_before_anything_is_looked_up() {
    let server = Guarded::with(|options| {
        options.identity.failures_per_second_max = Count::of(3);
        options.identity.key_cache_ms = Millis::from_millis(10_000);
    })
    .await;
    let account = AccountId::generate().to_string();
    let good = bearer(&server.key(Role::Operator, Scope::Platform));
    assert!(server.list(&good, &account).await.is_ok());
    let guess = || {
        let key = server.key(Role::Operator, Scope::Platform);
        server.forget(&key);
        bearer(&key)
    };
    for _ in 0..3 {
        let refused = server.list(&guess(), &account).await;
        assert_refused(refused, Code::Unauthenticated, reason::CREDENTIAL_REFUSED);
    }
    let lookups = server.lookups();
    for _ in 0..20 {
        let refused = server.list(&guess(), &account).await;
        assert_refused(refused, Code::ResourceExhausted, reason::ATTEMPTS_EXHAUSTED);
    }
    assert_eq!(server.lookups(), lookups);
    assert!(server.list(&good, &account).await.is_ok(), "who is known goes on");
    server.clock.advance(Duration::from_secs(1));
    let refused = server.list(&guess(), &account).await;
    assert_refused(refused, Code::Unauthenticated, reason::CREDENTIAL_REFUSED);
}

#[tokio::test]
async fn a_stream_ends_when_its_key_is_revoked() {
    let server = Guarded::with(|options| options.identity.key_cache_ms = Millis::from_millis(20)).await;
    let key = server.key(Role::Operator, Scope::Platform);
    let (asks, requests) = tokio::sync::mpsc::channel(1);
    let mut client = ServerReflectionClient::new(server.channel.clone());
    let call = with_header(tokio_stream::wrappers::ReceiverStream::new(requests), &bearer(&key));
    let mut answers = client.server_reflection_info(call).await.unwrap().into_inner();
    let ask = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    asks.send(ask).await.unwrap();
    assert!(answers.message().await.unwrap().is_some());
    // nobody can say: the stream goes on
    server.book.away.store(true, Ordering::SeqCst);
    let before = server.lookups();
    let still = tokio::time::timeout(Duration::from_millis(200), answers.message()).await;
    assert!(still.is_err() && server.lookups() > before, "{still:?}");
    server.book.away.store(false, Ordering::SeqCst);
    server.book.keys.lock().unwrap().clear();
    let ended = tokio::time::timeout(Duration::from_secs(10), answers.message()).await.unwrap();
    assert_eq!(ended.unwrap_err().code(), Code::Unauthenticated);
    drop(asks);
}

/// More streams of one key than an address may fail in a second.
#[tokio::test]
async fn all_streams_of_a_revoked_key_end_at_once_and_nobody_else_is_held_up() {
    let server = Guarded::with(|options| {
        options.identity.failures_per_second_max = Count::of(2);
        options.identity.key_cache_ms = Millis::from_millis(20);
    })
    .await;
    let key = server.key(Role::Operator, Scope::Platform);
    let mut streams = Vec::new();
    for _ in 0..50 {
        let (asks, requests) = tokio::sync::mpsc::channel::<ServerReflectionRequest>(1);
        let requests = tokio_stream::wrappers::ReceiverStream::new(requests);
        let mut client = ServerReflectionClient::new(server.channel.clone());
        let answers = client.server_reflection_info(with_header(requests, &bearer(&key))).await;
        streams.push((asks, answers.unwrap().into_inner()));
    }
    // the clock of the server stands still: whoever counted would not be free again
    server.forget(&key);
    for (_asks, answers) in &mut streams {
        let ended = tokio::time::timeout(Duration::from_secs(10), answers.message()).await.unwrap();
        assert_eq!(ended.unwrap_err().code(), Code::Unauthenticated);
    }
    let other = bearer(&server.key(Role::Operator, Scope::Platform));
    assert!(server.list(&other, &AccountId::generate().to_string()).await.is_ok());
}

#[tokio::test]
async fn judgements_are_counted() {
    let server = Guarded::with(|_| {}).await;
    let account = AccountId::generate().to_string();
    let key = bearer(&server.key(Role::Operator, Scope::Platform));
    server.list(&key, &account).await.unwrap();
    server.list("", &account).await.unwrap_err();
    let running = &server.addresses;
    let mut stream = TcpStream::connect(running.metrics).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).await.unwrap();
    for (outcome, proof) in [("admitted", "key"), (reason::IDENTITY_NEEDED, "none")] {
        let line = page.lines().find(|line| {
            line.starts_with("drawdown_rpc_server_identity_total")
                && line.contains(&format!("outcome=\"{outcome}\""))
                && line.contains(&format!("proof=\"{proof}\""))
        });
        assert!(line.is_some_and(|line| line.ends_with(" 1")), "{outcome}: {line:?}");
    }
}

#[tokio::test]
async fn where_identity_is_off_everybody_is_the_local_operator() {
    let server = Guarded::with(|options| options.identity.mode = Mode::Off).await;
    assert_eq!(server.list("", &AccountId::generate().to_string()).await.unwrap(), "local None");
}

#[tokio::test]
async fn identity_is_not_on_without_somebody_who_knows_the_keys() {
    let mut options = ServerOptions::default();
    options.identity.mode = Mode::On;
    let telemetry = Telemetry::detached("entitlement").unwrap();
    let (context, _bound) = Context::new(telemetry, Arc::new(SystemClock), CancellationToken::new());
    let server = Server::bind(&options.validate().unwrap(), &context).await.unwrap();
    assert!(matches!(server.serve().await, Err(ServerError::NoKeys)));
}

#[test]
fn identity_is_off_on_loopback_or_by_a_flag_only() {
    let options = |listen: &str, flag| {
        let mut options = ServerOptions {
            listen: listen.to_owned().try_into().unwrap(),
            allow_plaintext: true,
            ..ServerOptions::default()
        };
        options.identity.off_beyond_loopback = flag;
        options.validate().map(drop)
    };
    assert!(options("127.0.0.1:7401", false).is_ok() && options("[::1]:7401", false).is_ok());
    assert!(options("0.0.0.0:7401", true).is_ok());
    let problems = options("0.0.0.0:7401", false).unwrap_err();
    assert_eq!(problems.iter().map(|problem| problem.field.as_str()).collect::<Vec<_>>(), ["identity.mode"]);
}
