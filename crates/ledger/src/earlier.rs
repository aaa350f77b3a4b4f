//! The books as they were recorded at an earlier instant, and of that what had taken effect by an instant of usage.
//!
//! One snapshot: the team with all its lots, and the sums of the rows that were not there yet; the core takes these
//! off. So an answer costs what was posted since, and the same question gets the same answer for ever once it is
//! final: when everything posted by then is surely committed, and nothing due by then waits for a writer.

use std::collections::HashMap;

use drawdown_ledger_core::{AsOf, BalanceView, BooksAsOf, LotView, books_as_of, draw_order};
use drawdown_service::Code;
use drawdown_types::Timestamp;

use crate::{
    error::Error,
    reason,
    reports::{Scope, check_rows_in_tx},
    service::{Ledger, connection},
    store::{
        charges::AHEAD_MAX,
        reads, teams,
        undone::{self, Undone},
    },
    tokens::{NotedLot, Of, refuse},
};

/// Instants as asked for; now where absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Earlier {
    pub(crate) event: Option<Timestamp>,
    pub(crate) recorded: Option<Timestamp>,
}

/// Which books are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// Those of now, or of a later instant.
    At(Option<Timestamp>),
    /// Earlier ones.
    Earlier(Earlier),
}

/// An answer and the instants it is of.
pub(crate) struct BooksThen {
    pub(crate) balance: BalanceView,
    pub(crate) lots: Vec<NotedLot>,
    pub(crate) asked: AsOf,
    /// It will be given again for ever.
    pub(crate) is_final: bool,
}

// === impl Ledger ===

impl Ledger {
    /// The books of a team as of earlier instants.
    pub(crate) async fn books_then(&self, of: Of, earlier: Earlier) -> Result<BooksThen, Error> {
        let mut tx = self.pool.snapshot_of(of.account).await?;
        let at = connection(&mut tx);
        let Some(stored) = teams::load(at, of.team).await? else {
            tx.rollback().await?;
            let stored = self.stored_team(of).await?;
            let now = self.clock.now();
            let asked = check(earlier, now)?;
            return Ok(self.then(&stored.team, &[], asked, now, HashMap::new()));
        };
        let mut team = stored.team;
        let all = reads::lots(at, of.team).await?;
        let now = self.clock.now();
        let now = team.balance.posted_at.map_or(now, |last| last.max(now));
        let asked = check(earlier, now)?;
        let limit = asked.effect_limit(&self.settings);
        let effect_from = limit.map(|limit| limit.checked_sub(AHEAD_MAX).unwrap_or(Timestamp::MIN));
        let posted_from = effect_from.map_or(asked.recorded, |from| from.min(asked.recorded));
        let whose = Scope { account_id: team.balance.account_id, team_id: Some(of.team) };
        check_rows_in_tx(at, whose, Some(posted_from)).await?;
        let rows = Undone { recorded: asked.recorded, effect_limit: limit, posted_from };
        let rows = undone::sums_in_tx(at, team.balance.account_id, of.team, &rows).await?;
        tx.commit().await?;
        let notes = all.iter().map(|(lot, note)| (lot.lot_id, note.clone())).collect();
        team.lots = all.into_iter().map(|(lot, _)| lot).collect();
        Ok(self.then(&team, &rows, asked, now, notes))
    }

    fn then(
        &self,
        team: &drawdown_ledger_core::Team,
        rows: &[drawdown_ledger_core::RowSum],
        asked: AsOf,
        now: Timestamp,
        mut notes: HashMap<drawdown_types::LotId, String>,
    ) -> BooksThen {
        let until = self.settled_until(now);
        let BooksAsOf { balance, mut lots, is_pending } =
            books_as_of(team, rows, asked, now, until, &self.settings);
        lots.sort_by(|a, b| {
            let gone = |view: &LotView| {
                !matches!(
                    view.state,
                    drawdown_ledger_core::LotState::Scheduled
                        | drawdown_ledger_core::LotState::Open
                        | drawdown_ledger_core::LotState::Closing
                )
            };
            gone(a).cmp(&gone(b)).then_with(|| draw_order(&self.settings.pool_order, &a.lot, &b.lot))
        });
        let at = balance.at;
        let noted = |view: LotView| {
            let note = notes.remove(&view.lot.lot_id).unwrap_or_default();
            NotedLot { view, at, note }
        };
        let surely = now.checked_sub(self.limits.reports.recorded_lag).unwrap_or(Timestamp::MIN);
        let is_final = asked.recorded < surely && !is_pending;
        BooksThen { balance, lots: lots.into_iter().map(noted).collect(), asked, is_final }
    }
}

/// Both instants lie in the past, and usage that takes effect after the record is not in it.
fn check(earlier: Earlier, now: Timestamp) -> Result<AsOf, Error> {
    let recorded = earlier.recorded.unwrap_or(now);
    let future = |field: &'static str, at: Timestamp, last: Timestamp| {
        let why = format!("is {at}, must not lie after {last}");
        refuse(Code::InvalidArgument, reason::INSTANT_IN_FUTURE, field, why)
    };
    if recorded > now {
        return Err(future("as_of.recorded", recorded, now));
    }
    if let Some(event) = earlier.event.filter(|event| *event > recorded) {
        return Err(future("as_of.event", event, recorded));
    }
    Ok(AsOf { recorded, event: earlier.event })
}
