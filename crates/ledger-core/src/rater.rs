//! The usage states of a batch: loaded, then moved on line by line.
//!
//! A line is first rated, which changes nothing, and kept when its amount fits the team's sums too.
//! What simply adds up at a flat price costs a look-up of its price, one of its state, and two
//! divisions; it allocates nothing unless its key is new.

use std::collections::{HashMap, HashSet};

use drawdown_types::{MeterSlug, MicroTokens, Quantity, Timestamp};
use rustc_hash::FxHashMap;

use crate::{
    batch::{Batch, Line, Payer, Rated, Unattributable, Usage},
    correction::PeriodShrink,
    meter::DistinctValues,
    price::{InForce, PriceBook},
    rating::{Cycle, CycleMemo, PeriodKey, PeriodState, Periods, SeenValue, UsageKey, UsageState},
};

/// What a line costs, and what its states are afterwards.
pub(crate) struct Rating {
    pub(crate) rated: Rated,
    pub(crate) amount: MicroTokens,
    after: Option<After>,
}

struct After {
    month: (UsageKey, Quantity),
    /// Of charged units: what lies above the quota in all months.
    endless: Option<Quantity>,
    period: Option<PeriodAfter>,
}

struct PeriodAfter {
    key: PeriodKey,
    quantity: Quantity,
    /// The line's values that the period has not seen, by their place in the line.
    new: Vec<usize>,
}

/// A state with its meter, once it has changed.
#[derive(Default)]
struct Entry {
    quantity: Quantity,
    changed: Option<MeterSlug>,
    stored: bool,
}

/// What a batch changed.
pub(crate) struct Changed {
    /// States as they are afterwards, by key.
    pub(crate) states: Vec<UsageState>,
    /// The keys of those that were not stored, in order.
    pub(crate) new_states: Vec<UsageKey>,
    /// Periods, and their new values.
    pub(crate) periods: Periods,
}

/// A period with the values it has seen, as far as this batch carries them.
#[derive(Default)]
struct PeriodEntry {
    quantity: Quantity,
    changed: bool,
    seen: HashSet<Box<[u8]>>,
}

pub(crate) struct Rater<'a> {
    prices: &'a PriceBook,
    unique_values_max: i64,
    cycles: CycleMemo,
    states: FxHashMap<UsageKey, Entry>,
    periods: HashMap<PeriodKey, PeriodEntry>,
    new_values: Vec<SeenValue>,
}

impl<'a> Rater<'a> {
    pub(crate) fn new(batch: &Batch<'a>) -> Self {
        let entry =
            |state: &UsageState| (state.key, Entry { quantity: state.quantity, changed: None, stored: true });
        let mut periods: HashMap<PeriodKey, PeriodEntry> = HashMap::new();
        for PeriodState { key, quantity } in &batch.periods.states {
            periods.entry(*key).or_default().quantity = *quantity;
        }
        for SeenValue { key, value } in &batch.periods.values {
            periods.entry(*key).or_default().seen.insert(value.clone());
        }
        Self {
            prices: batch.prices,
            unique_values_max: batch.settings.unique_values_max,
            cycles: CycleMemo::default(),
            states: batch.states.iter().map(entry).collect(),
            periods,
            new_values: Vec::new(),
        }
    }

    fn quantity(&self, key: &UsageKey) -> Quantity {
        self.states.get(key).map_or(Quantity::ZERO, |entry| entry.quantity)
    }

