//! A team as one row: its lots, holds, debts and states as arrays.

use drawdown_ledger_core::{
    Balance, Cycle, DebtInterval, DebtItem, Hold, HoldPart, Lot, Team, UsageKey, UsageState, Watch,
};
use drawdown_types::{
    AccountId, AppId, HoldId, LotId, MeterSlug, MicroTokens, PriceId, Quantity, TeamId, Timestamp,
};
use uuid::Uuid;

use super::{StoredTeam, pool_kind};
use crate::{
    error::Error,
    store::{Instant, budgets},
};

pub(super) struct TeamRow {
    pub(super) account_id: Uuid,
    pub(super) team_id: Uuid,
    pub(super) lot_micros: i64,
    pub(super) held_micros: i64,
    pub(super) consumed_micros: i64,
    pub(super) expired_micros: i64,
    pub(super) issued_micros: i64,
    pub(super) void_micros: i64,
    pub(super) moved_in_micros: i64,
    pub(super) moved_out_micros: i64,
    pub(super) debt_opened_micros: i64,
    pub(super) debt_paid_micros: i64,
    pub(super) debt_ahead_micros: i64,
    pub(super) version: i64,
    pub(super) transactions: i64,
    pub(super) charges: i64,
    pub(super) negative_since: Option<Instant>,
    pub(super) posted_at: Option<Instant>,
    pub(super) last_window: Option<Instant>,
    pub(super) notice_told: Option<i16>,
    pub(super) notice_due: Option<Instant>,
    pub(super) lot_ids: Vec<Uuid>,
    pub(super) lot_pools: Vec<String>,
    pub(super) lot_original: Vec<i64>,
    pub(super) lot_granted: Vec<i64>,
    pub(super) lot_remaining: Vec<i64>,
    pub(super) lot_held: Vec<i64>,
    pub(super) lot_consumed: Vec<i64>,
    pub(super) lot_expired: Vec<i64>,
    pub(super) lot_void: Vec<i64>,
    pub(super) lot_moved: Vec<i64>,
    pub(super) lot_purchased_at: Vec<Instant>,
    pub(super) lot_starts_at: Vec<Instant>,
    pub(super) lot_valid_from: Vec<Instant>,
    pub(super) lot_expires_at: Vec<Instant>,
    pub(super) lot_closes_at: Vec<Instant>,
    pub(super) lot_closed_at: Vec<Option<Instant>>,
    pub(super) lot_moved_to: Vec<Option<Uuid>>,
    pub(super) lot_leaves_older_debts: Vec<bool>,
    pub(super) hold_ids: Vec<Uuid>,
    pub(super) hold_apps: Vec<Option<Uuid>>,
    pub(super) hold_windows: Vec<Instant>,
    pub(super) hold_made_at: Vec<Instant>,
    pub(super) hold_expires_at: Vec<Instant>,
    pub(super) hold_lots: Vec<Uuid>,
    pub(super) hold_taken: Vec<i64>,
    pub(super) hold_remaining: Vec<i64>,
    pub(super) ahead_from: Vec<i64>,
    pub(super) ahead_to: Vec<i64>,
    pub(super) item_from: Vec<i64>,
    pub(super) item_to: Vec<i64>,
    pub(super) item_windows: Vec<Instant>,
    pub(super) state_prices: Vec<Uuid>,
    pub(super) state_cycles: Vec<Instant>,
    pub(super) state_meters: Vec<String>,
    pub(super) state_quantities: Vec<i64>,
    pub(super) has_budgets: bool,
    pub(super) budgets: Option<String>,
}

// === impl TeamRow ===

impl TeamRow {
    pub(super) fn team(self) -> Result<StoredTeam, Error> {
        let (charges, has_budgets) = (self.charges, self.has_budgets);
        let last_window = self.last_window.map(Timestamp::from);
        let told = self.notice_told.map(u8::try_from).transpose();
        let watch = Watch {
            told_percent: told.map_err(|e| Error::stored("level of a notice")(e.into()))?,
            due: self.notice_due.map(Timestamp::from),
        };
        let lots = (0..self.lot_ids.len()).map(|index| self.lot(index)).collect::<Result<_, _>>()?;
        let balance = self.balance();
        let budgets = match &self.budgets {
            Some(text) => budgets::parse(balance.account_id, balance.team_id, text)?,
            None => Vec::new(),
        };
        let team = Team {
            balance,
            lots,
            holds: self.holds()?,
            settled_ahead: intervals(&self.ahead_from, &self.ahead_to)?,
            items: self.items()?,
        };
        Ok(StoredTeam { team, charges, last_window, watch, budgets, has_budgets })
    }

