//! A ledger of its own per test, with a clock that stands still, and the batches that metering would send.

mod lines;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use drawdown_ledger::{
    Config, Options,
    directory::{Directory, TeamFacts},
    error::Error,
    grpc::{
        Budgets, Catalog, Corrections, Events, Holds, Lots, Notices, Reports, Review, Settlement, Tokens,
    },
    jobs::{compact::Compact, months::Months, relay::Relay},
    metrics::Metrics,
    service::{Ledger, Parts},
    store::pool::{Pool, PoolConfig, SERVICE_ROLE, pool},
    verify::{Scope, Verdict, Verification},
};
use drawdown_proto::{
    ledger::v1::{
        budget_service_server::BudgetService, catalog_service_server::CatalogService,
        correction_service_server::CorrectionService, event_service_server::EventService,
        notice_service_server::NoticeService, settlement_service_server::SettlementService,
        token_service_server::TokenService, *,
    },
    scalar::timestamp_to_proto,
};
use drawdown_service::config::Millis;
use drawdown_testkit::{Database, ManualClock};
use drawdown_types::{AccountId, AppId, Clock, EVENT_SLOTS, ProducerId, TeamId, Timestamp};
use futures::{FutureExt as _, future::BoxFuture};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status};
use tonic_types::StatusExt as _;

pub(crate) use self::lines::*;

/// The instant at which every test begins.
pub(crate) const NOW: &str = "2026-03-10T12:00:30Z";
/// The shard that tests post to where it does not matter.
pub(crate) const SHARD: u32 = 3;

#[derive(Default)]
pub(crate) struct FakeDirectory(Mutex<HashMap<TeamId, TeamFacts>>);

impl Directory for FakeDirectory {
    fn team(&self, team: TeamId) -> BoxFuture<'_, Result<Option<TeamFacts>, Error>> {
        let facts = self.0.lock().unwrap().get(&team).copied();
        async move { Ok(facts) }.boxed()
    }
}

/// A team and who stands behind it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Buyer {
    pub(crate) account: AccountId,
    pub(crate) team: TeamId,
    pub(crate) app: AppId,
}

pub(crate) struct World {
    pub(crate) database: Arc<Database>,
    pool: Pool,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) tokens: Tokens,
    pub(crate) lot_service: Lots,
    pub(crate) corrections: Corrections,
    pub(crate) hold_service: Holds,
    pub(crate) catalog: Catalog,
    pub(crate) settlement: Settlement,
    pub(crate) events: Events,
    pub(crate) notices: Notices,
    pub(crate) budgets: Budgets,
    pub(crate) relay: Relay,
    pub(crate) months: Months,
    pub(crate) compact: Compact,
    pub(crate) reports: Reports,
    pub(crate) review: Review,
    directory: Arc<FakeDirectory>,
}

pub(crate) fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

pub(crate) fn proto(at: Timestamp) -> Option<prost_types::Timestamp> {
    Some(timestamp_to_proto(at))
}

/// The code, the reason and the fields of a refusal.
pub(crate) fn refusal(status: &Status) -> (tonic::Code, String, Vec<String>) {
    let details = status.get_error_details();
    let reason = details.error_info().map(|info| info.reason.clone()).unwrap_or_default();
    let fields = details.bad_request().map(|bad| bad.field_violations.clone()).unwrap_or_default();
    (status.code(), reason, fields.into_iter().map(|violation| violation.field).collect())
}

pub(crate) fn reason<T: std::fmt::Debug>(outcome: Result<T, Status>) -> String {
    refusal(&outcome.unwrap_err()).1
}

