//! What a correction takes back, and what becomes of it (D43).

use std::cmp::min;

use drawdown_types::MicroTokens;

use super::{About, Cause, Charged, Posting, minus, plus};
use crate::{
    journal::{DebtInterval, Kind},
    lot::LotState,
};

/// What came back to lots and was not used again yet, in the order in which it had been paid: places of
/// lots, each once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Returned(Vec<(usize, MicroTokens)>);

impl Returned {
    /// Parts come in the order in which they are taken back, which is the last payment first.
    fn add(&mut self, index: usize, amount: MicroTokens) {
        let known = self.0.iter().position(|(place, _)| *place == index);
        let before = known.map_or(MicroTokens::ZERO, |place| self.0.remove(place).1);
        self.0.insert(0, (index, plus(before, amount)));
    }
}

impl Posting<'_> {
    /// Usage that was still owed is owed no more.
    pub(crate) fn cancel(&mut self, cause: Cause, debt: DebtInterval) {
        let about = About { cause: Some(cause), debt: Some(debt), ..About::nothing(cause.window) };
        self.row(Kind::Cancellation, debt.length(), about);
    }

    /// A lot gets back `amount` of what it paid by the row `reverses`: of a netting, for the part `debt` of
    /// the running debt, which stays settled.
    pub(crate) fn give_back(
        &mut self,
        returned: &mut Returned,
        index: usize,
        cause: Cause,
        (amount, reverses): (MicroTokens, i64),
        debt: Option<DebtInterval>,
    ) {
        let about =
            About { cause: Some(cause), reverses: Some(reverses), debt, ..About::lot(index, cause.window) };
        self.row(Kind::Reversal, amount, about);
        returned.add(index, amount);
    }

    /// What another team's correction gave back arrives in the lot that lives here now. The caller has
    /// checked that the team's sums fit.
    pub(crate) fn arrive(&mut self, returned: &mut Returned, index: usize, amount: MicroTokens) {
        let Some(window) = self.team.lots.get(index).map(|lot| lot.valid_from) else { return };
        self.row(Kind::MoveIn, amount, About { window: Some(window), ..About::lot(index, self.at) });
        returned.add(index, amount);
    }

    /// Pays usage that is charged again: first from what came back, whatever the state and validity of its
    /// lot, then as any usage (D41).
    pub(crate) fn charge_again(
        &mut self,
        cause: Cause,
        amount: MicroTokens,
        returned: &mut Returned,
    ) -> Charged {
        self.active = true;
        let before = self.team.balance.version;
        let mut left = amount;
        for (index, rest) in &mut returned.0 {
            let part = min(*rest, left);
            if part > MicroTokens::ZERO {
                *rest = minus(*rest, part);
                left = minus(left, part);
                self.row(
                    Kind::Charge,
                    part,
                    About { cause: Some(cause), ..About::lot(*index, cause.window) },
                );
            }
        }
        self.list_live();
        let charged = self.charge(cause, left, None);
        let first_seq = (self.team.balance.version > before).then(|| before.saturating_add(1));
        Charged { first_seq, ..charged }
    }

    /// What came back and was not used again follows its lot: to the team where it lives now, or into what
    /// has expired. Lots that are here pay debt with it: open ones any, closing ones that of their
    /// validity (D42).
    pub(crate) fn settle_returned(
        &mut self,
        returned: Returned,
    ) -> Vec<(drawdown_types::LotId, MicroTokens)> {
        let mut gone = Vec::new();
        let mut closing = Vec::new();
        for (index, rest) in returned.0.into_iter().filter(|(_, rest)| *rest > MicroTokens::ZERO) {
            let Some(lot) = self.team.lots.get(index) else { continue };
            let (lot_id, expires_at) = (lot.lot_id, lot.expires_at);
            match lot.state_at(self.at) {
                LotState::Moved => {
                    self.row(Kind::MoveOut, rest, About::lot(index, self.at));
                    gone.push((lot_id, rest));
                }
                LotState::Closed => self.row(Kind::Expiry, rest, About::lot(index, expires_at)),
                LotState::Closing => closing.push(index),
                LotState::Scheduled | LotState::Open => {}
            }
        }
        self.list_live();
        closing.sort_unstable();
        closing.into_iter().for_each(|index| self.net_closing(index));
        self.net();
        gone
    }
}