    fn balance(&self) -> Balance {
        Balance {
            account_id: AccountId::from_uuid(self.account_id),
            team_id: TeamId::from_uuid(self.team_id),
            issued: MicroTokens::from_micros(self.issued_micros),
            lot: MicroTokens::from_micros(self.lot_micros),
            held: MicroTokens::from_micros(self.held_micros),
            consumed: MicroTokens::from_micros(self.consumed_micros),
            expired: MicroTokens::from_micros(self.expired_micros),
            void: MicroTokens::from_micros(self.void_micros),
            moved_in: MicroTokens::from_micros(self.moved_in_micros),
            moved_out: MicroTokens::from_micros(self.moved_out_micros),
            debt_opened: MicroTokens::from_micros(self.debt_opened_micros),
            debt_paid: MicroTokens::from_micros(self.debt_paid_micros),
            debt_ahead: MicroTokens::from_micros(self.debt_ahead_micros),
            version: self.version,
            transactions: self.transactions,
            posted_at: self.posted_at.map(Timestamp::from),
            negative_since: self.negative_since.map(Timestamp::from),
        }
    }

    fn lot(&self, index: usize) -> Result<Lot, Error> {
        let micros = |amounts: &[i64]| at(amounts, index).map(MicroTokens::from_micros);
        Ok(Lot {
            lot_id: LotId::from_uuid(at(&self.lot_ids, index)?),
            account_id: AccountId::from_uuid(self.account_id),
            team_id: TeamId::from_uuid(self.team_id),
            pool_kind: pool_kind(self.lot_pools.get(index).map_or("", String::as_str))?,
            original: micros(&self.lot_original)?,
            granted: micros(&self.lot_granted)?,
            remaining: micros(&self.lot_remaining)?,
            held: micros(&self.lot_held)?,
            consumed: micros(&self.lot_consumed)?,
            expired: micros(&self.lot_expired)?,
            void: micros(&self.lot_void)?,
            moved: micros(&self.lot_moved)?,
            purchased_at: at(&self.lot_purchased_at, index)?.0,
            starts_at: at(&self.lot_starts_at, index)?.0,
            valid_from: at(&self.lot_valid_from, index)?.0,
            expires_at: at(&self.lot_expires_at, index)?.0,
            closes_at: at(&self.lot_closes_at, index)?.0,
            closed_at: at(&self.lot_closed_at, index)?.map(Timestamp::from),
            moved_to: at(&self.lot_moved_to, index)?.map(TeamId::from_uuid),
            leaves_older_debts: at(&self.lot_leaves_older_debts, index)?,
        })
    }

    /// One element for each part; the parts of a hold follow one another.
    fn holds(&self) -> Result<Vec<Hold>, Error> {
        let mut holds: Vec<Hold> = Vec::new();
        for index in 0..self.hold_ids.len() {
            let hold_id = HoldId::from_uuid(at(&self.hold_ids, index)?);
            let part = HoldPart {
                lot_id: LotId::from_uuid(at(&self.hold_lots, index)?),
                taken: MicroTokens::from_micros(at(&self.hold_taken, index)?),
                remaining: MicroTokens::from_micros(at(&self.hold_remaining, index)?),
            };
            if let Some(last) = holds.last_mut().filter(|last| last.hold_id == hold_id) {
                last.parts.push(part);
                continue;
            }
            holds.push(Hold {
                hold_id,
                team_id: TeamId::from_uuid(self.team_id),
                app_id: at(&self.hold_apps, index)?.map(AppId::from_uuid),
                window: at(&self.hold_windows, index)?.0,
                made_at: at(&self.hold_made_at, index)?.0,
                expires_at: at(&self.hold_expires_at, index)?.0,
                parts: vec![part],
                ended: None,
            });
        }
        Ok(holds)
    }

    fn items(&self) -> Result<Vec<DebtItem>, Error> {
        let intervals = intervals(&self.item_from, &self.item_to)?;
        let item = |(index, interval)| Ok(DebtItem { interval, window: at(&self.item_windows, index)?.0 });
        intervals.into_iter().enumerate().map(item).collect()
    }

    pub(super) fn states(&self) -> Result<Vec<UsageState>, Error> {
        let state = |index| {
            let meter = self.state_meters.get(index).map_or("", String::as_str);
            Ok(UsageState {
                key: UsageKey {
                    team_id: TeamId::from_uuid(self.team_id),
                    price_id: PriceId::from_uuid(at(&self.state_prices, index)?),
                    cycle: Cycle::of(at(&self.state_cycles, index)?.0),
                },
                meter: MeterSlug::new(meter).map_err(|e| Error::stored("meter slug")(e.into()))?,
                quantity: Quantity::new(at(&self.state_quantities, index)?)
                    .map_err(|e| Error::stored("quantity of a usage state")(e.into()))?,
            })
        };
        (0..self.state_prices.len()).map(state).collect()
    }
}

fn intervals(froms: &[i64], tos: &[i64]) -> Result<Vec<DebtInterval>, Error> {
    let micros = |amounts: &[i64], index| at(amounts, index).map(MicroTokens::from_micros);
    (0..froms.len())
        .map(|index| Ok(DebtInterval { from: micros(froms, index)?, to: micros(tos, index)? }))
        .collect()
}

/// An element of one of several arrays that one aggregate made; all of them have the same length.
fn at<T: Copy>(values: &[T], index: usize) -> Result<T, Error> {
    values.get(index).copied().ok_or_else(|| Error::Broken("arrays of one team differ in length".to_owned()))
}
