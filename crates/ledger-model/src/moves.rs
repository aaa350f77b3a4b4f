//! Lots that move, change or are taken back (D5, D44, D46).

use super::{Debt, Ledger, Paid, Team};

const LARGEST: i64 = 1_000_000_000_000_000;

impl Ledger {
    fn place(&self, team: usize, lot: u64) -> Option<usize> {
        self.teams[team].lots.iter().position(|other| other.id == lot)
    }

    /// D46.
    pub fn move_lot(&mut self, from: usize, to: usize, lot: u64, now: i64, settled: i64) -> bool {
        let before = self.teams.clone();
        if from == to {
            self.hit("D46 a move is refused");
            return false;
        }
        let at = self.instant(&[from, to], now);
        self.advance(from, at, settled);
        self.advance(to, at, settled);
        let movable = self.place(from, lot).filter(|place| {
            let lot = &self.teams[from].lots[*place];
            let state = lot.state(at);
            (state == "open" || state == "scheduled") && lot.left > 0 && self.held(from, lot.id) == 0
        });
        let Some(place) = movable else {
            self.hit("D46 a move is refused");
            self.teams = before;
            return false;
        };
        let mut lot = self.teams[from].lots.remove(place);
        self.teams[from].past.entry(lot.id).or_default().moved += lot.left;
        self.end_transaction(from, at);
        lot.valid_from = lot.start.max(self.floor(at));
        let Team { past, lots, moved_in, .. } = &mut self.teams[to];
        *moved_in += lot.left;
        let back = past.contains_key(&lot.id);
        past.entry(lot.id).or_default().received += lot.left;
        lots.push(lot);
        self.hit(if back { "D46 a lot comes back" } else { "D46 a lot moves" });
        if self.pay_debts(to, at) {
            self.hit("D46 a lot that moved pays debt");
        }
        self.end_transaction(to, at);
        true
    }

    /// D5, up or down.
    pub fn adjust(&mut self, team: usize, lot: u64, delta: i64, now: i64, settled: i64) -> bool {
        self.change(team, lot, now, settled, |ledger, place, at| {
            let Team { lots, past, issued, .. } = &mut ledger.teams[team];
            let lot = &mut lots[place];
            let past = past.entry(lot.id).or_default();
            if delta == 0 || -delta > lot.left || past.received + delta.max(0) > LARGEST {
                return false;
            }
            lot.left += delta;
            if delta < 0 {
                past.void -= delta;
                ledger.hit("D5 an adjustment down");
            } else {
                past.received += delta;
                *issued += delta;
                ledger.hit("D5 an adjustment up");
                if ledger.pay_debts(team, at) {
                    ledger.hit("D42 an adjustment pays debt");
                }
            }
            true
        })
    }

    /// D44: what remains of a bought lot, or a part of that.
    pub fn refund(&mut self, team: usize, lot: u64, amount: Option<i64>, now: i64, settled: i64) -> bool {
        self.change(team, lot, now, settled, |ledger, place, _| {
            let Team { lots, past, .. } = &mut ledger.teams[team];
            let lot = &mut lots[place];
            let amount = amount.unwrap_or(lot.left);
            if lot.pool != "flex" || amount <= 0 || amount > lot.left {
                return false;
            }
            lot.left -= amount;
            past.entry(lot.id).or_default().void += amount;
            ledger.hit("D44 a refund");
            true
        })
    }

    fn change(
        &mut self,
        team: usize,
        lot: u64,
        now: i64,
        settled: i64,
        act: impl FnOnce(&mut Self, usize, i64) -> bool,
    ) -> bool {
        let before = self.teams.clone();
        let at = self.instant(&[team], now);
        self.advance(team, at, settled);
        let place = self.place(team, lot).filter(|place| {
            let state = self.teams[team].lots[*place].state(at);
            state == "open" || state == "scheduled"
        });
        if place.is_some_and(|place| act(self, place, at)) {
            self.end_transaction(team, at);
            return true;
        }
        self.hit("D5 D44 a change is refused");
        self.teams = before;
        false
    }

    /// D44: the whole lot, in every team it lived in.
    pub fn charge_back(&mut self, lot: u64, now: i64, settled: i64) -> bool {
        let lived = |team: &usize| self.teams[*team].past.contains_key(&lot);
        let teams: Vec<usize> = (0..self.teams.len()).filter(lived).collect();
        let bought = self
            .teams
            .iter()
            .flat_map(|team| &team.lots)
            .any(|other| other.id == lot && other.pool == "flex");
        if !bought {
            self.hit("D44 a chargeback is refused");
            return false;
        }
        if teams.len() > 1 {
            self.hit("D44 a chargeback of a lot that moved");
        }
        let at = self.instant(&teams, now);
        for team in teams {
            self.advance(team, at, settled);
            self.take_back(team, lot);
            self.pay_debts(team, at);
            self.end_transaction(team, at);
        }
        self.hit("D44 a chargeback");
        true
    }

    fn take_back(&mut self, team: usize, lot: u64) {
        let Team { lots, holds, past, debts, payments, charges, owed_ever, .. } = &mut self.teams[team];
        let past = past.get_mut(&lot).unwrap();
        let mut hits = Vec::new();
        if let Some(lot) = lots.iter_mut().find(|other| other.id == lot) {
            past.void += std::mem::take(&mut lot.left);
            lot.closed = true;
        }
        for hold in holds {
            for (_, part) in hold.parts.iter_mut().filter(|(id, part)| *id == lot && *part > 0) {
                past.void += std::mem::take(part);
                hits.push("D44 a part leaves its hold");
            }
        }
        if past.forfeited > 0 {
            hits.push("D44 what had expired is void");
        }
        past.void += std::mem::take(&mut past.forfeited);
        let (mine, others): (Vec<Paid>, Vec<Paid>) = payments.iter().partition(|paid| paid.lot == lot);
        *payments = others;
        for paid in mine.iter().filter(|paid| paid.amount > 0) {
            past.void += paid.amount;
            let window = charges[paid.charge].window;
            debts.push(Debt { charge: paid.charge, window, owed: paid.amount });
            *owed_ever += paid.amount;
            hits.push("D44 what it had paid is owed again");
        }
        hits.into_iter().for_each(|rule| self.hit(rule));
    }
}
