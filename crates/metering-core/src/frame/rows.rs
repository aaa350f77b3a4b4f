//! Reading frames of rows.
//!
//! Shape: one pass over the bytes. A row costs one hash of the bytes that spell its series and one entry in a
//! buffer that is kept from frame to frame; texts are looked at, and copied, only where those bytes are new to
//! the stream. Numbers are given by the book and mean something on its stream only. The book is a cache: when it is
//! full it is emptied, because every row names its series again, so a stream may bring any number of series.
//!
//! Memory: series of the stream × [`SERIES_BYTES_MAX`], and events of one frame × 24 bytes.

use std::{ops::RangeInclusive, sync::Arc};

use rustc_hash::FxHashMap;

use crate::{
    chain,
    dictionary::Dictionary,
    fault::{FieldFault, FrameFault},
    frame::{
        Definition, Frame, FrameLimits, Part,
        definition::{FAULTS_MAX, series_key},
        header::Header,
        number,
    },
    reason,
    series::SeriesNumber,
    wire::{Field, Reader},
};

/// The most bytes that spell one series: more than twice what its texts may have.
pub const SERIES_BYTES_MAX: usize = 4096;

/// What the row frames of one stream have named, and the events of the frame that was read last.
#[derive(Debug)]
pub struct RowBook {
    series_max: u32,
    /// By the bytes that spell it. One series may be spelled in several ways.
    numbers: FxHashMap<Box<[u8]>, u32>,
    series: Dictionary,
    rows: Vec<Row>,
    /// New since the last frame that was taken: a refused one must not hide what it named.
    fresh: Vec<Definition>,
    is_told: bool,
}

/// A checked frame of rows, and the dictionary that its numbers are of.
#[derive(Debug)]
pub struct RowFrame<'a> {
    /// The frame.
    pub view: RowView<'a>,
    /// What the book has named.
    pub series: &'a mut Dictionary,
}

/// A checked frame of rows.
#[derive(Clone, Copy, Debug)]
pub struct RowView<'a> {
    body: &'a [u8],
    header: Header,
    rows: &'a [Row],
    fresh: &'a [Definition],
}

#[derive(Clone, Copy, Debug)]
struct Row {
    series: u32,
    quantity: u64,
    time_ms: i64,
}

/// Tags of a row's fields, each one byte.
mod tag {
    use crate::frame::number;

    pub(super) const SERIES: u8 = (number::ROW_SERIES << 3 | 2).to_le_bytes()[0];
    pub(super) const QUANTITY: u8 = (number::ROW_QUANTITY << 3).to_le_bytes()[0];
    pub(super) const TIME: u8 = (number::ROW_TIME << 3).to_le_bytes()[0];
}

/// A row whose series is not looked up yet.
#[derive(Default)]
struct RawRow<'a> {
    series: &'a [u8],
    quantity: u64,
    time_ms: i64,
}

/// What is wrong with rows, by what it is answered with.
#[derive(Default)]
struct RowFaults {
    malformed: Vec<FieldFault>,
    invalid: Vec<FieldFault>,
}

/// The book has no room for another series.
struct Full;

impl RowBook {
    /// Empty; remembers at most `series_max` series, at least one.
    #[must_use]
    pub fn new(series_max: u32) -> Self {
        let series_max = series_max.max(1);
        Self {
            series_max,
            numbers: FxHashMap::default(),
            series: Dictionary::new(series_max),
            rows: Vec::new(),
            fresh: Vec::new(),
            is_told: true,
        }
    }

    /// Reads and checks a frame, and names the series that are new.
    ///
    /// # Errors
    /// `FRAME_EMPTY`, `FRAME_TOO_LARGE`, `FRAME_MALFORMED`, `SERIES_INVALID` or, where this one frame has more
    /// series than a stream may have, `SERIES_TOO_MANY`; with every offending field.
    pub fn read<'a>(&'a mut self, body: &'a [u8], limits: &FrameLimits) -> Result<RowFrame<'a>, FrameFault> {
        if body.len() > limits.bytes_max {
            let description = format!("has {} bytes, at most {} are allowed", body.len(), limits.bytes_max);
            return Err(FrameFault::one(reason::FRAME_TOO_LARGE, "frame", description));
        }
        let header = match self.walk(body, limits)? {
            Ok(header) => header,
            Err(Full) => {
                self.forget();
                self.walk(body, limits)?.map_err(|Full| {
                    let description = format!("name more than {} series", self.series_max);
                    FrameFault::one(reason::SERIES_TOO_MANY, "rows", description)
                })?
            }
        };
        self.is_told = true;
        let view = RowView { body, header, rows: &self.rows, fresh: &self.fresh };
        Ok(RowFrame { view, series: &mut self.series })
    }

