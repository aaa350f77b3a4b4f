//! Usage that is taken back, and charged again (D11, D43).

use super::{
    Adds, Charge, Ledger, Paid, Team, Usage,
    rating::{Stands, quantities},
};

/// What came back: lots and how much, in the order in which it had been paid.
type Back = Vec<(u64, i64)>;

impl Ledger {
    /// What stands of the quantity of a charge; nothing of one that is a correction itself.
    #[must_use]
    pub fn standing(&self, team: usize, charge: usize) -> i64 {
        let charges = &self.teams[team].charges;
        let taken = charges.iter().filter(|other| other.corrects == Some(charge));
        let taken: i64 = taken.map(|other| other.quantity).sum();
        if charges[charge].corrects.is_some() { 0 } else { charges[charge].quantity + taken }
    }

    /// Takes `quantity` of a charge back and charges `again` instead; `name` is that of the two new charges.
    #[expect(clippy::too_many_arguments, reason = "the rule has as many")]
    pub fn correct(
        &mut self,
        team: usize,
        charge: usize,
        quantity: i64,
        again: Option<&Usage>,
        name: usize,
        now: i64,
        settled: i64,
    ) -> bool {
        let before = self.teams.clone();
        let payer = again.and_then(|again| again.team);
        let mut teams = self.homes(team);
        teams.extend(payer.into_iter().chain([team]));
        let at = self.instant(&teams, now);
        let standing = self.standing(team, charge);
        if self.adds(&self.teams[team].charges[charge].meter) != Adds::Up && quantity < standing {
            self.hit("D43 largest and distinct values are taken back whole or not at all");
            return false;
        }
        if quantity <= 0 || quantity > standing {
            self.hit("D43 a correction is refused");
            return false;
        }
        self.hit(if quantity < standing { "D43 a part of a line" } else { "D43 a whole line" });
        self.advance(team, at, settled);
        let mut back = self.reverse(team, charge, quantity, name);
        let fits = payer != Some(team) || self.charge_again(team, name, again, &mut back, at);
        let gone = self.settle_back(team, back, at);
        self.end_transaction(team, at);
        let fits = fits && self.hand_over(team, (payer, again, name), &gone, at, settled);
        if !fits {
            self.hit("D43 a correction is refused");
            self.teams = before;
        }
        fits
    }

    /// Teams where lots live that left a team.
    fn homes(&self, team: usize) -> Vec<usize> {
        let left = |lot: &u64| self.teams[team].past.contains_key(lot);
        let others = (0..self.teams.len()).filter(|other| *other != team);
        others.filter(|other| self.teams[*other].lots.iter().any(|lot| left(&lot.id))).collect()
    }

    /// price(before) − price(after).
    fn shrunk(&mut self, team: usize, charge: usize, quantity: i64) -> i64 {
        let Team { charges, kind, .. } = &self.teams[team];
        let line = charges[charge].clone();
        let Some(key) = &line.key else { return 0 };
        let rate = self.rate_of(kind, &key.meter, key.began).clone();
        let adds = self.adds(&key.meter);
        let before = self.stands(team, key);
        let mut after = before.clone();
        match adds {
            Adds::Up => after.push(Stands { quantity: -quantity, ..Stands::of(&line) }),
            Adds::Largest(_) | Adds::Distinct(_) => {
                let whole = Stands::of(&line);
                let place = after.iter().position(|other| *other == whole).unwrap();
                after.remove(place);
            }
        }
        let (before, after) = (quantities(adds, &before), quantities(adds, &after));
        let shape = match () {
            () if rate.cost(&before) == rate.cost(&after) => "D43 nothing is refunded",
            () if matches!(adds, Adds::Largest(_)) => "D43 a largest value is taken back",
            () if matches!(adds, Adds::Distinct(_)) => "D43 distinct values are taken back",
            () if rate.unit.is_some() => "D43 charged units are taken back",
            () if !rate.tiers.is_empty() => "D43 usage of tiers is taken back",
            () if rate.free > 0 => "D43 usage above a quota is taken back",
            () => "D43 usage at a flat price is taken back",
        };
        self.hit(shape);
        (rate.cost(&before) - rate.cost(&after)).try_into().unwrap()
    }

