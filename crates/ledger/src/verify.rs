//! Every invariant of the ledger, each one statement that returns no rows, and the replay.
//!
//! All of them see one instant: one transaction, repeatable read. What they say of stored state must hold
//! between any two transactions, so a verification may run while batches are posted.
//!
//! | | full | incremental |
//! |---|---|---|
//! | reads | everything | balances, lots, states and points; of journal, charges and batches what came since the points |
//! | replays | each team's journal from its first row | from the state at its point; teams whose rows differ from their point |
//! | trusts | nothing | what the last clean verification wrote down, and the rows before it |
//! | does not see | – | a change of rows before the points |
//!
//! A clean verification of either kind writes the points of its own instant, so the next incremental one costs
//! what happened in between. An invariant is incremental in one of three ways ([`Since`]); one that is added and says
//! nothing runs whole, which is slow and right.

use drawdown_ledger_core::{Team, replay_from};
use sqlx::PgConnection;

use crate::{
    error::Error,
    reports::archived,
    service::{Ledger, connection},
    store::{
        partitions,
        verification::{self, Effort, Found},
    },
};

/// Teams that are read at a time.
const TEAMS_PAGE: usize = 1000;

/// How much is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Everything.
    Full,
    /// What came since the last clean verification, on trust of what it wrote down.
    Incremental,
}

/// How an invariant is checked on rows since the points alone.
#[derive(Clone, Copy, Debug)]
pub enum Since {
    /// As in a full run: it reads no history, or nobody has cut it yet.
    Whole,
    /// By a statement of its own, in `sql/verify/since`.
    Statement(&'static str),
    /// The replay sees all that it sees.
    Replayed,
}

/// An invariant as a statement: its file's first lines say what it means.
#[derive(Clone, Copy, Debug)]
pub struct Invariant {
    /// Its name, that of its file.
    pub name: &'static str,
    /// The file.
    pub sql: &'static str,
    /// The incremental way.
    pub since: Since,
}

macro_rules! invariant {
    ($name:literal) => {
        invariant!($name, Since::Whole, concat!("../sql/verify/", $name, ".sql"))
    };
    ($name:literal, since) => {
        invariant!(
            $name,
            Since::Statement(include_str!(concat!("../sql/verify/since/", $name, ".sql"))),
            concat!("../sql/verify/", $name, ".sql")
        )
    };
    ($name:literal, replayed) => {
        invariant!($name, Since::Replayed, concat!("../sql/verify/", $name, ".sql"))
    };
    ($name:literal, $since:expr, $file:expr) => {
        Invariant { name: $name, sql: include_str!($file), since: $since }
    };
}

/// All invariants that are statements, by name.
pub const INVARIANTS: &[Invariant] = &[
    invariant!("account_budgets_count_all_teams"),
    invariant!("adopted_usage_is_of_its_app"),
    invariant!("amounts_move_between_books", since),
    invariant!("balance_is_its_journal", replayed),
    invariant!("balance_is_its_lots"),
    invariant!("batch_chain_recomputes", since),
    invariant!("batch_is_its_lines", since),
    invariant!("batch_is_its_parts", since),
    invariant!("batch_is_its_ranges", since),
    invariant!("batch_is_its_receipt", since),
    invariant!("batches_are_gapless", since),
    invariant!("books_sum_to_zero"),
    invariant!("budget_is_its_charges"),
    invariant!("charge_is_its_journal", since),
    invariant!("charges_are_gapless", since),
    invariant!("charges_are_price_of_state"),
    invariant!("closed_lots_are_empty"),
    invariant!("corrections_stand"),
    invariant!("debt_means_no_usable_lot"),
    invariant!("debts_are_a_queue", replayed),
    invariant!("decisions_are_their_charges"),
    invariant!("events_are_their_charges"),
    invariant!("events_have_one_place"),
    invariant!("holds_are_their_journal"),
    invariant!("journal_is_gapless", replayed),
    invariant!("lanes_are_their_ranges", since),
    invariant!("lot_is_its_journal", since),
    invariant!("lots_close_once", since),
    invariant!("lots_pay_inside_validity", since),
    invariant!("moves_sum_to_zero"),
    invariant!("netting_lots_are_open", since),
    invariant!("notices_have_their_places"),
    invariant!("orders_have_one_lot"),
    invariant!("periods_are_their_charges"),
    invariant!("rows_are_taken_back_once", since),
    invariant!("usage_is_its_charges", since),
    invariant!("usage_is_noted", since),
];

/// The name of the invariant that is no statement.
pub const REPLAY: &str = "replay_gives_the_same";
const REPLAYS: &str =
    "Replaying each team's journal through the allocator gives the same rows, lots and balance.";
/// Of an incremental run alone: what the points say of the present.
pub const POINTS: Invariant = Invariant {
    name: "points_hold",
    sql: include_str!("../sql/verify/since/points_hold.sql"),
    since: Since::Whole,
};
/// What an incremental run is blind to, in words.
pub const UNSEEN: &str = "Rows of journal, charges and batches before the last clean verification were not read: \
                          a change there is seen by a full verification only.";

/// What became of one invariant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Its name.
    pub name: &'static str,
    /// What it says.
    pub statement: String,
    /// How often it is violated.
    pub violations: i64,
    /// The first violations.
    pub examples: Vec<String>,
}

