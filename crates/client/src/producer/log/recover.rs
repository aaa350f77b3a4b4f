//! Opening: read every retained byte once, check all of it, cut a torn tail, say what is there.

use std::{
    collections::VecDeque,
    fs::OpenOptions,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use drawdown_metering_core::{
    chain,
    series::SeriesKey,
    shard::{Lane, Position},
};
use drawdown_types::ProducerId;

use super::{
    LogError, Marks, Positions,
    meta::sync_directory,
    record::{FrameSpan, Group, Head, Payload, find_sound, sound},
};

const SUFFIX: &str = "segment";

/// A frame's place in its lane, and where its bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FrameRef {
    pub(crate) lane: Lane,
    pub(crate) first_sequence: u64,
    pub(crate) end: Position,
    pub(crate) body: Body,
}

/// Where a frame's bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    /// In a segment of the log.
    Stored(Spot),
    /// Here and nowhere else: of a producer that keeps its events in memory only.
    Held(Bytes),
}

/// A place on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spot {
    pub(crate) segment: u64,
    pub(crate) offset: u64,
    pub(crate) len: usize,
}

/// A segment file.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) number: u64,
    pub(crate) bytes: u64,
    /// Bytes of its head, which its groups have to outweigh before the next one starts.
    pub(crate) head_bytes: u64,
    /// Where every lane stands at its end.
    pub(crate) ends: Positions,
    /// Since when everything in it is known to be settled.
    pub(crate) settled_at: Option<drawdown_types::Timestamp>,
}

/// What a log says when it is opened.
#[derive(Debug, Default)]
pub(crate) struct Recovered {
    pub(crate) segments: VecDeque<Segment>,
    pub(crate) lanes: Positions,
    /// Where every lane stood when the oldest retained segment began: what is freed.
    pub(crate) freed: Positions,
    pub(crate) series: Vec<Arc<SeriesKey>>,
    pub(crate) marks: Marks,
    pub(crate) shed: u64,
    pub(crate) frames: Vec<FrameRef>,
    pub(crate) next_record: u64,
    /// Bytes of a half-written group that were cut.
    pub(crate) torn_bytes: u64,
}

pub(super) fn segment_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:012}.{SUFFIX}"))
}

