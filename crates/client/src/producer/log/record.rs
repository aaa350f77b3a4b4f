//! Records: how bytes stand in a segment.
//!
//! `marker 4 · payload length 4 · number 8 · crc32 of length, number and payload 4 · payload`. Numbers
//! count every record of the log without a gap, across segments. The marker can not occur in UTF-8, so
//! no name that a caller chooses can look like the start of a record. Never changed: bytes once written
//! must decode for ever (`tests.rs` keeps some).

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use drawdown_metering_core::{
    chain,
    series::SeriesKey,
    shard::{Lane, Position},
};
use drawdown_types::ProducerId;
use uuid::Uuid;

use super::{
    LogError, Marks, Positions,
    codec::{Decoder, put_bytes, put_len, put_u32, put_u64},
};

const MARKER: [u8; 4] = [0xff, 0xdd, 0xf5, 0xfe];
pub(super) const HEADER_LEN: usize = 20;
const KIND_HEAD: u8 = 1;
const KIND_GROUP: u8 = 2;
const KIND_CLOSED: u8 = 3;
/// Not in a segment: of the files that say what was freed.
pub(super) const KIND_FREED: u8 = 4;
const SEGMENT_FORMAT: u32 = 1;

/// A source and a position in it.
type OwnedMark = (Box<[u8]>, Box<[u8]>);

/// One frame inside a group's record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FrameSpan {
    pub(crate) lane: Lane,
    pub(crate) first_sequence: u64,
    /// Where the lane stands after it.
    pub(crate) end: Position,
    /// The body's place, from the start of the record.
    pub(crate) body: Range<usize>,
}

/// Everything that older segments say, so that they can be deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) producer: ProducerId,
    pub(super) segment: u64,
    pub(super) shed: u64,
    pub(super) lanes: Positions,
    pub(super) series: Vec<Arc<SeriesKey>>,
    pub(super) marks: Marks,
}

/// What one fsync made durable.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub(super) shed: u64,
    pub(super) marks: Vec<OwnedMark>,
    /// Series in the order of their numbers, the first of which is `first_series`.
    pub(super) first_series: u32,
    pub(super) series: Vec<Arc<SeriesKey>>,
    pub(super) frames: Vec<FrameSpan>,
}

/// A record's content.
#[derive(Clone, Debug)]
pub(super) enum Payload {
    Head(Box<Head>),
    Group(Box<Group>),
    /// The log was closed in order; nothing that was durable before may be missing.
    Closed,
}

/// A sound record: its number and the whole length it takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sound<'a> {
    pub(super) number: u64,
    pub(super) len: usize,
    pub(super) payload: &'a [u8],
}

/// The record at the start of `bytes`, if its marker, length and checksum hold.
pub(super) fn sound(bytes: &[u8]) -> Option<Sound<'_>> {
    let rest = bytes.strip_prefix(&MARKER)?;
    let mut header = Decoder::new(rest);
    let payload_len = header.len()?;
    let number = header.u64()?;
    let sum = header.u32()?;
    let payload = header.take(payload_len)?;
    let len = HEADER_LEN.checked_add(payload_len)?;
    (checksum(payload_len, number, payload)? == sum).then_some(Sound { number, len, payload })
}

/// The first sound record after the start of `bytes`; what it is does not matter, only that it is there.
pub(super) fn find_sound(bytes: &[u8]) -> Option<usize> {
    let mut from = 0;
    while let Some(at) = bytes.get(from..)?.windows(MARKER.len()).position(|window| window == MARKER) {
        let at = from.checked_add(at)?;
        if sound(bytes.get(at..)?).is_some() {
            return Some(at);
        }
        from = at.checked_add(1)?;
    }
    None
}

fn checksum(payload_len: usize, number: u64, payload: &[u8]) -> Option<u32> {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&u32::try_from(payload_len).ok()?.to_le_bytes());
    hasher.update(&number.to_le_bytes());
    hasher.update(payload);
    Some(hasher.finalize())
}

