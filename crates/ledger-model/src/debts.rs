//! Time and debts: what is due, what is owed, and who pays (D7, D40 to D42, D48).

use std::collections::BTreeSet;

use super::{Charge, Debt, Ledger, Paid, Team};

impl Ledger {
    pub fn available(&self, team: usize, at: i64) -> i64 {
        self.teams[team].lots.iter().filter(|lot| lot.state(at) == "open").map(|lot| lot.left).sum()
    }

    pub fn owed(&self, team: usize) -> i64 {
        self.teams[team].debts.iter().map(|debt| debt.owed).sum()
    }

    /// D42, D7: debts oldest first, each from open lots in draw order.
    pub(crate) fn pay_debts(&mut self, team: usize, at: i64) -> bool {
        let mut items = 0;
        for index in 0..self.teams[team].debts.len() {
            if self.teams[team].debts[index].owed == 0 {
                continue;
            }
            for place in self.drawn(team) {
                let lot = &self.teams[team].lots[place];
                if lot.state(at) != "open" || self.teams[team].debts[index].owed == 0 {
                    continue;
                }
                let inside = lot.pays(self.teams[team].debts[index].window);
                if lot.leaves_older {
                    self.hit(match inside {
                        true => "D57 a lot that leaves older debts pays one of its validity",
                        false => "D57 a lot leaves older debts",
                    });
                    if !inside {
                        continue;
                    }
                }
                if !inside {
                    self.hit("D41 netting outside the validity");
                }
                items += 1;
                self.pay_item(team, index, place);
            }
        }
        if items > 1 {
            self.hit("D7 several items in one netting");
        }
        items > 0
    }

    fn pay_item(&mut self, team: usize, index: usize, place: usize) {
        let Team { lots, debts, payments, .. } = &mut self.teams[team];
        let (lot, debt) = (&mut lots[place], &mut debts[index]);
        let part = lot.left.min(debt.owed);
        lot.left -= part;
        debt.owed -= part;
        payments.push(Paid { lot: lot.id, charge: debt.charge, amount: part });
        if debt.owed > 0 {
            self.hit("D7 an item paid in part");
        }
    }

    /// D42: what comes back to a closing lot pays only items inside its validity.
    pub(crate) fn pay_inside(&mut self, team: usize, lot: u64) {
        let place = self.teams[team].lots.iter().position(|other| other.id == lot).unwrap();
        for index in 0..self.teams[team].debts.len() {
            let (lot, debt) = (&self.teams[team].lots[place], &self.teams[team].debts[index]);
            if debt.owed == 0 || lot.left == 0 {
                continue;
            }
            if lot.pays(debt.window) {
                self.hit("D42 what comes back to a closing lot pays usage of its validity");
                if self.teams[team].debts[..index].iter().any(|earlier| earlier.owed > 0) {
                    self.hit("D42 and ahead of older debt");
                }
                self.pay_item(team, index, place);
            } else {
                self.hit("D42 what comes back to a closing lot pays nothing else");
            }
        }
    }

    /// D48.
    pub(crate) fn end_transaction(&mut self, team: usize, at: i64) {
        let balance = i128::from(self.available(team, at)) - i128::from(self.owed(team));
        self.teams[team].posted = Some(at);
        self.check_sums(team);
        if self.available(team, at) > 0 && self.owed(team) > 0 {
            self.hit("D52 tokens and debt at once");
        }
        // D57: what a lot that leaves older debts has does not lift a team above what it owes.
        match (self.owed(team) > 0, self.teams[team].below_since) {
            (true, None) => {
                self.teams[team].below_since = Some(at);
                self.hit("D48 the clock starts");
            }
            (true, Some(_)) => self.hit("D48 the clock goes on"),
            (false, Some(_)) => {
                self.teams[team].below_since = None;
                self.hit("D48 the clock is cleared");
            }
            (false, None) => {}
        }
        if balance == 0 {
            self.hit("D6 zero is fine");
        }
        if balance < 0 {
            self.hit("D6 below zero");
        }
    }