    /// Series that it remembers, in all their spellings.
    #[must_use]
    pub fn len(&self) -> usize {
        self.numbers.len()
    }

    /// It remembers nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    fn forget(&mut self) {
        self.numbers = FxHashMap::default();
        self.fresh.clear();
        self.series = Dictionary::new(self.series_max);
    }

    fn walk(&mut self, body: &[u8], limits: &FrameLimits) -> Result<Result<Header, Full>, FrameFault> {
        let malformed = |fault| FrameFault::new(reason::FRAME_MALFORMED, vec![fault]);
        self.rows.clear();
        if std::mem::take(&mut self.is_told) {
            self.fresh.clear();
        }
        let mut header = Header::default();
        let mut faults = RowFaults::default();
        let mut reader = Reader::new(body);
        while !reader.is_empty() {
            let at = body.len().saturating_sub(reader.len());
            let broken = || malformed(FieldFault::new("frame", format!("is no protobuf field at byte {at}")));
            match reader.field().ok_or_else(broken)? {
                (number::ROWS_ROWS, Field::Bytes(bytes)) => {
                    let place = header.events;
                    header.events = place.saturating_add(1);
                    let behind = reader.len();
                    let from = body.len().saturating_sub(behind).saturating_sub(bytes.len());
                    let from = body.get(from..).unwrap_or_default();
                    if place < limits.events_max && self.row(from, behind, place, &mut faults).is_err() {
                        return Ok(Err(Full));
                    }
                }
                (number, field) => header.take(number, field).map_err(malformed)?,
            }
        }
        if header.events == 0 {
            return Err(FrameFault::one(reason::FRAME_EMPTY, "rows", "are none, at least 1 is needed"));
        }
        if header.events > limits.events_max {
            let description = format!("are {}, at most {} are allowed", header.events, limits.events_max);
            return Err(FrameFault::one(reason::FRAME_TOO_LARGE, "rows", description));
        }
        let mut wrong = header.faults();
        wrong.append(&mut faults.malformed);
        if !wrong.is_empty() {
            return Err(FrameFault::new(reason::FRAME_MALFORMED, wrong));
        }
        if !faults.invalid.is_empty() {
            return Err(FrameFault::new(reason::SERIES_INVALID, faults.invalid));
        }
        Ok(Ok(header))
    }

    /// Takes the row that `from` begins with, where `behind` bytes are behind it.
    #[inline]
    fn row(&mut self, from: &[u8], behind: usize, place: u32, faults: &mut RowFaults) -> Result<(), Full> {
        let Some(row) = RawRow::read(from, behind) else {
            if faults.malformed.len() < FAULTS_MAX {
                faults.malformed.push(FieldFault::new(format!("rows[{place}]"), "is no row"));
            }
            return Ok(());
        };
        let series = match self.numbers.get(row.series) {
            Some(number) => *number,
            None => match self.name(row.series, place, &mut faults.invalid)? {
                Some(number) => number,
                None => return Ok(()),
            },
        };
        self.rows.push(Row { series, quantity: row.quantity, time_ms: row.time_ms });
        Ok(())
    }

    /// The number of a series that was not spelled like this before; `None` where it is wrong.
    #[cold]
    fn name(
        &mut self,
        spelling: &[u8],
        place: u32,
        faults: &mut Vec<FieldFault>,
    ) -> Result<Option<u32>, Full> {
        if faults.len() >= FAULTS_MAX {
            return Ok(None);
        }
        let path = format!("rows[{place}].series");
        if spelling.len() > SERIES_BYTES_MAX {
            let description = format!("has {} bytes, at most {SERIES_BYTES_MAX} are allowed", spelling.len());
            faults.push(FieldFault::new(path, description));
            return Ok(None);
        }
        let key = match series_key(spelling, &path) {
            Ok(key) => Arc::new(key),
            Err(found) => {
                faults.extend(found);
                return Ok(None);
            }
        };
        let number = self.series.len().checked_add(1).and_then(SeriesNumber::new).ok_or(Full)?;
        // The number is new, so that only the limit can refuse it.
        let definition = Definition { number, key };
        self.series.define(std::slice::from_ref(&definition)).map_err(|_| Full)?;
        self.numbers.insert(spelling.into(), number.get());
        self.fresh.push(definition);
        Ok(Some(number.get()))
    }
}