    /// The key's state shrinks; the refund comes off the line, then off the latest lines of the key.
    fn reverse(&mut self, team: usize, charge: usize, quantity: i64, name: usize) -> Back {
        let Team { charges, .. } = &self.teams[team];
        let line = charges[charge].clone();
        let same: Vec<usize> = (0..charges.len())
            .filter(|other| line.key.is_some() && charges[*other].key == line.key)
            .collect();
        let mut left: i64 = self.shrunk(team, charge, quantity);
        let refund = left;
        let (mut back, mut cancelled) = (Back::new(), 0);
        let mut hits = Vec::new();
        for number in std::iter::once(charge).chain(same.into_iter().rev().filter(|other| *other != charge)) {
            if left > 0 && number != charge {
                hits.push("D43 a refund reaches the latest lines");
            }
            let Team { debts, payments, .. } = &mut self.teams[team];
            for debt in debts.iter_mut().rev().filter(|debt| debt.charge == number) {
                let part = debt.owed.min(left);
                debt.owed -= part;
                left -= part;
                cancelled += part;
                if part > 0 {
                    hits.push("D43 what is owed is taken first");
                }
            }
            for paid in payments.iter_mut().rev().filter(|paid| paid.charge == number) {
                let part = paid.amount.min(left);
                paid.amount -= part;
                left -= part;
                if part > 0 {
                    hits.push("D43 a payment goes back");
                    let known = back.iter().position(|(lot, _)| *lot == paid.lot);
                    let before = known.map_or(0, |place| back.remove(place).1);
                    back.insert(0, (paid.lot, before + part));
                }
            }
        }
        assert_eq!(left, 0, "a key's lines cost what its state costs");
        self.teams[team].charges.push(Charge {
            name: (name, 0),
            quantity: -quantity,
            amount: -refund,
            opened: -cancelled,
            corrects: Some(charge),
            ..line
        });
        hits.push("D11 a correction is an entry that points at another");
        hits.into_iter().for_each(|rule| self.hit(rule));
        back
    }

    /// What came back pays first, through the same lots.
    fn charge_again(
        &mut self,
        team: usize,
        name: usize,
        again: Option<&Usage>,
        back: &mut Back,
        at: i64,
    ) -> bool {
        let Some(item) = again else { return true };
        let Some(mut charge) = self.rated(team, name, item, item.window) else { return false };
        charge.name = (name, 1);
        let number = self.teams[team].charges.len();
        let mut due = charge.amount;
        for (lot, rest) in back.iter_mut() {
            let part = due.min(*rest);
            due -= part;
            *rest -= part;
            if part > 0 {
                self.teams[team].payments.push(Paid { lot: *lot, charge: number, amount: part });
                let known = self.teams[team].lots.iter().find(|other| other.id == *lot);
                let state = known.map_or("moved", |lot| lot.state(at));
                self.hit(match state {
                    "moved" => "D43 charged again through a lot that moved",
                    "closed" => "D43 charged again through a closed lot",
                    _ => "D43 charged again through what came back",
                });
            }
        }
        self.pay_rest(team, &mut charge, due, at);
        self.teams[team].charges.push(charge);
        true
    }

    /// What came back and is left goes to its lots; gives what belongs to lots that live elsewhere.
    fn settle_back(&mut self, team: usize, back: Back, at: i64) -> Back {
        let (mut gone, mut here) = (Back::new(), Vec::new());
        for (id, rest) in back.into_iter().filter(|(_, rest)| *rest > 0) {
            let Team { lots, past, .. } = &mut self.teams[team];
            let past = past.get_mut(&id).unwrap();
            let Some(lot) = lots.iter_mut().find(|lot| lot.id == id) else {
                past.moved += rest;
                gone.push((id, rest));
                continue;
            };
            if lot.closed {
                past.forfeited += rest;
                self.hit("D43 what goes back to a closed lot expires");
            } else {
                lot.left += rest;
                here.push(id);
            }
        }
        for place in self.drawn(team) {
            let lot = &self.teams[team].lots[place];
            if lot.state(at) == "closing" && here.contains(&lot.id) {
                self.pay_inside(team, lot.id);
            }
        }
        self.pay_debts(team, at);
        gone
    }

    /// What belongs to lots that live elsewhere arrives there; another team may be the one that pays again.
    fn hand_over(
        &mut self,
        own: usize,
        (payer, again, name): (Option<usize>, Option<&Usage>, usize),
        gone: &Back,
        at: i64,
        settled: i64,
    ) -> bool {
        for team in (0..self.teams.len()).filter(|team| *team != own) {
            let lives = |id: u64| self.teams[team].lots.iter().any(|lot| lot.id == id);
            let mut back: Back = gone.iter().copied().filter(|(id, _)| lives(*id)).collect();
            if back.is_empty() && payer != Some(team) {
                continue;
            }
            self.advance(team, at, settled);
            for (id, rest) in &back {
                let Team { past, moved_in, .. } = &mut self.teams[team];
                past.entry(*id).or_default().received += rest;
                *moved_in += rest;
                self.hit("D43 what goes back follows a lot that moved");
            }
            if payer == Some(team) {
                self.hit("D43 charged again to another team");
                if !self.charge_again(team, name, again, &mut back, at) {
                    return false;
                }
            }
            self.settle_back(team, back, at);
            self.end_transaction(team, at);
        }
        true
    }
}
