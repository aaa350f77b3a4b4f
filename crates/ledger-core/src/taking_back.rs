//! Lots that become larger or smaller after they were made: adjustments by an admin (D5), refunds and
//! chargebacks of purchases (D44).

use std::{cmp::max, collections::HashMap};

use drawdown_types::{ChargeId, LotId, MicroTokens, PriceId, Timestamp};

use crate::{
    command::{LOT_MAX_TOKENS, can_issue, instant_of},
    journal::{Book, JournalRow, Kind},
    lot::{Lot, LotState},
    plan::Plan,
    posting::{Cause, Posting},
    roll::bring_forward,
    settings::Settings,
    standing::{left_of, netted},
    team::Team,
};

/// Why a lot stays as it is. All are permanent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LotChangeError {
    /// The lot does not live in the team.
    #[error("lot {0} does not live in the team")]
    LotUnknown(LotId),
    /// Only open and scheduled lots are adjusted or refunded.
    #[error("lot {lot_id} is {}: only open and scheduled lots can be changed", .state.as_str())]
    NotChangeable {
        /// The lot.
        lot_id: LotId,
        /// What it is.
        state: LotState,
    },
    /// Only a purchase is refunded or charged back.
    #[error("lot {0} was not bought")]
    NotBought(LotId),
    /// Nothing would change.
    #[error("a change of nothing")]
    Nothing,
    /// More than what is left.
    #[error("{amount} tokens are more than the {remaining} that are left of lot {lot_id}")]
    MoreThanRemains {
        /// The lot.
        lot_id: LotId,
        /// What was asked for.
        amount: MicroTokens,
        /// What is left; tokens set aside by holds are not.
        remaining: MicroTokens,
    },
    /// More than one lot may hold (D53).
    #[error("the lot would have received more than {max} tokens, the most that one lot may hold")]
    AboveLotMax {
        /// What it may be at most, in tokens.
        max: i64,
    },
    /// The team's sums would not fit (D53).
    #[error("the sums of the team would not fit")]
    Overflow,
    /// The payments do not add up to what the lot paid.
    #[error("the payments of lot {0} do not add up to what it paid")]
    PaymentsDiffer(LotId),
}

/// Changes a lot by `delta` micro-tokens, up or down (D5). What is added pays debts at once; what is
/// taken away is void.
///
/// # Errors
/// [`LotChangeError`]; `team` is unchanged then.
pub fn adjust_lot(
    team: &mut Team,
    lot_id: LotId,
    delta: i64,
    now: Timestamp,
    settled_until: Timestamp,
    settings: &Settings,
) -> Result<Plan, LotChangeError> {
    change(team, lot_id, now, settled_until, settings, |posting, index, lot| {
        if delta == 0 {
            return Err(LotChangeError::Nothing);
        }
        let amount = delta.checked_abs().map(MicroTokens::from_micros).ok_or(LotChangeError::Overflow)?;
        if delta < 0 {
            return void(posting, index, lot, amount);
        }
        let max = MicroTokens::from_tokens(LOT_MAX_TOKENS);
        if lot.granted.checked_add(amount).is_none_or(|sum| max.is_none_or(|max| sum > max)) {
            return Err(LotChangeError::AboveLotMax { max: LOT_MAX_TOKENS });
        }
        if !can_issue(posting.team(), amount) {
            return Err(LotChangeError::Overflow);
        }
        let at = posting.at();
        posting.change_lot(index, Kind::Adjustment, amount, at);
        posting.net();
        Ok(())
    })
}

/// Takes back what is left of a bought lot, or `amount` of that (D44).
///
/// # Errors
/// [`LotChangeError`]; `team` is unchanged then.
pub fn refund_lot(
    team: &mut Team,
    lot_id: LotId,
    amount: Option<MicroTokens>,
    now: Timestamp,
    settled_until: Timestamp,
    settings: &Settings,
) -> Result<Plan, LotChangeError> {
    change(team, lot_id, now, settled_until, settings, |posting, index, lot| {
        check_bought(lot)?;
        void(posting, index, lot, amount.unwrap_or(lot.remaining))
    })
}

fn check_bought(lot: &Lot) -> Result<(), LotChangeError> {
    let bought = lot.pool_kind == crate::lot::PoolKind::Flex;
    bought.then_some(()).ok_or(LotChangeError::NotBought(lot.lot_id))
}

fn void(
    posting: &mut Posting<'_>,
    index: usize,
    lot: &Lot,
    amount: MicroTokens,
) -> Result<(), LotChangeError> {
    let (lot_id, remaining) = (lot.lot_id, lot.remaining);
    if amount <= MicroTokens::ZERO {
        return Err(LotChangeError::Nothing);
    }
    if amount > remaining {
        return Err(LotChangeError::MoreThanRemains { lot_id, amount, remaining });
    }
    let at = posting.at();
    posting.change_lot(index, Kind::Void, amount, at);
    Ok(())
}