/// Fills in the header of a record whose payload stands behind `HEADER_LEN` bytes.
pub(super) fn seal(record: &mut [u8], number: u64) -> Option<()> {
    let (header, payload) = record.split_at_mut_checked(HEADER_LEN)?;
    let sum = checksum(payload.len(), number, payload)?;
    let mut filled = Vec::with_capacity(HEADER_LEN);
    filled.extend_from_slice(&MARKER);
    put_len(&mut filled, payload.len())?;
    put_u64(&mut filled, number);
    put_u32(&mut filled, sum);
    header.copy_from_slice(&filled);
    Some(())
}

pub(super) fn closed(number: u64) -> Result<Vec<u8>, LogError> {
    let mut record = vec![0; HEADER_LEN];
    record.push(KIND_CLOSED);
    seal(&mut record, number).ok_or(LogError::RecordTooLarge)?;
    Ok(record)
}

impl Head {
    pub(super) fn encode(&self, number: u64) -> Result<Vec<u8>, LogError> {
        let mut out = vec![0; HEADER_LEN];
        self.encode_payload(&mut out)
            .and_then(|()| seal(&mut out, number))
            .ok_or(LogError::RecordTooLarge)?;
        Ok(out)
    }

    fn encode_payload(&self, out: &mut Vec<u8>) -> Option<()> {
        out.push(KIND_HEAD);
        put_u32(out, SEGMENT_FORMAT);
        out.extend_from_slice(&self.producer.as_uuid().as_u128().to_le_bytes());
        put_u64(out, self.segment);
        put_u64(out, self.shed);
        put_len(out, self.lanes.len())?;
        for (lane, position) in &self.lanes {
            put_u32(out, lane.map_version);
            put_u32(out, lane.shard);
            put_u64(out, position.sequence);
            put_u64(out, position.chain);
        }
        put_marks(
            out,
            self.marks.iter().map(|(source, position)| (&**source, &**position)),
            self.marks.len(),
        )?;
        put_series(out, 1, &self.series)
    }

    fn decode(input: &mut Decoder<'_>) -> Option<Self> {
        if input.u32()? != SEGMENT_FORMAT {
            return None;
        }
        let producer = ProducerId::from_uuid(Uuid::from_u128(input.u128()?));
        let (segment, shed) = (input.u64()?, input.u64()?);
        let mut lanes = Positions::new();
        for _ in 0..input.len()? {
            let lane = Lane { producer, map_version: input.u32()?, shard: input.u32()? };
            lanes.insert(lane, Position { sequence: input.u64()?, chain: input.u64()? });
        }
        let marks = read_marks(input)?.into_iter().collect();
        let (first, series) = read_series(input)?;
        (first == 1).then_some(Self { producer, segment, shed, lanes, series, marks })
    }
}

fn put_marks<'a>(
    out: &mut Vec<u8>,
    marks: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    count: usize,
) -> Option<()> {
    put_len(out, count)?;
    for (source, position) in marks {
        put_bytes(out, source)?;
        put_bytes(out, position)?;
    }
    Some(())
}

fn read_marks(input: &mut Decoder<'_>) -> Option<Vec<OwnedMark>> {
    let count = input.len()?;
    let mut marks = Vec::new();
    for _ in 0..count {
        marks.push((input.bytes()?.into(), input.bytes()?.into()));
    }
    Some(marks)
}

fn put_series(out: &mut Vec<u8>, first: u32, series: &[Arc<SeriesKey>]) -> Option<()> {
    put_u32(out, first);
    put_len(out, series.len())?;
    let mut key = Vec::with_capacity(96);
    for entry in series {
        key.clear();
        entry.encode_into(&mut key);
        put_bytes(out, &key)?;
    }
    Some(())
}

fn read_series(input: &mut Decoder<'_>) -> Option<(u32, Vec<Arc<SeriesKey>>)> {
    let first = input.u32()?;
    let count = input.len()?;
    let mut series = Vec::new();
    for _ in 0..count {
        series.push(Arc::new(SeriesKey::decode(input.bytes()?)?));
    }
    Some((first, series))
}

