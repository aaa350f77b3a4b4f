//! All client ids, in compact arrays that are never changed but exchanged.
//!
//! Shape: the hash of a client id picks one of [`SHARDS`] shards by its high bits and, by its low ones, a place among
//! the sorted keys of the shard. A shard is immutable: a change builds another one (at a million client ids some 250
//! entries are copied, which takes microseconds) and puts it in the place of the first. So a reader takes no lock and
//! waits for nobody, and whoever reads the old shard reads it to the end.
//!
//! Why not one map behind a lock: a reader would wait for a writer, and a map of a million texts of 33 bytes spends
//! more on its allocations than on its texts. Here the texts of a shard lie in one array.

use std::sync::Arc;

use arc_swap::ArcSwap;
use drawdown_entitlement_core::Revocation;
use drawdown_types::Timestamp;
use xxhash_rust::xxh3::xxh3_64;

use super::cells::AppFacts;

/// How many shards: 4096.
const SHARD_BITS: u32 = 12;
const SHARDS: usize = 1 << SHARD_BITS;

/// What is known of one client id.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) app: Arc<AppFacts>,
    /// The edge from which on it is known.
    pub(crate) known_from: Timestamp,
    /// Few have one.
    pub(crate) revocation: Option<Box<Revocation>>,
}

#[derive(Clone, Debug)]
struct Slot {
    entry: Entry,
    start: u32,
    len: u8,
}

/// A part of the client ids. `keys` are sorted, `slots` lie beside them.
#[derive(Debug, Default)]
struct Shard {
    keys: Box<[u32]>,
    slots: Box<[Slot]>,
    texts: Box<[u8]>,
}

/// All of them.
#[derive(Debug)]
pub(crate) struct Clients {
    shards: Box<[ArcSwap<Shard>]>,
}

fn place(client_id: &str) -> (usize, u32) {
    let hash = xxh3_64(client_id.as_bytes());
    let shard = usize::try_from(hash >> (u64::BITS - SHARD_BITS)).unwrap_or_default();
    let key = u32::try_from(hash & u64::from(u32::MAX)).unwrap_or_default();
    (shard, key)
}

// === impl Shard ===

impl Shard {
    fn text(&self, slot: &Slot) -> &[u8] {
        let start = usize::try_from(slot.start).unwrap_or(usize::MAX);
        self.texts.get(start..start.saturating_add(usize::from(slot.len))).unwrap_or_default()
    }

    fn get(&self, key: u32, client_id: &str) -> Option<&Entry> {
        let first = self.keys.partition_point(|other| *other < key);
        let keys = self.keys.iter().skip(first).take_while(|other| **other == key);
        let slots = self.slots.iter().skip(first).zip(keys).map(|(slot, _)| slot);
        slots.into_iter().find(|slot| self.text(slot) == client_id.as_bytes()).map(|slot| &slot.entry)
    }

    /// Of entries, the later of which takes the place of an earlier one with the same client id.
    fn of(mut entries: Vec<(u32, Box<str>, Entry)>) -> Self {
        entries.reverse();
        entries.sort_by(|(key, id, _), (other_key, other_id, _)| (key, id).cmp(&(other_key, other_id)));
        entries.dedup_by(|(key, id, _), (kept_key, kept_id, _)| (&*key, &*id) == (&*kept_key, &*kept_id));
        let mut texts = Vec::with_capacity(entries.iter().map(|(_, id, _)| id.len()).sum());
        let mut keys = Vec::with_capacity(entries.len());
        let mut slots = Vec::with_capacity(entries.len());
        for (key, id, entry) in entries {
            let start = u32::try_from(texts.len()).unwrap_or(u32::MAX);
            // a client id has at most 64 bytes
            let len = u8::try_from(id.len()).unwrap_or(u8::MAX);
            texts.extend_from_slice(id.as_bytes());
            keys.push(key);
            slots.push(Slot { entry, start, len });
        }
        Self { keys: keys.into(), slots: slots.into(), texts: texts.into() }
    }

    fn entries(&self) -> Vec<(u32, Box<str>, Entry)> {
        let of = |(key, slot): (&u32, &Slot)| {
            (*key, String::from_utf8_lossy(self.text(slot)).into(), slot.entry.clone())
        };
        self.keys.iter().zip(&self.slots).map(of).collect()
    }

    fn bytes(&self) -> usize {
        size_of_val(&*self.keys) + size_of_val(&*self.slots) + self.texts.len()
    }
}

// === impl Clients ===

impl Clients {
    pub(crate) fn new() -> Self {
        let empty = Arc::new(Shard::default());
        Self { shards: (0..SHARDS).map(|_| ArcSwap::from(Arc::clone(&empty))).collect() }
    }

    /// Looks at what is known of a client id.
    pub(crate) fn look<R>(&self, client_id: &str, look: impl FnOnce(Option<&Entry>) -> R) -> R {
        let (shard, key) = place(client_id);
        match self.shards.get(shard) {
            Some(shard) => look(shard.load().get(key, client_id)),
            None => look(None),
        }
    }

    /// Takes over all entries in the place of those there are.
    pub(crate) fn replace(&self, entries: impl IntoIterator<Item = (Box<str>, Entry)>) {
        let mut by_shard: Vec<Vec<(u32, Box<str>, Entry)>> = (0..SHARDS).map(|_| Vec::new()).collect();
        for (client_id, entry) in entries {
            let (shard, key) = place(&client_id);
            if let Some(entries) = by_shard.get_mut(shard) {
                entries.push((key, client_id, entry));
            }
        }
        for (shard, entries) in self.shards.iter().zip(by_shard) {
            shard.store(Arc::new(Shard::of(entries)));
        }
    }

    /// Takes over some entries. One writer at a time: what another one puts in between would be lost.
    pub(crate) fn put(&self, entries: Vec<(Box<str>, Entry)>) {
        let mut placed: Vec<(usize, u32, Box<str>, Entry)> = entries
            .into_iter()
            .map(|(client_id, entry)| {
                let (shard, key) = place(&client_id);
                (shard, key, client_id, entry)
            })
            .collect();
        placed.sort_by_key(|(shard, ..)| *shard);
        let mut placed = placed.into_iter().peekable();
        while let Some((number, key, client_id, entry)) = placed.next() {
            let Some(shard) = self.shards.get(number) else { continue };
            let mut all = shard.load().entries();
            all.push((key, client_id, entry));
            while let Some((_, key, client_id, entry)) = placed.next_if(|(other, ..)| *other == number) {
                all.push((key, client_id, entry));
            }
            shard.store(Arc::new(Shard::of(all)));
        }
    }

    /// How many there are, and the bytes of the arrays that hold them.
    pub(crate) fn size(&self) -> (usize, usize) {
        self.shards.iter().fold((0, SHARDS * size_of::<ArcSwap<Shard>>()), |(count, bytes), shard| {
            let shard = shard.load();
            (count + shard.keys.len(), bytes + shard.bytes())
        })
    }
}
