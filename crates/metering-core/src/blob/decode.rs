//! Reading blobs: every sum that a blob states about itself is checked here.

use std::collections::BTreeMap;

use drawdown_types::{ProducerId, Timestamp};
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_64;

use super::{CHECKSUM_BYTES, INDEX_BYTES, MAGIC_1, MAGIC_2};
use crate::{
    aggregate::LaneSpan,
    meter::{Aggregation, Counting},
    shard::{Lane, SEQUENCE_MAX},
    wire::{Reader, unzigzag},
};

/// Why an entry is no blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The checksum does not fit the bytes.
    #[error("its checksum does not fit")]
    Checksum,
    /// The bytes end early, go on, or hold what no blob holds.
    #[error("its {0} can not be read")]
    Malformed(&'static str),
    /// A sum that it states is another one.
    #[error("its {0} do not add up")]
    Sum(&'static str),
}

/// A name that a blob defines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name<'a> {
    /// How its events were counted.
    pub counting: Counting,
    /// The canonical bytes of the series.
    pub series: &'a [u8],
}

/// A counter of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counter {
    /// The name of its series in the blob's dictionary.
    pub name: u64,
    /// Start of the window of event time.
    pub window_start: Timestamp,
    /// Start of the window of the receipt.
    pub received_window_start: Timestamp,
    /// Events, at least 1.
    pub events: u64,
    /// Sum of quantities, the events, the largest quantity, or 1 for a value; at least 0.
    pub quantity: i64,
}

/// A blob, read and checked by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded<'a> {
    /// The place that Redis gave it in its list.
    pub index: u32,
    /// The generation it was made for.
    pub generation: u64,
    /// The batch it was made for.
    pub batch: u64,
    /// The shard.
    pub shard: u32,
    /// The dictionary's id.
    pub dictionary: u64,
    /// Names that the dictionary had before.
    pub names_before: u64,
    /// Names that it defines.
    pub names: Vec<Name<'a>>,
    /// Lane ranges, by lane, each lane once.
    pub lanes: Vec<LaneSpan>,
    /// Events whose time was set to their receipt.
    pub clamped: u64,
    /// Events refused, by reason.
    pub refused: BTreeMap<&'a str, u64>,
    /// Counters.
    pub counters: Vec<Counter>,
    /// Events in counters.
    pub events: u64,
    /// Its checksum.
    pub checksum: u64,
}

impl<'a> Decoded<'a> {
    /// Reads one entry of a list.
    ///
    /// # Errors
    /// [`Fault`].
    pub fn read(entry: &'a [u8]) -> Result<Self, Fault> {
        let (index, blob) = entry.split_first_chunk::<INDEX_BYTES>().ok_or(Fault::Malformed("index"))?;
        let (body, checksum) = blob.split_last_chunk::<CHECKSUM_BYTES>().ok_or(Fault::Checksum)?;
        let checksum = u64::from_be_bytes(*checksum);
        if xxh3_64(body) != checksum {
            return Err(Fault::Checksum);
        }
        let mut reader = Reader::new(body);
        let magic = reader.array::<4>();
        let is_first = magic == Some(*MAGIC_1);
        if !is_first && magic != Some(*MAGIC_2) {
            return Err(Fault::Malformed("header"));
        }
        let mut blob = Self::header(&mut reader).ok_or(Fault::Malformed("header"))?;
        blob.index = u32::from_be_bytes(*index);
        blob.checksum = checksum;
        blob.names = list(&mut reader, |reader| name(reader, is_first)).ok_or(Fault::Malformed("names"))?;
        let shard = blob.shard;
        blob.lanes = list(&mut reader, |reader| lane(reader, shard)).ok_or(Fault::Malformed("lanes"))?;
        blob.clamped = reader.varint().ok_or(Fault::Malformed("clamped"))?;
        let refused = list(&mut reader, refused).ok_or(Fault::Malformed("refused events"))?;
        let reasons = refused.len();
        blob.refused = refused.into_iter().collect();
        blob.events = reader.varint().ok_or(Fault::Malformed("events"))?;
        let quantity = i128::from_be_bytes(reader.array().ok_or(Fault::Malformed("quantity"))?);
        let pairs = list(&mut reader, pair).ok_or(Fault::Malformed("windows"))?;
        blob.counters =
            list(&mut reader, |reader| counter(reader, &pairs)).ok_or(Fault::Malformed("counters"))?;
        if !reader.is_empty() {
            return Err(Fault::Malformed("end"));
        }
        blob.check(reasons, quantity)?;
        Ok(blob)
    }

