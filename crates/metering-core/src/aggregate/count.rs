//! Counters and the loop over a frame's events.

use drawdown_types::{Quantity, Timestamp};
use rustc_hash::FxHashMap;

use crate::{
    aggregate::{EventRules, FlushCounter, RefusedEvents, rules::millis},
    fault::FieldFault,
    frame::{Frame, Part},
    meter::Counting,
    reason,
};

/// How events of a slot are counted. Two bytes: slots are what the caches hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Sum,
    Count,
    Max,
    Unique(u8),
    MeterUnknown,
    Unsupported,
    DimensionUnknown,
    DimensionMissing,
}

/// No pair.
const NONE: u32 = u32::MAX;

/// A series, with its sums for the pair it saw last.
#[derive(Clone, Copy, Debug)]
struct Slot {
    quantity: i64,
    events: u64,
    pair: u32,
    status: Status,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    events: u64,
    quantity: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Pair {
    window_ms: i64,
    received_window_ms: i64,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    slots: Vec<Slot>,
    /// Slots that have sums, each once, in the order they came.
    touched: Vec<u32>,
    pairs: Vec<Pair>,
    pair_ids: FxHashMap<Pair, u32>,
    /// Sums of slots for pairs that are not their last one.
    others: FxHashMap<(u32, u32), Sums>,
}

/// Events of one frame refused for one reason.
#[derive(Clone, Copy, Debug)]
pub(super) struct Refusal {
    pub(super) reason: &'static str,
    pub(super) count: u32,
    first_at: u32,
    series: u32,
    quantity: u64,
    time_ms: i64,
}

#[derive(Debug, Default)]
pub(super) struct Counted {
    pub(super) clamped: u32,
    pub(super) refused: Vec<Refusal>,
}

/// Times of one frame: what is taken, and the window seen last.
struct Times<'a> {
    rules: &'a EventRules,
    receipt_ms: i64,
    received_window_ms: i64,
    oldest_ms: i64,
    unclamped_ms: i64,
    latest_ms: i64,
    /// Instants from `from_ms` on, `span` of them, are taken as they are and fall into `pair`.
    from_ms: i64,
    span: u64,
    pair: u32,
}

impl Counters {
    pub(super) fn len(&self) -> usize {
        self.touched.len().saturating_add(self.others.len())
    }

    pub(super) fn add_slot(&mut self, status: Status) -> u32 {
        let slot = u32::try_from(self.slots.len()).unwrap_or(NONE);
        self.slots.push(Slot { quantity: 0, events: 0, pair: NONE, status });
        slot
    }

    /// Says whether a slot counts from now on that did not before.
    pub(super) fn set_status(&mut self, slot: usize, status: Status) -> bool {
        let Some(slot) = self.slots.get_mut(slot) else { return false };
        let before = std::mem::replace(&mut slot.status, status);
        status.is_counted() && !before.is_counted()
    }

    /// Nothing may be counted that was not taken.
    pub(super) fn forget_slots(&mut self) {
        self.slots.clear();
    }

    /// Takes all counters, and the slots that they are of, each once.
    pub(super) fn take(&mut self) -> (Vec<FlushCounter>, Vec<(u32, Counting)>) {
        let mut others: FxHashMap<u32, Vec<(u32, Sums)>> = FxHashMap::default();
        for ((slot, pair), sums) in self.others.drain() {
            others.entry(slot).or_default().push((pair, sums));
        }
        let mut taken = Vec::with_capacity(self.touched.len());
        let mut series = Vec::with_capacity(self.touched.len());
        for index in self.touched.drain(..) {
            let Some(slot) = at_mut(&mut self.slots, index) else { continue };
            let place = u32::try_from(series.len()).unwrap_or(NONE);
            let last = (slot.pair, Sums { events: slot.events, quantity: slot.quantity });
            let rest = if others.is_empty() { None } else { others.remove(&index) };
            for (pair, sums) in std::iter::once(last).chain(rest.into_iter().flatten()) {
                // Sums without events are of an event that was refused after its window was found.
                let Some(pair) = at(&self.pairs, pair).filter(|_| sums.events > 0) else { continue };
                taken.push(FlushCounter {
                    series: place,
                    window_start_secs: pair.window_ms.div_euclid(1000),
                    received_window_start_secs: pair.received_window_ms.div_euclid(1000),
                    events: sums.events,
                    quantity: sums.quantity,
                });
            }
            *slot = Slot { quantity: 0, events: 0, pair: NONE, status: slot.status };
            series.push((index, slot.status.counting()));
        }
        self.pairs.clear();
        self.pair_ids.clear();
        (taken, series)
    }

