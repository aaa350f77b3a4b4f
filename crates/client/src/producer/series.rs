//! The table of series: from the parts of an event to the number that frames carry.
//!
//! Cost: an event of a known series is spelled into a buffer, hashed once, and compared once with the spelling
//! that has its hash; nothing is allocated. All spellings lie in one piece of memory and what they lead to lies in the hash
//! table itself, because with many series the time is spent waiting for memory: a known event touches three
//! places. A series is checked once, when it gets its number; numbers are given in order and never
//! reused. Dimensions in another order are another spelling of the same series.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
};

use drawdown_metering_core::{
    series::{SeriesKey, SeriesNumber, SeriesParts},
    shard::ShardMap,
};
use hashbrown::{HashTable, hash_table::Entry};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{error::AppendError, usage::Usage};

/// Most bytes of all spellings; beyond them a new one is checked and looked up each time. The least that a million series need
/// is far below.
const SPELLED_BYTES_MAX: usize = 1 << 30;

/// Every series of the log.
#[derive(Debug)]
pub(super) struct SeriesTable {
    keys: Vec<Arc<SeriesKey>>,
    by_key: HashMap<Arc<SeriesKey>, SeriesNumber>,
    spellings: Spellings,
    map: ShardMap,
    max: u32,
}

/// A series' number and where its events go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Placed {
    pub(super) number: SeriesNumber,
    pub(super) shard: u32,
    /// It was not in the table before.
    pub(super) new: bool,
}

impl SeriesTable {
    pub(super) fn new(series: Vec<Arc<SeriesKey>>, map: ShardMap, max: u32) -> Self {
        let mut table = Self {
            keys: Vec::with_capacity(series.len()),
            by_key: HashMap::new(),
            spellings: Spellings::new(),
            map,
            max,
        };
        for key in series {
            let dimensions: Vec<(&str, &str)> =
                key.dimensions().iter().map(|(name, value)| (name.as_str(), &**value)).collect();
            let outcome = key.outcome().as_wire();
            table.spellings.spell(key.client_id().as_str(), key.meter().as_str(), outcome, &dimensions);
            table.insert(Arc::clone(&key));
        }
        table
    }

    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    pub(super) fn key(&self, number: SeriesNumber) -> Option<&Arc<SeriesKey>> {
        let at = usize::try_from(number.get()).ok()?.checked_sub(1)?;
        self.keys.get(at)
    }

    /// The series numbered after the first `known`.
    pub(super) fn after(&self, known: usize) -> Vec<Arc<SeriesKey>> {
        self.keys.iter().skip(known).map(Arc::clone).collect()
    }

    /// Places every series anew, for events appended from now on.
    pub(super) fn set_map(&mut self, map: ShardMap) {
        self.map = map;
        let keys = &self.keys;
        self.spellings.each(|number| {
            let key = usize::try_from(number.get()).ok().and_then(|at| keys.get(at.checked_sub(1)?));
            key.map(|key| map.shard_of(key.client_id().as_str())).unwrap_or_default()
        });
    }

    /// The number and shard of an event's series, which gets a number where it has none.
    pub(super) fn place(&mut self, usage: &Usage<'_>) -> Result<Placed, AppendError> {
        self.spellings.spell(usage.client_id, usage.meter, usage.outcome.as_wire(), usage.dimensions);
        if let Some(known) = self.spellings.find() {
            return Ok(Placed { number: known.number, shard: known.shard, new: false });
        }
        let key = checked(usage)?;
        if let Some(number) = self.by_key.get(&key).copied() {
            let shard = self.map.shard_of(key.client_id().as_str());
            self.spellings.keep(number, shard);
            return Ok(Placed { number, shard, new: false });
        }
        let exhausted = AppendError::SeriesExhausted(self.max);
        if self.keys.len() >= usize::try_from(self.max).unwrap_or(usize::MAX) {
            return Err(exhausted);
        }
        self.insert(Arc::new(key)).ok_or(exhausted)
    }