    /// Rates a line of `quantity` at `window`, its own or that of its hold.
    ///
    /// # Errors
    /// `overflow` where a state or an amount would not fit, or a key would have more distinct values
    /// than it may; `poison` where the usage is of another kind than its meter.
    pub(crate) fn rate(
        &mut self,
        line: &Line,
        payer: &Payer,
        quantity: Quantity,
        window: Timestamp,
    ) -> Result<Rating, Unattributable> {
        let nothing = |rated| Ok(Rating { rated, amount: MicroTokens::ZERO, after: None });
        if payer.in_trial {
            return nothing(Rated::Trial);
        }
        let Some(price) = self.prices.in_force(payer.contract_kind, &line.meter, window) else {
            return nothing(Rated::Unpriced);
        };
        if line.failed && price.terms.failed_is_free() {
            return nothing(Rated::FailedFree);
        }
        let key =
            UsageKey { team_id: payer.team_id, price_id: price.price_id, cycle: self.cycles.of(window) };
        let before = self.quantity(&key);
        let (after, period) = match &line.usage {
            Usage::Sum(_) | Usage::Count if price.period.is_none() => (before.checked_add(quantity), None),
            Usage::Max(value) => self.at_most(period_key(&key, price, window)?, before, *value),
            Usage::Unique(values) => self.distinct(period_key(&key, price, window)?, before, values)?,
            Usage::Sum(_) | Usage::Count => return Err(Unattributable::Poison),
        };
        let after = after.ok_or(Unattributable::Overflow)?;
        self.amount(price, key, before, after, period).ok_or(Unattributable::Overflow)
    }

    /// Makes the states of a price smaller by `quantity` of usage at `window` that is taken back; gives
    /// price(before) − price(after) (D43). `None` where the states do not hold as much.
    pub(crate) fn take_back(
        &mut self,
        price: &InForce,
        meter: &MeterSlug,
        key: UsageKey,
        quantity: Quantity,
    ) -> Option<MicroTokens> {
        let less = |quantity: Quantity, by: i64| Quantity::new(quantity.as_units().checked_sub(by)?).ok();
        let before = self.quantity(&key);
        let after = less(before, quantity.as_units())?;
        let terms = &price.terms;
        let (mut from, mut to) = (terms.above_quota(before), terms.above_quota(after));
        if terms.charged_unit().is_some() {
            let endless = UsageKey { cycle: Cycle::ENDLESS, ..key };
            let shrunk = from.as_units().checked_sub(to.as_units())?;
            from = self.quantity(&endless);
            to = less(from, shrunk)?;
            self.set(endless, to, meter);
        }
        self.set(key, after, meter);
        terms.price_above_quota(from)?.checked_sub(terms.price_above_quota(to)?)
    }

    /// Makes a period what it is without a line that is taken back whole (D43); gives by how much it shrank. Values
    /// that other lines have stay seen: what is charged instead may carry them.
    pub(crate) fn shrink(&mut self, shrink: &PeriodShrink) -> Option<Quantity> {
        let entry = self.periods.entry(shrink.key).or_default();
        let by = shrink.before.as_units().checked_sub(shrink.after.as_units())?;
        (entry.quantity, entry.changed) = (shrink.after, true);
        for gone in &shrink.gone {
            entry.seen.remove(&gone.value);
        }
        Quantity::new(by).ok()
    }

    /// D14: price(state after) − price(state before).
    fn amount(
        &self,
        InForce { price_id, terms, .. }: &InForce,
        key: UsageKey,
        before: Quantity,
        after: Quantity,
        period: Option<PeriodAfter>,
    ) -> Option<Rating> {
        let mut from = terms.above_quota(before);
        let mut to = terms.above_quota(after);
        let mut rated = Rated::Priced(*price_id);
        let mut endless = None;
        if terms.free_only() && to > from {
            rated = Rated::OverQuota(*price_id);
        }
        if terms.charged_unit().is_some() {
            // What this line brings above the quota runs on from where all months stand.
            let grown = to.as_units().checked_sub(from.as_units())?;
            from = self.quantity(&UsageKey { cycle: Cycle::ENDLESS, ..key });
            to = from.checked_add(Quantity::new(grown).ok()?)?;
            endless = Some(to);
        }
        let amount = terms.price_above_quota(to)?.checked_sub(terms.price_above_quota(from)?)?;
        Some(Rating { rated, amount, after: Some(After { month: (key, after), endless, period }) })
    }