pub(crate) fn request_id() -> String {
    ProducerId::generate().to_string()
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Options)) -> Self {
        Self::begun_at(at(NOW), change).await
    }

    /// The clock stands at `now`, and its month and some after it have their partitions.
    pub(crate) async fn begun_at(now: Timestamp, change: impl FnOnce(&mut Options)) -> Self {
        let database = Database::create_with("ledger", drawdown_ledger::migrate).await.unwrap();
        let world = Self::on(database, change);
        world.clock.set(now);
        world.months.look().await.unwrap();
        world
    }

    pub(crate) fn on(database: impl Into<Arc<Database>>, change: impl FnOnce(&mut Options)) -> Self {
        Self::over(database.into(), pool, change)
    }

    /// Another process on the same database, with a clock and a directory of its own. It shares the sessions of this
    /// one.
    pub(crate) fn beside(&self, change: impl FnOnce(&mut Options)) -> Self {
        Self::over(Arc::clone(&self.database), |_| self.pool.clone(), change)
    }

    fn over(
        database: Arc<Database>,
        connect: impl FnOnce(&PoolConfig) -> Pool,
        change: impl FnOnce(&mut Options),
    ) -> Self {
        let clock = Arc::new(ManualClock::new(at(NOW)));
        let directory = Arc::new(FakeDirectory::default());
        let config = Self::config(&database, change);
        let pool = connect(&config.database);
        let ledger = Self::open(&config, pool.clone(), &clock, &directory);
        Self {
            database,
            pool,
            clock,
            tokens: Tokens::new(Arc::clone(&ledger)),
            lot_service: Lots::new(Arc::clone(&ledger)),
            corrections: Corrections::new(Arc::clone(&ledger)),
            hold_service: Holds::new(Arc::clone(&ledger)),
            catalog: Catalog::new(Arc::clone(&ledger)),
            settlement: Settlement::new(Arc::clone(&ledger)),
            events: Events::new(Arc::clone(&ledger)),
            notices: Notices::new(Arc::clone(&ledger), config.notices.watch, CancellationToken::new()),
            budgets: Budgets::new(Arc::clone(&ledger)),
            relay: Relay::new(Arc::clone(&ledger), config.notices.relay),
            compact: Compact::new(Arc::clone(&ledger), config.growth.compact),
            months: Months::new(Arc::clone(&ledger), config.growth.months),
            reports: Reports::new(Arc::clone(&ledger)),
            review: Review::new(Arc::clone(&ledger)),
            ledger,
            directory,
        }
    }

    fn config(database: &Database, change: impl FnOnce(&mut Options)) -> Config {
        let mut options = Options::default();
        database.url().clone_into(&mut options.database.url);
        // On a busy machine the last of many callers may wait for a while.
        options.database.acquire_timeout_ms = Millis::from_millis(60_000);
        // A missing grant shows in whatever test needs it.
        SERVICE_ROLE.clone_into(&mut options.database.role);
        change(&mut options);
        options.validate().unwrap()
    }

    fn open(
        config: &Config,
        pool: Pool,
        clock: &Arc<ManualClock>,
        directory: &Arc<FakeDirectory>,
    ) -> Arc<Ledger> {
        Arc::new(Ledger::new(Parts {
            pool,
            clock: Arc::clone(clock) as Arc<dyn Clock>,
            settings: config.settings.clone(),
            notice_rules: config.notices.rules.clone(),
            limits: config.limits,
            events: config.growth.events,
            cells: config.cells.clone(),
            directory: Arc::clone(directory) as Arc<dyn Directory>,
            metrics: Metrics::new(&opentelemetry::global::meter("test")),
        }))
    }

    /// Reports of another process on the same database.
    pub(crate) fn other_reports(&self, change: impl FnOnce(&mut Options)) -> Reports {
        let config = Self::config(&self.database, change);
        Reports::new(Self::open(&config, pool(&config.database), &self.clock, &self.directory))
    }

    pub(crate) fn buyer(&self) -> Buyer {
        let buyer =
            Buyer { account: AccountId::generate(), team: TeamId::generate(), app: AppId::generate() };
        self.know(buyer, None, None);
        buyer
    }

    /// Another team of the same account.
    pub(crate) fn sibling(&self, buyer: Buyer) -> Buyer {
        let sibling = Buyer { team: TeamId::generate(), app: AppId::generate(), ..buyer };
        self.know(sibling, None, None);
        sibling
    }

    pub(crate) fn know(&self, buyer: Buyer, trial_from: Option<Timestamp>, trial_to: Option<Timestamp>) {
        let contract_kind = drawdown_ledger_core::ContractKind::Flex;
        let cell = self.ledger.cell();
        let facts = TeamFacts { account_id: buyer.account, trial_from, trial_to, contract_kind, cell };
        self.directory.0.lock().unwrap().insert(buyer.team, facts);
    }

    /// The account of a team lives in this cell.
    pub(crate) fn lives_in(&self, buyer: Buyer, cell: u8) {
        self.directory.0.lock().unwrap().get_mut(&buyer.team).unwrap().cell = cell;
    }

    /// The account of a team has this kind of contract.
    pub(crate) fn contract(&self, buyer: Buyer, kind: drawdown_ledger_core::ContractKind) {
        self.directory.0.lock().unwrap().get_mut(&buyer.team).unwrap().contract_kind = kind;
    }

    /// The meters `call` (count, 0.5 tokens) and `byte` (sum, 1 token per 1000), priced for ever.
    pub(crate) async fn priced(&self) {
        for (slug, aggregation) in [("call", Aggregation::Count), ("byte", Aggregation::Sum)] {
            self.meter(slug, aggregation).await.unwrap();
        }
        let prices = vec![price("call", 500_000, 1), price("byte", 1_000_000, 1000)];
        self.publish("web", "2020-01-01T00:00:00Z", prices, true).await.unwrap();
    }

    pub(crate) async fn meter(&self, slug: &str, aggregation: Aggregation) -> Result<Meter, Status> {
        self.meter_by(slug, aggregation, AggregationPeriod::Unspecified, "").await
    }

    pub(crate) async fn meter_by(
        &self,
        slug: &str,
        aggregation: Aggregation,
        period: AggregationPeriod,
        unique_dimension: &str,
    ) -> Result<Meter, Status> {
        let meter = Meter {
            slug: slug.to_owned(),
            unit: slug.to_owned(),
            aggregation: aggregation.into(),
            dimensions: vec!["region".to_owned(), "user".to_owned()],
            limit: LimitKind::Soft.into(),
            period: period.into(),
            unique_dimension: unique_dimension.to_owned(),
        };
        let request = CreateMeterRequest { meter: Some(meter), request_id: request_id() };
        let answer = self.catalog.create_meter(Request::new(request)).await?;
        Ok(answer.into_inner().meter.unwrap())
    }

    pub(crate) async fn publish(
        &self,
        name: &str,
        from: &str,
        prices: Vec<Price>,
        set_up: bool,
    ) -> Result<RateCard, Status> {
        let rate_card = RateCard {
            rate_card_id: String::new(),
            name: name.to_owned(),
            contract_kind: ContractKind::Flex.into(),
            effective_from: proto(at(from)),
            prices,
        };
        self.publish_as(rate_card, set_up).await
    }

    /// A card of any kind, set up.
    pub(crate) async fn publish_card(&self, rate_card: RateCard) -> Result<RateCard, Status> {
        self.publish_as(rate_card, true).await
    }

    async fn publish_as(&self, rate_card: RateCard, set_up: bool) -> Result<RateCard, Status> {
        let request = PublishRateCardRequest { rate_card: Some(rate_card), set_up, request_id: request_id() };
        let answer = self.catalog.publish_rate_card(Request::new(request)).await?;
        Ok(answer.into_inner().rate_card.unwrap())
    }

    pub(crate) async fn purchase(
        &self,
        buyer: Buyer,
        tokens: i64,
        purchased_at: Option<&str>,
    ) -> Result<Lot, Status> {
        let request = PurchaseTokensRequest {
            account_id: buyer.account.to_string(),
            team_id: buyer.team.to_string(),
            tokens,
            purchased_at: purchased_at.and_then(|text| proto(at(text))),
            request_id: request_id(),
            note: String::new(),
        };
        let answer = self.tokens.purchase_tokens(Request::new(request)).await?;
        Ok(answer.into_inner().lot.unwrap())
    }

    pub(crate) async fn grant(
        &self,
        buyer: Buyer,
        micros: i64,
        starts_at: Option<&str>,
        expires_at: &str,
    ) -> Result<Lot, Status> {
        let request = GrantTokensRequest {
            account_id: buyer.account.to_string(),
            team_id: buyer.team.to_string(),
            micros,
            pool_kind: PoolKind::Promotional.into(),
            starts_at: starts_at.and_then(|text| proto(at(text))),
            expires_at: proto(at(expires_at)),
            note: "test".to_owned(),
            leaves_older_debts: false,
            request_id: request_id(),
        };
        let answer = self.tokens.grant_tokens(Request::new(request)).await?;
        Ok(answer.into_inner().lot.unwrap())
    }

    /// Takes a charge back, all that stands where the quantity is 0, and charges something instead.
    pub(crate) async fn correct(
        &self,
        buyer: Buyer,
        charge_id: &str,
        quantity: i64,
        instead: Option<InsteadUsage>,
    ) -> Result<CorrectChargeResponse, Status> {
        let request = CorrectChargeRequest {
            account_id: buyer.account.to_string(),
            team_id: buyer.team.to_string(),
            charge_id: charge_id.to_owned(),
            quantity,
            instead,
            reason: "the gateway counted twice".to_owned(),
            request_id: request_id(),
            validate_only: false,
        };
        Ok(self.corrections.correct_charge(Request::new(request)).await?.into_inner())
    }

    pub(crate) async fn balance(&self, buyer: Buyer) -> Balance {
        let request = GetBalanceRequest { team_id: buyer.team.to_string(), ..GetBalanceRequest::default() };
        let answer = self.tokens.get_balance(Request::new(request)).await.unwrap();
        answer.into_inner().balance.unwrap()
    }

    pub(crate) async fn lots(&self, buyer: Buyer) -> Vec<Lot> {
        let request = ListLotsRequest { team_id: buyer.team.to_string(), ..ListLotsRequest::default() };
        self.tokens.list_lots(Request::new(request)).await.unwrap().into_inner().lots
    }

    pub(crate) async fn charges(&self, buyer: Buyer) -> Vec<Charge> {
        let request = ListChargesRequest { team_id: buyer.team.to_string(), ..ListChargesRequest::default() };
        self.tokens.list_charges(Request::new(request)).await.unwrap().into_inner().charges
    }

    pub(crate) async fn journal(&self, buyer: Buyer) -> Vec<JournalRow> {
        let request = ListJournalRequest { team_id: buyer.team.to_string(), ..ListJournalRequest::default() };
        self.tokens.list_journal(Request::new(request)).await.unwrap().into_inner().rows
    }

    pub(crate) async fn unattributed(&self) -> Vec<UnattributedUsage> {
        let request = ListUnattributedRequest::default();
        self.tokens.list_unattributed(Request::new(request)).await.unwrap().into_inner().usage
    }

    pub(crate) async fn budget(
        &self,
        buyer: Buyer,
        app: Option<AppId>,
        cap_micros: i64,
        soft_percent: &[u32],
    ) -> Result<Budget, Status> {
        let request = SetBudgetRequest {
            account_id: buyer.account.to_string(),
            team_id: buyer.team.to_string(),
            app_id: app.map(|app| app.to_string()).unwrap_or_default(),
            cap_micros: Some(cap_micros),
            soft_percent: soft_percent.to_vec(),
            hard: true,
            request_id: request_id(),
        };
        Ok(self.budgets.set_budget(Request::new(request)).await?.into_inner().budget.unwrap())
    }

    /// Everything that is told, relayed just now, in order.
    pub(crate) async fn told(&self, filter: Option<NoticeFilter>) -> Vec<Notice> {
        self.relay.look().await.unwrap();
        let request = ListNoticesRequest { filter, page_size: 0, page_token: String::new() };
        self.notices.list_notices(Request::new(request)).await.unwrap().into_inner().notices
    }

    pub(crate) async fn producer(&self) -> ProducerId {
        let request = CreateProducerRequest { name: "gateway".to_owned(), request_id: request_id() };
        let answer = self.settlement.create_producer(Request::new(request)).await.unwrap();
        answer.into_inner().producer_id.parse().unwrap()
    }

    pub(crate) async fn shard(&self, shard: u32) -> ShardCursor {
        let request = GetShardsRequest { shards: vec![shard], producer_ids: Vec::new() };
        self.settlement.get_shards(Request::new(request)).await.unwrap().into_inner().shards.remove(0)
    }

    /// The batch that a worker would post next: one lane, all of `lines`.
    pub(crate) async fn batch(&self, shard: u32, producer: ProducerId, lines: Vec<Line>) -> PostBatchRequest {
        let cursor = self.shard(shard).await;
        batch(&cursor, producer, lines)
    }

    pub(crate) async fn post(&self, batch: &PostBatchRequest) -> Result<PostBatchResponse, Status> {
        Ok(self.settlement.post_batch(Request::new(batch.clone())).await?.into_inner())
    }

    /// Posts lines as the next batch of the usual shard.
    pub(crate) async fn settle(&self, producer: ProducerId, lines: Vec<Line>) -> PostBatchResponse {
        let batch = self.batch(SHARD, producer, lines).await;
        self.post(&batch).await.unwrap()
    }

    /// Records events as metering would: those of each slot in one call, answered in their order.
    pub(crate) async fn record(&self, events: &[NamedUsage]) -> Result<Vec<EventAnswer>, Status> {
        let mut answers = vec![EventAnswer::default(); events.len()];
        for slot in 0..EVENT_SLOTS {
            let of_slot = || (0..).zip(events).filter(|(_, event)| slot_of(event) == slot);
            let request =
                RecordEventsRequest { slot, events: of_slot().map(|(_, event)| event.clone()).collect() };
            if request.events.is_empty() {
                continue;
            }
            let told = self.events.record_events(Request::new(request)).await?.into_inner().answers;
            assert_eq!(told.len(), of_slot().count());
            for ((at, _), answer) in of_slot().zip(told) {
                let at: usize = at;
                answers[at] = answer;
            }
        }
        Ok(answers)
    }

    pub(crate) async fn verify(&self, scope: Scope) -> Verification {
        self.ledger.verify(scope).await.unwrap()
    }

    /// Every verdict of a full verification that is not clean.
    pub(crate) async fn violated(&self) -> Vec<Verdict> {
        self.verify(Scope::Full).await.verdicts.into_iter().filter(|verdict| verdict.violations > 0).collect()
    }

    pub(crate) async fn assert_clean(&self) {
        assert_eq!(self.violated().await, Vec::new());
    }
}

/// A user that signs in with a password and is a member of the service's role, as an operator makes one.
pub(crate) struct User {
    name: String,
    pub(crate) url: String,
}

impl User {
    pub(crate) async fn create(database: &Database) -> Self {
        let name = format!("user_{}", &database.name()[1..]);
        let make = format!("create user {name} password 'secret' in role {SERVICE_ROLE}");
        sqlx::raw_sql(sqlx::AssertSqlSafe(make)).execute(database.pool()).await.unwrap();
        let (_, rest) = database.url().split_once('@').unwrap();
        Self { url: format!("postgres://{name}:secret@{rest}"), name }
    }

    /// Users belong to the server and would stay; a user owns nothing, so its database may be gone already.
    pub(crate) async fn drop(self) {
        let server = Database::create().await.unwrap();
        let drop = format!("drop user {}", self.name);
        sqlx::raw_sql(sqlx::AssertSqlSafe(drop)).execute(server.pool()).await.unwrap();
    }
}

pub(crate) fn price(meter: &str, micros: i64, per_units: i64) -> Price {
    Price { meter: meter.to_owned(), micros, per_units, failed_is_free: true, ..Price::default() }
}

pub(crate) const DAY: Duration = Duration::from_secs(86_400);