/// Writes a group as one record: marks and series first, then frame after frame.
#[derive(Debug)]
pub(crate) struct GroupBuilder {
    record: Vec<u8>,
    frames: Vec<FrameSpan>,
}

impl GroupBuilder {
    /// Begins with what is not a frame. `series` are new ones, the first of them numbered `first_series`; frames of about
    /// `frame_bytes` follow.
    pub(crate) fn begin(
        frame_bytes: usize,
        shed: u64,
        marks: &Marks,
        first_series: u32,
        series: &[Arc<SeriesKey>],
    ) -> Result<Self, LogError> {
        let mut record = Vec::with_capacity(HEADER_LEN.saturating_add(frame_bytes));
        record.resize(HEADER_LEN, 0);
        record.push(KIND_GROUP);
        put_u64(&mut record, shed);
        put_marks(&mut record, marks.iter().map(|(source, position)| (&**source, &**position)), marks.len())
            .and_then(|()| put_series(&mut record, first_series, series))
            .ok_or(LogError::RecordTooLarge)?;
        Ok(Self { record, frames: Vec::new() })
    }

    /// Adds a frame that ends at sequence `last` of `lane`; answers where the lane then stands.
    pub(crate) fn push(
        &mut self,
        lane: Lane,
        before: Position,
        last: u64,
        body: &[u8],
    ) -> Result<Position, LogError> {
        let end = Position { sequence: last, chain: chain::next(before.chain, body) };
        let first_sequence = before.sequence.saturating_add(1);
        put_u32(&mut self.record, lane.map_version);
        put_u32(&mut self.record, lane.shard);
        put_u64(&mut self.record, first_sequence);
        put_u64(&mut self.record, last);
        put_u64(&mut self.record, end.chain);
        put_bytes(&mut self.record, body).ok_or(LogError::RecordTooLarge)?;
        let body = self.record.len().saturating_sub(body.len())..self.record.len();
        self.frames.push(FrameSpan { lane, first_sequence, end, body });
        Ok(end)
    }

    /// The whole record, numbered, and where its frames stand in it.
    pub(super) fn finish(mut self, number: u64) -> Result<(Bytes, Vec<FrameSpan>), LogError> {
        seal(&mut self.record, number).ok_or(LogError::RecordTooLarge)?;
        Ok((Bytes::from(self.record), self.frames))
    }
}

impl Group {
    fn decode(input: &mut Decoder<'_>, producer: ProducerId, payload_len: usize) -> Option<Self> {
        let shed = input.u64()?;
        let marks = read_marks(input)?;
        let (first_series, series) = read_series(input)?;
        let mut frames = Vec::new();
        while input.rest() > 0 {
            let lane = Lane { producer, map_version: input.u32()?, shard: input.u32()? };
            let first_sequence = input.u64()?;
            let end = Position { sequence: input.u64()?, chain: input.u64()? };
            let body = input.bytes()?;
            let body_end = HEADER_LEN.checked_add(payload_len)?.checked_sub(input.rest())?;
            frames.push(FrameSpan {
                lane,
                first_sequence,
                end,
                body: body_end.checked_sub(body.len())?..body_end,
            });
        }
        Some(Self { shed, marks, first_series, series, frames })
    }
}

impl Payload {
    /// Reads a sound record's payload; `None` for bytes that no version wrote.
    pub(super) fn decode(payload: &[u8], producer: ProducerId) -> Option<Self> {
        let mut input = Decoder::new(payload);
        let decoded = match input.u8()? {
            KIND_HEAD => Self::Head(Box::new(Head::decode(&mut input)?)),
            KIND_GROUP => Self::Group(Box::new(Group::decode(&mut input, producer, payload.len())?)),
            KIND_CLOSED => Self::Closed,
            _ => return None,
        };
        (input.rest() == 0).then_some(decoded)
    }
}
