//! Spellings: series by the texts that callers name them with.
//!
//! The parts are hashed where they lie and compared once with the spelling that has their hash; nothing is copied or
//! allocated. With many series the time is spent waiting for memory, so there is little of it to touch: the hash table
//! has eight bytes a spelling, and what a spelling leads to lies before its bytes, all of them in one piece of memory. Events
//! that come together are looked up together, place by place, so that the memory of one is fetched while the others
//! are looked at.

use std::hash::{BuildHasher as _, Hasher as _};

use drawdown_metering_core::series::SeriesNumber;
use drawdown_types::HoldId;
use hashbrown::{DefaultHashBuilder, HashTable};

use super::{series::Placed, usage::Usage};

/// Most bytes of all spellings; beyond them a new one is checked and looked up each time. The least that a million series need
/// is far below.
const SPELLED_BYTES_MAX: usize = 1 << 30;

/// Of the first byte of a spelling; outcomes are below.
const HAS_HOLD: u8 = 1 << 7;

/// A series as a caller spells it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parts<'a> {
    pub(super) client_id: &'a str,
    pub(super) meter: &'a str,
    pub(super) outcome: u8,
    pub(super) dimensions: &'a [(&'a str, &'a str)],
    pub(super) hold_id: Option<HoldId>,
}

impl<'a> Parts<'a> {
    pub(super) fn of(usage: &Usage<'a>) -> Self {
        let Usage { client_id, meter, dimensions, hold_id, .. } = *usage;
        Self { client_id, meter, outcome: usage.outcome.as_wire(), dimensions, hold_id }
    }

    /// The outcome, and whether there is a hold.
    fn first_byte(&self) -> u8 {
        self.outcome | if self.hold_id.is_some() { HAS_HOLD } else { 0 }
    }

    /// The bytes of this spelling. Every text has its length before it, so different parts never have the same bytes.
    fn spell(&self, out: &mut Vec<u8>) {
        out.push(self.first_byte());
        if let Some(hold_id) = self.hold_id {
            out.extend_from_slice(hold_id.as_uuid().as_bytes());
        }
        let dimensions = self.dimensions.iter().flat_map(|(name, value)| [*name, *value]);
        for text in [self.client_id, self.meter].into_iter().chain(dimensions) {
            out.extend_from_slice(&length(text));
            out.extend_from_slice(text.as_bytes());
        }
    }

    /// Whether `spell` would give these bytes.
    fn spells(&self, bytes: &[u8]) -> bool {
        let mut rest = bytes.strip_prefix(&[self.first_byte()]);
        if let Some(hold_id) = self.hold_id {
            rest = rest.and_then(|rest| rest.strip_prefix(hold_id.as_uuid().as_bytes()));
        }
        let mut rest =
            rest.and_then(|rest| after(rest, self.client_id)).and_then(|rest| after(rest, self.meter));
        for (name, value) in self.dimensions {
            rest = rest.and_then(|rest| after(rest, name)).and_then(|rest| after(rest, value));
        }
        rest.is_some_and(<[u8]>::is_empty)
    }
}

/// What is behind a text, where it is this one.
fn after<'a>(bytes: &'a [u8], text: &str) -> Option<&'a [u8]> {
    bytes.strip_prefix(&length(text))?.strip_prefix(text.as_bytes())
}

fn length(text: &str) -> [u8; 4] {
    let [a, b, c, d, ..] = text.len().to_le_bytes();
    [a, b, c, d]
}

/// A spelling in the table: its hash and where it lies.
#[derive(Clone, Copy, Debug)]
struct Slot {
    hash: u32,
    start: u32,
}

impl Slot {
    /// The table looks at the upper bits too.
    fn spread(hash: u32) -> u64 {
        u64::from(hash) << 32 | u64::from(hash)
    }
}

/// What lies before the bytes of a spelling: what it leads to, and how long it is.
#[derive(Clone, Copy, Debug)]
struct Head {
    number: u32,
    shard: u32,
    len: u32,
}

impl Head {
    const BYTES: usize = 12;

    /// What lies at a place, and the bytes behind it.
    fn read(bytes: &[u8], start: u32) -> Option<(Self, &[u8])> {
        let (head, rest) = bytes.get(start as usize..)?.split_first_chunk::<{ Self::BYTES }>()?;
        let [number, shard, len] = head.as_chunks::<4>().0.first_chunk::<3>()?.map(u32::from_le_bytes);
        Some((Self { number, shard, len }, rest))
    }

    fn bytes(self) -> [[u8; 4]; 3] {
        [self.number, self.shard, self.len].map(u32::to_le_bytes)
    }
}

