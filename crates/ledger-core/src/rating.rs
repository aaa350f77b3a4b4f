//! Rating is cumulative (D14): a key's state is everything used under one price in one cycle, and a
//! charge is price(state after) − price(state before). Whatever way usage is split into windows,
//! batches and retries, the charges of a key add up to price(state).

use std::collections::HashSet;

use drawdown_types::{MeterSlug, MicroTokens, PriceId, Quantity, TeamId, Timestamp};

use crate::{
    batch::{Attribution, Line},
    calendar,
    hold::Hold,
    price::{PriceBook, Terms},
};

/// The billing cycle that a state belongs to: a UTC month, named by its first instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cycle(Timestamp);

impl Cycle {
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

/// The state of a key. What it has cost so far is [`price_of`] its quantity, always.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageState {
    /// The key.
    pub key: UsageKey,
    /// The meter of its price.
    pub meter: MeterSlug,
    /// Everything that was charged at this price in this cycle.
    pub quantity: Quantity,
}

/// What `quantity` costs under `terms`, rounded down; `None` where it does not fit 64 bits.
#[must_use]
pub fn price_of(terms: Terms, quantity: Quantity) -> Option<MicroTokens> {
    let micros = i128::from(terms.micros()).checked_mul(i128::from(quantity.as_units()))?;
    let floor = micros.checked_div(i128::from(terms.per_units()))?;
    i64::try_from(floor).ok().map(MicroTokens::from_micros)
}

/// The keys whose stored states a batch of `lines` needs, each once. A key without a stored state
/// starts at zero. Usage under one of `holds` belongs to the hold's window, or to its own where the hold
/// is over by then, so both are asked for.
#[must_use]
pub fn usage_keys(prices: &PriceBook, lines: &[Line], holds: &[Hold]) -> Vec<UsageKey> {
    let mut cycles = CycleMemo::default();
    let mut seen = HashSet::new();
    let mut keys = Vec::new();
    for line in lines {
        let Attribution::Payer(payer) = &line.attribution else { continue };
        if payer.in_trial {
            continue;
        }
        let held = line.hold_id.and_then(|hold_id| holds.iter().find(|hold| hold.hold_id == hold_id));
        for window in [Some(line.window), held.map(|hold| hold.window)].into_iter().flatten() {
            let price = prices.in_force(payer.contract_kind, &line.meter, window);
            let Some((price_id, _)) = price else { continue };
            let key = UsageKey { team_id: payer.team_id, price_id, cycle: cycles.of(window) };
            if seen.insert(key) {
                keys.push(key);
            }
        }
    }
    keys
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
