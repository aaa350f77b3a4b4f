//! A service on its own database, and short words for what tests do with it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use drawdown_entitlement::{
    AccessPolicy, Accounts, Adopts, Credentials, FirstTeam, Hierarchy, Histories, LedgerFacts, Limits,
    Members, Memory, Parts, Pepper, Principals, Resolutions, Transfers,
};
use drawdown_entitlement_core::{Rules, access::WhenStale};
use drawdown_proto::{
    entitlement::v1::{
        AssignAppRequest, BatchResolveRequest, BilledTo, ClientInstant, ContractKind, CreateAccountRequest,
        CreateAppRequest, CreateCredentialRequest, CreateCredentialResponse, CreateTeamRequest,
        CreateUserRequest, UnresolvedReason, hierarchy_service_server::HierarchyService as _, resolution,
        resolution_service_server::ResolutionService as _,
    },
    scalar::{timestamp_from_proto, timestamp_to_proto},
};
use drawdown_service::Telemetry;
use drawdown_testkit::{Database, ManualClock};
use drawdown_types::{Clock as _, TeamId, Timestamp};
use futures::future::BoxFuture;
use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tonic::{Request, Response, Status};
use tonic_types::StatusExt as _;

/// An edge; tests begin here.
pub(crate) const NOON: &str = "2026-03-01T12:00:00Z";

pub(crate) fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

pub(crate) fn wire(at: Timestamp) -> Option<prost_types::Timestamp> {
    Some(timestamp_to_proto(at))
}

pub(crate) fn instant(at: Option<&prost_types::Timestamp>) -> Timestamp {
    timestamp_from_proto(at.unwrap()).unwrap()
}

pub(crate) fn ok<T>(answer: Result<Response<T>, Status>) -> T {
    answer.map_err(|status| (status.message().to_owned(), reason(&status))).unwrap().into_inner()
}

/// The reason of a refusal, and the fields it names.
pub(crate) fn refused<T: Debug>(answer: Result<Response<T>, Status>) -> (String, Vec<String>) {
    let status = answer.unwrap_err();
    let details = status.get_error_details();
    let violations = details.bad_request().map(|bad| bad.field_violations.clone()).unwrap_or_default();
    (reason(&status), violations.into_iter().map(|violation| violation.field).collect())
}

pub(crate) fn reason(status: &Status) -> String {
    status.get_error_details().error_info().map(|info| info.reason.clone()).unwrap_or_default()
}

/// A ledger that has settled what a test says.
#[derive(Default)]
pub(crate) struct FakeLedger {
    settled: Mutex<BTreeMap<String, Timestamp>>,
    pub(crate) says_yes: AtomicBool,
    pub(crate) is_away: AtomicBool,
    pub(crate) questions: Mutex<Vec<(usize, Timestamp)>>,
    /// What it was told of first teams, in order.
    pub(crate) adopted: Mutex<Vec<FirstTeam>>,
    /// It does what it is told, and its answer never arrives.
    pub(crate) loses_answers: AtomicBool,
    /// Balances of teams in micro-tokens; of all others it is zero.
    pub(crate) balances: Mutex<BTreeMap<String, i64>>,
    /// Teams that it was asked for, each as one of which cell.
    pub(crate) asked_for_balances: Mutex<Vec<(u8, String)>>,
    /// Apps that it does not take.
    pub(crate) refuses: Mutex<BTreeSet<String>>,
}

impl FakeLedger {
    /// The last window of a client id that is settled.
    pub(crate) fn settle(&self, client_id: &str, window: Timestamp) {
        self.settled.lock().unwrap().insert(client_id.to_owned(), window);
    }
}