    /// `max`: the month grows by what its period grows (D19).
    fn at_most(
        &self,
        key: PeriodKey,
        before: Quantity,
        value: Quantity,
    ) -> (Option<Quantity>, Option<PeriodAfter>) {
        let known = self.periods.get(&key).map_or(Quantity::ZERO, |entry| entry.quantity);
        let quantity = known.max(value);
        let grown = quantity.as_units().checked_sub(known.as_units());
        let after = grown.and_then(|grown| before.checked_add(Quantity::new(grown).ok()?));
        (after, Some(PeriodAfter { key, quantity, new: Vec::new() }))
    }

    /// `unique`: the month grows by the values that its period has not seen (D19).
    fn distinct(
        &self,
        key: PeriodKey,
        before: Quantity,
        values: &DistinctValues,
    ) -> Result<(Option<Quantity>, Option<PeriodAfter>), Unattributable> {
        let entry = self.periods.get(&key);
        let is_new = |value: &[u8]| entry.is_none_or(|entry| !entry.seen.contains(value));
        let values = values.as_slice().iter().enumerate();
        let new: Vec<usize> = values.filter(|(_, value)| is_new(value)).map(|(place, _)| place).collect();
        let known = entry.map_or(Quantity::ZERO, |entry| entry.quantity);
        let grown = i64::try_from(new.len()).ok().and_then(|grown| Quantity::new(grown).ok());
        let grown = grown.ok_or(Unattributable::Overflow)?;
        let quantity = known.checked_add(grown).ok_or(Unattributable::Overflow)?;
        let after = before.checked_add(grown);
        let fits = new.is_empty() || after.is_some_and(|after| after.as_units() <= self.unique_values_max);
        Ok((after.filter(|_| fits), Some(PeriodAfter { key, quantity, new })))
    }

    /// Makes the states what they are after `line`.
    pub(crate) fn keep(&mut self, rating: Rating, line: &Line) {
        let Some(After { month: (key, quantity), endless, period }) = rating.after else { return };
        self.set(key, quantity, &line.meter);
        if let Some(quantity) = endless {
            self.set(UsageKey { cycle: Cycle::ENDLESS, ..key }, quantity, &line.meter);
        }
        let Some(PeriodAfter { key, quantity, new }) = period else { return };
        let entry = self.periods.entry(key).or_default();
        entry.changed |= entry.quantity != quantity || !new.is_empty();
        entry.quantity = quantity;
        let Usage::Unique(values) = &line.usage else { return };
        for value in new.into_iter().filter_map(|place| values.as_slice().get(place)) {
            entry.seen.insert(value.clone());
            self.new_values.push(SeenValue { key, value: value.clone() });
        }
    }

    fn set(&mut self, key: UsageKey, quantity: Quantity, meter: &MeterSlug) {
        let entry = self.states.entry(key).or_default();
        entry.quantity = quantity;
        if entry.changed.is_none() {
            entry.changed = Some(meter.clone());
        }
    }

    /// What has changed, by key.
    pub(crate) fn into_changed(mut self) -> Changed {
        let (mut states, mut new_states) = (Vec::new(), Vec::new());
        for (key, Entry { quantity, changed, stored }) in self.states {
            let Some(meter) = changed else { continue };
            states.push(UsageState { key, meter, quantity });
            if !stored {
                new_states.push(key);
            }
        }
        states.sort_unstable_by_key(|state| state.key);
        new_states.sort_unstable();
        let periods = self.periods.into_iter().filter(|(_, entry)| entry.changed);
        let mut periods: Vec<_> =
            periods.map(|(key, entry)| PeriodState { key, quantity: entry.quantity }).collect();
        periods.sort_unstable_by_key(|state| state.key);
        self.new_values.sort_unstable();
        Changed { states, new_states, periods: Periods { states: periods, values: self.new_values } }
    }
}

fn period_key(key: &UsageKey, price: &InForce, window: Timestamp) -> Result<PeriodKey, Unattributable> {
    let period = price.period.ok_or(Unattributable::Poison)?;
    Ok(PeriodKey { team_id: key.team_id, price_id: key.price_id, start: period.start(window) })
}
