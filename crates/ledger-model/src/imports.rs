//! Moving here from another platform (D61, D4, D7, D48).

use super::{Charge, Debt, Ledger, Team};

/// What is left of a lot of another platform.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// Its number.
    pub id: u64,
    /// The name of its pool.
    pub pool: &'static str,
    /// Its size when it was made.
    pub size: i64,
    /// What is left of it.
    pub left: i64,
    /// When it was bought or granted.
    pub bought: i64,
    /// First instant.
    pub start: i64,
    /// First instant after its life.
    pub expiry: i64,
}

/// The charges that stand for usage from before an import have this name.
pub const PRIOR: (usize, usize) = (usize::MAX, 0);

impl Ledger {
    /// Usage of the window of an instant, or of a later one, was charged to the team: the past is as it is (D61).
    #[must_use]
    pub fn is_settled(&self, team: usize, from: i64) -> bool {
        let usage = self.teams[team].charges.iter().filter(|charge| charge.name != PRIOR);
        usage.map(|charge| charge.window).any(|window| window >= self.floor(from))
    }

    /// Lots as far as they are left, then debts by instant and amount; `since` is when the team fell below zero.
    pub fn import(
        &mut self,
        team: usize,
        lots: &[Arrival],
        debts: &[(i64, i64)],
        since: Option<i64>,
        now: i64,
        settled: i64,
    ) -> bool {
        let before = self.teams.clone();
        let at = self.instant(&[team], now);
        let bad_lot = |lot: &Arrival| {
            let (start, expiry) = (self.floor(lot.start), self.ceil(lot.expiry));
            let sizes = lot.left <= 0 || lot.left > lot.size || lot.size > 1_000_000_000_000_000;
            sizes || expiry <= start || lot.bought > at
        };
        let bad_debt = |(used, owed): &(i64, i64)| *owed <= 0 || *used > at;
        let sorted = debts.windows(2).all(|pair| pair[0].0 <= pair[1].0);
        let late = since.is_some_and(|since| since > at);
        let nothing = lots.is_empty() && debts.is_empty();
        if nothing || lots.iter().any(bad_lot) || debts.iter().any(bad_debt) || !sorted || late {
            self.hit("D61 an import is refused");
            return false;
        }
        self.advance(team, at, settled);
        for arrival in lots {
            let start = self.floor(arrival.start);
            let valid_from = start.max(self.floor(arrival.bought));
            let times = (arrival.bought, start, valid_from, self.ceil(arrival.expiry));
            let mut lot = self.new_lot(arrival.id, arrival.pool, arrival.left, times);
            lot.size = arrival.size;
            self.hit(match lot.state(at) {
                "scheduled" => "D61 a lot arrives before its start",
                "open" => "D61 a lot arrives",
                _ => "D61 a lot arrives after its expiry",
            });
            let Team { lots, past, issued, .. } = &mut self.teams[team];
            past.entry(lot.id).or_default().received += lot.left;
            *issued += lot.left;
            lots.push(lot);
        }
        for (used, owed) in debts {
            let window = self.floor(*used);
            let Team { charges, debts, .. } = &mut self.teams[team];
            debts.push(Debt { charge: charges.len(), window, owed: *owed });
            charges.push(Charge {
                name: PRIOR,
                app: None,
                meter: String::new(),
                key: None,
                why: "prior",
                window,
                quantity: 0,
                values: Default::default(),
                amount: *owed,
                opened: *owed,
                corrects: None,
            });
            self.hit("D61 a debt arrives");
        }
        if self.pay_debts(team, at) && !debts.is_empty() {
            self.hit("D61 a debt that arrives is paid at once");
        }
        let clock = self.teams[team].below_since;
        self.end_transaction(team, at);
        let below = self.teams[team].below_since.is_some();
        if let (None, true, Some(since), false) = (clock, below, since, debts.is_empty()) {
            self.teams[team].below_since = Some(since);
            self.hit("D61 the clock began before");
        }
        self.advance(team, at, settled);
        if since.is_some() && self.teams[team].below_since.is_none() {
            self.hit("D61 an import is refused");
            self.teams = before;
            return false;
        }
        true
    }
}
