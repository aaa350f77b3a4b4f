//! Reading frames.

use std::ops::RangeInclusive;

use crate::{
    chain,
    fault::{FieldFault, FrameFault},
    frame::{Definition, Frame, FrameLimits, Part, definition::definitions, header::Header, number},
    reason,
    wire::{Field, Reader, unzigzag},
};

/// A checked frame over borrowed bytes.
#[derive(Clone, Debug)]
pub struct FrameView<'a> {
    body: &'a [u8],
    header: Header,
    base_time_ms: i64,
    definitions: Vec<Definition>,
    columns: Columns<'a>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Columns<'a> {
    series: &'a [u8],
    quantities: &'a [u8],
    time_deltas: &'a [u8],
}

#[derive(Default)]
struct Raw<'a> {
    header: Header,
    base_time_ms: i64,
    definitions: Vec<&'a [u8]>,
    columns: Columns<'a>,
}

impl<'a> FrameView<'a> {
    /// Reads and checks a frame. One pass over the header and two cheap ones over each column.
    ///
    /// # Errors
    /// `FRAME_EMPTY`, `FRAME_TOO_LARGE`, `FRAME_MALFORMED` or `SERIES_INVALID`, with every offending field.
    pub fn parse(body: &'a [u8], limits: &FrameLimits) -> Result<Self, FrameFault> {
        if body.len() > limits.bytes_max {
            let description = format!("has {} bytes, at most {} are allowed", body.len(), limits.bytes_max);
            return Err(FrameFault::one(reason::FRAME_TOO_LARGE, "body", description));
        }
        let raw = Raw::read(body).map_err(|fault| FrameFault::new(reason::FRAME_MALFORMED, vec![fault]))?;
        let events = raw.header.events;
        if events == 0 {
            return Err(FrameFault::one(reason::FRAME_EMPTY, "event_count", "is 0, at least 1 is needed"));
        }
        if events > limits.events_max {
            let description = format!("is {events}, at most {} are allowed", limits.events_max);
            return Err(FrameFault::one(reason::FRAME_TOO_LARGE, "event_count", description));
        }
        let faults = raw.faults();
        if !faults.is_empty() {
            return Err(FrameFault::new(reason::FRAME_MALFORMED, faults));
        }
        let definitions = definitions(&raw.definitions)?;
        let Raw { header, base_time_ms, columns, .. } = raw;
        Ok(Self { body, header, base_time_ms, definitions, columns })
    }

    /// The bytes, as hashed and kept.
    #[must_use]
    pub const fn body(&self) -> &'a [u8] {
        self.body
    }

    /// The map version of the lane it extends.
    #[must_use]
    pub const fn map_version(&self) -> u32 {
        self.header.map_version
    }

    /// The shard of the lane it extends.
    #[must_use]
    pub const fn shard(&self) -> u32 {
        self.header.shard
    }

    /// Number of events, at least 1.
    #[must_use]
    pub const fn events(&self) -> u32 {
        self.header.events
    }

    /// Sequences of its events.
    #[must_use]
    pub fn sequences(&self) -> RangeInclusive<u64> {
        self.header.sequences()
    }

    /// When the events became durable in the producer's log, in ms since the epoch.
    #[must_use]
    pub const fn received_at_ms(&self) -> i64 {
        self.header.received_at_ms
    }

    /// The series it defines, in the order they came.
    #[must_use]
    pub fn definitions(&self) -> &[Definition] {
        &self.definitions
    }

    /// The lane's chain after this frame.
    #[must_use]
    pub fn chain_after(&self, chain_before: u64) -> u64 {
        chain::next(chain_before, self.body)
    }

    /// Visits the series number of each event.
    #[inline]
    pub fn for_each_series(&self, mut visit: impl FnMut(u32)) {
        let mut series = Packed(self.columns.series);
        for _ in 0..self.header.events {
            visit(series.next_u32());
        }
    }

    /// Visits each event: series number, quantity, event time in ms since the epoch.
    #[inline]
    pub fn for_each(&self, mut visit: impl FnMut(u32, u64, i64)) {
        let mut series = Packed(self.columns.series);
        self.for_each_measure(|quantity, time_ms| visit(series.next_u32(), quantity, time_ms));
    }

    /// Visits quantity and event time of each event.
    #[inline]
    fn for_each_measure(&self, visit: impl FnMut(u64, i64)) {
        let Columns { quantities, time_deltas, .. } = self.columns;
        match (quantities.is_empty(), time_deltas.is_empty()) {
            (true, true) => self.walk(Same(1), Same(0), visit),
            (true, false) => self.walk(Same(1), Packed(time_deltas), visit),
            (false, true) => self.walk(Packed(quantities), Same(0), visit),
            (false, false) => self.walk(Packed(quantities), Packed(time_deltas), visit),
        }
    }

    #[inline]
    fn walk(&self, mut quantities: impl Column, mut deltas: impl Column, mut visit: impl FnMut(u64, i64)) {
        let mut time_ms = self.base_time_ms;
        for _ in 0..self.header.events {
            time_ms = time_ms.wrapping_add(unzigzag(deltas.next()));
            visit(quantities.next(), time_ms);
        }
    }
}