    /// Adds all events of a frame; `slots` has the slot of each.
    pub(super) fn add(&mut self, frame: &impl Frame, slots: &[u32], rules: &EventRules) -> Counted {
        let mut counted = Counted::default();
        let mut times = Times::new(frame.received_at_ms(), rules);
        let mut slots = slots.iter();
        let mut place: u32 = 0;
        frame.for_each_measure(|quantity, time_ms| {
            let slot = slots.next().copied().unwrap_or(NONE);
            if let Err(reason) = self.add_event(slot, quantity, time_ms, &mut times, &mut counted.clamped) {
                counted.refuse(reason, place, quantity, time_ms);
            }
            place = place.saturating_add(1);
        });
        counted
    }

    #[inline]
    fn add_event(
        &mut self,
        slot: u32,
        quantity: u64,
        time_ms: i64,
        times: &mut Times<'_>,
        clamped: &mut u32,
    ) -> Result<(), &'static str> {
        if time_ms.wrapping_sub(times.from_ms).cast_unsigned() >= times.span {
            return self.add_elsewhere(slot, quantity, time_ms, times, clamped);
        }
        self.add_to(slot, quantity, times.pair)
    }

    /// As [`Counters::add_event`], for an instant outside the window seen last. A series that is
    /// refused is refused for that, whatever its time.
    #[cold]
    fn add_elsewhere(
        &mut self,
        slot: u32,
        quantity: u64,
        time_ms: i64,
        times: &mut Times<'_>,
        clamped: &mut u32,
    ) -> Result<(), &'static str> {
        self.admit(slot, quantity)?;
        let is_clamped = self.place(time_ms, times)?;
        self.add_to(slot, quantity, times.pair)?;
        *clamped = clamped.saturating_add(u32::from(is_clamped));
        Ok(())
    }

    /// Whether events of a series are counted at all, and this quantity.
    fn admit(&self, slot: u32, quantity: u64) -> Result<(), &'static str> {
        let slot =
            usize::try_from(slot).ok().and_then(|at| self.slots.get(at)).ok_or(reason::SERIES_UNKNOWN)?;
        slot.status.admit(quantity)
    }

    /// One match decides for the series and adds: what adds up, which is almost all usage, comes first.
    #[inline]
    fn add_to(&mut self, index: u32, quantity: u64, pair: u32) -> Result<(), &'static str> {
        let Some(slot) = at_mut(&mut self.slots, index) else { return Err(reason::SERIES_UNKNOWN) };
        let more = match slot.status {
            Status::Sum if quantity <= Quantity::EVENT_MAX => quantity.cast_signed(),
            Status::Count => 1,
            status => {
                status.admit(quantity)?;
                return self.keep(index, quantity, pair);
            }
        };
        if slot.pair != pair {
            switch(slot, index, pair, &mut self.touched, &mut self.others);
        }
        slot.quantity = slot.quantity.checked_add(more).ok_or(reason::QUANTITY_OVERFLOW)?;
        slot.events = slot.events.saturating_add(1);
        Ok(())
    }

    /// As [`Counters::add_to`], for a series that keeps the largest quantity, or is a value by itself.
    #[inline(never)]
    fn keep(&mut self, index: u32, quantity: u64, pair: u32) -> Result<(), &'static str> {
        let Some(slot) = at_mut(&mut self.slots, index) else { return Err(reason::SERIES_UNKNOWN) };
        if slot.pair != pair {
            switch(slot, index, pair, &mut self.touched, &mut self.others);
        }
        slot.quantity = match slot.status {
            Status::Max => slot.quantity.max(quantity.cast_signed()),
            _ => 1,
        };
        slot.events = slot.events.saturating_add(1);
        Ok(())
    }

    /// Finds the pair of an instant outside the window seen last; true where it was clamped.
    #[cold]
    fn place(&mut self, time_ms: i64, times: &mut Times<'_>) -> Result<bool, &'static str> {
        if time_ms < times.oldest_ms {
            return Err(reason::EVENT_TIME_TOO_OLD);
        }
        if time_ms > times.latest_ms {
            return Err(reason::EVENT_TIME_IN_FUTURE);
        }
        let clamped = time_ms > times.unclamped_ms;
        let window_ms = times.rules.floor_ms(if clamped { times.receipt_ms } else { time_ms });
        let pair = Pair { window_ms, received_window_ms: times.received_window_ms };
        let next = u32::try_from(self.pairs.len()).unwrap_or(NONE);
        times.pair = *self.pair_ids.entry(pair).or_insert(next);
        if times.pair == next {
            self.pairs.push(pair);
        }
        times.remember(window_ms);
        Ok(clamped)
    }
}

