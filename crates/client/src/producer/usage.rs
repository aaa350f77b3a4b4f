//! What a caller hands in.

use drawdown_metering_core::{fault::FieldFault, series::Outcome};
use drawdown_types::{HoldId, Quantity, Timestamp};

use super::error::AppendError;

/// The most bytes of a mark: name of the source and position together.
pub const MARK_BYTES_MAX: usize = 256;

/// One metered fact, in borrowed parts.
#[derive(Clone, Copy, Debug)]
pub struct Usage<'a> {
    /// The public half of a credential.
    pub client_id: &'a str,
    /// The meter's slug.
    pub meter: &'a str,
    /// Base units of the meter, at most 2^48.
    pub quantity: u64,
    /// When it happened.
    pub at: Timestamp,
    /// How the metered job ended.
    pub outcome: Outcome,
    /// Names and values, in any order, each name once.
    pub dimensions: &'a [(&'a str, &'a str)],
    /// The hold that it draws from first. Usage of each hold is a series of its own, of which a log takes
    /// [`series_max`](super::ProducerOptions::series_max) in its life.
    pub hold_id: Option<HoldId>,
}

/// A series that was looked up once, for [`super::Producer::append_series`]. It holds for the producer that gave it and its
/// clones while they are open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SeriesHandle {
    /// Whose it is.
    pub(super) table: u32,
    /// Its place there.
    pub(super) place: u32,
}

/// One metered fact of a series that was looked up.
#[derive(Clone, Copy, Debug)]
pub struct SeriesUsage {
    /// The series.
    pub series: SeriesHandle,
    /// Base units of the meter, at most 2^48.
    pub quantity: u64,
    /// When it happened.
    pub at: Timestamp,
}

/// Where a caller stands in a source of events, in the caller's own words. It becomes durable together
/// with the events that were appended before it, or not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark<'a> {
    /// The source, such as a file's identity.
    pub source: &'a [u8],
    /// The position in it.
    pub position: &'a [u8],
}

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// It will be durable within about `linger_ms`, on a slow disk within `linger_max_ms`.
    Taken,
    /// The log is full and sheds: the event was counted as shed and is gone.
    Shed,
}

pub(super) fn check_quantity(quantity: u64) -> Result<(), AppendError> {
    Quantity::of_event(quantity)
        .map(drop)
        .map_err(|error| AppendError::Invalid(vec![FieldFault::new("usage.quantity", error.to_string())]))
}

impl Mark<'_> {
    pub(super) fn check(&self) -> Result<(), AppendError> {
        let len = self.source.len().saturating_add(self.position.len());
        if self.source.is_empty() || len > MARK_BYTES_MAX {
            let description = format!("has {len} bytes, 1 to {MARK_BYTES_MAX} are allowed, with a source");
            return Err(AppendError::Invalid(vec![FieldFault::new("mark", description)]));
        }
        Ok(())
    }
}
