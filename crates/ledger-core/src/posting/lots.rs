//! Lots come, change and go.

use drawdown_types::{MicroTokens, Timestamp};

use super::{About, Cause, Posting, plus};
use crate::{
    journal::{DebtInterval, Kind},
    lot::{Lot, draw_order},
};

impl Posting<'_> {
    /// The place of a lot in the team.
    pub(crate) fn place_of(&self, lot_id: drawdown_types::LotId) -> Option<usize> {
        self.team.lots.iter().position(|lot| lot.lot_id == lot_id)
    }

    /// Adds `lot`, whose amounts are nothing yet: a row of `kind` fills it. The caller has checked that
    /// the team's sums fit.
    pub(crate) fn add_lot(&mut self, lot: Lot, kind: Kind, amount: MicroTokens) {
        let effective_at = if kind == Kind::MoveIn { self.at } else { lot.purchased_at };
        let window = Some(lot.valid_from);
        let index = self.insert(lot);
        self.row(kind, amount, About { window, ..About::lot(index, effective_at) });
        self.list_live();
    }

    /// A lot that lived here before keeps its row and its history; any other is a new row.
    fn insert(&mut self, lot: Lot) -> usize {
        if let Some(index) = self.place_of(lot.lot_id)
            && let Some(old) = self.team.lots.get_mut(index)
        {
            old.moved_to = None;
            old.valid_from = lot.valid_from;
            return index;
        }
        self.plan.new_lots.push((lot.team_id, lot.lot_id));
        let pools = &self.settings.pool_order;
        let index = self.team.lots.partition_point(|other| draw_order(pools, other, &lot).is_lt());
        self.team.lots.insert(index, lot);
        self.touched.insert(index, true);
        index
    }

    /// Moves an amount of a lot by a row of `kind`, effective at `effective_at`.
    pub(crate) fn change_lot(
        &mut self,
        index: usize,
        kind: Kind,
        amount: MicroTokens,
        effective_at: Timestamp,
    ) {
        self.row(kind, amount, About::lot(index, effective_at));
        self.list_live();
    }

    /// The lot lives in another team from here on.
    pub(crate) fn send_away(&mut self, index: usize, to: drawdown_types::TeamId) {
        if let Some(lot) = self.team.lots.get_mut(index) {
            lot.moved_to = Some(to);
        }
        self.touch(index);
    }

    /// What the lot paid by row `reverses` is owed again: a new item of the running debt (D44).
    pub(crate) fn charge_back(&mut self, index: usize, cause: Cause, amount: MicroTokens, reverses: i64) {
        let from = self.team.balance.debt_opened;
        let debt = Some(DebtInterval { from, to: plus(from, amount) });
        let about =
            About { cause: Some(cause), reverses: Some(reverses), debt, ..About::lot(index, cause.window) };
        self.row(Kind::Chargeback, amount, about);
    }

    /// Closes a lot that is empty, whatever its dates (D44). Where it left the team it only ever moved: there may be
    /// nothing to take back there, and so no row that would tell of a close.
    pub(crate) fn close_void(&mut self, index: usize) {
        if let Some(lot) = self.team.lots.get_mut(index).filter(|lot| lot.is_here()) {
            lot.closed_at.get_or_insert(self.at);
        }
        self.touch(index);
        self.active = true;
    }

    /// Closes every lot that `due` names: what is left of it is forfeited, effective at its expiry (D3).
    pub(crate) fn close(&mut self, due: impl Fn(&Lot) -> bool) {
        for index in 0..self.team.lots.len() {
            let Some(lot) = self.team.lots.get_mut(index) else { continue };
            if !lot.is_live() || !due(lot) {
                continue;
            }
            lot.closed_at = Some(self.at);
            let (rest, effective_at) = (lot.remaining, lot.expires_at);
            self.touch(index);
            self.active = true;
            if rest > MicroTokens::ZERO {
                self.row(Kind::Expiry, rest, About::lot(index, effective_at));
            }
        }
        self.list_live();
    }

    fn touch(&mut self, index: usize) {
        if let Some(touched) = self.touched.get_mut(index) {
            *touched = true;
        }
    }
}
