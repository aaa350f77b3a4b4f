//! What frames of both forms begin with.

use std::ops::RangeInclusive;

use drawdown_types::Timestamp;

use crate::{
    fault::FieldFault,
    frame::number,
    shard::SEQUENCE_MAX,
    wire::{Field, Reader},
};

/// What one frame may have.
#[derive(Clone, Copy, Debug)]
pub struct FrameLimits {
    /// Most bytes.
    pub bytes_max: usize,
    /// Most events.
    pub events_max: u32,
}

impl Default for FrameLimits {
    /// 1 MiB and 65,536 events.
    fn default() -> Self {
        Self { bytes_max: 1 << 20, events_max: 1 << 16 }
    }
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Header {
    pub(super) has_lane: bool,
    pub(super) map_version: u32,
    pub(super) shard: u32,
    pub(super) first_sequence: u64,
    pub(super) events: u32,
    pub(super) received_at_ms: i64,
}

impl Header {
    pub(super) fn read_lane(&mut self, bytes: &[u8]) -> Result<(), FieldFault> {
        self.has_lane = true;
        self.lane_fields(bytes).ok_or_else(|| FieldFault::new("lane", "is no lane"))
    }

    fn lane_fields(&mut self, bytes: &[u8]) -> Option<()> {
        let mut reader = Reader::new(bytes);
        while !reader.is_empty() {
            match reader.field()? {
                (number::LANE_MAP_VERSION, Field::Varint(value)) => {
                    self.map_version = u32::try_from(value).ok()?;
                }
                (number::LANE_SHARD, Field::Varint(value)) => self.shard = u32::try_from(value).ok()?,
                (number::LANE_MAP_VERSION | number::LANE_SHARD, _) => return None,
                _ => {}
            }
        }
        Some(())
    }

    /// The last sequence; where the header does not hold, any number.
    fn last_sequence(&self) -> u64 {
        self.first_sequence.saturating_add(u64::from(self.events)).saturating_sub(1)
    }

    pub(super) fn sequences(&self) -> RangeInclusive<u64> {
        self.first_sequence..=self.last_sequence()
    }

    /// Everything that is wrong with it but the number of its events.
    pub(super) fn faults(&self) -> Vec<FieldFault> {
        let mut faults = Vec::new();
        if !self.has_lane {
            faults.push(FieldFault::new("lane", "is missing"));
        }
        if self.first_sequence == 0 || self.last_sequence() > SEQUENCE_MAX {
            faults.push(FieldFault::new(
                "first_sequence",
                format!("is {}; sequences run from 1 to {SEQUENCE_MAX}", self.first_sequence),
            ));
        }
        if Timestamp::from_millis(self.received_at_ms).is_err() {
            faults.push(FieldFault::new("received_at_unix_ms", "is outside the years 0001 to 9999"));
        }
        faults
    }
}
