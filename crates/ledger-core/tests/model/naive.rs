//! A second ledger, written from the domain's rules alone and as simply as they can be said: debts
//! are items with a list of payments, lots are sorted anew for each payment, rating adds up all
//! earlier charges, the calendar is counted in days. It shares no code with the crate.

use std::collections::{BTreeMap, BTreeSet};

pub(crate) const SECOND: i64 = 1_000_000;
const DAY: i64 = 86_400 * SECOND;

/// Days since 1970-01-01 of a civil date (proleptic Gregorian).
fn days_of(year: i64, month: i64, day: i64) -> i64 {
    let shifted_year = if month <= 2 { year - 1 } else { year };
    let shifted_month = (month + 9) % 12;
    let day_of_year = (153 * shifted_month + 2) / 5 + day - 1;
    365 * shifted_year + shifted_year.div_euclid(4) - shifted_year.div_euclid(100)
        + shifted_year.div_euclid(400)
        + day_of_year
        - 719_468
}

/// The civil date of an instant.
pub(crate) fn date_of(at: i64) -> (i64, i64, i64) {
    let days = at.div_euclid(DAY);
    let mut year = 1970 + days / 366 - 1;
    while days_of(year + 1, 1, 1) <= days {
        year += 1;
    }
    let month = (1..=12).rev().find(|month| days_of(year, *month, 1) <= days).unwrap();
    (year, month, days - days_of(year, month, 1) + 1)
}