    /// Whether `place` would take the event; gives no number.
    pub(super) fn check(&mut self, usage: &Usage<'_>) -> Result<(), AppendError> {
        self.spellings.spell(usage.client_id, usage.meter, usage.outcome.as_wire(), usage.dimensions);
        if self.spellings.find().is_none() {
            checked(usage)?;
        }
        Ok(())
    }

    /// Gives a series that is spelled out already its number.
    fn insert(&mut self, key: Arc<SeriesKey>) -> Option<Placed> {
        let number = SeriesNumber::new(u32::try_from(self.keys.len()).ok()?.checked_add(1)?)?;
        let shard = self.map.shard_of(key.client_id().as_str());
        self.spellings.keep(number, shard);
        self.by_key.insert(Arc::clone(&key), number);
        self.keys.push(key);
        Some(Placed { number, shard, new: true })
    }
}

/// What a spelling leads to.
#[derive(Clone, Copy, Debug)]
struct Known {
    hash: u64,
    /// Where its bytes lie.
    start: u32,
    len: u32,
    number: SeriesNumber,
    shard: u32,
}

impl Known {
    fn is(&self, hash: u64, spelled: &[u8], bytes: &[u8]) -> bool {
        let (start, len) = (self.start as usize, self.len as usize);
        self.hash == hash && bytes.get(start..start.saturating_add(len)) == Some(spelled)
    }
}

/// Series by the bytes that callers spell them with.
#[derive(Debug)]
struct Spellings {
    known: HashTable<Known>,
    bytes: Vec<u8>,
    /// Callers choose what is hashed, so they may not know how.
    seed: u64,
    /// The series that is asked for, and its hash.
    spelled: Vec<u8>,
    hash: u64,
}

impl Spellings {
    fn new() -> Self {
        let seed = RandomState::new().hash_one(0_u8);
        Self { known: HashTable::new(), bytes: Vec::new(), seed, spelled: Vec::new(), hash: 0 }
    }

    /// Spells a series out: what `find` and `keep` are about. Every text has its length before it, so
    /// different parts never have the same bytes.
    fn spell(&mut self, client_id: &str, meter: &str, outcome: u8, dimensions: &[(&str, &str)]) {
        let out = &mut self.spelled;
        out.clear();
        out.push(outcome);
        let names = dimensions.iter().flat_map(|(name, value)| [*name, *value]);
        for text in [client_id, meter].into_iter().chain(names) {
            out.extend_from_slice(&text.len().to_le_bytes()[..4]);
            out.extend_from_slice(text.as_bytes());
        }
        self.hash = xxh3_64_with_seed(out, self.seed);
    }

    fn find(&self) -> Option<&Known> {
        self.known.find(self.hash, |known| known.is(self.hash, &self.spelled, &self.bytes))
    }

    fn keep(&mut self, number: SeriesNumber, shard: u32) {
        let Self { known, bytes, spelled, hash, .. } = self;
        let (Ok(start), Ok(len)) = (u32::try_from(bytes.len()), u32::try_from(spelled.len())) else { return };
        if bytes.len().saturating_add(spelled.len()) > SPELLED_BYTES_MAX {
            return;
        }
        let same = |known: &Known| known.is(*hash, spelled, bytes);
        if let Entry::Vacant(place) = known.entry(*hash, same, |known| known.hash) {
            place.insert(Known { hash: *hash, start, len, number, shard });
            bytes.extend_from_slice(spelled);
        }
    }

    /// Gives each a new shard.
    fn each(&mut self, mut shard_of: impl FnMut(SeriesNumber) -> u32) {
        for known in self.known.iter_mut() {
            known.shard = shard_of(known.number);
        }
    }
}

