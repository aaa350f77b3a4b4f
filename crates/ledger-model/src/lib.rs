//! A second ledger, written from the domain's rules alone and as simply as they can be said: debts
//! are items with a list of payments, lots are sorted anew for each payment, rating adds up all
//! earlier charges, the calendar is counted in days. It shares no code with the real one.
#![expect(clippy::unwrap_used, reason = "a model fails by panicking: it is only ever used in tests")]

mod calendar;
mod cards;
mod corrections;
mod debts;
pub mod history;
mod holds;
mod imports;
mod lots;
mod moves;
mod posting;
pub mod prices;
mod rating;
pub mod rules;

use std::collections::{BTreeMap, BTreeSet};

pub use imports::{Arrival, PRIOR};

pub use calendar::{date_of, month_of, year_later};

/// Microseconds of a second.
pub const SECOND: i64 = 1_000_000;

/// What a meter costs (D13, D15 to D18).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rate {
    /// Micro-tokens for `per_units` base units; of the first tier, where there are more.
    pub micros: i64,
    /// Base units.
    pub per_units: i64,
    /// Above so many units of a month each costs so much.
    pub tiers: Vec<(i64, i64)>,
    /// Only whole units of so many base units are charged.
    pub unit: Option<i64>,
    /// So many base units of each month are free.
    pub free: i64,
    /// Nothing is charged above them either.
    pub free_only: bool,
    /// A failed job costs nothing.
    pub failed_is_free: bool,
}

impl Rate {
    /// It counts by the month, so it can only change where one begins (D47).
    #[must_use]
    pub fn is_monthly(&self) -> bool {
        self.free > 0 || self.unit.is_some() || !self.tiers.is_empty()
    }
}

/// What has a value of its own, of a meter whose usage does not simply add up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// A day.
    Day,
    /// A month.
    Month,
}

/// How usage becomes a quantity (D19).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adds {
    /// By adding up.
    Up,
    /// The largest value of each day or month.
    Largest(Span),
    /// The number of distinct values of each day or month.
    Distinct(Span),
}

#[derive(Clone, Debug)]
pub struct Card {
    pub kind: &'static str,
    pub from: i64,
    pub rates: BTreeMap<String, Rate>,
}

/// A lot, in the team where it lives.
#[derive(Clone, Debug)]
pub struct Lot {
    /// Its number.
    pub id: u64,
    /// The name of its pool.
    pub pool: &'static str,
    /// Its size when it was made.
    pub size: i64,
    /// What is left.
    pub left: i64,
    /// When it was bought or granted.
    pub bought: i64,
    /// First instant.
    pub start: i64,
    /// First window it pays other than as debt.
    pub valid_from: i64,
    /// First instant after its life.
    pub expiry: i64,
    /// When it may close.
    pub closes: i64,
    /// It is closed.
    pub closed: bool,
    /// It pays nothing older than itself.
    pub leaves_older: bool,
}

impl Lot {
    /// What it is at an instant.
    #[must_use]
    pub fn state(&self, at: i64) -> &'static str {
        match () {
            () if self.closed => "closed",
            () if at < self.start => "scheduled",
            () if at < self.expiry => "open",
            () => "closing",
        }
    }

    /// It pays usage of a window other than as debt.
    #[must_use]
    pub fn pays(&self, window: i64) -> bool {
        self.valid_from <= window && window < self.expiry
    }
}

/// What ever happened to a lot in one team.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Past {
    /// Everything that came in.
    pub received: i64,
    /// What left for other teams.
    pub moved: i64,
    /// What was taken back.
    pub void: i64,
    /// What it forfeited.
    pub forfeited: i64,
}

/// Tokens set aside.
#[derive(Clone, Debug)]
pub struct Hold {
    /// Its number.
    pub id: u64,
    /// The app it is for, if for one.
    pub app: Option<u64>,
    /// The window in which it was made.
    pub window: i64,
    /// When it was made.
    pub made: i64,
    /// When it is over by itself.
    pub expires: i64,
    /// Lots and what is left of what was taken from each.
    pub parts: Vec<(u64, i64)>,
    /// It has ended.
    pub over: bool,
}

/// An item of a team's debt.
#[derive(Clone, Debug)]
pub struct Debt {
    /// The charge, as an index into those of the team.
    pub charge: usize,
    /// The window of the usage.
    pub window: i64,
    /// What is still owed of it.
    pub owed: i64,
}

/// A payment: who paid how much of what.
#[derive(Clone, Copy, Debug)]
pub struct Paid {
    /// The lot.
    pub lot: u64,
    /// The charge, as an index into those of the team.
    pub charge: usize,
    /// How much.
    pub amount: i64,
}

#[derive(Clone, Debug)]
pub struct Usage {
    pub line: usize,
    pub team: Option<usize>,
    pub app: u64,
    pub client: String,
    pub meter: String,
    pub failed: bool,
    pub trial: bool,
    pub series: Vec<u8>,
    pub window: i64,
    pub received: i64,
    /// What is added up; the value; or how many distinct values there are.
    pub quantity: i64,
    /// The distinct values.
    pub values: BTreeSet<u8>,
    pub hold: Option<u64>,
}

/// What lines are priced together by (D14, D15, D47).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    pub meter: String,
    /// When the price began to be what it is.
    pub began: i64,
    /// The month; none where units are charged.
    pub month: Option<(i64, i64)>,
}

#[derive(Clone, Debug)]
pub struct Charge {
    /// Batch and line.
    pub name: (usize, usize),
    /// The app that used it, if one did.
    pub app: Option<u64>,
    pub meter: String,
    /// None for usage that costs nothing by rule.
    pub key: Option<Key>,
    pub why: &'static str,
    pub window: i64,
    pub quantity: i64,
    pub values: BTreeSet<u8>,
    pub amount: i64,
    pub opened: i64,
    /// The charge that it takes a part of back, as an index into those of the team; quantity, amount and
    /// opened are below zero then.
    pub corrects: Option<usize>,
}

#[derive(Clone, Debug, Default)]
pub struct Team {
    pub kind: &'static str,
    pub lots: Vec<Lot>,
    pub past: BTreeMap<u64, Past>,
    pub holds: Vec<Hold>,
    pub charges: Vec<Charge>,
    pub debts: Vec<Debt>,
    pub payments: Vec<Paid>,
    pub issued: i64,
    pub moved_in: i64,
    /// Everything that was ever owed.
    pub owed_ever: i64,
    pub below_since: Option<i64>,
    pub posted: Option<i64>,
}

/// How often each rule had a say.
pub type Hits = BTreeMap<&'static str, u64>;

#[derive(Clone, Debug)]
pub struct Ledger {
    pub window: i64,
    pub lateness: i64,
    pub pools: Vec<&'static str>,
    pub cards: Vec<Card>,
    /// How each meter adds up; one that is not here simply does.
    pub meters: BTreeMap<String, Adds>,
    /// So many distinct values are kept, of a team, price and month.
    pub distinct_max: i64,
    pub teams: Vec<Team>,
    pub unattributed: BTreeSet<(usize, usize, &'static str)>,
    /// Lots whose offer says that they pay nothing older than themselves (D57).
    pub leaving_older: BTreeSet<u64>,
    pub hits: Hits,
}

impl Ledger {
    pub fn hit(&mut self, rule: &'static str) {
        *self.hits.entry(rule).or_default() += 1;
    }

    fn floor(&self, at: i64) -> i64 {
        at.div_euclid(self.window) * self.window
    }

    fn ceil(&self, at: i64) -> i64 {
        self.floor(at + self.window - 1)
    }
}
