//! Lots: bought, granted, drawn in order, closed (D1 to D5, D61).

use super::{Ledger, Lot, Team, date_of, year_later};

impl Ledger {
    /// Places of the lots of a team in D4 order, of those that have something left.
    pub(crate) fn drawn(&mut self, team: usize) -> Vec<usize> {
        let pools = &self.pools;
        let lots = &self.teams[team].lots;
        let key = |place: &usize| {
            let lot = &lots[*place];
            let pool = pools.iter().position(|pool| *pool == lot.pool).unwrap();
            (pool, lot.expiry, lot.size, lot.bought, lot.id)
        };
        let mut places: Vec<usize> = (0..lots.len()).filter(|place| lots[*place].left > 0).collect();
        places.sort_by_key(key);
        let mut decided = Vec::new();
        for pair in places.windows(2) {
            let (a, b) = (key(&pair[0]), key(&pair[1]));
            decided.push(match () {
                () if a.0 != b.0 => "D4 by pool",
                () if a.1 != b.1 => "D4 by expiry",
                () if a.2 != b.2 => "D4 by original size",
                () if a.3 != b.3 => "D4 by purchase time",
                () => "D4 by lot id",
            });
        }
        decided.into_iter().for_each(|rule| self.hit(rule));
        places
    }

    /// D1, D2. `original` is the instant of a purchase that is set up (D61).
    pub fn purchase(
        &mut self,
        team: usize,
        id: u64,
        tokens: i64,
        original: Option<i64>,
        now: i64,
        settled: i64,
    ) -> bool {
        let at = self.instant(&[team], now);
        let bought = original.unwrap_or(at);
        if !(100..=1_000_000_000).contains(&tokens) || bought > at {
            self.hit("D1 a purchase is refused");
            return false;
        }
        let (_, month, day) = date_of(bought);
        self.hit(if (month, day) == (2, 29) { "D2 from 29 February" } else { "D2 one year" });
        let start = self.floor(bought);
        let expiry = self.ceil(year_later(bought));
        let lot = self.new_lot(id, "flex", tokens * 1_000_000, (bought, start, start, expiry));
        self.add(team, lot, at, settled, original.is_some());
        true
    }

    /// D5.
    #[expect(clippy::too_many_arguments, reason = "the rule has as many")]
    pub fn grant(
        &mut self,
        team: usize,
        id: u64,
        pool: &'static str,
        amount: i64,
        start: Option<i64>,
        expiry: i64,
        set_up: bool,
        now: i64,
        settled: i64,
    ) -> bool {
        let at = self.instant(&[team], now);
        let wish = start.unwrap_or(at);
        let (start, expiry) = (self.floor(wish), self.ceil(expiry));
        let bad = amount <= 0 || amount > 1_000_000_000_000_000 || pool == "flex" || expiry <= start;
        if bad || (!set_up && expiry <= at) {
            self.hit("D5 a grant is refused");
            return false;
        }
        let (bought, valid_from) =
            if set_up { (wish.min(at), start) } else { (at, start.max(self.floor(at))) };
        if start > at {
            self.hit("D5 a scheduled grant");
        }
        let lot = self.new_lot(id, pool, amount, (bought, start, valid_from, expiry));
        self.add(team, lot, at, settled, set_up);
        true
    }

    pub(crate) fn new_lot(
        &self,
        id: u64,
        pool: &'static str,
        granted: i64,
        times: (i64, i64, i64, i64),
    ) -> Lot {
        let (bought, start, valid_from, expiry) = times;
        Lot {
            id,
            pool,
            size: granted,
            left: granted,
            bought,
            start,
            valid_from,
            expiry,
            closes: expiry + self.lateness,
            closed: false,
            leaves_older: self.leaving_older.contains(&id),
        }
    }

    pub(crate) fn add(&mut self, team: usize, lot: Lot, at: i64, settled: i64, set_up: bool) {
        self.advance(team, at, settled);
        let owed = self.owed(team);
        if set_up {
            self.hit("D61 a lot is set up");
        }
        let Team { lots, past, issued, .. } = &mut self.teams[team];
        past.entry(lot.id).or_default().received += lot.left;
        *issued += lot.left;
        lots.push(lot);
        if self.pay_debts(team, at) {
            let left = self.owed(team);
            self.hit(if left == 0 { "D7 a new lot pays all debt" } else { "D7 a new lot pays a part" });
            assert!(left < owed);
        }
        self.end_transaction(team, at);
        self.advance(team, at, settled);
    }
}