impl Frame for FrameView<'_> {
    fn map_version(&self) -> u32 {
        self.map_version()
    }

    fn shard(&self) -> u32 {
        self.shard()
    }

    fn events(&self) -> u32 {
        self.events()
    }

    fn sequences(&self) -> RangeInclusive<u64> {
        self.sequences()
    }

    fn received_at_ms(&self) -> i64 {
        self.received_at_ms()
    }

    fn definitions(&self) -> &[Definition] {
        self.definitions()
    }

    fn chain_after(&self, chain_before: u64) -> u64 {
        self.chain_after(chain_before)
    }

    #[inline]
    fn for_each_series(&self, visit: impl FnMut(u32)) {
        self.for_each_series(visit);
    }

    #[inline]
    fn for_each_measure(&self, visit: impl FnMut(u64, i64)) {
        self.for_each_measure(visit);
    }

    fn path(&self, part: Part, at: u32) -> String {
        match part {
            Part::Series => format!("series[{at}]"),
            Part::Quantity => format!("quantities[{at}]"),
            Part::Time => format!("time_deltas_ms[{at}]"),
        }
    }

    fn series_text(&self, number: u32) -> String {
        format!("is {number}")
    }
}

trait Column {
    fn next(&mut self) -> u64;
}

/// A column that was left out.
struct Same(u64);

/// Varints that were checked before: reading never fails, and would answer 0 if it did.
struct Packed<'a>(&'a [u8]);

impl Column for Same {
    #[inline]
    fn next(&mut self) -> u64 {
        self.0
    }
}

impl Column for Packed<'_> {
    /// Up to four bytes without a branch on the length: lengths are mixed, and a wrong guess costs
    /// more than the whole decoding.
    #[inline]
    fn next(&mut self) -> u64 {
        const STOPS: u32 = 0x8080_8080;
        let Some(word) = self.0.first_chunk::<4>().map(|bytes| u32::from_le_bytes(*bytes)) else {
            return self.next_long();
        };
        let stops = !word & STOPS;
        if stops == 0 {
            return self.next_long();
        }
        // All bits up to the first stop.
        let value = word & (stops ^ stops.wrapping_sub(1));
        let len = usize::try_from(stops.trailing_zeros() >> 3).unwrap_or_default();
        self.0 = self.0.get(len.saturating_add(1)..).unwrap_or_default();
        let groups = value & 0x7f | value >> 1 & 0x3f80 | value >> 2 & 0x1f_c000 | value >> 3 & 0xfe0_0000;
        u64::from(groups)
    }
}

impl Packed<'_> {
    #[inline]
    fn next_u32(&mut self) -> u32 {
        u32::try_from(self.next()).unwrap_or_default()
    }

    #[inline(never)]
    fn next_long(&mut self) -> u64 {
        let mut value: u64 = 0;
        for (at, byte) in self.0.iter().enumerate() {
            let shift = u32::try_from(at.saturating_mul(7)).unwrap_or(u32::MAX);
            value |= u64::from(*byte & 0x7f).checked_shl(shift).unwrap_or_default();
            if *byte < 0x80 {
                self.0 = self.0.get(at.saturating_add(1)..).unwrap_or_default();
                break;
            }
        }
        value
    }
}

impl<'a> Raw<'a> {
    fn read(body: &'a [u8]) -> Result<Self, FieldFault> {
        let mut raw = Self::default();
        let mut reader = Reader::new(body);
        while !reader.is_empty() {
            let at = body.len().saturating_sub(reader.len());
            let broken = || FieldFault::new("body", format!("is no protobuf field at byte {at}"));
            let (number, field) = reader.field().ok_or_else(broken)?;
            raw.take(number, field)?;
        }
        Ok(raw)
    }