/// Puts the sums of a slot's last pair aside and takes up those of another.
#[inline(never)]
fn switch(
    slot: &mut Slot,
    index: u32,
    pair: u32,
    touched: &mut Vec<u32>,
    others: &mut FxHashMap<(u32, u32), Sums>,
) {
    if slot.pair == NONE {
        touched.push(index);
        slot.pair = pair;
        return;
    }
    others.insert((index, slot.pair), Sums { events: slot.events, quantity: slot.quantity });
    let Sums { events, quantity } = others.remove(&(index, pair)).unwrap_or_default();
    *slot = Slot { quantity, events, pair, status: slot.status };
}

impl Status {
    pub(super) fn of(admitted: Result<Counting, &'static str>) -> Self {
        match admitted {
            Ok(Counting::Sum) => Self::Sum,
            Ok(Counting::Count) => Self::Count,
            Ok(Counting::Max) => Self::Max,
            Ok(Counting::Unique(at)) => Self::Unique(at),
            Err(reason::DIMENSION_UNKNOWN) => Self::DimensionUnknown,
            Err(reason::DIMENSION_MISSING) => Self::DimensionMissing,
            Err(reason::AGGREGATION_UNSUPPORTED) => Self::Unsupported,
            Err(_) => Self::MeterUnknown,
        }
    }

    /// Whether events are counted, and one of this quantity.
    const fn admit(self, quantity: u64) -> Result<(), &'static str> {
        match self {
            Self::Sum | Self::Max if quantity > Quantity::EVENT_MAX => Err(reason::QUANTITY_TOO_LARGE),
            Self::Sum | Self::Max | Self::Count | Self::Unique(_) => Ok(()),
            Self::MeterUnknown => Err(reason::METER_UNKNOWN),
            Self::Unsupported => Err(reason::AGGREGATION_UNSUPPORTED),
            Self::DimensionUnknown => Err(reason::DIMENSION_UNKNOWN),
            Self::DimensionMissing => Err(reason::DIMENSION_MISSING),
        }
    }

    /// Whether events are counted.
    pub(super) const fn is_counted(self) -> bool {
        matches!(self, Self::Sum | Self::Count | Self::Max | Self::Unique(_))
    }

    const fn counting(self) -> Counting {
        match self {
            Self::Count => Counting::Count,
            Self::Max => Counting::Max,
            Self::Unique(at) => Counting::Unique(at),
            Self::Sum
            | Self::MeterUnknown
            | Self::Unsupported
            | Self::DimensionUnknown
            | Self::DimensionMissing => Counting::Sum,
        }
    }
}