fn segment_numbers(dir: &Path) -> Result<Vec<u64>, LogError> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(LogError::io("list", dir))? {
        let path = entry.map_err(LogError::io("list", dir))?.path();
        if path.extension().is_some_and(|extension| extension == SUFFIX)
            && let Some(number) = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok())
        {
            numbers.push(number);
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Reads the log in `dir`. Changes the directory only to cut a torn tail.
///
/// # Errors
/// [`LogError::Corrupt`] with the file and the byte; [`LogError::Io`].
pub(crate) fn recover(dir: &Path, producer: ProducerId) -> Result<Recovered, LogError> {
    let numbers = segment_numbers(dir)?;
    let mut recovered = Recovered { next_record: 1, ..Recovered::default() };
    for (at, number) in numbers.iter().enumerate() {
        let path = segment_path(dir, *number);
        let bytes = std::fs::read(&path).map_err(LogError::io("read", &path))?;
        let last = at.saturating_add(1) == numbers.len();
        let mut reader = SegmentReader { path, producer, number: *number, recovered: &mut recovered };
        let good = reader.read(&bytes, last)?;
        let path = reader.path;
        if last {
            settle_tail(dir, &path, good, bytes.len())?;
            recovered.torn_bytes = u64_of(bytes.len().saturating_sub(good));
        }
    }
    Ok(recovered)
}

/// Cuts what is torn, and makes durable what a killed process may only have handed to the system.
fn settle_tail(dir: &Path, path: &Path, good: usize, len: usize) -> Result<(), LogError> {
    if good == 0 {
        // Not even the head was finished, so nothing was ever in it.
        std::fs::remove_file(path).map_err(LogError::io("remove", path))?;
        return sync_directory(dir);
    }
    let file = OpenOptions::new().write(true).open(path).map_err(LogError::io("open", path))?;
    if good < len {
        file.set_len(u64_of(good)).map_err(LogError::io("truncate", path))?;
    }
    file.sync_all().map_err(LogError::io("sync", path))?;
    sync_directory(dir)
}

fn u64_of(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

struct SegmentReader<'a> {
    path: PathBuf,
    producer: ProducerId,
    number: u64,
    recovered: &'a mut Recovered,
}

impl SegmentReader<'_> {
    /// Answers how many bytes of the file are sound.
    fn read(&mut self, bytes: &[u8], last: bool) -> Result<usize, LogError> {
        let mut offset = 0;
        while let Some(rest) = bytes.get(offset..).filter(|rest| !rest.is_empty()) {
            let Some(record) = sound(rest) else {
                let after = rest.get(1..).unwrap_or_default();
                if last && find_sound(after).is_none() {
                    return Ok(offset);
                }
                return Err(self.corrupt(offset, "a record's checksum does not hold"));
            };
            if offset == 0 && self.recovered.segments.is_empty() {
                self.recovered.next_record = record.number;
            }
            if record.number != self.recovered.next_record {
                let problem =
                    format!("record {} where {} belongs", record.number, self.recovered.next_record);
                return Err(self.corrupt(offset, problem));
            }
            let payload = Payload::decode(record.payload, self.producer)
                .ok_or_else(|| self.corrupt(offset, "a record of an unknown form"))?;
            let whole = rest.get(..record.len).unwrap_or_default();
            self.take(payload, offset, whole)?;
            self.recovered.next_record = record.number.saturating_add(1);
            offset = offset.saturating_add(record.len);
            if let Some(segment) = self.recovered.segments.back_mut() {
                segment.bytes = u64_of(offset);
                segment.ends.clone_from(&self.recovered.lanes);
            }
        }
        if offset == 0 && !last {
            return Err(self.corrupt(0, "the segment is empty"));
        }
        Ok(offset)
    }

    fn corrupt(&self, offset: usize, problem: impl Into<String>) -> LogError {
        LogError::corrupt(&self.path, offset, problem)
    }

    fn take(&mut self, payload: Payload, offset: usize, record: &[u8]) -> Result<(), LogError> {
        match payload {
            Payload::Head(head) if offset == 0 => self.take_head(*head, record.len()),
            Payload::Group(group) if offset > 0 => self.take_group(*group, offset, record),
            Payload::Closed if offset > 0 => Ok(()),
            Payload::Head(_) | Payload::Group(_) | Payload::Closed => {
                Err(self.corrupt(offset, "a segment starts with its head, once"))
            }
        }
    }

    fn take_head(&mut self, head: Head, len: usize) -> Result<(), LogError> {
        if head.producer != self.producer {
            return Err(LogError::OtherProducer { found: head.producer, asked: self.producer });
        }
        if head.segment != self.number {
            return Err(self.corrupt(0, format!("the head is that of segment {}", head.segment)));
        }
        let state = &mut *self.recovered;
        if state.segments.is_empty() {
            state.freed.clone_from(&head.lanes);
            (state.lanes, state.series) = (head.lanes, head.series);
            (state.marks, state.shed) = (head.marks, head.shed);
        } else if head.lanes != state.lanes
            || head.series != state.series
            || head.marks != state.marks
            || head.shed != state.shed
        {
            return Err(self.corrupt(0, "the head is not what the segments before it end with"));
        }
        let bytes = u64_of(len);
        state.segments.push_back(Segment {
            number: self.number,
            bytes,
            head_bytes: bytes,
            ends: state.lanes.clone(),
            settled_at: None,
        });
        Ok(())
    }

    fn take_group(&mut self, group: Group, offset: usize, record: &[u8]) -> Result<(), LogError> {
        let next_series = self.recovered.series.len().saturating_add(1);
        if !group.series.is_empty() && usize::try_from(group.first_series).ok() != Some(next_series) {
            let problem = format!("series {} where {next_series} belongs", group.first_series);
            return Err(self.corrupt(offset, problem));
        }
        self.recovered.series.extend(group.series);
        self.recovered.marks.extend(group.marks);
        self.recovered.shed = group.shed;
        for span in group.frames {
            self.take_frame(&span, offset, record)?;
        }
        Ok(())
    }

    fn take_frame(&mut self, span: &FrameSpan, offset: usize, record: &[u8]) -> Result<(), LogError> {
        let before = self.recovered.lanes.get(&span.lane).copied().unwrap_or_default();
        let body = record.get(span.body.clone()).unwrap_or_default();
        let gapless = span.first_sequence == before.sequence.saturating_add(1)
            && span.end.sequence >= span.first_sequence
            && span.end.chain == chain::next(before.chain, body);
        if !gapless {
            return Err(self.corrupt(offset, format!("a frame does not extend lane {}", span.lane)));
        }
        self.recovered.lanes.insert(span.lane, span.end);
        let spot = Spot {
            segment: self.number,
            offset: u64_of(offset.saturating_add(span.body.start)),
            len: span.body.len(),
        };
        let (lane, first_sequence, end) = (span.lane, span.first_sequence, span.end);
        self.recovered.frames.push(FrameRef { lane, first_sequence, end, body: Body::Stored(spot) });
        Ok(())
    }
}
