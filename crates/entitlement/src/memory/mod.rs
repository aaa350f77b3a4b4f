//! The directory and what the ledger told, in memory: what access is answered from, and batches of resolution.
//!
//! Shape: client id → app → team → account by pointers ([`clients`], [`cells`]); of each ledger its age and its meters in
//! one array, as accounts may be spread over several ledgers ([`ledgers`]). Readers take no
//! lock: every value is immutable and exchanged as a whole. Writers are the feed of the directory ([`feed`]),
//! which reads rows of the database, and a follower of each ledger ([`standing`]). They find cells in the registry,
//! which only they lock, for as long as a look-up takes and never across an await.
//!
//! Order of a reload: accounts, then teams, then apps with their client ids. So whatever a reader finds leads on.
//!
//! `changed` counts: whoever keeps answers waits for the next count and answers again.

mod cells;
mod clients;
mod feed;
mod ledgers;
mod standing;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use drawdown_entitlement_core::{
    BilledTo, Resolution, Rules,
    access::{AccessRules, Decision, Facts, Moment, WhenStale, decide},
};
use drawdown_types::{AccountId, Clock, TeamId, Timestamp, Window};
use sqlx::PgPool;
use tokio::sync::watch;

use self::{
    cells::{AccountCell, TeamCell},
    clients::Clients,
    ledgers::{LEADING, Ledgers, OneLedger},
};
use crate::{
    metrics::AccessMetrics,
    store::{Position, Store},
};

pub(crate) use ledgers::Catalogue;
pub(crate) use standing::{Listed, Told};

/// How access is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessPolicy {
    /// How old data may be before an answer is stale (D58).
    pub age_max: Duration,
    /// What meters do where data is too old.
    pub when_stale: WhenStale,
    /// Meters that do something else.
    pub meters: BTreeMap<String, WhenStale>,
    /// Cells whose ledgers are followed beside the leading one's.
    pub others: BTreeSet<u8>,
    /// Changes of the directory that are read at a time.
    pub feed_rows_max: u32,
    /// How long one statement of a load may run, in ms.
    pub load_timeout_ms: u64,
}

/// All cells, for the writers.
#[derive(Debug, Default)]
struct Registry {
    teams: HashMap<TeamId, Arc<TeamCell>>,
    accounts: HashMap<AccountId, Arc<AccountCell>>,
}

/// The memory.
pub struct Memory {
    store: Store,
    clock: Arc<dyn Clock>,
    rules: Rules,
    hub_mode: bool,
    policy: AccessPolicy,
    clients: Clients,
    registry: Mutex<Registry>,
    ledgers: Ledgers,
    /// Everything that entitlement committed by then is known, in microseconds; [`i64::MIN`] before it is loaded.
    directory_as_of: AtomicI64,
    /// How far the feed of the directory was read; none before it is loaded.
    position: tokio::sync::Mutex<Option<Position>>,
    changed: watch::Sender<u64>,
    metrics: AccessMetrics,
}

/// What all answers to one message share.
#[derive(Clone, Debug)]
pub(crate) struct View {
    pub(crate) moment: Moment,
    ledgers: Arc<Box<[OneLedger]>>,
    directory_as_of: Timestamp,
    rules: AccessRules,
}

/// One question.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) client_id: &'a str,
    pub(crate) meter: &'a str,
    /// In base units, at least 1.
    pub(crate) quantity: u64,
}

/// The answer to one.
#[derive(Clone, Debug)]
pub(crate) struct Answered {
    pub(crate) decision: Decision,
    pub(crate) billed_to: Option<BilledTo>,
    /// Whose ledger it was made with.
    pub(crate) cell: u8,
}

/// The age of what is known.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ages {
    /// Of the ledger that was heard longest ago; none where one of them was never heard.
    pub(crate) ledger: Option<Duration>,
    pub(crate) directory: Duration,
    pub(crate) stale: bool,
}

/// How much is in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemorySize {
    /// Client ids.
    pub client_ids: usize,
    /// Bytes of the arrays that hold them, without what hangs on them.
    pub client_bytes: usize,
    /// Teams.
    pub teams: usize,
    /// Accounts.
    pub accounts: usize,
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").field("size", &self.size()).finish_non_exhaustive()
    }
}

// === impl View ===

impl View {
    /// How old what the ledger of a cell told is; none where it was never heard.
    pub(crate) fn age_of(&self, cell: u8) -> Option<Duration> {
        let heard = ledgers::of(&self.ledgers, cell)?.heard?;
        Some(self.moment.now.saturating_since(heard.as_of))
    }

    /// Of what answers are made of, with the ledgers of these cells.
    pub(crate) fn ages(&self, cells: impl IntoIterator<Item = u8>) -> Ages {
        let ages = cells.into_iter().map(|cell| self.age_of(cell));
        let ledger = ages.reduce(|one, other| Some(one?.max(other?))).flatten();
        let directory = self.directory_age();
        let stale = ledger.is_none_or(|age| age > self.rules.age_max) || directory > self.rules.age_max;
        Ages { ledger, directory, stale }
    }

    /// How old what is known of who pays is.
    pub(crate) fn directory_age(&self) -> Duration {
        self.moment.now.saturating_since(self.directory_as_of)
    }