/// D2.
pub(crate) fn year_later(at: i64) -> i64 {
    let (year, month, day) = date_of(at);
    let day = if (month, day) == (2, 29) { 28 } else { day };
    days_of(year + 1, month, day) * DAY + at.rem_euclid(DAY)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate {
    pub(crate) micros: i64,
    pub(crate) per_units: i64,
    pub(crate) failed_is_free: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Card {
    pub(crate) kind: &'static str,
    pub(crate) from: i64,
    pub(crate) rates: BTreeMap<String, Rate>,
}

#[derive(Clone, Debug)]
pub(crate) struct Lot {
    pub(crate) id: u64,
    pub(crate) pool: &'static str,
    pub(crate) granted: i64,
    pub(crate) left: i64,
    pub(crate) forfeited: i64,
    pub(crate) bought: i64,
    pub(crate) start: i64,
    pub(crate) valid_from: i64,
    pub(crate) expiry: i64,
    pub(crate) closes: i64,
    pub(crate) closed: bool,
}

impl Lot {
    pub(crate) fn state(&self, at: i64) -> &'static str {
        match () {
            () if self.closed => "closed",
            () if at < self.start => "scheduled",
            () if at < self.expiry => "open",
            () => "closing",
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Usage {
    pub(crate) line: usize,
    pub(crate) team: Option<usize>,
    pub(crate) app: u64,
    pub(crate) client: String,
    pub(crate) meter: String,
    pub(crate) failed: bool,
    pub(crate) trial: bool,
    pub(crate) series: Vec<u8>,
    pub(crate) window: i64,
    pub(crate) received: i64,
    pub(crate) quantity: i64,
}

#[derive(Clone, Debug)]
pub(crate) struct Charge {
    /// Batch and line.
    pub(crate) name: (usize, usize),
    /// Price, by the instant it began, and month; none for usage that costs nothing by rule.
    pub(crate) key: Option<(String, i64, (i64, i64))>,
    pub(crate) why: &'static str,
    pub(crate) window: i64,
    pub(crate) quantity: i64,
    pub(crate) amount: i64,
    pub(crate) opened: i64,
    pub(crate) owed: i64,
    pub(crate) payments: Vec<(u64, i64)>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Team {
    pub(crate) kind: &'static str,
    pub(crate) lots: Vec<Lot>,
    pub(crate) charges: Vec<Charge>,
    pub(crate) below_since: Option<i64>,
    pub(crate) posted: Option<i64>,
}

/// How often each rule had a say.
pub(crate) type Hits = BTreeMap<&'static str, u64>;

#[derive(Clone, Debug)]
pub(crate) struct Ledger {
    pub(crate) window: i64,
    pub(crate) lateness: i64,
    pub(crate) pools: Vec<&'static str>,
    pub(crate) cards: Vec<Card>,
    pub(crate) teams: Vec<Team>,
    pub(crate) unattributed: BTreeSet<(usize, usize, &'static str)>,
    pub(crate) hits: Hits,
}

impl Ledger {
    pub(crate) fn hit(&mut self, rule: &'static str) {
        *self.hits.entry(rule).or_default() += 1;
    }

    fn floor(&self, at: i64) -> i64 {
        at.div_euclid(self.window) * self.window
    }

    fn ceil(&self, at: i64) -> i64 {
        self.floor(at + self.window - 1)
    }

    /// Places of the lots of a team in D4 order, of those that have something left.
    fn drawn(&mut self, team: usize) -> Vec<usize> {
        let pools = &self.pools;
        let lots = &self.teams[team].lots;
        let key = |place: &usize| {
            let lot = &lots[*place];
            let pool = pools.iter().position(|pool| *pool == lot.pool).unwrap();
            (pool, lot.expiry, lot.granted, lot.bought, lot.id)
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

    pub(crate) fn available(&self, team: usize, at: i64) -> i64 {
        self.teams[team].lots.iter().filter(|lot| lot.state(at) == "open").map(|lot| lot.left).sum()
    }

    pub(crate) fn owed(&self, team: usize) -> i64 {
        self.teams[team].charges.iter().map(|charge| charge.owed).sum()
    }

    /// D42, D7: debts oldest first, each from open lots in draw order.
    fn pay_debts(&mut self, team: usize, at: i64) -> bool {
        let mut paid = false;
        let mut items = 0;
        for index in 0..self.teams[team].charges.len() {
            if self.teams[team].charges[index].owed == 0 {
                continue;
            }
            for place in self.drawn(team) {
                let Team { lots, charges, .. } = &mut self.teams[team];
                let (lot, charge) = (&mut lots[place], &mut charges[index]);
                if lot.state(at) != "open" || charge.owed == 0 {
                    continue;
                }
                let part = lot.left.min(charge.owed);
                lot.left -= part;
                charge.owed -= part;
                charge.payments.push((lot.id, part));
                paid = true;
                items += 1;
                let outside = charge.window < lot.valid_from || charge.window >= lot.expiry;
                let partial = charge.owed > 0;
                if outside {
                    self.hit("D41 netting outside the validity");
                }
                if partial {
                    self.hit("D7 an item paid in part");
                }
            }
        }
        if items > 1 {
            self.hit("D7 several items in one netting");
        }
        paid
    }

    /// D48.
    fn end_transaction(&mut self, team: usize, at: i64) {
        let balance = i128::from(self.available(team, at)) - i128::from(self.owed(team));
        self.teams[team].posted = Some(at);
        match (balance < 0, self.teams[team].below_since) {
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

    /// D40: everything that is due up to `to`, in order of time.
    pub(crate) fn advance(&mut self, team: usize, to: i64, settled: i64) {
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
        let waits =
            self.teams[team].lots.iter().filter(|lot| lot.closes <= to && lot.closes > settled).count();
        for at in instants {
            let mut closed = false;
            for place in 0..self.teams[team].lots.len() {
                let lot = &mut self.teams[team].lots[place];
                if lot.closed || lot.closes > at.min(settled).min(to) {
                    continue;
                }
                lot.closed = true;
                closed = true;
                lot.forfeited = lot.left;
                lot.left = 0;
                let forfeits = lot.forfeited > 0;
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

    pub(crate) fn instant(&mut self, teams: &[usize], now: i64) -> i64 {
        let last = teams.iter().filter_map(|team| self.teams[*team].posted).max();
        if last.is_some_and(|last| last > now) {
            self.hit("D40 the clock went back");
        }
        last.map_or(now, |last| last.max(now))
    }

    /// D1, D2. `original` is the instant of a purchase that is set up (D61).
    pub(crate) fn purchase(
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
    pub(crate) fn grant(
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

    fn new_lot(&self, id: u64, pool: &'static str, granted: i64, times: (i64, i64, i64, i64)) -> Lot {
        let (bought, start, valid_from, expiry) = times;
        let closes = expiry + self.lateness;
        Lot {
            id,
            pool,
            granted,
            left: granted,
            forfeited: 0,
            bought,
            start,
            valid_from,
            expiry,
            closes,
            closed: false,
        }
    }

    fn add(&mut self, team: usize, lot: Lot, at: i64, settled: i64, set_up: bool) {
        self.advance(team, at, settled);
        let owed = self.owed(team);
        if set_up {
            self.hit("D61 a lot is set up");
        }
        self.teams[team].lots.push(lot);
        if self.pay_debts(team, at) {
            let left = self.owed(team);
            self.hit(if left == 0 { "D7 a new lot pays all debt" } else { "D7 a new lot pays a part" });
            assert!(left < owed);
        }
        self.end_transaction(team, at);
        self.advance(team, at, settled);
    }

    /// The rate in force at a window, and when it began to be what it is (D12, D47).
    fn rate(&mut self, kind: &str, meter: &str, window: i64) -> Option<(Rate, i64)> {
        let in_order = |card: &&Card| card.kind == kind && card.from <= window;
        let mut versions: Vec<Card> = self.cards.iter().filter(in_order).cloned().collect();
        versions.sort_by_key(|card| card.from);
        let newest = versions.pop()?;
        let rate = *newest.rates.get(meter)?;
        let mut began = newest.from;
        while let Some(earlier) = versions.pop() {
            if earlier.rates.get(meter) != Some(&rate) {
                self.hit("D47 a changed price begins anew");
                break;
            }
            self.hit("D47 an unchanged price goes on");
            began = earlier.from;
        }
        Some((rate, began))
    }

    /// D14: what the usage costs on top of everything used under the same key before.
    fn price(
        &mut self,
        team: usize,
        key: &(String, i64, (i64, i64)),
        rate: Rate,
        quantity: i64,
    ) -> Option<i64> {
        let same = self.teams[team].charges.iter().filter(|charge| charge.key.as_ref() == Some(key));
        let before: i128 = same.clone().map(|charge| i128::from(charge.quantity)).sum();
        let cost: i128 = same.map(|charge| i128::from(charge.amount)).sum();
        let after = before + i128::from(quantity);
        let total = after * i128::from(rate.micros) / i128::from(rate.per_units);
        if before > 0 {
            self.hit("D14 a state goes on");
        }
        if after * i128::from(rate.micros) % i128::from(rate.per_units) != 0 {
            self.hit("D13 a rational with a rest");
        }
        let used: i128 = self.teams[team].charges.iter().map(|charge| i128::from(charge.amount)).sum();
        let amount = total - cost;
        let fits = |value: i128| value <= i128::from(i64::MAX);
        (fits(after) && fits(total) && fits(used + amount)).then(|| amount.try_into().unwrap())
    }

    /// Posts a batch for the teams that were loaded.
    pub(crate) fn post(&mut self, batch: usize, usage: &[Usage], teams: &[usize], now: i64, settled: i64) {
        let at = self.instant(teams, now);
        for team in teams {
            self.advance(*team, at, settled);
            let mut mine: Vec<Usage> = Vec::new();
            for item in usage.iter().filter(|item| item.team == Some(*team)) {
                if item.received - (item.window + self.window) > self.lateness {
                    self.hit("D9 later than the limit");
                    self.unattributed.insert((batch, item.line, "late"));
                } else {
                    mine.push(item.clone());
                }
            }
            mine.sort_by_key(|item| {
                let series = (item.failed, item.series.clone());
                (
                    item.window,
                    item.app,
                    item.meter.clone(),
                    item.client.clone(),
                    series,
                    item.received,
                    item.line,
                )
            });
            let any = mine
                .iter()
                .map(|item| self.post_one(*team, batch, item, at))
                .filter(|posted| *posted)
                .count();
            if any > 0 {
                self.end_transaction(*team, at);
            }
        }
        for item in usage.iter().filter(|item| item.team.is_none()) {
            self.hit("D25 nobody's usage");
            self.unattributed.insert((batch, item.line, "no_team"));
        }
    }

    fn post_one(&mut self, team: usize, batch: usize, item: &Usage, at: i64) -> bool {
        let rate = self.rate(self.teams[team].kind, &item.meter, item.window);
        let mut charge = Charge {
            name: (batch, item.line),
            key: None,
            why: "priced",
            window: item.window,
            quantity: item.quantity,
            amount: 0,
            opened: 0,
            owed: 0,
            payments: Vec::new(),
        };
        match rate {
            _ if item.trial => {
                self.hit("D20 free in the trial");
                charge.why = "trial";
            }
            None => {
                self.hit("D12 no price in force");
                charge.why = "unpriced";
            }
            Some((rate, _)) if item.failed && rate.failed_is_free => {
                self.hit("D18 a failed job is free");
                charge.why = "failed";
            }
            Some((rate, began)) => {
                let (year, month, _) = date_of(item.window);
                let key = (item.meter.clone(), began, (year, month));
                let Some(amount) = self.price(team, &key, rate, item.quantity) else {
                    self.hit("D53 what does not fit");
                    self.unattributed.insert((batch, item.line, "overflow"));
                    return false;
                };
                charge.key = Some(key);
                charge.amount = amount;
            }
        }
        self.pay(team, &mut charge, at);
        self.teams[team].charges.push(charge);
        self.pay_debts(team, at);
        true
    }

    /// D41: lots valid at the window, open or closing; the rest is owed.
    fn pay(&mut self, team: usize, charge: &mut Charge, at: i64) {
        let mut due = charge.amount;
        for place in self.drawn(team) {
            let lot = &mut self.teams[team].lots[place];
            let valid = lot.valid_from <= charge.window && charge.window < lot.expiry;
            let state = lot.state(at);
            let came_later = lot.start <= charge.window && charge.window < lot.valid_from;
            if due == 0 {
                break;
            }
            if valid && (state == "open" || state == "closing") {
                let part = lot.left.min(due);
                lot.left -= part;
                due -= part;
                charge.payments.push((lot.id, part));
                if state == "closing" {
                    self.hit("D3 a closing lot pays late usage");
                }
            } else if state == "closing" {
                self.hit("D3 a closing lot pays nothing newer");
            } else if came_later {
                self.hit("D9 a grant made later");
            } else if state == "scheduled" && valid {
                self.hit("D41 a scheduled lot pays nothing");
            }
        }
        charge.opened = due;
        charge.owed = due;
    }
}