/// What a verification found, and what it read for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verification {
    /// One for each invariant.
    pub verdicts: Vec<Verdict>,
    /// The point it went on from; none where it read everything.
    pub since: Option<i64>,
    /// The point it wrote; none where it was not clean, or another one was under way.
    pub point: Option<i64>,
    /// What it read.
    pub effort: Effort,
}

// === impl Verification ===

impl Verification {
    /// Nothing is violated.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.verdicts.iter().all(|verdict| verdict.violations == 0)
    }
}

// === impl Invariant ===

impl Invariant {
    /// What it says: the comment its file begins with.
    #[must_use]
    pub fn statement(&self) -> String {
        let lines = self.sql.lines().map_while(|line| line.strip_prefix("-- "));
        lines.collect::<Vec<_>>().join(" ")
    }

    /// The statement of a run; none where the replay stands for it.
    const fn sql_of(&self, scope: Scope) -> Option<&'static str> {
        match (scope, self.since) {
            (Scope::Full, _) | (Scope::Incremental, Since::Whole) => Some(self.sql),
            (Scope::Incremental, Since::Statement(sql)) => Some(sql),
            (Scope::Incremental, Since::Replayed) => None,
        }
    }
}

// === impl Verdict ===

impl Verdict {
    fn of(name: &'static str, statement: String, found: Found) -> Self {
        let Found { violations, examples } = found;
        Self { name, statement, violations, examples }
    }
}

// === impl Ledger ===

impl Ledger {
    /// Checks every invariant, and writes the points of a clean ledger.
    ///
    /// # Errors
    /// Where the database does not answer in time.
    pub async fn verify(&self, scope: Scope) -> Result<Verification, Error> {
        let mut tx = self.pool.snapshot().await?;
        let at = connection(&mut tx);
        let alone = verification::begin_in_tx(at, self.limits.verify_timeout).await?;
        let last = verification::last_in_tx(at).await?;
        if scope == Scope::Full && partitions::any_archived(&mut *at).await? {
            // The first rows are not here: what everything adds up from would be missing.
            return Err(archived(None));
        }
        let mut verdicts = Vec::with_capacity(INVARIANTS.len().saturating_add(2));
        for invariant in INVARIANTS.iter().chain((scope == Scope::Incremental).then_some(&POINTS)) {
            let Some(sql) = invariant.sql_of(scope) else { continue };
            let found = verification::violations_in_tx(at, sql).await?;
            verdicts.push(Verdict::of(invariant.name, invariant.statement(), found));
        }
        let mut effort = Effort::default();
        let found = self.replay_all(at, scope, alone, &mut effort).await?;
        verdicts.push(Verdict::of(REPLAY, REPLAYS.to_owned(), found));
        let since = last.filter(|_| scope == Scope::Incremental);
        effort.batches = verification::batches_in_tx(at, scope == Scope::Full).await?;
        let mut verified = Verification { verdicts, since, point: None, effort };
        if alone && verified.is_clean() {
            let number = last.unwrap_or_default().saturating_add(1);
            let incremental = scope == Scope::Incremental;
            let invariants = verified.verdicts.len();
            verification::save_in_tx(at, number, incremental, invariants, &effort, self.clock.now()).await?;
            tx.commit().await?;
            verified.point = Some(number);
        } else {
            tx.rollback().await?;
        }
        for verdict in verified.verdicts.iter().filter(|verdict| verdict.violations > 0) {
            let (invariant, violations) = (verdict.name, verdict.violations);
            tracing::error!(invariant, violations, examples = ?verdict.examples, "ledger violates an invariant");
        }
        Ok(verified)
    }

    async fn replay_all(
        &self,
        tx: &mut PgConnection,
        scope: Scope,
        keep: bool,
        effort: &mut Effort,
    ) -> Result<Found, Error> {
        let mut found = Found::default();
        for page in verification::teams_in_tx(tx, scope == Scope::Incremental).await?.chunks(TEAMS_PAGE) {
            let mut states = Vec::with_capacity(page.len());
            for stored in verification::loaded_in_tx(tx, page).await? {
                let team_id = stored.balance.team_id;
                let start = match scope {
                    Scope::Full => None,
                    Scope::Incremental => verification::point_in_tx(tx, team_id).await?,
                };
                let start =
                    start.unwrap_or_else(|| Team::new(stored.balance.account_id, stored.balance.team_id));
                let lots = verification::lots_in_tx(tx, team_id).await?;
                let journal = verification::journal_in_tx(tx, team_id, start.balance.version).await?;
                effort.count(journal.len());
                match replay_from(start, &Team { lots, ..stored }, &journal, &self.settings) {
                    Ok(replayed) => states.push(replayed),
                    Err(violation) => found.count(|| format!("{team_id}: {violation}")),
                }
            }
            if keep {
                verification::keep_in_tx(tx, &states).await?;
            }
        }
        Ok(found)
    }
}
