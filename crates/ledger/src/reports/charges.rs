//! Lists of charges: pages and streams, each of one state.

use drawdown_types::{AccountId, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Reach, Scope, check_rows_in_tx};
use crate::{
    error::Error,
    service::Ledger,
    store::{
        charges::{self, ChargeFilter, ChargeRead, Part, Settled},
        watermarks::Watermarks,
    },
    tokens::Of,
};

/// Which charges of which team.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ChargeQuestion {
    /// Whose, and by whom.
    pub(crate) of: Of,
    /// Only these.
    pub(crate) filter: ChargeFilter,
}

/// Where a list goes on, and the state that it shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ChargeCursor {
    /// The team's account.
    account: AccountId,
    /// After this charge.
    after: i64,
    /// Up to this one.
    up_to: i64,
    /// What is settled of the running debt.
    settled: Settled,
    /// The instant of the state.
    at: Timestamp,
    /// Newest window with settled usage.
    newest: Option<Timestamp>,
    /// What is settled in it.
    settled_batches: Watermarks,
}

/// A part of a list.
#[derive(Clone, Debug)]
pub(crate) struct ChargePart {
    /// The charges in posting order.
    pub(crate) charges: Vec<ChargeRead>,
    /// Where it goes on, unless it ends here.
    pub(crate) next: Option<ChargeCursor>,
}

// === impl Ledger ===

impl Ledger {
    /// Where a list of charges begins: the state is that of this moment.
    pub(crate) async fn charges_begin(&self, asked: &ChargeQuestion) -> Result<ChargeCursor, Error> {
        let now = self.clock.now();
        let (stored, settled_batches) = self.settled_team(asked.of).await?;
        let at = stored.team.balance.posted_at.map_or(now, |last| last.max(now));
        let seen = self.seen_team(&stored, at);
        let account = stored.team.balance.account_id;
        let mut reader = self.pool.read_of(asked.of.account).await?;
        let whose = Scope { account_id: account, team_id: Some(asked.of.team) };
        check_rows_in_tx(&mut reader, whose, asked.filter.from).await?;
        let places = charges::places_in_tx(&mut reader, account, &[asked.of.team], &asked.filter).await?;
        Ok(ChargeCursor {
            account,
            after: places.first().copied().unwrap_or_default(),
            up_to: stored.charges,
            settled: seen.settled,
            at,
            newest: stored.last_window,
            settled_batches,
        })
    }

    /// The next part of a list: at most `rows` charges.
    pub(crate) async fn charges_part(
        &self,
        asked: &ChargeQuestion,
        cursor: ChargeCursor,
        rows: i64,
    ) -> Result<ChargePart, Error> {
        let part = Part {
            account_id: cursor.account,
            team_id: asked.of.team,
            after: cursor.after,
            up_to: cursor.up_to,
            settled: cursor.settled.clone(),
            limit: rows,
        };
        let mut reader = self.pool.read_of(asked.of.account).await?;
        let charges = charges::list_in_tx(&mut reader, &part, &asked.filter).await?;
        let full = i64::try_from(charges.len()).unwrap_or(i64::MAX) >= rows;
        let last = charges.last().map(|last| last.seq).filter(|last| full && *last < cursor.up_to);
        let next = last.map(|after| ChargeCursor { after, ..cursor });
        Ok(ChargePart { charges, next })
    }

    /// How far the data of a list reaches.
    pub(crate) fn charges_reach(&self, cursor: &ChargeCursor) -> Reach {
        self.reach(cursor.at, cursor.newest, cursor.settled_batches.clone())
    }
}
