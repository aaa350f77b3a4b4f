//! A team as loaded, and what a reader sees of it at an instant.
//!
//! Readers run the writer's own rolling forward on a copy, so nothing waits for a job to be true:
//! a lot that expires at the instant asked for is not available in the answer (D3, D40).
//!
//! `settled_until` is an instant before which everything received is settled; a lot does not close
//! sooner (D55). A caller that does not know one passes the instant itself.

use std::cmp::{max, min};

use drawdown_types::{AccountId, MicroTokens, TeamId, Timestamp};

use crate::{
    hold::Hold,
    journal::DebtInterval,
    lot::{Lot, LotState, draw_order},
    roll::roll_forward,
    settings::Settings,
};

/// The balance row of a team: the sums of its books. Σ books = 0: lot + held + consumed + expired +
/// void + moved out = issued + moved in + uncharged.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Balance {
    /// The billed account.
    pub account_id: AccountId,
    /// The team.
    pub team_id: TeamId,
    /// Everything bought and granted; it never shrinks.
    pub issued: MicroTokens,
    /// Book `lot`: what is left in scheduled, open and closing lots.
    pub lot: MicroTokens,
    /// Book `held`: what holds have set aside.
    pub held: MicroTokens,
    /// Everything used, paid or not.
    pub consumed: MicroTokens,
    /// Forfeited by lots that closed.
    pub expired: MicroTokens,
    /// Taken back: refunds, chargebacks, adjustments.
    pub void: MicroTokens,
    /// Everything that arrived with lots of other teams.
    pub moved_in: MicroTokens,
    /// Everything that left with lots for other teams.
    pub moved_out: MicroTokens,
    /// The end of the running debt: everything that was ever uncharged.
    pub debt_opened: MicroTokens,
    /// How far the running debt is settled without a gap.
    pub debt_paid: MicroTokens,
    /// What is settled beyond that: the sum of [`Team::settled_ahead`].
    pub debt_ahead: MicroTokens,
    /// The last journal sequence.
    pub version: i64,
    /// The last transaction number.
    pub transactions: i64,
    /// The instant of the last transaction.
    pub posted_at: Option<Timestamp>,
    /// The instant of the first transaction that ended below zero, until one ends at or above (D48).
    pub negative_since: Option<Timestamp>,
}

impl Balance {
    /// Of a team that nothing was posted to.
    #[must_use]
    pub const fn new(account_id: AccountId, team_id: TeamId) -> Self {
        Self {
            account_id,
            team_id,
            issued: MicroTokens::ZERO,
            lot: MicroTokens::ZERO,
            held: MicroTokens::ZERO,
            consumed: MicroTokens::ZERO,
            expired: MicroTokens::ZERO,
            void: MicroTokens::ZERO,
            moved_in: MicroTokens::ZERO,
            moved_out: MicroTokens::ZERO,
            debt_opened: MicroTokens::ZERO,
            debt_paid: MicroTokens::ZERO,
            debt_ahead: MicroTokens::ZERO,
            version: 0,
            transactions: 0,
            posted_at: None,
            negative_since: None,
        }
    }

    /// Open debt.
    #[must_use]
    pub fn uncharged(&self) -> MicroTokens {
        let unsettled = self.debt_opened.checked_sub(self.debt_paid).unwrap_or_default();
        unsettled.checked_sub(self.debt_ahead).unwrap_or_default()
    }
}

/// A part of a team's running debt that one charge opened, where it may still be open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct DebtItem {
    /// Its place in the running debt.
    pub interval: DebtInterval,
    /// Start of the window of the usage.
    pub window: Timestamp,
}

/// A team with its balance and its lots.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Team {
    /// The balance row.
    pub balance: Balance,
    /// Every lot that lives here and is not closed; others do no harm. In any order.
    pub lots: Vec<Lot>,
    /// Every hold that is open; ended ones do no harm. In any order.
    pub holds: Vec<Hold>,
    /// Parts of the running debt that were settled before their turn, in order: a lot that closes
    /// pays only usage of its validity (D42). Those behind [`Balance::debt_paid`] do no harm.
    pub settled_ahead: Vec<DebtInterval>,
    /// Items of the running debt whose windows a closing lot with held tokens is valid for, or a lot that leaves older
    /// debts: the only ones that these may pay. In order; settled ones and others do no harm.
    pub items: Vec<DebtItem>,
}

impl Team {
    /// A team that nothing was posted to.
    #[must_use]
    pub const fn new(account_id: AccountId, team_id: TeamId) -> Self {
        Self {
            balance: Balance::new(account_id, team_id),
            lots: Vec::new(),
            holds: Vec::new(),
            settled_ahead: Vec::new(),
            items: Vec::new(),
        }
    }