impl<'a> Times<'a> {
    fn new(receipt_ms: i64, rules: &'a EventRules) -> Self {
        Self {
            rules,
            receipt_ms,
            received_window_ms: rules.floor_ms(receipt_ms),
            // A window before the first day could be counted, and never be read again.
            oldest_ms: receipt_ms.saturating_sub(millis(rules.age_refused)).max(Timestamp::MIN.as_millis()),
            unclamped_ms: receipt_ms
                .saturating_add(millis(rules.clock_skew_max))
                .min(Timestamp::MAX.as_millis()),
            latest_ms: receipt_ms.saturating_add(millis(rules.future_refused)),
            from_ms: 0,
            span: 0,
            pair: NONE,
        }
    }

    /// From here on, instants of this window that need no check take the short way.
    fn remember(&mut self, window_ms: i64) {
        let end = window_ms.saturating_add(self.rules.window_ms());
        let end = end.min(self.unclamped_ms.saturating_add(1));
        self.from_ms = window_ms.max(self.oldest_ms);
        self.span = u64::try_from(end.saturating_sub(self.from_ms)).unwrap_or_default();
    }
}

impl Counted {
    #[cold]
    fn refuse(&mut self, reason: &'static str, place: u32, quantity: u64, time_ms: i64) {
        match self.refused.iter_mut().find(|refusal| refusal.reason == reason) {
            Some(refusal) => refusal.count = refusal.count.saturating_add(1),
            None => {
                self.refused.push(Refusal {
                    reason,
                    count: 1,
                    first_at: place,
                    series: 0,
                    quantity,
                    time_ms,
                });
            }
        }
    }
}

impl Refusal {
    /// As answered to the producer.
    pub(super) fn name(mut self, frame: &impl Frame, rules: &EventRules) -> RefusedEvents {
        let at = self.first_at;
        let mut place: u32 = 0;
        frame.for_each_series(|number| {
            if place == at {
                self.series = number;
            }
            place = place.saturating_add(1);
        });
        let (part, description) =
            self.describe(&frame.series_text(self.series), frame.received_at_ms(), rules);
        RefusedEvents {
            reason: self.reason,
            count: self.count,
            first_sequence: frame.sequences().start().saturating_add(u64::from(at)),
            fault: FieldFault::new(frame.path(part, at), description),
        }
    }

    fn describe(&self, series: &str, receipt: i64, rules: &EventRules) -> (Part, String) {
        let Self { quantity, time_ms, .. } = self;
        match self.reason {
            reason::METER_UNKNOWN => (Part::Series, format!("{series}, whose meter is not in the catalogue")),
            reason::AGGREGATION_UNSUPPORTED => {
                (Part::Series, format!("{series}, whose meter aggregates in a way not served here"))
            }
            reason::DIMENSION_UNKNOWN => {
                (Part::Series, format!("{series}, which has a dimension that its meter does not allow"))
            }
            reason::DIMENSION_MISSING => {
                (Part::Series, format!("{series}, which lacks the dimension whose values its meter counts"))
            }
            reason::QUANTITY_TOO_LARGE => {
                (Part::Quantity, format!("is {quantity}, at most {} is taken", Quantity::EVENT_MAX))
            }
            reason::QUANTITY_OVERFLOW => {
                (Part::Quantity, format!("is {quantity}, with which the sum would pass 64 bits"))
            }
            reason::EVENT_TIME_IN_FUTURE => {
                let secs = rules.future_refused.as_secs();
                let text =
                    format!("gives {time_ms} ms, more than {secs} s after the receipt at {receipt} ms");
                (Part::Time, text)
            }
            reason::EVENT_TIME_TOO_OLD => {
                let secs = rules.age_refused.as_secs();
                let text =
                    format!("gives {time_ms} ms, more than {secs} s before the receipt at {receipt} ms");
                (Part::Time, text)
            }
            _ => (Part::Series, format!("{series}, which can not be counted")),
        }
    }
}

#[inline]
fn at<T: Copy>(items: &[T], index: u32) -> Option<T> {
    usize::try_from(index).ok().and_then(|index| items.get(index)).copied()
}

#[inline]
fn at_mut<T>(items: &mut [T], index: u32) -> Option<&mut T> {
    usize::try_from(index).ok().and_then(|index| items.get_mut(index))
}
