//! The table of series: from the parts of an event to the number that frames carry.
//!
//! Cost: one hash over the parts and one comparison for an event of a known series, no allocation. A
//! series is checked once, when it gets its number; numbers are given in order and never reused.

use std::{hash::Hasher as _, sync::Arc};

use drawdown_metering_core::{
    series::{SeriesKey, SeriesNumber, SeriesParts},
    shard::ShardMap,
};
use rustc_hash::{FxHashMap, FxHasher};

use super::{error::AppendError, usage::Usage};

#[derive(Debug)]
struct Entry {
    key: Arc<SeriesKey>,
    number: SeriesNumber,
    shard: u32,
    /// The series before it with the same hash.
    same_hash: Option<u32>,
}

/// Every series of the log.
#[derive(Debug)]
pub(super) struct SeriesTable {
    entries: Vec<Entry>,
    newest_by_hash: FxHashMap<u64, u32>,
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
        let mut table = Self { entries: Vec::new(), newest_by_hash: FxHashMap::default(), map, max };
        for key in series {
            let dimensions: Vec<(&str, &str)> =
                key.dimensions().iter().map(|(name, value)| (name.as_str(), &**value)).collect();
            let hash =
                hash(key.client_id().as_str(), key.meter().as_str(), key.outcome().as_wire(), &dimensions);
            table.insert(Arc::clone(&key), hash);
        }
        table
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn key(&self, number: SeriesNumber) -> Option<&Arc<SeriesKey>> {
        let at = usize::try_from(number.get()).ok()?.checked_sub(1)?;
        self.entries.get(at).map(|entry| &entry.key)
    }

    /// The series numbered after the first `known`.
    pub(super) fn after(&self, known: usize) -> Vec<Arc<SeriesKey>> {
        self.entries.iter().skip(known).map(|entry| Arc::clone(&entry.key)).collect()
    }

    /// Places every series anew, for events appended from now on.
    pub(super) fn set_map(&mut self, map: ShardMap) {
        self.map = map;
        for entry in &mut self.entries {
            entry.shard = map.shard_of(entry.key.client_id().as_str());
        }
    }

    /// The number and shard of an event's series, which gets a number where it has none.
    pub(super) fn place(&mut self, usage: &Usage<'_>) -> Result<Placed, AppendError> {
        let hash = hash(usage.client_id, usage.meter, usage.outcome.as_wire(), usage.dimensions);
        if let Some(entry) = self.find(hash, usage) {
            return Ok(Placed { number: entry.number, shard: entry.shard, new: false });
        }
        let key = checked(usage)?;
        let exhausted = AppendError::SeriesExhausted(self.max);
        if self.entries.len() >= usize::try_from(self.max).unwrap_or(usize::MAX) {
            return Err(exhausted);
        }
        self.insert(Arc::new(key), hash).ok_or(exhausted)
    }

    /// Whether `place` would take the event; gives no number.
    pub(super) fn check(&self, usage: &Usage<'_>) -> Result<(), AppendError> {
        let hash = hash(usage.client_id, usage.meter, usage.outcome.as_wire(), usage.dimensions);
        if self.find(hash, usage).is_none() {
            checked(usage)?;
        }
        Ok(())
    }

    fn find(&self, hash: u64, usage: &Usage<'_>) -> Option<&Entry> {
        let mut at = self.newest_by_hash.get(&hash).copied();
        while let Some(entry) = at.and_then(|at| self.entries.get(usize::try_from(at).ok()?)) {
            if is_series(&entry.key, usage) {
                return Some(entry);
            }
            at = entry.same_hash;
        }
        None
    }

    fn insert(&mut self, key: Arc<SeriesKey>, hash: u64) -> Option<Placed> {
        let at = u32::try_from(self.entries.len()).ok()?;
        let number = SeriesNumber::new(at.checked_add(1)?)?;
        let shard = self.map.shard_of(key.client_id().as_str());
        let same_hash = self.newest_by_hash.insert(hash, at);
        self.entries.push(Entry { key, number, shard, same_hash });
        Some(Placed { number, shard, new: true })
    }
}

fn is_series(key: &SeriesKey, usage: &Usage<'_>) -> bool {
    key.client_id().as_str() == usage.client_id
        && key.meter().as_str() == usage.meter
        && key.outcome() == usage.outcome
        && key.hold_id().is_none()
        && key.dimensions().len() == usage.dimensions.len()
        // The names of a key are distinct, so when each of them is found, lengths being equal, no
        // given name is left over or given twice.
        && key.dimensions().iter().all(|(name, value)| {
            usage.dimensions.iter().any(|given| *given == (name.as_str(), &**value))
        })
}

fn hash(client_id: &str, meter: &str, outcome: u8, dimensions: &[(&str, &str)]) -> u64 {
    let mut hasher = FxHasher::default();
    hasher.write(client_id.as_bytes());
    hasher.write(meter.as_bytes());
    hasher.write_u8(outcome);
    // A sum, because a caller may name dimensions in any order.
    let unordered = dimensions.iter().fold(0_u64, |sum, (name, value)| {
        let mut hasher = FxHasher::default();
        hasher.write(name.as_bytes());
        hasher.write(value.as_bytes());
        sum.wrapping_add(hasher.finish())
    });
    hasher.write_u64(unordered);
    hasher.finish()
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
        for entry in &table.entries {
            assert_eq!(again.key(entry.number), Some(&entry.key));
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
}