impl<'a> RawRow<'a> {
    /// Reads over the row's end and looks afterwards, because the time stands last and numbers are read eight bytes at
    /// a time where there are as many.
    #[inline]
    fn read(from: &'a [u8], behind: usize) -> Option<Self> {
        let mut row = Self::default();
        let mut has_series = false;
        let mut reader = Reader::new(from);
        while reader.len() > behind {
            // What every encoder writes, by whole tags; the rest is for the fields of a later contract, and faults.
            let mut ahead = reader;
            match ahead.byte()? {
                tag::SERIES if !has_series => {
                    has_series = true;
                    row.series = ahead.prefixed()?;
                    reader = ahead;
                    continue;
                }
                tag::QUANTITY => {
                    row.quantity = ahead.varint()?;
                    reader = ahead;
                    continue;
                }
                tag::TIME => {
                    row.time_ms = ahead.varint()?.cast_signed();
                    reader = ahead;
                    continue;
                }
                _ => {}
            }
            // Another wire type, a tag that is written longer than it has to be, or a second series, which generated
            // decoders would merge with the first.
            let (number, _) = reader.field()?;
            if (number::ROW_SERIES..=number::ROW_TIME).contains(&number) {
                return None;
            }
        }
        (reader.len() == behind).then_some(row)
    }
}

impl Header {
    /// Takes a field of a row frame that is no row.
    fn take(&mut self, number: u32, field: Field<'_>) -> Result<(), FieldFault> {
        match (number, field) {
            (number::FRAME_LANE, Field::Bytes(bytes)) => return self.read_lane(bytes),
            (number::FRAME_FIRST_SEQUENCE, Field::Varint(value)) => self.first_sequence = value,
            (number::ROWS_RECEIVED_AT, Field::Varint(value)) => self.received_at_ms = value.cast_signed(),
            (number::FRAME_LANE..=number::ROWS_ROWS, _) => {
                let fields = ["lane", "first_sequence", "received_at_unix_ms", "rows"];
                let at = usize::try_from(number).unwrap_or_default().saturating_sub(1);
                return Err(FieldFault::new(
                    fields.get(at).copied().unwrap_or("frame"),
                    "has another wire type than the contract's",
                ));
            }
            _ => {}
        }
        Ok(())
    }
}

impl Frame for RowView<'_> {
    fn map_version(&self) -> u32 {
        self.header.map_version
    }

    fn shard(&self) -> u32 {
        self.header.shard
    }

    fn events(&self) -> u32 {
        self.header.events
    }

    fn sequences(&self) -> RangeInclusive<u64> {
        self.header.sequences()
    }

    fn received_at_ms(&self) -> i64 {
        self.header.received_at_ms
    }

    fn definitions(&self) -> &[Definition] {
        self.fresh
    }

    fn chain_after(&self, chain_before: u64) -> u64 {
        chain::next(chain_before, self.body)
    }

    #[inline]
    fn for_each_series(&self, mut visit: impl FnMut(u32)) {
        for row in self.rows {
            visit(row.series);
        }
    }

    #[inline]
    fn for_each_measure(&self, mut visit: impl FnMut(u64, i64)) {
        for row in self.rows {
            visit(row.quantity, row.time_ms);
        }
    }

    fn path(&self, part: Part, at: u32) -> String {
        let field = match part {
            Part::Series => "series",
            Part::Quantity => "quantity",
            Part::Time => "time_unix_ms",
        };
        format!("rows[{at}].{field}")
    }

    fn series_text(&self, _number: u32) -> String {
        "is a series".to_owned()
    }
}