    /// The first part of `debt` that is not settled.
    pub(crate) fn open_part(&self, debt: DebtInterval) -> Option<DebtInterval> {
        let mut from = max(debt.from, self.balance.debt_paid);
        for ahead in &self.settled_ahead {
            if ahead.from <= from {
                from = max(from, ahead.to);
            } else {
                let to = min(debt.to, ahead.from);
                return (from < to).then_some(DebtInterval { from, to });
            }
        }
        (from < debt.to).then_some(DebtInterval { from, to: debt.to })
    }

    /// Whether there is debt that `lot` may pay once it is open.
    pub(crate) fn owes_to(&self, lot: &Lot) -> bool {
        let own = |item: &DebtItem| lot.is_valid_for(item.window) && self.open_part(item.interval).is_some();
        let owes = self.balance.uncharged() > MicroTokens::ZERO;
        owes && (!lot.leaves_older_debts || self.items.iter().any(own))
    }
}

/// A balance at an instant (D52).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BalanceView {
    /// The instant.
    pub at: Timestamp,
    /// available − uncharged.
    pub balance: MicroTokens,
    /// Left in open lots.
    pub available: MicroTokens,
    /// Left in lots that did not start yet.
    pub scheduled: MicroTokens,
    /// Left in lots that are expired but not closed.
    pub closing: MicroTokens,
    /// Set aside by holds.
    pub held: MicroTokens,
    /// Open debt.
    pub uncharged: MicroTokens,
    /// Original size of the open lots: what `available` is a part of (20 % left, D52).
    pub granted_of_open: MicroTokens,
    /// The row behind it, rolled forward: used, issued, expired, the grace clock.
    pub row: Balance,
}

/// A lot at an instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LotView {
    /// The lot, rolled forward.
    pub lot: Lot,
    /// What it is then.
    pub state: LotState,
}

/// Why there is no answer for an instant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Something was posted later than the instant asked for.
    #[error("{at} lies before {posted_at}, the last posting of the team")]
    BeforeLastPosting {
        /// What was asked for.
        at: Timestamp,
        /// The last posting.
        posted_at: Timestamp,
    },
}

/// The balance of `team` at `at`, whether or not any job ran.
///
/// # Errors
/// [`ReadError::BeforeLastPosting`].
pub fn balance_at(
    team: &Team,
    at: Timestamp,
    settled_until: Timestamp,
    settings: &Settings,
) -> Result<BalanceView, ReadError> {
    let team = rolled(team, at, settled_until, settings)?;
    Ok(view(&team, at))
}

fn rolled(
    team: &Team,
    at: Timestamp,
    settled_until: Timestamp,
    settings: &Settings,
) -> Result<Team, ReadError> {
    if let Some(posted_at) = team.balance.posted_at.filter(|posted_at| at < *posted_at) {
        return Err(ReadError::BeforeLastPosting { at, posted_at });
    }
    let mut teams = [team.clone()];
    roll_forward(&mut teams, at, settled_until, settings);
    let [team] = teams;
    Ok(team)
}

pub(crate) fn view(team: &Team, at: Timestamp) -> BalanceView {
    let left_in =
        |state| sum(team.lots.iter().filter(|lot| lot.state_at(at) == state).map(|lot| lot.remaining));
    let available = left_in(LotState::Open);
    let uncharged = team.balance.uncharged();
    BalanceView {
        at,
        balance: available.checked_sub(uncharged).unwrap_or_default(),
        available,
        scheduled: left_in(LotState::Scheduled),
        closing: left_in(LotState::Closing),
        held: team.balance.held,
        uncharged,
        granted_of_open: sum(team
            .lots
            .iter()
            .filter(|lot| lot.state_at(at) == LotState::Open)
            .map(|lot| lot.granted)),
        row: team.balance.clone(),
    }
}

/// Parts of `issued`, which is a checked `i64`: the sum always fits.
fn sum(amounts: impl Iterator<Item = MicroTokens>) -> MicroTokens {
    MicroTokens::from_micros(amounts.fold(0, |sum, amount| sum.saturating_add(amount.as_micros())))
}

/// The lots of `team` at `at`, in draw order, closed and moved ones last, whether or not any job ran.
///
/// # Errors
/// [`ReadError::BeforeLastPosting`].
pub fn lots_at(
    team: &Team,
    at: Timestamp,
    settled_until: Timestamp,
    settings: &Settings,
) -> Result<Vec<LotView>, ReadError> {
    let mut lots = rolled(team, at, settled_until, settings)?.lots;
    lots.sort_by(|a, b| {
        let gone = |lot: &Lot| !lot.is_live();
        gone(a).cmp(&gone(b)).then_with(|| draw_order(&settings.pool_order, a, b))
    });
    Ok(lots.into_iter().map(|lot| LotView { state: lot.state_at(at), lot }).collect())
}
