//! Lists of journal rows: pages and streams, each of one state.

use drawdown_ledger_core::Kind;
use drawdown_types::{AccountId, ChargeId, LotId, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Reach, Scope, check_rows_in_tx};
use crate::{
    error::Error,
    service::Ledger,
    store::{
        partitions,
        reads::{self, JournalFilter, JournalPart, JournalRead},
        statements,
        watermarks::Watermarks,
    },
    tokens::Of,
};

/// Which journal rows of which team.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct JournalQuestion {
    /// Whose, and by whom.
    pub(crate) of: Of,
    /// Rows after this one.
    pub(crate) after_seq: i64,
    /// Rows up to this one; none for all.
    pub(crate) up_to_seq: Option<i64>,
    /// Rows posted from this instant on.
    pub(crate) posted_from: Option<Timestamp>,
    /// Rows posted before this instant.
    pub(crate) posted_to: Option<Timestamp>,
    /// Any of these kinds; none for all.
    pub(crate) kinds: Vec<Kind>,
    /// Rows of this lot.
    pub(crate) lot_id: Option<LotId>,
    /// Rows of this charge.
    pub(crate) charge_id: Option<ChargeId>,
}

/// Where a list goes on, and the state that it shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct JournalCursor {
    /// The team's account.
    account: AccountId,
    /// After this row.
    after: i64,
    /// Up to this one.
    up_to: i64,
    /// The instant of the state.
    at: Timestamp,
    /// Newest window with settled usage.
    newest: Option<Timestamp>,
    /// What is settled in it.
    settled_batches: Watermarks,
}

// === impl JournalQuestion ===

impl JournalQuestion {
    /// The same, asked by an account, or by an operator.
    pub(crate) fn by(self, account: Option<AccountId>) -> Self {
        Self { of: Of { account, ..self.of }, ..self }
    }

    /// Everything that is asked, as a text.
    pub(crate) fn name(&self) -> String {
        let kinds: Vec<_> = self.kinds.iter().map(|kind| kind.as_str()).collect();
        serde_json::json!([
            self.of.team,
            self.after_seq,
            self.up_to_seq,
            self.posted_from,
            self.posted_to,
            kinds,
            self.lot_id,
            self.charge_id
        ])
        .to_string()
    }

    fn filter(&self) -> JournalFilter {
        JournalFilter {
            kinds: self.kinds.iter().map(|kind| kind.as_str().to_owned()).collect(),
            lot_id: self.lot_id,
            charge_id: self.charge_id,
        }
    }
}

// === impl Ledger ===

impl Ledger {
    /// Where a list of journal rows begins: the state is that of this moment.
    pub(crate) async fn journal_begin(&self, asked: &JournalQuestion) -> Result<JournalCursor, Error> {
        let now = self.clock.now();
        let (stored, settled_batches) = self.settled_team(asked.of).await?;
        let balance = &stored.team.balance;
        let at = balance.posted_at.map_or(now, |last| last.max(now));
        let from = asked.posted_from.unwrap_or(Timestamp::MIN);
        let to = asked.posted_to.unwrap_or(Timestamp::MAX);
        let mut reader = self.pool.read_of(asked.of.account).await?;
        let whose = (balance.account_id, asked.of.team);
        if asked.after_seq < partitions::archived_journal(&mut reader, whose.0, whose.1).await? {
            let scope = Scope { account_id: whose.0, team_id: Some(whose.1) };
            check_rows_in_tx(&mut reader, scope, asked.posted_from).await?;
        }
        let (before, last) = statements::bounds_in_tx(&mut reader, whose, (from, to)).await?;
        Ok(JournalCursor {
            account: balance.account_id,
            after: asked.after_seq.max(before),
            up_to: balance.version.min(last).min(asked.up_to_seq.unwrap_or(i64::MAX)),
            at,
            newest: stored.last_window,
            settled_batches,
        })
    }

    /// The next part of a list, at most `rows` rows, and where it goes on.
    pub(crate) async fn journal_part(
        &self,
        asked: &JournalQuestion,
        cursor: JournalCursor,
        rows: i64,
    ) -> Result<(Vec<JournalRead>, Option<JournalCursor>), Error> {
        let part = JournalPart {
            account_id: cursor.account,
            team_id: asked.of.team,
            after: cursor.after,
            up_to: cursor.up_to,
            limit: rows,
        };
        let mut reader = self.pool.read_of(asked.of.account).await?;
        let read = reads::journal(&mut reader, &part, &asked.filter()).await?;
        let full = i64::try_from(read.len()).unwrap_or(i64::MAX) >= rows;
        let last = read.last().filter(|last| full && last.seq < cursor.up_to);
        let next = last.map(|last| JournalCursor { after: last.seq, ..cursor });
        Ok((read, next))
    }

    /// How far the data of a list reaches.
    pub(crate) fn journal_reach(&self, cursor: &JournalCursor) -> Reach {
        self.reach(cursor.at, cursor.newest, cursor.settled_batches.clone())
    }
}