/// A spelling that was looked up.
#[derive(Clone, Copy, Debug)]
struct Asked {
    hash: u32,
    /// Where the first of its hash lies, if there is one.
    start: u32,
    /// What lies there.
    head: Option<Head>,
}

/// Series by the texts that callers spell them with.
#[derive(Debug, Default)]
pub(super) struct Spellings {
    known: HashTable<Slot>,
    /// A head and the bytes of each, one after another.
    bytes: Vec<u8>,
    /// Callers choose what is hashed, so they may not know how.
    by: DefaultHashBuilder,
    asked: Vec<Asked>,
}

impl Spellings {
    pub(super) fn hash(&self, parts: &Parts<'_>) -> u32 {
        let mut hasher = self.by.build_hasher();
        hasher.write(parts.client_id.as_bytes());
        hasher.write(parts.meter.as_bytes());
        for (name, value) in parts.dimensions {
            hasher.write(name.as_bytes());
            hasher.write(value.as_bytes());
        }
        if let Some(hold_id) = parts.hold_id {
            hasher.write(hold_id.as_uuid().as_bytes());
        }
        hasher.write_u8(parts.outcome);
        let [.., a, b, c, d] = hasher.finish().to_be_bytes();
        u32::from_be_bytes([a, b, c, d])
    }

    /// Looks spellings up, with a loop for each place in memory: what one turn waits for is asked for by the next ones
    /// meanwhile.
    pub(super) fn ask<'a>(&mut self, all: impl Iterator<Item = Parts<'a>>) {
        let mut asked = std::mem::take(&mut self.asked);
        asked.clear();
        asked.extend(all.map(|parts| Asked { hash: self.hash(&parts), start: u32::MAX, head: None }));
        for one in &mut asked {
            let found = self.known.find(Slot::spread(one.hash), |slot| slot.hash == one.hash);
            one.start = found.map_or(u32::MAX, |slot| slot.start);
        }
        for one in &mut asked {
            one.head = Head::read(&self.bytes, one.start).map(|(head, _)| head);
        }
        self.asked = asked;
    }

    /// What a spelling that was looked up leads to.
    pub(super) fn find(&self, at: usize, parts: &Parts<'_>) -> Option<Placed> {
        let asked = self.asked.get(at)?;
        let spells = |start: u32, head: Head| {
            let bytes = self.bytes.get(start as usize..).and_then(|rest| rest.get(Head::BYTES..));
            let bytes = bytes.and_then(|bytes| bytes.get(..head.len as usize));
            bytes.is_some_and(|bytes| parts.spells(bytes)).then_some(head)
        };
        let first = asked.head.and_then(|head| spells(asked.start, head));
        let Head { number, shard, .. } = first.or_else(|| {
            // Another one has its hash, or it is not known, or was not when it was looked up.
            let spelled = |start| spells(start, Head::read(&self.bytes, start)?.0);
            let is = |slot: &Slot| slot.hash == asked.hash && spelled(slot.start).is_some();
            self.known.find(Slot::spread(asked.hash), is).and_then(|slot| spelled(slot.start))
        })?;
        Some(Placed { number: SeriesNumber::new(number)?, shard, new: false })
    }

    /// Keeps what a spelling that is not known leads to.
    pub(super) fn keep(&mut self, parts: &Parts<'_>, hash: u32, placed: Placed) {
        let Placed { number, shard, .. } = placed;
        let before = self.bytes.len();
        let Ok(start) = u32::try_from(before) else { return };
        self.bytes.extend_from_slice(&[0; Head::BYTES]);
        parts.spell(&mut self.bytes);
        let len = self.bytes.len().saturating_sub(before).saturating_sub(Head::BYTES);
        let head = Head { number: number.get(), shard, len: u32::try_from(len).unwrap_or(u32::MAX) };
        if self.bytes.len() > SPELLED_BYTES_MAX || !self.set(start, head) {
            self.bytes.truncate(before);
            return;
        }
        self.known.insert_unique(Slot::spread(hash), Slot { hash, start }, |slot| Slot::spread(slot.hash));
    }

    fn set(&mut self, start: u32, head: Head) -> bool {
        let place = self.bytes.get_mut(start as usize..).and_then(|rest| rest.get_mut(..Head::BYTES));
        if let Some(place) = place {
            place.copy_from_slice(head.bytes().as_flattened());
            return true;
        }
        false
    }

    /// Gives each a new shard, by its number.
    pub(super) fn each(&mut self, mut shard_of: impl FnMut(u32) -> u32) {
        let starts: Vec<u32> = self.known.iter().map(|slot| slot.start).collect();
        for start in starts {
            if let Some((head, _)) = Head::read(&self.bytes, start) {
                self.set(start, Head { shard: shard_of(head.number), ..head });
            }
        }
    }
}
