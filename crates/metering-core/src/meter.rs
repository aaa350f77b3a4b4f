//! What metering has to know of meters to count their events: a snapshot of the catalogue.
//!
//! A meter never changes its aggregation; dimensions may be added. A refused event stays refused,
//! so whoever holds a table asks the catalogue again before it lets a table say "unknown meter".

use drawdown_types::{DimensionName, MeterSlug};
use rustc_hash::FxHashMap;

use crate::{reason, series::SeriesKey};

/// How a meter's events become a quantity (D19).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Aggregation {
    /// Sum of quantities.
    Sum,
    /// Number of events; what quantity they carry does not matter.
    Count,
}

impl Aggregation {
    pub(crate) const fn as_byte(self) -> u8 {
        match self {
            Self::Sum => 1,
            Self::Count => 2,
        }
    }

    pub(crate) const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Sum),
            2 => Some(Self::Count),
            _ => None,
        }
    }
}

/// One meter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeterFacts {
    /// How its events become a quantity.
    pub aggregation: Aggregation,
    /// Names of the dimensions that its events may carry.
    pub dimensions: Vec<DimensionName>,
}

/// All meters, as read at one instant. Of a meter that aggregates in a way that this version can not,
/// only the name is known: its events are refused, never counted in another way.
#[derive(Clone, Debug, Default)]
pub struct MeterTable(FxHashMap<MeterSlug, Option<MeterFacts>>);

impl MeterTable {
    /// A table of these meters.
    #[must_use]
    pub fn new(meters: impl IntoIterator<Item = (MeterSlug, MeterFacts)>) -> Self {
        Self(meters.into_iter().map(|(slug, facts)| (slug, Some(facts))).collect())
    }

    /// The table with meters beside that can not be aggregated.
    #[must_use]
    pub fn with_unsupported(mut self, meters: impl IntoIterator<Item = MeterSlug>) -> Self {
        self.0.extend(meters.into_iter().map(|slug| (slug, None)));
        self
    }

    /// Whether the catalogue has the meter.
    #[must_use]
    pub fn knows(&self, slug: &MeterSlug) -> bool {
        self.0.contains_key(slug)
    }

    /// How events of a series are counted, or the reason why they are refused.
    ///
    /// # Errors
    /// `METER_UNKNOWN`, `AGGREGATION_UNSUPPORTED` or `DIMENSION_UNKNOWN`.
    pub fn admit(&self, series: &SeriesKey) -> Result<Aggregation, &'static str> {
        let facts = self.0.get(series.meter()).ok_or(reason::METER_UNKNOWN)?;
        let facts = facts.as_ref().ok_or(reason::AGGREGATION_UNSUPPORTED)?;
        let known = series.dimensions().iter().all(|(name, _)| facts.dimensions.contains(name));
        if known { Ok(facts.aggregation) } else { Err(reason::DIMENSION_UNKNOWN) }
    }
}
