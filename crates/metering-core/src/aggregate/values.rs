//! Which values of dimensions are counted by themselves: so many of each meter's dimension in a UTC day, those that
//! came first. All others share one, [`OTHER`].
//!
//! A dimension that carries a request id would make a line, and a charge, of each event. What is decided here is
//! decided before a blob is written and is raw usage from then on, so a batch stays what it is whoever merges it.
//! After a reset events may come in another order and other values be the first: totals are the same, and so is
//! every line without that dimension. Nothing here costs an event anything: a series is looked at when its slot is
//! made. The counted dimension of a unique meter is no part of what is charged and has its own bound.

use std::sync::Arc;

use drawdown_types::{DimensionName, MeterSlug, Timestamp};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::{
    meter::Counting,
    series::{OTHER, SeriesKey},
};

const DAY_SECS: i64 = 24 * 60 * 60;

/// How many values of dimensions an aggregator tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValueLimits {
    /// Of one dimension of one meter.
    pub per_dimension_max: usize,
    /// Of all dimensions of all meters together: about 100 bytes each.
    pub total_max: usize,
}

impl Default for ValueLimits {
    /// 1,000; 65,536.
    fn default() -> Self {
        Self { per_dimension_max: 1000, total_max: 1 << 16 }
    }
}

type Values = FxHashSet<Arc<str>>;

/// The values of one UTC day.
#[derive(Debug)]
pub(super) struct ValueBook {
    limits: ValueLimits,
    day: Option<i64>,
    /// Another day has begun: to be forgotten when nothing counts by it any more.
    is_over: bool,
    total: usize,
    by_meter: FxHashMap<MeterSlug, Vec<(DimensionName, Values)>>,
    /// Dimensions that had one value too many today, and are not told yet.
    overflows: Vec<(MeterSlug, DimensionName)>,
    /// Those that are told.
    told: FxHashSet<(MeterSlug, DimensionName)>,
}

impl ValueBook {
    pub(super) fn new(limits: ValueLimits) -> Self {
        Self {
            limits,
            day: None,
            is_over: false,
            total: 0,
            by_meter: FxHashMap::default(),
            overflows: Vec::new(),
            told: FxHashSet::default(),
        }
    }

    pub(super) fn note(&mut self, now: Timestamp) {
        let day = now.as_millis().div_euclid(1000).div_euclid(DAY_SECS);
        self.is_over |= self.day.replace(day).is_some_and(|before| before != day);
    }

    pub(super) const fn is_over(&self) -> bool {
        self.is_over
    }

    /// The next day begins with no values.
    pub(super) fn begin(&mut self) {
        *self = Self { day: self.day, ..Self::new(self.limits) };
    }

    pub(super) fn take_overflows(&mut self) -> Vec<(MeterSlug, DimensionName)> {
        std::mem::take(&mut self.overflows)
    }

    /// The series as it is counted; `None` where that is as it came.
    pub(super) fn fold(&mut self, key: &SeriesKey, counting: Counting) -> Option<SeriesKey> {
        let counted = match counting {
            Counting::Unique(at) => Some(usize::from(at)),
            Counting::Sum | Counting::Count | Counting::Max => None,
        };
        let mut others: u32 = 0;
        for (place, (name, value)) in key.dimensions().iter().enumerate() {
            if Some(place) != counted && !self.knows(key.meter(), name, value) {
                others |= u32::try_from(place).ok().and_then(|place| 1u32.checked_shl(place)).unwrap_or(0);
            }
        }
        (others != 0).then(|| {
            key.with_other(|place| {
                u32::try_from(place).ok().and_then(|place| others.checked_shr(place)).unwrap_or(0) & 1 == 1
            })
        })
    }

    /// Whether a value is told apart; takes it in where there is room.
    fn knows(&mut self, meter: &MeterSlug, name: &DimensionName, value: &Arc<str>) -> bool {
        if value.as_ref() == OTHER {
            return true;
        }
        if !self.by_meter.contains_key(meter) {
            self.by_meter.insert(meter.clone(), Vec::new());
        }
        let Some(dimensions) = self.by_meter.get_mut(meter) else { return true };
        let at = dimensions.iter().position(|(known, _)| known == name).unwrap_or_else(|| {
            dimensions.push((name.clone(), Values::default()));
            dimensions.len().saturating_sub(1)
        });
        let Some((_, values)) = dimensions.get_mut(at) else { return true };
        if values.contains(value) {
            return true;
        }
        let has_room = values.len() < self.limits.per_dimension_max && self.total < self.limits.total_max;
        if has_room {
            values.insert(Arc::clone(value));
            self.total = self.total.saturating_add(1);
        } else if self.told.insert((meter.clone(), name.clone())) {
            self.overflows.push((meter.clone(), name.clone()));
        }
        has_room
    }
}