/// Runs `act` on an open or scheduled lot, in a transaction of its own after the team is rolled forward.
fn change(
    team: &mut Team,
    lot_id: LotId,
    now: Timestamp,
    settled_until: Timestamp,
    settings: &Settings,
    act: impl FnOnce(&mut Posting<'_>, usize, &Lot) -> Result<(), LotChangeError>,
) -> Result<Plan, LotChangeError> {
    let at = instant_of(team, now);
    let mut changed = team.clone();
    let mut plan = Plan { instant: Some(at), ..Plan::default() };
    let mut posting = Posting::new(&mut changed, &mut plan, settings);
    bring_forward(&mut posting, at, settled_until);
    posting.begin(at);
    let index = posting.place_of(lot_id).ok_or(LotChangeError::LotUnknown(lot_id))?;
    let lot = posting.team().lots.get(index).cloned().ok_or(LotChangeError::LotUnknown(lot_id))?;
    match lot.state_at(at) {
        LotState::Open | LotState::Scheduled => {}
        LotState::Moved => return Err(LotChangeError::LotUnknown(lot_id)),
        state @ (LotState::Closing | LotState::Closed) => {
            return Err(LotChangeError::NotChangeable { lot_id, state });
        }
    }
    act(&mut posting, index, &lot)?;
    posting.end();
    posting.finish();
    *team = changed;
    Ok(plan)
}

/// What a lot paid by one journal row for one charge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payment {
    /// The row.
    pub seq: i64,
    /// The charge; absent where usage from before an import was paid.
    pub charge_id: Option<ChargeId>,
    /// Its price.
    pub price_id: Option<PriceId>,
    /// Start of its window.
    pub window: Timestamp,
    /// What was paid.
    pub amount: MicroTokens,
}

/// The history of a lot in one team, by sequence.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LotJournal {
    /// Every row of the lot.
    pub rows: Vec<JournalRow>,
    /// Every row that opened debt which the lot netted, or may net when the team is rolled forward; others do no harm.
    pub items: Vec<JournalRow>,
}

impl LotJournal {
    /// What the lot paid, in the order in which it paid; a netting is parted by item. What was taken
    /// back already is left out.
    #[must_use]
    pub fn payments(&self) -> Vec<Payment> {
        let mut taken: HashMap<i64, Vec<&JournalRow>> = HashMap::new();
        for row in &self.rows {
            if let Some(reverses) = row.reverses {
                taken.entry(reverses).or_default().push(row);
            }
        }
        let mut payments = Vec::new();
        for row in &self.rows {
            let taken = taken.get(&row.seq);
            let payment = |charge: &JournalRow, amount| Payment {
                seq: row.seq,
                charge_id: charge.charge_id,
                price_id: charge.price_id,
                window: charge.window.unwrap_or(charge.effective_at),
                amount,
            };
            match (row.kind, row.debt) {
                (Kind::Charge | Kind::Capture, _) => payments.push(payment(row, left_of(row, taken))),
                (Kind::Netting, Some(paid)) => {
                    let parts = self.items.iter().filter_map(|item| Some((item, item.debt?.common(paid)?)));
                    payments.extend(parts.map(|(item, part)| {
                        let stands = netted(part, taken).into_iter();
                        let amount =
                            stands.fold(0_i64, |sum, part| sum.saturating_add(part.length().as_micros()));
                        payment(item, MicroTokens::from_micros(amount))
                    }));
                }
                _ => {}
            }
        }
        payments.retain(|payment| payment.amount > MicroTokens::ZERO);
        payments
    }

    /// Adds what the same transaction has written before.
    fn extend(&mut self, lot_id: LotId, rows: &[JournalRow]) {
        self.rows.extend(rows.iter().filter(|row| row.lot_id == Some(lot_id)).cloned());
        self.items.extend(rows.iter().filter(|row| row.debit == Book::Uncharged).cloned());
    }
}

/// Takes back a whole bought lot, wherever it lived (D44): what is left and what had expired is void,
/// parts leave their holds, and what it had paid is owed again by the team that used it, as new items of
/// the queue in the order in which it was paid. Open lots pay at once.
///
/// `teams` are all in which the lot has a row, each with its history there. Each is one transaction, all
/// at one instant.
///
/// # Errors
/// [`LotChangeError`]; the teams are unchanged then.
pub fn charge_back(
    teams: &mut [(Team, LotJournal)],
    lot_id: LotId,
    now: Timestamp,
    settled_until: Timestamp,
    settings: &Settings,
) -> Result<Plan, LotChangeError> {
    let at = teams.iter().map(|(team, _)| instant_of(team, now)).fold(now, max);
    let mut plan = Plan { instant: Some(at), ..Plan::default() };
    let mut changed = teams.to_vec();
    for (team, journal) in &mut changed {
        let before = plan.journal.len();
        let mut posting = Posting::new(team, &mut plan, settings);
        bring_forward(&mut posting, at, settled_until);
        journal.extend(lot_id, posting.written().get(before..).unwrap_or_default());
        posting.begin(at);
        let index = posting.place_of(lot_id).ok_or(LotChangeError::LotUnknown(lot_id))?;
        take_all_back(&mut posting, index, &journal.payments())?;
        posting.net();
        posting.end();
        posting.finish();
    }
    teams.clone_from_slice(&changed);
    Ok(plan)
}

fn take_all_back(
    posting: &mut Posting<'_>,
    index: usize,
    payments: &[Payment],
) -> Result<(), LotChangeError> {
    posting.pull_out_of_holds(index);
    let lot = posting.team().lots.get(index).cloned();
    let Some(lot) = lot else { return Ok(()) };
    check_bought(&lot)?;
    let paid = payments.iter().try_fold(MicroTokens::ZERO, |sum, payment| sum.checked_add(payment.amount));
    if paid != Some(lot.consumed) {
        return Err(LotChangeError::PaymentsDiffer(lot.lot_id));
    }
    if posting.team().balance.debt_opened.checked_add(lot.consumed).is_none() {
        return Err(LotChangeError::Overflow);
    }
    let at = posting.at();
    for (kind, amount) in [(Kind::Void, lot.remaining), (Kind::VoidExpired, lot.expired)] {
        if amount > MicroTokens::ZERO {
            posting.change_lot(index, kind, amount, at);
        }
    }
    for payment in payments {
        let cause =
            Cause { charge_id: payment.charge_id, price_id: payment.price_id, window: payment.window };
        posting.charge_back(index, cause, payment.amount, payment.seq);
    }
    posting.close_void(index);
    Ok(())
}