    fn header(reader: &mut Reader<'a>) -> Option<Self> {
        Some(Self {
            index: 0,
            generation: u64::from_be_bytes(reader.array()?),
            batch: reader.varint()?,
            shard: reader.varint_u32()?,
            dictionary: u64::from_be_bytes(reader.array()?),
            names_before: reader.varint()?,
            names: Vec::new(),
            lanes: Vec::new(),
            clamped: 0,
            refused: BTreeMap::new(),
            counters: Vec::new(),
            events: 0,
            checksum: 0,
        })
    }

    fn check(&self, reasons: usize, quantity: i128) -> Result<(), Fault> {
        if reasons != self.refused.len() {
            return Err(Fault::Malformed("refused events"));
        }
        let sorted = self.lanes.iter().zip(self.lanes.iter().skip(1)).all(|(a, b)| a.lane < b.lane);
        if !sorted || self.lanes.is_empty() {
            return Err(Fault::Malformed("lanes"));
        }
        let events = sum(self.counters.iter().map(|counter| counter.events));
        let in_lanes = sum(self.lanes.iter().map(LaneSpan::events));
        let refused = sum(self.refused.values().copied());
        if events != Some(self.events) || in_lanes != events.zip(refused).and_then(|(a, b)| a.checked_add(b))
        {
            return Err(Fault::Sum("events"));
        }
        let found = self.counters.iter().fold(0, |sum: i128, c| sum.saturating_add(i128::from(c.quantity)));
        if found == quantity { Ok(()) } else { Err(Fault::Sum("quantities")) }
    }
}

fn sum(mut values: impl Iterator<Item = u64>) -> Option<u64> {
    values.try_fold(0, u64::checked_add)
}

/// A count and so many items; allocates no more than the bytes can hold.
fn list<'a, T>(
    reader: &mut Reader<'a>,
    mut item: impl FnMut(&mut Reader<'a>) -> Option<T>,
) -> Option<Vec<T>> {
    let count = usize::try_from(reader.varint()?).ok().filter(|count| *count <= reader.len())?;
    let mut items = Vec::with_capacity(count);
    for _ in 0..count {
        items.push(item(reader)?);
    }
    Some(items)
}

fn name<'a>(reader: &mut Reader<'a>, is_first: bool) -> Option<Name<'a>> {
    let counting = match Aggregation::from_byte(reader.byte()?)? {
        Aggregation::Sum => Counting::Sum,
        Aggregation::Count => Counting::Count,
        Aggregation::Max | Aggregation::Unique if is_first => return None,
        Aggregation::Max => Counting::Max,
        Aggregation::Unique => Counting::Unique(reader.byte()?),
    };
    Some(Name { counting, series: reader.prefixed()? })
}

fn lane(reader: &mut Reader<'_>, shard: u32) -> Option<LaneSpan> {
    let producer = ProducerId::from_uuid(Uuid::from_bytes(reader.array()?));
    let lane = Lane { producer, map_version: reader.varint_u32()?, shard };
    let epoch = reader.varint()?;
    let from = reader.varint()?;
    let to = from.checked_add(reader.varint()?)?;
    let chain_before = u64::from_be_bytes(reader.array()?);
    let chain_after = u64::from_be_bytes(reader.array()?);
    (from > 0 && to <= SEQUENCE_MAX).then_some(LaneSpan { lane, epoch, from, to, chain_before, chain_after })
}

fn refused<'a>(reader: &mut Reader<'a>) -> Option<(&'a str, u64)> {
    let reason = std::str::from_utf8(reader.prefixed()?).ok()?;
    Some((reason, reader.varint().filter(|events| *events > 0)?))
}

fn pair(reader: &mut Reader<'_>) -> Option<(Timestamp, Timestamp)> {
    let mut start = || Timestamp::from_secs(unzigzag(reader.varint()?)).ok();
    Some((start()?, start()?))
}

fn counter(reader: &mut Reader<'_>, pairs: &[(Timestamp, Timestamp)]) -> Option<Counter> {
    let name = reader.varint()?;
    let (window_start, received_window_start) = *pairs.get(usize::try_from(reader.varint()?).ok()?)?;
    let events = reader.varint().filter(|events| *events > 0)?;
    let quantity = i64::try_from(reader.varint()?).ok()?;
    Some(Counter { name, window_start, received_window_start, events, quantity })
}
