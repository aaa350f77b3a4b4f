//! Lots that move or change, and holds, put to both ledgers.

use drawdown_ledger_model::history::Lasts;

use super::*;

impl Both {
    fn instants(&self) -> (i64, i64, Timestamp, Timestamp) {
        let (now, settled) = (self.now, self.settled(self.now));
        (now, settled, instant(now), instant(settled))
    }

    pub(super) fn move_lot(&mut self, which: usize, from: usize, to: usize) {
        let Some(lot) = self.naive.some_lot(from, which) else { return };
        let (now, settled, at, until) = self.instants();
        let taken = self.naive.move_lot(from, to, lot, now, settled);
        let lot_id = id("lot", lot);
        let mut left = self.store.load(&self.teams[from]);
        let items = self.store.load_items(&self.teams[to]).items;
        let mut right = Team { items, ..self.store.load_with(&self.teams[to], lot_id) };
        let plan = move_lot(&mut left, &mut right, lot_id, at, until, &self.settings);
        self.settle(taken, plan.ok());
    }

    pub(super) fn adjust(&mut self, which: usize, team: usize, delta: i64) {
        let Some(lot) = self.naive.some_lot(team, which) else { return };
        let (now, settled, at, until) = self.instants();
        let taken = self.naive.adjust(team, lot, delta, now, settled);
        let mut loaded = self.store.load(&self.teams[team]);
        let plan = adjust_lot(&mut loaded, id("lot", lot), delta, at, until, &self.settings);
        self.settle(taken, plan.ok());
    }

    pub(super) fn refund(&mut self, which: usize, team: usize, amount: Option<i64>) {
        let Some(lot) = self.naive.some_lot(team, which) else { return };
        let (now, settled, at, until) = self.instants();
        let taken = self.naive.refund(team, lot, amount, now, settled);
        let mut loaded = self.store.load(&self.teams[team]);
        let amount = amount.map(MicroTokens::from_micros);
        let plan = refund_lot(&mut loaded, id("lot", lot), amount, at, until, &self.settings);
        self.settle(taken, plan.ok());
    }

    pub(super) fn charge_back(&mut self, which: usize) {
        let Some(lot) = self.naive.some_lot(0, which) else { return };
        let (now, settled, at, until) = self.instants();
        let lot_id = id("lot", lot);
        let lived =
            self.teams.iter().filter(|team| self.store.lots.contains_key(&(team.balance.team_id, lot_id)));
        let mut lived: Vec<_> = lived
            .map(|team| {
                let journal = self.store.lot_journal(team.balance.team_id, lot_id);
                (self.store.load_with(team, lot_id), journal)
            })
            .collect();
        let taken = self.naive.charge_back(lot, now, settled);
        let plan = charge_back(&mut lived, lot_id, at, until, &self.settings);
        self.settle(taken, plan.ok());
    }

    pub(super) fn reserve(&mut self, op: &Op) {
        let Op::Reserve { team, app, amount, least, lasts } = op else { return };
        let expires = self.now + lasts.micros(&self.naive, self.now);
        let number = self.number();
        let (now, settled, at, until) = self.instants();
        let taken = self.naive.reserve(*team, number, *app, *amount, *least, expires, now, settled);
        let mut loaded = self.store.load(&self.teams[*team]);
        let wish = Reservation {
            hold_id: id("hold", number),
            app_id: app.map(|app| id("app", app)),
            amount: MicroTokens::from_micros(*amount),
            at_least: least.map(MicroTokens::from_micros),
            expires_at: instant(expires),
        };
        let plan = reserve(&mut loaded, &wish, at, until, &self.settings);
        self.settle(taken, plan.ok());
    }

    pub(super) fn extend(&mut self, team: usize, which: usize, lasts: Lasts, more: i64) {
        let Some(hold) = self.naive.some_hold(team, which) else { return };
        let expires = self.now + lasts.micros(&self.naive, self.now);
        let (now, settled, at, until) = self.instants();
        let taken = self.naive.extend(team, hold, expires, more, now, settled);
        let mut loaded = self.store.load(&self.teams[team]);
        let (hold_id, more) = (id("hold", hold), MicroTokens::from_micros(more));
        let plan = extend_hold(&mut loaded, hold_id, instant(expires), more, at, until, &self.settings);
        self.settle(taken, plan.ok());
    }

    pub(super) fn release(&mut self, team: usize, which: usize) {
        let Some(hold) = self.naive.some_hold(team, which) else { return };
        let (now, settled, at, until) = self.instants();
        let taken = self.naive.release(team, hold, now, settled);
        let mut loaded = self.store.load(&self.teams[team]);
        let plan = release_hold(&mut loaded, id("hold", hold), at, until, &self.settings);
        self.settle(taken, plan.ok());
    }
}
