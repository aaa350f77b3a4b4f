//! A ledger of its own per test, with a clock that stands still. What tests ask of it is in `calls`, the lines and batches
//! that metering would send are in `lines`.

mod calls;
mod lines;
mod user;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use drawdown_ledger::{
    Config, Options,
    directory::{Contracts, Directory, TeamFacts},
    error::Error,
    grpc::{
        Budgets, Catalog, Corrections, Events, Holds, Lots, Notices, Reports, Review, Settlement, Tokens,
    },
    jobs::{compact::Compact, months::Months, relay::Relay},
    metrics::Metrics,
    service::{Ledger, Parts},
    store::pool::{Pool, PoolConfig, SERVICE_ROLE, pool},
};
use drawdown_proto::scalar::timestamp_to_proto;
use drawdown_service::config::Millis;
use drawdown_testkit::{Database, ManualClock};
use drawdown_types::{AccountId, AppId, Clock, ProducerId, TeamId, Timestamp};
use futures::{FutureExt as _, future::BoxFuture};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic_types::StatusExt as _;

pub(crate) use self::{calls::price, lines::*, user::User};

/// The instant at which every test begins.
pub(crate) const NOW: &str = "2026-03-10T12:00:30Z";
/// The shard that tests post to where it does not matter.
pub(crate) const SHARD: u32 = 3;

#[derive(Default)]
pub(crate) struct FakeDirectory(Mutex<HashMap<TeamId, TeamFacts>>);

impl Directory for FakeDirectory {
    fn team(&self, team: TeamId) -> BoxFuture<'_, Result<Option<TeamFacts>, Error>> {
        let facts = self.0.lock().unwrap().get(&team).cloned();
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

/// A migrated database with the months that most tests look for: a clone has them at once, where making them again would
/// cost each test a fifth of a second.
async fn begun(pool: &sqlx::PgPool) -> anyhow::Result<()> {
    drawdown_ledger::migrate(pool).await?;
    let months =
        "select ledger.make_months($1::timestamptz, 3), ledger.make_event_months($1::timestamptz, 3)";
    sqlx::query(months).bind(NOW).execute(pool).await?;
    Ok(())
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
        let database = if now == at(NOW) {
            Database::create_with("ledger_begun", begun).await.unwrap()
        } else {
            Database::create_with("ledger", drawdown_ledger::migrate).await.unwrap()
        };
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
        options.database.url = database.url().into();
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
        let contracts = Contracts::new(drawdown_ledger_core::ContractKind::Flex, []);
        let cell = self.ledger.cell();
        let facts = TeamFacts { account_id: buyer.account, trial_from, trial_to, contracts, cell };
        self.directory.0.lock().unwrap().insert(buyer.team, facts);
    }

    /// The account of a team lives in this cell.
    pub(crate) fn lives_in(&self, buyer: Buyer, cell: u8) {
        self.directory.0.lock().unwrap().get_mut(&buyer.team).unwrap().cell = cell;
    }

    /// The account of a team has this kind of contract, from an instant on where one is given; before that, flex.
    pub(crate) fn contract(
        &self,
        buyer: Buyer,
        kind: drawdown_ledger_core::ContractKind,
        from: Option<Timestamp>,
    ) {
        let contracts = match from {
            None => Contracts::new(kind, []),
            Some(from) => Contracts::new(drawdown_ledger_core::ContractKind::Flex, [(from, kind)]),
        };
        self.directory.0.lock().unwrap().get_mut(&buyer.team).unwrap().contracts = contracts;
    }
}

pub(crate) const DAY: Duration = Duration::from_secs(86_400);
