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
    /// The largest quantity.
    Max,
    /// Distinct values of one dimension; what quantity events carry does not matter.
    Unique,
}

/// How the events of one series are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Counting {
    /// Quantities are added up.
    Sum,
    /// Events are.
    Count,
    /// The largest quantity is kept.
    Max,
    /// The series stands for one value: that of its dimension at this place. The dimension is no part of what is
    /// charged, so lines have the series without it.
    Unique(u8),
}

impl Aggregation {
    pub(crate) const fn as_byte(self) -> u8 {
        match self {
            Self::Sum => 1,
            Self::Count => 2,
            Self::Max => 3,
            Self::Unique => 4,
        }
    }

    pub(crate) const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Sum),
            2 => Some(Self::Count),
            3 => Some(Self::Max),
            4 => Some(Self::Unique),
            _ => None,
        }
    }

    /// Whether blobs of the first version can say it.
    pub(crate) const fn adds_up(self) -> bool {
        matches!(self, Self::Sum | Self::Count)
    }
}

impl Counting {
    /// How the meter aggregates.
    #[must_use]
    pub const fn aggregation(self) -> Aggregation {
        match self {
            Self::Sum => Aggregation::Sum,
            Self::Count => Aggregation::Count,
            Self::Max => Aggregation::Max,
            Self::Unique(_) => Aggregation::Unique,
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
    /// The dimension whose distinct values are counted: one of `dimensions`, of a unique meter only.
    pub unique_dimension: Option<DimensionName>,
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
    /// `METER_UNKNOWN`, `AGGREGATION_UNSUPPORTED`, `DIMENSION_UNKNOWN` or `DIMENSION_MISSING`.
    pub fn admit(&self, series: &SeriesKey) -> Result<Counting, &'static str> {
        let facts = self.0.get(series.meter()).ok_or(reason::METER_UNKNOWN)?;
        let facts = facts.as_ref().ok_or(reason::AGGREGATION_UNSUPPORTED)?;
        if !series.dimensions().iter().all(|(name, _)| facts.dimensions.contains(name)) {
            return Err(reason::DIMENSION_UNKNOWN);
        }
        match facts.aggregation {
            Aggregation::Sum => Ok(Counting::Sum),
            Aggregation::Count => Ok(Counting::Count),
            Aggregation::Max => Ok(Counting::Max),
            Aggregation::Unique => {
                let counted = facts.unique_dimension.as_ref().ok_or(reason::AGGREGATION_UNSUPPORTED)?;
                let at = series.dimensions().iter().position(|(name, _)| name == counted);
                let at = at.and_then(|at| u8::try_from(at).ok()).ok_or(reason::DIMENSION_MISSING)?;
                Ok(Counting::Unique(at))
            }
        }
    }
}