    /// The cells whose ledgers are followed.
    pub(crate) fn cells(&self) -> impl Iterator<Item = u8> {
        self.ledgers.iter().map(|ledger| ledger.cell)
    }
}

// === impl Memory ===

impl Memory {
    /// An empty one over the database of `pool`; `of_rules` are the rules and whether hub mode is on (D29).
    #[must_use]
    pub fn new(
        pool: PgPool,
        clock: Arc<dyn Clock>,
        (rules, hub_mode): (Rules, bool),
        policy: AccessPolicy,
        meter: &opentelemetry::metrics::Meter,
    ) -> Arc<Self> {
        let metrics = AccessMetrics::new(meter);
        let ledgers = Ledgers::of_cells(&policy.others);
        let memory = Arc::new(Self {
            store: Store::new(pool),
            clock,
            rules,
            hub_mode,
            policy,
            clients: Clients::new(),
            registry: Mutex::default(),
            ledgers,
            directory_as_of: AtomicI64::new(i64::MIN),
            position: tokio::sync::Mutex::new(None),
            changed: watch::Sender::new(0),
            metrics,
        });
        memory.metrics.observe(&memory);
        memory
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The ledger of this cell is followed.
    pub(crate) fn hears(&self, cell: u8) -> bool {
        ledgers::of(&self.ledgers.load(), cell).is_some()
    }

    /// What is known is not too old for answers about accounts of this cell.
    pub(crate) fn is_fresh(&self, cell: u8) -> bool {
        self.view().is_some_and(|view| !view.ages([cell]).stale)
    }

    /// What answers given now share; none before the directory is loaded.
    pub(crate) fn view(&self) -> Option<View> {
        let directory_as_of = Timestamp::from_micros(self.directory_as_of.load(Ordering::Acquire)).ok()?;
        Some(View {
            moment: Moment::at(self.clock.now(), self.rules.window),
            ledgers: self.ledgers.load_full(),
            directory_as_of,
            rules: AccessRules { age_max: self.policy.age_max },
        })
    }

    /// Answers one question. No lock, no allocation.
    pub(crate) fn decide(&self, view: &View, asked: Asked<'_>, with_billed_to: bool) -> Answered {
        let found = self.clients.look(asked.client_id, |entry| {
            cells::find(entry, &view.moment, (&self.rules, self.hub_mode), with_billed_to)
        });
        let team = found.team.as_ref().map(|team| team.standing.load());
        let account = found.account.as_ref().map(|account| account.standing.load());
        let when_stale = match self.policy.meters.is_empty() {
            true => self.policy.when_stale,
            false => self.policy.meters.get(asked.meter).copied().unwrap_or(self.policy.when_stale),
        };
        let ledger = ledgers::of(&view.ledgers, found.cell);
        let catalogue = ledger.and_then(|ledger| ledger.catalogue.as_deref());
        let facts = Facts {
            caller: found.caller,
            directory_as_of: view.directory_as_of,
            ledger: ledger.and_then(|ledger| ledger.heard),
            team: team.as_ref().and_then(|team| team.as_deref()),
            account: account.as_ref().and_then(|account| account.as_deref()),
            meter: catalogue.and_then(|meters| meters.get(asked.meter)),
            catalogue_known: catalogue.is_some(),
            when_stale,
            quantity: asked.quantity,
        };
        let decision = decide(&view.moment, &facts, &view.rules);
        self.metrics.decided(&decision);
        Answered { decision, billed_to: found.billed_to, cell: found.cell }
    }

    /// The directory was read once.
    pub(crate) fn is_loaded(&self) -> bool {
        self.directory_as_of.load(Ordering::Acquire) != i64::MIN
    }

    /// Who pays, as far as is known.
    pub(crate) fn resolve(&self, client_id: &str, window: Window) -> Resolution {
        self.clients.look(client_id, |entry| cells::resolve(entry, window, &self.rules))
    }

    /// Rises with every change.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// For as long as a look-up takes: a writer that panicked in between left whole cells behind.
    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_changed(&self) {
        self.changed.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// How much there is.
    #[must_use]
    pub fn size(&self) -> MemorySize {
        let (client_ids, client_bytes) = self.clients.size();
        let registry = self.registry();
        MemorySize {
            client_ids,
            client_bytes,
            teams: registry.teams.len(),
            accounts: registry.accounts.len(),
        }
    }
}

// === impl Registry ===

impl Registry {
    fn account(&mut self, account_id: AccountId) -> Arc<AccountCell> {
        self.account_in(account_id, LEADING)
    }

    /// `cell` is where it lives as long as the directory does not say so.
    fn account_in(&mut self, account_id: AccountId, cell: u8) -> Arc<AccountCell> {
        let unknown = || Arc::new(AccountCell::unknown(account_id, cell));
        Arc::clone(self.accounts.entry(account_id).or_insert_with(unknown))
    }

    fn team(&mut self, team_id: TeamId, account_id: AccountId) -> Arc<TeamCell> {
        self.team_in(team_id, account_id, LEADING)
    }

    fn team_in(&mut self, team_id: TeamId, account_id: AccountId, cell: u8) -> Arc<TeamCell> {
        if let Some(team) = self.teams.get(&team_id) {
            return Arc::clone(team);
        }
        let team = Arc::new(TeamCell::unknown(team_id, self.account_in(account_id, cell)));
        self.teams.insert(team_id, Arc::clone(&team));
        team
    }
}
