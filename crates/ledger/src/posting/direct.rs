//! Charging lines of one team at once, without a batch: captures under a hold (D45) and decisions about
//! usage that was unattributed (D25).
//!
//! The same fold and the same statements as a batch, under the same locks in the same order (catalogue,
//! balance); only the cursor and the lanes are not concerned. The charges name batch 0, which no shard has.
//! What the caller writes beside them comes last and in the same transaction.
//!
//! Lateness was decided by who asks: a line is given as received in its own window. So no lot waits for it
//! either: what is closed by now stays closed, and a lot that is due closes first (D40, D55).

use std::sync::Arc;

use drawdown_ledger_core::{Balance, Hold, Line, Plan, Team, periods_wanted, usage_keys};
use drawdown_types::{AccountId, HoldId, TeamId, Timestamp};
use sqlx::{Postgres, Transaction};

use super::{Elsewhere, LineDetail, Poster, SealedBatch, rows};
use crate::{
    catalogue::Catalogue,
    error::Error,
    noting,
    store::{
        catalog, periods, settlement, teams,
        teams::{StoredTeam, Wanted},
        write,
    },
};

/// A transaction that has locked one team and the catalogue.
pub(crate) struct Direct {
    /// To be committed by the caller, with what it writes beside the charges.
    pub(crate) tx: Transaction<'static, Postgres>,
    /// Meters and prices.
    pub(crate) catalogue: Arc<Catalogue>,
    /// The instant, from after the locks.
    pub(crate) now: Timestamp,
    team: TeamId,
}

/// Lines of the locked team.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Content<'a> {
    /// The lines, each received in its own window.
    pub(crate) lines: &'a [Line],
    /// Beside each line: what the core does not look at.
    pub(crate) details: &'a [LineDetail],
    /// The holds that lines name, as stored.
    pub(crate) holds: &'a [Hold],
    /// Holds whose last usage this is.
    pub(crate) last_of_holds: &'a [HoldId],
}

/// What was written.
pub(crate) struct Written {
    /// The core's plan.
    pub(crate) plan: Plan,
    /// Beside each of its charges: its place in the team's posting order.
    pub(crate) seqs: Vec<i64>,
    /// The team before and after.
    pub(crate) books: Box<[Balance; 2]>,
    /// Those named holds that were open, as they were.
    pub(crate) held: Vec<Hold>,
}

impl Poster {
    /// Locks the catalogue for reading and the team, which is made where it is missing.
    pub(crate) async fn begin_direct(&self, account: AccountId, team: TeamId) -> Result<Direct, Error> {
        let mut tx = self.pool.begin().await?;
        let version = catalog::share_in_tx(&mut tx).await?;
        let catalogue = self.catalogue.of_version(&mut tx, version).await?;
        teams::lock_in_tx(&mut tx, vec![(account, team)]).await?;
        Ok(Direct { tx, catalogue, now: self.clock.now(), team })
    }

    /// Charges lines of the locked team.
    pub(crate) async fn charge_direct(
        &self,
        direct: &mut Direct,
        content: &Content<'_>,
    ) -> Result<Written, Error> {
        let Direct { tx, catalogue, now, team } = direct;
        let Content { lines, details, holds, last_of_holds } = *content;
        let prices = &catalogue.prices;
        let keys = usage_keys(prices, lines, holds);
        let months = noting::months(lines, holds);
        let wanted = Wanted { keys: &keys, months: &months, lots: &[], items: false };
        let (mut stored, states) = teams::load_wanted_in_tx(tx, &[*team], &wanted).await?;
        let known = periods::load_in_tx(tx, &periods_wanted(prices, lines, holds)).await?;
        let before = only(&stored)?.balance.clone();
        let named = |hold: &&Hold| holds.iter().any(|named| named.hold_id == hold.hold_id);
        let held = only(&stored)?.holds.iter().filter(named).cloned().collect();
        let extent = (last_of_holds, self.settled_until(&[], *now));
        let (plan, after) = self.plan(lines, extent, &stored, (&states, &known), catalogue, *now)?;
        let noted = self.note(&mut stored, after, lines, &plan, *now);
        let batch = outside(lines, details);
        let mut rows = rows::Rows::new(&batch, lines, &plan, &stored, *now)?;
        rows.note_clients(None);
        let usage = rows.usage(&stored);
        let plan_rows = write::PlanRows {
            batch: (batch.shard, batch.number),
            charges: rows.charges(),
            plan: &plan,
            balances: &usage,
            noted: &noted,
            note: &write::LotNote::default(),
            sub_batch: self.sub_batch_lines,
        };
        write::write_in_tx(tx, &plan_rows).await?;
        periods::write_in_tx(tx, &rows.accounts(), &plan.periods, &rows.values()).await?;
        settlement::note_clients_in_tx(tx, rows.clients()).await?;
        let seqs = rows.charges().iter().map(|row| row.seq).collect();
        let books = Box::new([before, only(&stored)?.balance.clone()]);
        Ok(Written { plan, seqs, books, held })
    }
}

fn only(stored: &[StoredTeam]) -> Result<&Team, Error> {
    let stored = stored.first().ok_or_else(|| Error::Broken("a locked team is not there".to_owned()))?;
    Ok(&stored.team)
}

/// The lines as a batch of no shard.
fn outside(lines: &[Line], details: &[LineDetail]) -> SealedBatch {
    SealedBatch {
        shard: 0,
        generation: 0,
        number: 0,
        digest: Vec::new(),
        lanes: Vec::new(),
        events: 0,
        refused: Vec::new(),
        totals: Vec::new(),
        lines: lines.to_vec(),
        details: details.to_vec(),
        elsewhere: Elsewhere::default(),
    }
}
