//! Holds (D45).

use super::{Hold, Ledger, Paid, Team};

impl Ledger {
    pub(crate) fn hold(&self, team: usize, id: u64) -> &Hold {
        self.teams[team].holds.iter().find(|hold| hold.id == id).unwrap()
    }

    fn open(&self, team: usize, id: u64, at: i64) -> Option<usize> {
        let mine = |hold: &Hold| hold.id == id && !hold.over && at < hold.expires;
        self.teams[team].holds.iter().position(mine)
    }

    /// The hold is open and for this app.
    pub(crate) fn is_own(&self, team: usize, id: u64, app: u64, at: i64) -> bool {
        let place = self.open(team, id, at);
        place.is_some_and(|place| self.teams[team].holds[place].app.is_none_or(|only| only == app))
    }

    /// What a hold of `window` could take now.
    fn holdable(&self, team: usize, window: i64, at: i64) -> i64 {
        let lots = self.teams[team].lots.iter().filter(|lot| lot.state(at) == "open" && lot.pays(window));
        lots.map(|lot| lot.left).sum()
    }

    fn take(&mut self, team: usize, place: usize, amount: i64, at: i64) {
        let mut due = amount;
        let window = self.teams[team].holds[place].window;
        for index in self.drawn(team) {
            let Team { lots, holds, .. } = &mut self.teams[team];
            let lot = &mut lots[index];
            if due > 0 && lot.state(at) == "open" && lot.pays(window) {
                let part = lot.left.min(due);
                lot.left -= part;
                due -= part;
                holds[place].parts.push((lot.id, part));
            }
        }
        assert_eq!(due, 0, "it was there");
        if self.teams[team].holds[place].parts.len() > 1 {
            self.hit("D45 a hold of several parts");
        }
    }

    /// All or nothing, unless less will do.
    #[expect(clippy::too_many_arguments, reason = "the rule has as many")]
    pub fn reserve(
        &mut self,
        team: usize,
        id: u64,
        app: Option<u64>,
        amount: i64,
        least: Option<i64>,
        expires: i64,
        now: i64,
        settled: i64,
    ) -> bool {
        let before = self.teams.clone();
        let at = self.instant(&[team], now);
        self.advance(team, at, settled);
        let window = self.floor(at);
        let there = self.holdable(team, window, at);
        let wanted = least.unwrap_or(amount);
        let bad = wanted <= 0 || wanted > amount || expires <= at || expires > at + self.lateness;
        if bad || there < wanted {
            self.hit(if bad { "D45 a hold that can not be" } else { "D45 too little for a hold" });
            self.teams = before;
            return false;
        }
        self.hit(if there < amount { "D45 a hold takes less" } else { "D45 a hold" });
        let hold = Hold { id, app, window, made: at, expires, parts: Vec::new(), over: false };
        self.teams[team].holds.push(hold);
        let place = self.teams[team].holds.len() - 1;
        self.take(team, place, amount.min(there), at);
        self.end_transaction(team, at);
        true
    }

    /// A heartbeat, with or without more tokens.
    pub fn extend(&mut self, team: usize, id: u64, expires: i64, more: i64, now: i64, settled: i64) -> bool {
        let before = self.teams.clone();
        let at = self.instant(&[team], now);
        self.advance(team, at, settled);
        let place = self.open(team, id, at);
        let fits = place.is_some_and(|place| {
            let hold = &self.teams[team].holds[place];
            let in_time = expires > at && expires >= hold.expires && expires <= hold.made + self.lateness;
            in_time && more >= 0 && (more == 0 || self.holdable(team, hold.window, at) >= more)
        });
        let Some(place) = place.filter(|_| fits) else {
            self.hit("D45 an extension is refused");
            self.teams = before;
            return false;
        };
        self.hit(if more > 0 { "D45 an extension with more" } else { "D45 a heartbeat" });
        self.take(team, place, more, at);
        self.teams[team].holds[place].expires = expires;
        self.end_transaction(team, at);
        true
    }

    /// Its owner lets go of it.
    pub fn release(&mut self, team: usize, id: u64, now: i64, settled: i64) -> bool {
        let before = self.teams.clone();
        let at = self.instant(&[team], now);
        self.advance(team, at, settled);
        if !self.end_hold(team, id, at) {
            self.hit("D45 a release of what is over");
            self.teams = before;
            return false;
        }
        self.hit("D45 a release");
        self.end_transaction(team, at);
        true
    }

    /// What is left goes back and pays debts.
    pub(crate) fn end_hold(&mut self, team: usize, id: u64, at: i64) -> bool {
        let Some(place) = self.open(team, id, at) else { return false };
        self.give_back(team, place, at);
        true
    }

    fn give_back(&mut self, team: usize, place: usize, at: i64) {
        let Team { lots, holds, .. } = &mut self.teams[team];
        let hold = &mut holds[place];
        hold.over = true;
        let mut got = Vec::new();
        for (id, part) in &mut hold.parts {
            if *part > 0 {
                let lot = lots.iter_mut().find(|lot| lot.id == *id).unwrap();
                lot.left += std::mem::take(part);
                got.push(*id);
            }
        }
        let closing = |id: &u64| lots.iter().any(|lot| lot.id == *id && lot.state(at) == "closing");
        let rises = !got.is_empty();
        let closing: Vec<u64> = got.into_iter().filter(closing).collect();
        for index in self.drawn(team) {
            let id = self.teams[team].lots[index].id;
            if closing.contains(&id) {
                self.pay_inside(team, id);
            }
        }
        // D42: whenever available rises.
        if rises {
            self.pay_debts(team, at);
        }
    }

    /// D40: time-outs come before closes.
    pub(crate) fn time_out(&mut self, team: usize, at: i64) {
        let mut over: Vec<(u64, usize)> = Vec::new();
        for (place, hold) in self.teams[team].holds.iter().enumerate() {
            if !hold.over && hold.expires <= at {
                over.push((hold.id, place));
            }
        }
        over.sort_unstable();
        for (_, place) in &over {
            self.hit("D45 a time-out");
            self.give_back(team, *place, at);
        }
        if !over.is_empty() {
            self.end_transaction(team, at);
        }
    }

    /// Usage draws its own hold first; gives what the hold paid.
    pub(crate) fn draw_hold(&mut self, team: usize, id: u64, charge: usize, due: i64) -> i64 {
        let Team { holds, payments, .. } = &mut self.teams[team];
        let hold = holds.iter_mut().find(|hold| hold.id == id).unwrap();
        let mut paid = 0;
        for (lot, part) in &mut hold.parts {
            let amount = (*part).min(due - paid);
            if amount > 0 {
                *part -= amount;
                paid += amount;
                payments.push(Paid { lot: *lot, charge, amount });
            }
        }
        if paid > 0 {
            self.hit("D45 usage draws its hold");
        }
        if paid < due {
            self.hit("D45 an overrun is ordinary usage");
        }
        paid
    }

    /// What holds have set aside of a lot.
    pub fn held(&self, team: usize, lot: u64) -> i64 {
        let parts = self.teams[team].holds.iter().flat_map(|hold| &hold.parts);
        parts.filter(|(id, _)| *id == lot).map(|(_, part)| part).sum()
    }
}