    fn take(&mut self, number: u32, field: Field<'a>) -> Result<(), FieldFault> {
        let header = &mut self.header;
        match (number, field) {
            (number::FRAME_LANE, Field::Bytes(bytes)) => {
                header.read_lane(bytes)?;
            }
            (number::FRAME_FIRST_SEQUENCE, Field::Varint(value)) => header.first_sequence = value,
            (number::FRAME_EVENT_COUNT, Field::Varint(value)) => {
                header.events = u32::try_from(value)
                    .map_err(|_| FieldFault::new("event_count", "does not fit 32 bits"))?;
            }
            (number::FRAME_RECEIVED_AT, Field::Varint(value)) => header.received_at_ms = value.cast_signed(),
            (number::FRAME_DEFINITIONS, Field::Bytes(bytes)) => self.definitions.push(bytes),
            (number::FRAME_BASE_TIME, Field::Varint(value)) => self.base_time_ms = value.cast_signed(),
            (number::FRAME_SERIES, Field::Bytes(bytes)) => {
                put_column(&mut self.columns.series, bytes, "series")?;
            }
            (number::FRAME_QUANTITIES, Field::Bytes(bytes)) => {
                put_column(&mut self.columns.quantities, bytes, "quantities")?;
            }
            (number::FRAME_TIME_DELTAS, Field::Bytes(bytes)) => {
                put_column(&mut self.columns.time_deltas, bytes, "time_deltas_ms")?;
            }
            (number::FRAME_LANE..=number::FRAME_TIME_DELTAS, _) => {
                return Err(FieldFault::new(
                    FRAME_FIELDS.get(usize::try_from(number).unwrap_or_default()).copied().unwrap_or("body"),
                    "has another wire type than the contract's; columns are packed",
                ));
            }
            _ => {}
        }
        Ok(())
    }

    fn faults(&self) -> Vec<FieldFault> {
        let header = &self.header;
        let mut faults = header.faults();
        let Columns { series, quantities, time_deltas } = self.columns;
        check_column("series", series, header.events, u64::from(u32::MAX), &mut faults);
        if !quantities.is_empty() {
            check_column("quantities", quantities, header.events, u64::MAX, &mut faults);
        }
        if !time_deltas.is_empty() {
            check_column("time_deltas_ms", time_deltas, header.events, u64::MAX, &mut faults);
        }
        faults
    }
}

const FRAME_FIELDS: [&str; 10] = [
    "body",
    "lane",
    "first_sequence",
    "event_count",
    "received_at_unix_ms",
    "definitions",
    "base_time_unix_ms",
    "series",
    "quantities",
    "time_deltas_ms",
];

fn put_column<'a>(column: &mut &'a [u8], bytes: &'a [u8], field: &str) -> Result<(), FieldFault> {
    if !column.is_empty() {
        return Err(FieldFault::new(field, "is written twice; a column is one packed field"));
    }
    *column = bytes;
    Ok(())
}

/// Afterwards the column holds exactly `events` varints of at most `max`.
fn check_column(field: &str, column: &[u8], events: u32, max: u64, faults: &mut Vec<FieldFault>) {
    let ends = ends(column);
    if column.last().is_some_and(|byte| *byte >= 0x80) {
        faults.push(FieldFault::new(field, "ends inside an entry"));
    } else if usize::try_from(events).is_ok_and(|events| events != ends) {
        faults.push(FieldFault::new(field, format!("has {ends} entries for {events} events")));
    } else if has_long(column) {
        let mut reader = Reader::new(column);
        let mut at: u32 = 0;
        while !reader.is_empty() {
            if reader.varint().is_none_or(|value| value > max) {
                faults.push(FieldFault::new(format!("{field}[{at}]"), format!("is no number up to {max}")));
                return;
            }
            at = at.saturating_add(1);
        }
    }
}

/// The bytes that end a varint. Sums of one byte, which hold as many, compile to vector instructions.
fn ends(column: &[u8]) -> usize {
    let sums = column.chunks(usize::from(u8::MAX)).map(|chunk| {
        usize::from(chunk.iter().fold(0u8, |sum, byte| sum.wrapping_add(u8::from(*byte < 0x80))))
    });
    sums.sum()
}

/// Some varint has more than four bytes, so that its value has to be looked at. Written so that it
/// compiles to vector instructions.
fn has_long(column: &[u8]) -> bool {
    let shifted = |by: usize| column.get(by..).unwrap_or_default();
    let runs = column.iter().zip(shifted(1)).zip(shifted(2).iter().zip(shifted(3)));
    runs.fold(0, |all, ((a, b), (c, d))| all | (a & b & c & d)) >= 0x80
}
