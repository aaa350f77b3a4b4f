//! Writing frames.

use crate::{
    frame::number,
    series::{SeriesKey, SeriesNumber},
    shard::Lane,
    wire::{put_field_bytes, put_field_varint, put_prefixed, put_varint, zigzag},
};

/// Bytes of a frame beside its columns and definitions: header fields, tags and lengths, at most.
const HEADER_BYTES_MAX: usize = 96;

/// Collects events and definitions, then writes one frame. Its buffers are kept for the next one.
#[derive(Debug, Default)]
pub struct FrameBuilder {
    series: Vec<u8>,
    quantities: Vec<u8>,
    time_deltas: Vec<u8>,
    definitions: Vec<u8>,
    events: u32,
    base_time_ms: i64,
    last_time_ms: i64,
    other_quantities: bool,
    other_times: bool,
    scratch: [Vec<u8>; 2],
}

impl FrameBuilder {
    /// Empty.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an event. `series` must be defined, here or in an earlier frame of the log.
    #[inline]
    pub fn push(&mut self, series: SeriesNumber, quantity: u64, time_ms: i64) {
        if self.events == 0 {
            self.base_time_ms = time_ms;
            self.last_time_ms = time_ms;
        }
        // Modulo 2^64 on both sides, so that every pair of instants survives.
        let delta = time_ms.wrapping_sub(self.last_time_ms);
        put_varint(&mut self.series, u64::from(series.get()));
        put_varint(&mut self.quantities, quantity);
        put_varint(&mut self.time_deltas, zigzag(delta));
        self.other_quantities |= quantity != 1;
        self.other_times |= delta != 0;
        self.last_time_ms = time_ms;
        self.events = self.events.saturating_add(1);
    }

    /// Defines a series that this frame is the first of its log to use.
    pub fn define(&mut self, number: SeriesNumber, key: &SeriesKey) {
        let [series, definition] = &mut self.scratch;
        encode_series(key, series, definition);
        definition.clear();
        put_field_varint(definition, number::DEFINITION_NUMBER, u64::from(number.get()));
        put_field_bytes(definition, number::DEFINITION_SERIES, series);
        put_field_bytes(&mut self.definitions, number::FRAME_DEFINITIONS, definition);
    }

    /// Events so far.
    #[must_use]
    pub const fn events(&self) -> u32 {
        self.events
    }

    /// No events so far.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.events == 0
    }

    /// The most bytes that the finished frame may have.
    #[must_use]
    pub fn bytes_at_most(&self) -> usize {
        [&self.series, &self.quantities, &self.time_deltas, &self.definitions]
            .iter()
            .fold(HEADER_BYTES_MAX, |sum, part| sum.saturating_add(part.len()))
    }

    /// Writes the frame and starts the next one.
    #[must_use]
    pub fn finish(&mut self, lane: Lane, first_sequence: u64, received_at_ms: i64) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.bytes_at_most());
        self.finish_into(lane, first_sequence, received_at_ms, &mut out);
        out
    }

    /// Appends the frame to `out` and starts the next one.
    pub fn finish_into(&mut self, lane: Lane, first_sequence: u64, received_at_ms: i64, out: &mut Vec<u8>) {
        let header = &mut self.scratch[0];
        header.clear();
        put_field_varint(header, number::LANE_MAP_VERSION, u64::from(lane.map_version));
        put_field_varint(header, number::LANE_SHARD, u64::from(lane.shard));
        put_field_bytes(out, number::FRAME_LANE, header);
        put_field_varint(out, number::FRAME_FIRST_SEQUENCE, first_sequence);
        put_field_varint(out, number::FRAME_EVENT_COUNT, u64::from(self.events));
        put_field_varint(out, number::FRAME_RECEIVED_AT, received_at_ms.cast_unsigned());
        out.extend_from_slice(&self.definitions);
        put_field_varint(out, number::FRAME_BASE_TIME, self.base_time_ms.cast_unsigned());
        put_field_bytes(out, number::FRAME_SERIES, &self.series);
        if self.other_quantities {
            put_field_bytes(out, number::FRAME_QUANTITIES, &self.quantities);
        }
        if self.other_times {
            put_field_bytes(out, number::FRAME_TIME_DELTAS, &self.time_deltas);
        }
        self.clear();
    }

    /// Forgets what was added.
    pub fn clear(&mut self) {
        for part in [&mut self.series, &mut self.quantities, &mut self.time_deltas, &mut self.definitions] {
            part.clear();
        }
        self.events = 0;
        self.other_quantities = false;
        self.other_times = false;
    }
}

fn encode_series(key: &SeriesKey, out: &mut Vec<u8>, dimension: &mut Vec<u8>) {
    out.clear();
    put_field_bytes(out, number::SERIES_CLIENT_ID, key.client_id().as_str().as_bytes());
    put_field_bytes(out, number::SERIES_METER, key.meter().as_str().as_bytes());
    put_field_varint(out, number::SERIES_OUTCOME, u64::from(key.outcome().as_wire()));
    for (name, value) in key.dimensions() {
        dimension.clear();
        put_field_bytes(dimension, number::DIMENSION_NAME, name.as_str().as_bytes());
        put_field_bytes(dimension, number::DIMENSION_VALUE, value.as_bytes());
        put_field_bytes(out, number::SERIES_DIMENSIONS, dimension);
    }
    if let Some(hold_id) = key.hold_id() {
        put_varint(out, u64::from(number::SERIES_HOLD_ID << 3 | 2));
        put_prefixed(out, hold_id.to_string().as_bytes());
    }
}
