//! Holds take from lots, pay usage, and give back (D45).

use std::cmp::min;

use drawdown_types::{HoldId, MicroTokens, Timestamp};

use super::{About, Cause, Posting, minus, plus};
use crate::{
    hold::{Hold, HoldEnd, HoldPart},
    journal::Kind,
    lot::LotState,
};

impl Posting<'_> {
    fn hold_place(&self, hold_id: HoldId) -> Option<usize> {
        self.team.holds.iter().position(|hold| hold.hold_id == hold_id)
    }

    /// The hold of that name, if it is open at the instant of the transaction.
    pub(crate) fn open_hold(&self, hold_id: HoldId) -> Option<&Hold> {
        let hold = self.team.holds.get(self.hold_place(hold_id)?)?;
        hold.is_open_at(self.at).then_some(hold)
    }

    /// What a hold made at `window` could take now.
    pub(crate) fn holdable(&self, window: Timestamp) -> MicroTokens {
        let lots = self.team.lots.iter().filter(|lot| lot.state_at(self.at) == LotState::Open);
        lots.filter(|lot| lot.is_valid_for(window))
            .fold(MicroTokens::ZERO, |sum, lot| plus(sum, lot.remaining))
    }

    /// The first close of a lot that a hold still has something of.
    pub(crate) fn first_close(&self, hold_id: HoldId) -> Option<Timestamp> {
        let hold = self.team.holds.get(self.hold_place(hold_id)?)?;
        let held = hold.parts.iter().filter(|part| part.remaining > MicroTokens::ZERO);
        held.filter_map(|part| self.team.lots.get(self.place_of(part.lot_id)?)).map(|lot| lot.closes_at).min()
    }

    /// Adds a hold without parts.
    pub(crate) fn add_hold(&mut self, hold: Hold) {
        self.team.holds.push(hold);
        self.touched_holds.push(true);
        self.active = true;
    }

    /// Takes `amount` more for a hold from open lots valid at its window, in draw order. The caller has
    /// checked that they hold as much.
    pub(crate) fn take(&mut self, hold_id: HoldId, amount: MicroTokens) {
        let Some(place) = self.hold_place(hold_id) else { return };
        let Some(window) = self.team.holds.get(place).map(|hold| hold.window) else { return };
        let mut left = amount;
        for index in self.live.clone() {
            let Some(lot) = self.team.lots.get(index) else { continue };
            if left == MicroTokens::ZERO {
                break;
            }
            if lot.state_at(self.at) != LotState::Open || !lot.is_valid_for(window) {
                continue;
            }
            let part = min(lot.remaining, left);
            let lot_id = lot.lot_id;
            left = minus(left, part);
            let about = About { hold: Some(hold_id), window: Some(window), ..About::lot(index, window) };
            self.row(Kind::Hold, part, about);
            if let Some(hold) = self.team.holds.get_mut(place) {
                hold.parts.push(HoldPart { lot_id, taken: part, remaining: part });
            }
        }
        self.touch_hold(place);
        self.list_live();
    }

    /// Changes when a hold times out.
    pub(crate) fn extend(&mut self, hold_id: HoldId, expires_at: Timestamp) {
        let Some(place) = self.hold_place(hold_id) else { return };
        if let Some(hold) = self.team.holds.get_mut(place) {
            hold.expires_at = expires_at;
        }
        self.touch_hold(place);
        self.active = true;
    }

    /// Pays up to `amount` of usage from a hold's own parts; gives what they paid. Nothing where the
    /// hold is over.
    pub(super) fn capture(&mut self, cause: Cause, hold_id: HoldId, amount: MicroTokens) -> MicroTokens {
        if self.open_hold(hold_id).is_none() {
            return MicroTokens::ZERO;
        }
        let Some(place) = self.hold_place(hold_id) else { return MicroTokens::ZERO };
        let mut left = amount;
        for number in 0..self.parts(place) {
            let Some(part) = self.part(place, number) else { break };
            let paid = min(part.remaining, left);
            let Some(index) = self.place_of(part.lot_id).filter(|_| paid > MicroTokens::ZERO) else {
                continue;
            };
            left = minus(left, paid);
            self.keep_part(place, number, minus(part.remaining, paid));
            let about = About { cause: Some(cause), hold: Some(hold_id), ..About::lot(index, cause.window) };
            self.row(Kind::Capture, paid, about);
        }
        minus(amount, left)
    }

    /// Ends a hold: what is left of it goes back to its lots, which pay debt with it at once: open
    /// lots any, closing lots that of their validity (D42, D45).
    pub(crate) fn end_hold(&mut self, hold_id: HoldId, end: HoldEnd) {
        let Some(place) = self.hold_place(hold_id) else { return };
        let (mut closing, mut rises) = (Vec::new(), false);
        for number in 0..self.parts(place) {
            let Some(part) = self.part(place, number) else { break };
            let rest = part.remaining;
            let Some(index) = self.place_of(part.lot_id).filter(|_| rest > MicroTokens::ZERO) else {
                continue;
            };
            self.keep_part(place, number, MicroTokens::ZERO);
            let about = About { hold: Some(hold_id), ..About::lot(index, self.at) };
            self.row(Kind::Release, rest, about);
            rises = true;
            let is_closing = |lot: &crate::lot::Lot| lot.state_at(self.at) == LotState::Closing;
            if self.team.lots.get(index).is_some_and(is_closing) && !closing.contains(&index) {
                closing.push(index);
            }
        }
        if let Some(hold) = self.team.holds.get_mut(place) {
            hold.ended = Some((self.at, end));
        }
        self.touch_hold(place);
        self.active = true;
        self.list_live();
        closing.sort_unstable();
        closing.into_iter().for_each(|index| self.net_closing(index));
        if rises {
            self.net();
        }
    }

    /// Every part that open holds have of a lot goes back to it, and pays nothing there (D44).
    pub(crate) fn pull_out_of_holds(&mut self, index: usize) {
        let Some(lot_id) = self.team.lots.get(index).map(|lot| lot.lot_id) else { return };
        let mut holds: Vec<_> = self.team.holds.iter().map(|hold| hold.hold_id).zip(0_usize..).collect();
        holds.sort_unstable();
        for (hold_id, place) in holds {
            for number in 0..self.parts(place) {
                let own = self.part(place, number).filter(|part| part.lot_id == lot_id);
                let rest = own.map_or(MicroTokens::ZERO, |part| part.remaining);
                if rest > MicroTokens::ZERO {
                    self.keep_part(place, number, MicroTokens::ZERO);
                    self.row(
                        Kind::Release,
                        rest,
                        About { hold: Some(hold_id), ..About::lot(index, self.at) },
                    );
                }
            }
        }
    }

    fn parts(&self, place: usize) -> usize {
        self.team.holds.get(place).map_or(0, |hold| hold.parts.len())
    }

    fn part(&self, place: usize, number: usize) -> Option<HoldPart> {
        self.team.holds.get(place)?.parts.get(number).copied()
    }

    fn keep_part(&mut self, place: usize, number: usize, remaining: MicroTokens) {
        let part = self.team.holds.get_mut(place).and_then(|hold| hold.parts.get_mut(number));
        if let Some(part) = part {
            part.remaining = remaining;
        }
        self.touch_hold(place);
    }

    fn touch_hold(&mut self, place: usize) {
        if let Some(touched) = self.touched_holds.get_mut(place) {
            *touched = true;
        }
    }
}