fn checked(usage: &Usage<'_>) -> Result<SeriesKey, AppendError> {
    let mut dimensions: Vec<(&[u8], &[u8])> =
        usage.dimensions.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
    dimensions.sort_unstable();
    let parts = SeriesParts {
        client_id: usage.client_id.as_bytes(),
        meter: usage.meter.as_bytes(),
        outcome: u64::from(usage.outcome.as_wire()),
        dimensions,
        hold_id: &[],
    };
    SeriesKey::from_parts(&parts, "usage").map_err(AppendError::Invalid)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use drawdown_metering_core::series::Outcome;
    use drawdown_types::Timestamp;

    use super::*;

    const MAP: ShardMap = ShardMap { version: 1, shard_count: NonZeroU32::MIN };

    fn usage<'a>(client_id: &'a str, dimensions: &'a [(&'a str, &'a str)]) -> Usage<'a> {
        let outcome = Outcome::Succeeded;
        Usage { client_id, meter: "web.call", quantity: 1, at: Timestamp::EPOCH, outcome, dimensions }
    }

    fn number(table: &mut SeriesTable, usage: &Usage<'_>) -> u32 {
        table.place(usage).unwrap().number.get()
    }

    #[test]
    fn equal_series_have_one_number_in_any_order_of_dimensions() {
        let mut table = SeriesTable::new(Vec::new(), MAP, 10);
        let ab = [("a", "1"), ("b", "2")];
        let ba = [("b", "2"), ("a", "1")];
        assert_eq!(number(&mut table, &usage("x", &ab)), 1);
        assert_eq!(number(&mut table, &usage("x", &ba)), 1);
        assert_eq!(number(&mut table, &usage("x", &[])), 2);
        assert_eq!(number(&mut table, &usage("y", &[])), 3);
        let failed = Usage { outcome: Outcome::Failed, ..usage("y", &[]) };
        assert_eq!(number(&mut table, &failed), 4);
        let again = SeriesTable::new(table.after(0), MAP, 10);
        assert_eq!(again.len(), 4);
        for number in (1..=4).filter_map(SeriesNumber::new) {
            assert_eq!(again.key(number), table.key(number));
        }
        let mut again = again;
        assert_eq!(number(&mut again, &usage("x", &ba)), 1);
    }

    #[test]
    fn wrong_parts_are_named_and_leave_nothing_behind() {
        let mut table = SeriesTable::new(Vec::new(), MAP, 1);
        let twice = [("a", "1"), ("a", "1")];
        let wrong = Usage { meter: "Web Call", ..usage("", &twice) };
        let Err(AppendError::Invalid(faults)) = table.place(&wrong) else { panic!("was taken") };
        let fields: Vec<_> = faults.iter().map(|fault| fault.field.as_str()).collect();
        assert_eq!(fields, ["usage.client_id", "usage.meter", "usage.dimensions[1].name"]);
        assert_eq!(table.len(), 0);
        assert_eq!(number(&mut table, &usage("x", &[])), 1);
        assert!(matches!(table.place(&usage("y", &[])), Err(AppendError::SeriesExhausted(1))));
        assert_eq!(number(&mut table, &usage("x", &[])), 1);
    }

    #[test]
    fn parts_that_read_alike_in_a_row_are_different_series() {
        let mut table = SeriesTable::new(Vec::new(), MAP, 10);
        for (index, dimensions) in
            [[("a", "bc")], [("ab", "c")], [("abc", "")]].iter().map(|one| &one[..]).enumerate()
        {
            let at = u32::try_from(index).unwrap() + 1;
            assert_eq!(number(&mut table, &usage("x", dimensions)), at);
            assert_eq!(number(&mut table, &usage("x", dimensions)), at);
        }
    }

    #[test]
    fn a_new_map_places_every_spelling_anew() {
        let mut table = SeriesTable::new(Vec::new(), MAP, 10);
        let (ab, ba) = ([("a", "1"), ("b", "2")], [("b", "2"), ("a", "1")]);
        for dimensions in [&ab, &ba] {
            assert_eq!(table.place(&usage("client_b", dimensions)).unwrap().shard, 0);
        }
        table.set_map(ShardMap { version: 2, shard_count: NonZeroU32::new(16).unwrap() });
        for dimensions in [&ab, &ba] {
            let placed = table.place(&usage("client_b", dimensions)).unwrap();
            assert_eq!((placed.number.get(), placed.shard, placed.new), (1, 6, false));
        }
    }
}