impl LedgerFacts for FakeLedger {
    fn has_settled(&self, client_ids: Vec<String>, from: Timestamp) -> BoxFuture<'_, Result<bool, Status>> {
        Box::pin(async move {
            if self.is_away.load(Ordering::SeqCst) {
                return Err(Status::unavailable("away"));
            }
            self.questions.lock().unwrap().push((client_ids.len(), from));
            let settled = self.settled.lock().unwrap();
            let in_range = |id: &String| settled.get(id).is_some_and(|window| *window >= from);
            Ok(self.says_yes.load(Ordering::SeqCst) || client_ids.iter().any(in_range))
        })
    }

    fn balance(&self, cell: u8, team_id: TeamId) -> BoxFuture<'_, Result<i64, Status>> {
        Box::pin(async move {
            if self.is_away.load(Ordering::SeqCst) {
                return Err(Status::unavailable("away"));
            }
            self.asked_for_balances.lock().unwrap().push((cell, team_id.to_string()));
            Ok(self.balances.lock().unwrap().get(&team_id.to_string()).copied().unwrap_or(0))
        })
    }
}

impl Adopts for FakeLedger {
    fn adopt(&self, first_team: FirstTeam) -> BoxFuture<'_, Result<(), Status>> {
        Box::pin(async move {
            if self.is_away.load(Ordering::SeqCst) {
                return Err(Status::unavailable("away"));
            }
            if self.refuses.lock().unwrap().contains(&first_team.app_id.to_string()) {
                return Err(Status::failed_precondition("refused"));
            }
            self.adopted.lock().unwrap().push(first_team);
            if self.loses_answers.load(Ordering::SeqCst) { Err(Status::unavailable("gone")) } else { Ok(()) }
        })
    }
}

/// Connections as the service has them: a missing grant shows in whatever test needs it.
pub(crate) fn service_pool(database: &Database) -> PgPool {
    let options: PgConnectOptions = database.url().parse().unwrap();
    let options = options.options([("role", drawdown_entitlement::SERVICE_ROLE)]);
    PgPoolOptions::new().max_connections(8).connect_lazy_with(options)
}

/// How access is answered in tests.
pub(crate) fn access_policy() -> AccessPolicy {
    AccessPolicy {
        age_max: Duration::from_secs(10),
        when_stale: WhenStale::ByLimit,
        meters: BTreeMap::new(),
        others: BTreeSet::from([1, 2]),
        feed_rows_max: 3,
        load_timeout_ms: 10_000,
    }
}

/// A service on its own database.
pub(crate) struct World {
    pub(crate) database: Database,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) ledger: Arc<FakeLedger>,
    pub(crate) parts: Parts,
    pub(crate) hierarchy: Hierarchy,
    pub(crate) accounts: Accounts,
    pub(crate) credentials: Credentials,
    pub(crate) members: Members,
    pub(crate) principals: Principals,
    pub(crate) histories: Histories,
    pub(crate) transfers: Transfers,
    pub(crate) resolutions: Resolutions,
}

fn account_request() -> CreateAccountRequest {
    let contract_kind = ContractKind::Flex.into();
    CreateAccountRequest { contract_kind, commercial: true, ..CreateAccountRequest::default() }
}

