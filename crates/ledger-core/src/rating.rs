//! Rating is cumulative (D14): a key's state is everything used under one price in one cycle, and a
//! charge is price(state after) − price(state before). Whatever way usage is split into windows,
//! batches and retries, the charges of a key add up to price(state).
//!
//! | what a price or meter is | rows of its state |
//! |---|---|
//! | any | [`UsageState`] of the month: the whole quantity, free part included |
//! | charged units (D15) | and one without a month: what lay above the quota in all months together |
//! | `max`, `unique` (D19) | and a [`PeriodState`] for each day or month: the largest value, or how many distinct ones |
//! | `unique` | and a [`SeenValue`] for each distinct value: one row, so that a post reads and writes its own values only |
//!
//! What simply adds up at a flat price touches one number a key.

use std::collections::HashSet;

use drawdown_types::{MeterSlug, MicroTokens, PriceId, Quantity, TeamId, Timestamp};

use crate::{
    batch::{Attribution, Line, Usage},
    calendar,
    hold::Hold,
    price::{InForce, PriceBook},
    terms::Terms,
};

/// The billing cycle that a state belongs to: a UTC month, named by its first instant, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cycle(Timestamp);

impl Cycle {
    /// The cycle without an end, of charged units (D15). It is stored as the first instant there is.
    pub const ENDLESS: Self = Self(Timestamp::MIN);

    /// The UTC month of `window`.
    #[must_use]
    pub fn of(window: Timestamp) -> Self {
        Self(calendar::month_of(window).map_or(Timestamp::MIN, |(first, _)| first))
    }

    /// As stored: the first instant.
    #[must_use]
    pub const fn start(self) -> Timestamp {
        self.0
    }

    /// The instant after the last of a month.
    #[must_use]
    pub fn end(self) -> Timestamp {
        calendar::month_of(self.0).map_or(Timestamp::MAX, |(_, next)| next)
    }
}

/// Whose usage of what, at which price, in which cycle. A price belongs to one meter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UsageKey {
    /// The team.
    pub team_id: TeamId,
    /// The price.
    pub price_id: PriceId,
    /// The cycle.
    pub cycle: Cycle,
}

/// The state of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageState {
    /// The key.
    pub key: UsageKey,
    /// The meter of its price.
    pub meter: MeterSlug,
    /// Of a month: everything used at this price in it, and what it has cost so far is [`price_of`]
    /// this, unless units are charged. Without a month: what lay above the quota in all months, and
    /// what that has cost is [`Terms::price_above_quota`].
    pub quantity: Quantity,
}

/// A day or month of a meter that aggregates by it (D19).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeriodKey {
    /// The team.
    pub team_id: TeamId,
    /// The price.
    pub price_id: PriceId,
    /// First instant of the day or month.
    pub start: Timestamp,
}

/// The state of a period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeriodState {
    /// The key.
    pub key: PeriodKey,
    /// The largest value, or the number of distinct ones.
    pub quantity: Quantity,
}

/// A distinct value that a period has seen.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeenValue {
    /// The period.
    pub key: PeriodKey,
    /// The value.
    pub value: Box<[u8]>,
}

/// Stored states of periods. Of values, those that the lines of a batch carry are enough.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Periods {
    /// Each key once.
    pub states: Vec<PeriodState>,
    /// Each value of a period once.
    pub values: Vec<SeenValue>,
}

impl Periods {
    /// Nothing at all.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.states.is_empty() && self.values.is_empty()
    }
}

/// The periods whose stored states a batch needs, and the values to look for in them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeriodsWanted {
    /// Each key once, sorted.
    pub keys: Vec<PeriodKey>,
    /// Each value of a period once, sorted.
    pub values: Vec<SeenValue>,
}

/// What `quantity` of one month costs under `terms`, rounded down, with nothing carried over from
/// before; `None` where it does not fit 64 bits.
#[must_use]
pub fn price_of(terms: &Terms, quantity: Quantity) -> Option<MicroTokens> {
    terms.price_above_quota(terms.above_quota(quantity))
}

/// A line that may enter a state, with its team, a window and the price in force there.
type Priced<'a> = (&'a Line, TeamId, Timestamp, &'a InForce);

/// Lines that may enter a state, at each window that may decide about them.
fn priced<'a>(
    prices: &'a PriceBook,
    lines: &'a [Line],
    holds: &'a [Hold],
) -> impl Iterator<Item = Priced<'a>> {
    lines.iter().flat_map(move |line| {
        let payer = match &line.attribution {
            Attribution::Payer(payer) if !payer.in_trial => Some(payer),
            Attribution::Payer(_) | Attribution::Nobody(_) => None,
        };
        let held = line.hold_id.and_then(|hold_id| holds.iter().find(|hold| hold.hold_id == hold_id));
        let windows = [Some(line.window), held.map(|hold| hold.window)].into_iter().flatten();
        windows.filter_map(move |window| {
            let payer = payer?;
            let price = prices.in_force(payer.contract_kind, &line.meter, window)?;
            Some((line, payer.team_id, window, price))
        })
    })
}

/// The keys whose stored states a batch of `lines` needs, each once. A key without a stored state
/// starts at zero. Usage under one of `holds` belongs to the hold's window, or to its own where the hold
/// is over by then, so both are asked for.
#[must_use]
pub fn usage_keys(prices: &PriceBook, lines: &[Line], holds: &[Hold]) -> Vec<UsageKey> {
    let mut cycles = CycleMemo::default();
    let mut seen = HashSet::new();
    let mut keys = Vec::new();
    for (_, team_id, window, price) in priced(prices, lines, holds) {
        let key = UsageKey { team_id, price_id: price.price_id, cycle: cycles.of(window) };
        if seen.insert(key) {
            keys.push(key);
            let endless = UsageKey { cycle: Cycle::ENDLESS, ..key };
            if price.terms.charged_unit().is_some() && seen.insert(endless) {
                keys.push(endless);
            }
        }
    }
    keys
}

/// The periods whose stored states a batch of `lines` needs; nothing where all of them simply add up.
#[must_use]
pub fn periods_wanted(prices: &PriceBook, lines: &[Line], holds: &[Hold]) -> PeriodsWanted {
    let mut wanted = PeriodsWanted::default();
    let by_period = |line: &&Line| matches!(line.usage, Usage::Max(_) | Usage::Unique(_));
    if !lines.iter().any(|line| by_period(&line)) {
        return wanted;
    }
    for (line, team_id, window, price) in priced(prices, lines, holds).filter(|(line, ..)| by_period(line)) {
        let Some(period) = price.period else { continue };
        let key = PeriodKey { team_id, price_id: price.price_id, start: period.start(window) };
        wanted.keys.push(key);
        if let Usage::Unique(values) = &line.usage {
            wanted
                .values
                .extend(values.as_slice().iter().map(|value| SeenValue { key, value: value.clone() }));
        }
    }
    wanted.keys.sort_unstable();
    wanted.keys.dedup();
    wanted.values.sort_unstable();
    wanted.values.dedup();
    wanted
}

/// Remembers the last month, since neighbouring lines nearly always share it.
#[derive(Default)]
pub(crate) struct CycleMemo(Option<(Timestamp, Timestamp)>);

impl CycleMemo {
    pub(crate) fn of(&mut self, window: Timestamp) -> Cycle {
        match self.0 {
            Some((first, next)) if first <= window && window < next => Cycle(first),
            _ => {
                self.0 = calendar::month_of(window);
                Cycle::of(window)
            }
        }
    }
}