    /// D52: what ever came in is left, held, used, forfeited, taken back or gone, but for what is owed.
    fn check_sums(&mut self, team: usize) {
        let Team { lots, past, charges, issued, moved_in, .. } = &self.teams[team];
        let wide = |parts: &mut dyn Iterator<Item = i64>| parts.map(i128::from).sum::<i128>();
        let left = wide(&mut lots.iter().map(|lot| lot.left));
        let held = wide(&mut lots.iter().map(|lot| self.held(team, lot.id)));
        let used = wide(&mut charges.iter().map(|charge| charge.amount));
        let gone = wide(&mut past.values().flat_map(|past| [past.forfeited, past.void, past.moved]));
        let came = i128::from(*issued) + i128::from(*moved_in);
        assert_eq!(came, left + held + used - i128::from(self.owed(team)) + gone, "the sums of a team");
        self.hit("D52 the sums of a team");
    }

    /// D40: everything that is due up to `to`, in order of time.
    pub fn advance(&mut self, team: usize, to: i64, settled: i64) {
        let posted = self.teams[team].posted.unwrap_or(i64::MIN);
        let mut instants = BTreeSet::new();
        for lot in &self.teams[team].lots {
            if !lot.closed && lot.closes <= to.min(settled) {
                instants.insert(lot.closes.max(posted));
            }
            if lot.start >= posted && lot.start <= to {
                instants.insert(lot.start);
            }
        }
        for hold in self.teams[team].holds.iter().filter(|hold| !hold.over && hold.expires <= to) {
            instants.insert(hold.expires.max(posted));
        }
        let waits =
            self.teams[team].lots.iter().filter(|lot| lot.closes <= to && lot.closes > settled).count();
        for at in instants {
            self.time_out(team, at);
            let mut closed = false;
            for place in 0..self.teams[team].lots.len() {
                let lot = &mut self.teams[team].lots[place];
                if lot.closed || lot.closes > at.min(settled).min(to) {
                    continue;
                }
                lot.closed = true;
                closed = true;
                let (id, forfeited) = (lot.id, std::mem::take(&mut lot.left));
                self.teams[team].past.entry(id).or_default().forfeited += forfeited;
                let forfeits = forfeited > 0;
                self.hit(if forfeits { "D3 the rest is forfeited" } else { "D3 an empty lot closes" });
                if at < to {
                    self.hit("D40 a step at its own instant");
                }
            }
            if closed {
                self.end_transaction(team, at);
            }
            if self.pay_debts(team, at) {
                self.hit("D42 a lot starts and pays debt");
                self.end_transaction(team, at);
            }
        }
        for _ in 0..waits {
            self.hit("D55 a close waits for settlement");
        }
    }

    pub fn instant(&mut self, teams: &[usize], now: i64) -> i64 {
        let last = teams.iter().filter_map(|team| self.teams[*team].posted).max();
        if last.is_some_and(|last| last > now) {
            self.hit("D40 the clock went back");
        }
        last.map_or(now, |last| last.max(now))
    }

    /// D41: the hold's own parts, then lots valid at the window, open or closing; the rest is owed.
    pub(crate) fn pay(&mut self, team: usize, charge: &mut Charge, hold: Option<u64>, at: i64) {
        let number = self.teams[team].charges.len();
        let mut due = charge.amount;
        if let Some(hold) = hold {
            due -= self.draw_hold(team, hold, number, due);
        }
        self.pay_rest(team, charge, due, at);
    }

    /// What neither a hold nor what came back has paid.
    pub(crate) fn pay_rest(&mut self, team: usize, charge: &mut Charge, mut due: i64, at: i64) {
        let number = self.teams[team].charges.len();
        for place in self.drawn(team) {
            let Team { lots, payments, .. } = &mut self.teams[team];
            let lot = &mut lots[place];
            let state = lot.state(at);
            let came_later = lot.start <= charge.window && charge.window < lot.valid_from;
            if due == 0 {
                break;
            }
            let valid = lot.pays(charge.window);
            if valid && (state == "open" || state == "closing") {
                let part = lot.left.min(due);
                lot.left -= part;
                due -= part;
                payments.push(Paid { lot: lot.id, charge: number, amount: part });
                if state == "closing" {
                    self.hit("D3 a closing lot pays late usage");
                }
            } else if state == "closing" {
                self.hit("D3 a closing lot pays nothing newer");
            } else if came_later {
                self.hit("D9 what came later pays no earlier window");
            } else if state == "scheduled" && valid {
                self.hit("D41 a scheduled lot pays nothing");
            }
        }
        charge.opened = due;
        if due > 0 {
            self.teams[team].debts.push(Debt { charge: number, window: charge.window, owed: due });
            self.teams[team].owed_ever += due;
        }
    }
}