/// An account with a team and an app of it.
pub(crate) struct Chain {
    pub(crate) account_id: String,
    pub(crate) team_id: String,
    pub(crate) app_id: String,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(Rules::default()).await
    }

    pub(crate) async fn with(rules: Rules) -> Self {
        let database = Database::create_with("entitlement", drawdown_entitlement::migrate).await.unwrap();
        let clock = Arc::new(ManualClock::new(at(NOON)));
        let ledger = Arc::new(FakeLedger::default());
        let meter = Telemetry::detached("entitlement").unwrap().meter();
        let pool = service_pool(&database);
        let memory = Memory::new(pool.clone(), clock.clone(), (rules, false), access_policy(), &meter);
        let parts = Parts {
            pool,
            clock: clock.clone(),
            meter,
            rules,
            limits: Limits {
                resolve_queries_max: 10_000,
                page_rows_max: 3,
                act_attempts_max: 4,
                import_accounts_max: 3,
                import_rows_max: 60,
                hub_mode: false,
            },
            pepper: Pepper::from_hex(&"5a".repeat(32)).unwrap(),
            ledger: ledger.clone(),
            memory,
        };
        let (hierarchy, resolutions) = (Hierarchy::new(&parts), Resolutions::new(&parts));
        let (accounts, credentials) = (Accounts::new(&parts), Credentials::new(&parts));
        let parts_of_history = parts.clone();
        let (members, transfers) = (Members::new(&parts), Transfers::new(&parts));
        Self {
            database,
            clock,
            ledger,
            parts,
            hierarchy,
            accounts,
            credentials,
            members,
            principals: Principals::new(&parts_of_history),
            histories: Histories::new(&parts_of_history),
            transfers,
            resolutions,
        }
    }

    /// Makes the handlers anew, of other parts.
    pub(crate) fn rebuild(&mut self) {
        self.hierarchy = Hierarchy::new(&self.parts);
        self.resolutions = Resolutions::new(&self.parts);
        self.accounts = Accounts::new(&self.parts);
        self.credentials = Credentials::new(&self.parts);
        self.histories = Histories::new(&self.parts);
        self.members = Members::new(&self.parts);
        self.transfers = Transfers::new(&self.parts);
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(crate) async fn account(&self, created_at: Option<&str>, commercial: bool) -> String {
        let request = CreateAccountRequest {
            name: "Example".to_owned(),
            contract_kind: ContractKind::Flex.into(),
            created_at: created_at.and_then(|text| wire(at(text))),
            commercial,
            request_id: String::new(),
            cell: 0,
        };
        ok(self.hierarchy.create_account(Request::new(request)).await).account.unwrap().account_id
    }

    /// An account that lives in this cell, with a team and an app of it.
    pub(crate) async fn chain_in(&self, cell: u32) -> Result<Chain, Status> {
        let request = CreateAccountRequest { name: "Elsewhere".to_owned(), cell, ..account_request() };
        let account =
            self.hierarchy.create_account(Request::new(request)).await?.into_inner().account.unwrap();
        assert_eq!(account.cell, cell);
        let account_id = account.account_id;
        Ok(Chain {
            team_id: self.team(&account_id, None).await,
            app_id: self.app(&account_id).await,
            account_id,
        })
    }

    pub(crate) async fn team(&self, account_id: &str, created_at: Option<&str>) -> String {
        let request = CreateTeamRequest {
            account_id: account_id.to_owned(),
            name: "Team".to_owned(),
            created_at: created_at.and_then(|text| wire(at(text))),
            request_id: String::new(),
        };
        ok(self.hierarchy.create_team(Request::new(request)).await).team.unwrap().team_id
    }

    pub(crate) async fn app(&self, account_id: &str) -> String {
        let request = CreateAppRequest {
            account_id: account_id.to_owned(),
            name: "App".to_owned(),
            ..CreateAppRequest::default()
        };
        ok(self.hierarchy.create_app(Request::new(request)).await).app.unwrap().app_id
    }

    pub(crate) async fn user(&self, email: &str) -> String {
        let request = CreateUserRequest {
            email: email.to_owned(),
            name: "Person".to_owned(),
            request_id: String::new(),
        };
        ok(self.hierarchy.create_user(Request::new(request)).await).user.unwrap().user_id
    }

    /// A commercial account since January, with a team as old and an app.
    pub(crate) async fn chain(&self) -> Chain {
        let since = Some("2026-01-01T00:00:00Z");
        let account_id = self.account(since, true).await;
        let team_id = self.team(&account_id, since).await;
        let app_id = self.app(&account_id).await;
        Chain { account_id, team_id, app_id }
    }

    pub(crate) async fn credential(
        &self,
        app_id: &str,
        created_at: Option<&str>,
    ) -> CreateCredentialResponse {
        let request = CreateCredentialRequest {
            app_id: app_id.to_owned(),
            created_at: created_at.and_then(|text| wire(at(text))),
            request_id: String::new(),
        };
        ok(self.hierarchy.create_credential(Request::new(request)).await)
    }

    pub(crate) fn assignment(app_id: &str, team_id: &str, from: Option<&str>) -> Request<AssignAppRequest> {
        Request::new(AssignAppRequest {
            app_id: app_id.to_owned(),
            team_id: team_id.to_owned(),
            from: from.and_then(|text| wire(at(text))),
            request_id: String::new(),
        })
    }

    /// Assigns an app, and says from when on.
    pub(crate) async fn assign(&self, app_id: &str, team_id: &str, from: Option<&str>) -> Timestamp {
        let request = Self::assignment(app_id, team_id, from);
        instant(ok(self.hierarchy.assign_app(request).await).from.as_ref())
    }

    /// Who pays for a client id at some instants.
    pub(crate) async fn who_pays(
        &self,
        client_id: &str,
        instants: &[Timestamp],
    ) -> Vec<Result<BilledTo, UnresolvedReason>> {
        let query = |at: &Timestamp| ClientInstant { client_id: client_id.to_owned(), at: wire(*at) };
        let queries = instants.iter().map(query).collect();
        let answer = self.resolutions.batch_resolve(Request::new(BatchResolveRequest { queries })).await;
        ok(answer)
            .resolutions
            .into_iter()
            .map(|resolution| match resolution.answer.unwrap() {
                resolution::Answer::BilledTo(billed) => Ok(billed),
                resolution::Answer::Unresolved(reason) => Err(UnresolvedReason::try_from(reason).unwrap()),
            })
            .collect()
    }

    /// The team that pays at an instant, or the reason why nobody does.
    pub(crate) async fn team_at(&self, client_id: &str, at: Timestamp) -> Result<String, UnresolvedReason> {
        self.who_pays(client_id, &[at]).await.remove(0).map(|billed| billed.team_id)
    }

    /// Rows as the acts write them, for thousands of apps at once.
    pub(crate) async fn many_credentials(&self, chain: &Chain, apps: i32) {
        let as_uuid = |text: &str| text.parse::<drawdown_types::AccountId>().unwrap().as_uuid();
        let team: drawdown_types::TeamId = chain.team_id.parse().unwrap();
        sqlx::query(
            "WITH made AS (
                INSERT INTO entitlement.app (app_id, account_id, name)
                SELECT gen_random_uuid(), $1, n::text FROM generate_series(1, $3) n RETURNING app_id, name
            ), linked AS (
                INSERT INTO entitlement.app_team (app_id, valid_from, team_id, set_up, made_at, made_by, made_through)
                SELECT app_id, timestamptz '2026-02-01 00:00Z' + n * interval '1 day', $2, true, now(), 'test', 'test'
                FROM made, generate_series(0, 1) n WHERE name::int % 10 <> 0
            )
            INSERT INTO entitlement.credential (credential_id, app_id, client_id, secret_hmac, created_at, known_from,
                made_at, made_by, made_through)
            SELECT gen_random_uuid(), app_id, 'client_' || name, decode(repeat('00', 32), 'hex'),
                '2026-01-15 00:00Z', '2026-01-15 00:00Z', now(), 'test', 'test'
            FROM made",
        )
        .bind(as_uuid(&chain.account_id))
        .bind(team.as_uuid())
        .bind(apps)
        .execute(self.database.pool())
        .await
        .unwrap();
    }

    /// Opens connections ahead: two acts on one connection after the other are no race.
    pub(crate) async fn warm(&self) {
        let connections = (0..6).map(|_| self.parts.pool.acquire());
        futures::future::try_join_all(connections).await.unwrap();
    }

    /// Every row of every table, as text.
    pub(crate) async fn dump(&self) -> String {
        let tables: Vec<String> = sqlx::query_scalar(
            "SELECT table_name::text FROM information_schema.tables WHERE table_schema = 'entitlement' ORDER BY 1",
        )
        .fetch_all(self.database.pool())
        .await
        .unwrap();
        let mut dump = String::new();
        for table in tables {
            let statement = format!("SELECT t::text FROM entitlement.{table} t ORDER BY 1");
            let rows: Vec<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(statement))
                .fetch_all(self.database.pool())
                .await
                .unwrap();
            dump.push_str(&format!("{table}\n{}\n", rows.join("\n")));
        }
        dump
    }
}
