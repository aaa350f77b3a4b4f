//! Every invariant of the ledger, each one statement that returns no rows, and the replay.
//!
//! All of them see one instant: one transaction, repeatable read. What they say of stored state must hold
//! between any two transactions, so a verification may run while batches are posted. Cost: full scans, and
//! for the replay the posting of every team's journal once, in memory, team by team.

use drawdown_ledger_core::{Team, replay};
use sqlx::PgConnection;

use crate::{
    error::Error,
    service::{Ledger, connection},
    store::verification,
};

/// Most examples of one verdict.
const EXAMPLES_MAX: usize = 10;
/// Teams whose names are read at a time.
const TEAMS_PAGE: i64 = 1000;

/// An invariant as a statement: its file's first lines say what it means.
#[derive(Clone, Copy, Debug)]
pub struct Invariant {
    /// Its name, that of its file.
    pub name: &'static str,
    /// The file.
    pub sql: &'static str,
}

macro_rules! invariant {
    ($name:literal) => {
        Invariant { name: $name, sql: include_str!(concat!("../sql/verify/", $name, ".sql")) }
    };
}

/// All invariants that are statements, by name.
pub const INVARIANTS: &[Invariant] = &[
    invariant!("amounts_move_between_books"),
    invariant!("balance_is_its_journal"),
    invariant!("balance_is_its_lots"),
    invariant!("batch_chain_recomputes"),
    invariant!("batch_is_its_lines"),
    invariant!("batch_is_its_ranges"),
    invariant!("batch_is_its_receipt"),
    invariant!("batches_are_gapless"),
    invariant!("books_sum_to_zero"),
    invariant!("budget_is_its_charges"),
    invariant!("charge_is_its_journal"),
    invariant!("charges_are_gapless"),
    invariant!("charges_are_price_of_state"),
    invariant!("closed_lots_are_empty"),
    invariant!("debt_means_no_usable_lot"),
    invariant!("debts_are_a_queue"),
    invariant!("holds_are_their_journal"),
    invariant!("journal_is_gapless"),
    invariant!("lanes_are_their_ranges"),
    invariant!("lot_is_its_journal"),
    invariant!("lots_close_once"),
    invariant!("lots_pay_inside_validity"),
    invariant!("moves_sum_to_zero"),
    invariant!("netting_lots_are_open"),
    invariant!("notices_have_their_places"),
    invariant!("orders_have_one_lot"),
    invariant!("periods_are_their_charges"),
    invariant!("rows_are_taken_back_once"),
    invariant!("usage_is_noted"),
];

/// The name of the invariant that is no statement.
pub const REPLAY: &str = "replay_gives_the_same";

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

// === impl Invariant ===

impl Invariant {
    /// What it says: the comment its file begins with.
    #[must_use]
    pub fn statement(&self) -> String {
        let lines = self.sql.lines().map_while(|line| line.strip_prefix("-- "));
        lines.collect::<Vec<_>>().join(" ")
    }
}

// === impl Verdict ===

impl Verdict {
    fn of(name: &'static str, statement: String, found: Vec<String>) -> Self {
        let violations = i64::try_from(found.len()).unwrap_or(i64::MAX);
        Self { name, statement, violations, examples: found.into_iter().take(EXAMPLES_MAX).collect() }
    }
}

// === impl Ledger ===

impl Ledger {
    /// Checks every invariant.
    ///
    /// # Errors
    /// Where the database does not answer in time.
    pub async fn verify(&self) -> Result<Vec<Verdict>, Error> {
        let mut tx = self.pool.snapshot().await?;
        let at = connection(&mut tx);
        verification::limit_in_tx(at, self.limits.verify_timeout).await?;
        let mut verdicts = Vec::with_capacity(INVARIANTS.len().saturating_add(1));
        for invariant in INVARIANTS {
            let found = verification::violations_in_tx(at, invariant.sql).await?;
            verdicts.push(Verdict::of(invariant.name, invariant.statement(), found));
        }
        let statement =
            "Replaying each team's journal through the allocator gives the same rows, lots and balance.";
        let found = self.replay_all(at).await?;
        verdicts.push(Verdict::of(REPLAY, statement.to_owned(), found));
        tx.rollback().await?;
        for verdict in verdicts.iter().filter(|verdict| verdict.violations > 0) {
            let (invariant, violations) = (verdict.name, verdict.violations);
            tracing::error!(invariant, violations, examples = ?verdict.examples, "ledger violates an invariant");
        }
        Ok(verdicts)
    }

    async fn replay_all(&self, tx: &mut PgConnection) -> Result<Vec<String>, Error> {
        let mut found = Vec::new();
        let mut after = None;
        loop {
            let page = verification::teams_in_tx(tx, after, TEAMS_PAGE).await?;
            let Some(last) = page.last() else { return Ok(found) };
            after = Some(last.balance.team_id);
            for team in page {
                let team_id = team.balance.team_id;
                let lots = verification::lots_in_tx(tx, team_id).await?;
                let journal = verification::journal_in_tx(tx, team_id).await?;
                if let Err(violation) = replay(&Team { lots, ..team }, &journal, &self.settings) {
                    found.push(format!("{team_id}: {violation}"));
                }
            }
        }
    }
}
