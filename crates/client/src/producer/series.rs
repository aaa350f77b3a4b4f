//! The table of series: from the parts of an event to the number that frames carry.
//!
//! Events name their series by texts ([`super::spelling`] says what that costs), or by a handle that a caller looked up
//! once, which touches eight bytes of it. A series is checked once, when it gets its number; numbers are given in
//! order and never reused. Dimensions in another order are another spelling of the same series.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use drawdown_metering_core::{
    fault::FieldFault,
    series::{SeriesKey, SeriesNumber, SeriesParts},
    shard::ShardMap,
};
use hashbrown::HashMap;

use super::{
    error::AppendError,
    spelling::{Parts, Spellings},
    usage::{SeriesHandle, Usage},
};

/// Every series of the log.
#[derive(Debug)]
pub(super) struct SeriesTable {
    keys: Vec<Arc<SeriesKey>>,
    by_key: HashMap<Arc<SeriesKey>, SeriesNumber>,
    spellings: Spellings,
    prepared: Prepared,
    map: ShardMap,
    max: u32,
}

/// Series that callers hold handles of. They get their numbers with their first events, as others do.
#[derive(Debug)]
struct Prepared {
    /// Unlike that of any other table of this process.
    table: u32,
    keys: Vec<Arc<SeriesKey>>,
    by_key: HashMap<Arc<SeriesKey>, u32>,
    /// Number (0 where it has none) and shard, by the place in the handle.
    places: Vec<(u32, u32)>,
}

impl Prepared {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let table = NEXT.fetch_add(1, Ordering::Relaxed);
        Self { table, keys: Vec::new(), by_key: HashMap::default(), places: Vec::new() }
    }

    /// Number and shard.
    fn place(&self, handle: SeriesHandle) -> Result<(u32, u32), AppendError> {
        let place = self.places.get(handle.place as usize).filter(|_| handle.table == self.table);
        place.copied().ok_or_else(|| {
            let description = "was looked up by another producer";
            AppendError::Invalid(vec![FieldFault::new("usage.series", description)])
        })
    }
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
            by_key: HashMap::default(),
            spellings: Spellings::default(),
            prepared: Prepared::new(),
            map,
            max,
        };
        for key in series {
            let dimensions: Vec<(&str, &str)> =
                key.dimensions().iter().map(|(name, value)| (name.as_str(), &**value)).collect();
            let parts = Parts {
                client_id: key.client_id().as_str(),
                meter: key.meter().as_str(),
                outcome: key.outcome().as_wire(),
                dimensions: &dimensions,
                hold_id: key.hold_id(),
            };
            let hash = table.spellings.hash(&parts);
            if let Some(placed) = table.insert(Arc::clone(&key)) {
                table.spellings.keep(&parts, hash, placed);
            }
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
            let key = usize::try_from(number).ok().and_then(|at| keys.get(at.checked_sub(1)?));
            key.map(|key| map.shard_of(key.client_id().as_str())).unwrap_or_default()
        });
        for ((_, shard), key) in self.prepared.places.iter_mut().zip(&self.prepared.keys) {
            *shard = map.shard_of(key.client_id().as_str());
        }
    }

    /// Looks events up; [`SeriesTable::place`] and [`SeriesTable::check`] speak of them by their places here.
    pub(super) fn ask(&mut self, usages: &[Usage<'_>]) {
        self.spellings.ask(usages.iter().map(Parts::of));
    }

    /// The number and shard of the series of an event that was looked up, which gets a number where it has none.
    pub(super) fn place(&mut self, at: usize, usage: &Usage<'_>) -> Result<Placed, AppendError> {
        let parts = Parts::of(usage);
        if let Some(known) = self.spellings.find(at, &parts) {
            return Ok(known);
        }
        let placed = self.place_key(Arc::new(checked(usage)?))?;
        let hash = self.spellings.hash(&parts);
        self.spellings.keep(&parts, hash, placed);
        Ok(placed)
    }

    /// The number and shard of a series, which gets a number where it has none.
    fn place_key(&mut self, key: Arc<SeriesKey>) -> Result<Placed, AppendError> {
        if let Some(number) = self.by_key.get(&key).copied() {
            let shard = self.map.shard_of(key.client_id().as_str());
            return Ok(Placed { number, shard, new: false });
        }
        let exhausted = AppendError::SeriesExhausted(self.max);
        if self.keys.len() >= usize::try_from(self.max).unwrap_or(usize::MAX) {
            return Err(exhausted);
        }
        self.insert(key).ok_or(exhausted)
    }

    /// A handle of the series of an event; the same series has the same handle.
    pub(super) fn prepare(&mut self, usage: &Usage<'_>) -> Result<SeriesHandle, AppendError> {
        let Prepared { table, keys, by_key, places } = &mut self.prepared;
        let key = Arc::new(checked(usage)?);
        if let Some(place) = by_key.get(&key).copied() {
            return Ok(SeriesHandle { table: *table, place });
        }
        let place = u32::try_from(keys.len()).ok().filter(|place| *place < self.max);
        let place = place.ok_or(AppendError::SeriesExhausted(self.max))?;
        by_key.insert(Arc::clone(&key), place);
        places.push((0, self.map.shard_of(key.client_id().as_str())));
        keys.push(key);
        Ok(SeriesHandle { table: *table, place })
    }

    /// Whether `place_prepared` would take the handle; gives no number.
    pub(super) fn check_prepared(&self, handle: SeriesHandle) -> Result<(), AppendError> {
        self.prepared.place(handle).map(drop)
    }

    /// The number and shard of the series of a handle, which gets a number where it has none.
    pub(super) fn place_prepared(&mut self, handle: SeriesHandle) -> Result<Placed, AppendError> {
        let (number, shard) = self.prepared.place(handle)?;
        if let Some(number) = SeriesNumber::new(number) {
            return Ok(Placed { number, shard, new: false });
        }
        let at = handle.place as usize;
        let key = self.prepared.keys.get(at).map(Arc::clone);
        let placed = self.place_key(key.ok_or(AppendError::SeriesExhausted(self.max))?)?;
        if let Some(place) = self.prepared.places.get_mut(at) {
            *place = (placed.number.get(), placed.shard);
        }
        Ok(placed)
    }

    /// Whether `place` would take the event; gives no number.
    pub(super) fn check(&self, at: usize, usage: &Usage<'_>) -> Result<(), AppendError> {
        if self.spellings.find(at, &Parts::of(usage)).is_none() {
            checked(usage)?;
        }
        Ok(())
    }

    /// Gives a series its number.
    fn insert(&mut self, key: Arc<SeriesKey>) -> Option<Placed> {
        let number = SeriesNumber::new(u32::try_from(self.keys.len()).ok()?.checked_add(1)?)?;
        let shard = self.map.shard_of(key.client_id().as_str());
        self.by_key.insert(Arc::clone(&key), number);
        self.keys.push(key);
        Some(Placed { number, shard, new: true })
    }
}

fn checked(usage: &Usage<'_>) -> Result<SeriesKey, AppendError> {
    let mut dimensions: Vec<(&[u8], &[u8])> =
        usage.dimensions.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
    dimensions.sort_unstable();
    let hold_id = usage.hold_id.map(|id| id.to_string()).unwrap_or_default();
    let parts = SeriesParts {
        client_id: usage.client_id.as_bytes(),
        meter: usage.meter.as_bytes(),
        outcome: u64::from(usage.outcome.as_wire()),
        dimensions,
        hold_id: hold_id.as_bytes(),
    };
    SeriesKey::from_parts(&parts, "usage").map_err(AppendError::Invalid)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use drawdown_metering_core::series::Outcome;
    use drawdown_types::{HoldId, Timestamp};

    use super::*;

    const MAP: ShardMap = ShardMap { version: 1, shard_count: NonZeroU32::MIN };

    fn usage<'a>(client_id: &'a str, dimensions: &'a [(&'a str, &'a str)]) -> Usage<'a> {
        let outcome = Outcome::Succeeded;
        let at = Timestamp::EPOCH;
        Usage { client_id, meter: "web.call", quantity: 1, at, outcome, dimensions, hold_id: None }
    }

    fn place(table: &mut SeriesTable, usage: &Usage<'_>) -> Result<Placed, AppendError> {
        table.ask(&[*usage]);
        table.place(0, usage)
    }

    fn number(table: &mut SeriesTable, usage: &Usage<'_>) -> u32 {
        place(table, usage).unwrap().number.get()
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
    fn usage_of_a_hold_is_a_series_of_its_own() {
        let mut table = SeriesTable::new(Vec::new(), MAP, 10);
        let [one, other] = [0; 2].map(|_| HoldId::generate());
        for _ in 0..2 {
            for (at, usage) in [
                usage("x", &[]),
                Usage { hold_id: Some(one), ..usage("x", &[]) },
                Usage { hold_id: Some(other), ..usage("x", &[]) },
                Usage { hold_id: Some(one), ..usage("y", &[]) },
            ]
            .iter()
            .enumerate()
            {
                assert_eq!(number(&mut table, usage), u32::try_from(at).unwrap() + 1);
            }
        }
        assert_eq!(table.key(SeriesNumber::new(3).unwrap()).unwrap().hold_id(), Some(other));
        let mut again = SeriesTable::new(table.after(0), MAP, 10);
        assert_eq!(number(&mut again, &Usage { hold_id: Some(other), ..usage("x", &[]) }), 3);
    }

    #[test]
    fn what_is_new_among_those_looked_up_together_is_new_once() {
        let mut table = SeriesTable::new(Vec::new(), MAP, 10);
        let ab = [("a", "1"), ("b", "2")];
        let ba = [("b", "2"), ("a", "1")];
        let asked = [usage("x", &ab), usage("y", &[]), usage("x", &ab), usage("x", &ba), usage("y", &[])];
        table.ask(&asked);
        let placed: Vec<_> =
            asked.iter().enumerate().map(|(at, usage)| table.place(at, usage).unwrap()).collect();
        let found: Vec<_> = placed.iter().map(|placed| (placed.number.get(), placed.new)).collect();
        assert_eq!(found, [(1, true), (2, true), (1, false), (1, false), (2, false)]);
    }

    #[test]
    fn spellings_that_share_a_hash_are_told_apart() {
        // Of so many, some two pairs have the same 32 bits.
        const SERIES: u32 = 1 << 17;
        let mut table = SeriesTable::new(Vec::new(), MAP, SERIES);
        for round in 0..2 {
            for at in 1..=SERIES {
                let client = format!("c{at}");
                assert_eq!(number(&mut table, &usage(&client, &[])), at, "round {round}");
            }
        }
    }

    #[test]
    fn a_handle_has_its_number_from_its_first_event() {
        let mut table = SeriesTable::new(Vec::new(), MAP, 3);
        let (ab, ba) = ([("a", "1"), ("b", "2")], [("b", "2"), ("a", "1")]);
        let later = table.prepare(&usage("later", &[])).unwrap();
        let first = table.prepare(&usage("x", &ab)).unwrap();
        assert_eq!(table.prepare(&usage("x", &ba)).unwrap(), first);
        assert_eq!(table.len(), 0, "a handle is no series yet");
        table.check_prepared(first).unwrap();
        assert_eq!(table.len(), 0);
        let mut place = |handle| {
            let placed = table.place_prepared(handle).unwrap();
            (placed.number.get(), placed.new)
        };
        assert_eq!([first, first, later].map(&mut place), [(1, true), (1, false), (2, true)]);
        // By its texts it is the same series, whichever way came first.
        assert_eq!(number(&mut table, &usage("x", &ba)), 1);
        assert_eq!(number(&mut table, &usage("y", &[])), 3);
        let known = table.prepare(&usage("y", &[])).unwrap();
        let placed = table.place_prepared(known).unwrap();
        assert_eq!((placed.number.get(), placed.new), (3, false));
        assert!(matches!(table.prepare(&usage("z", &[])), Err(AppendError::SeriesExhausted(3))));
        assert!(matches!(table.prepare(&usage("", &[])), Err(AppendError::Invalid(_))));
    }

    #[test]
    fn a_handle_of_another_producer_is_refused() {
        let [mut one, mut other] = [0; 2].map(|_| SeriesTable::new(Vec::new(), MAP, 10));
        let handle = one.prepare(&usage("x", &[])).unwrap();
        other.prepare(&usage("y", &[])).unwrap();
        let Err(AppendError::Invalid(faults)) = other.place_prepared(handle) else { panic!("was taken") };
        assert_eq!(faults.iter().map(|fault| fault.field.as_str()).collect::<Vec<_>>(), ["usage.series"]);
        assert!(other.check_prepared(handle).is_err());
        assert_eq!(other.len(), 0);
    }

    #[test]
    fn wrong_parts_are_named_and_leave_nothing_behind() {
        let mut table = SeriesTable::new(Vec::new(), MAP, 1);
        let twice = [("a", "1"), ("a", "1")];
        let wrong = Usage { meter: "Web Call", ..usage("", &twice) };
        let Err(AppendError::Invalid(faults)) = place(&mut table, &wrong) else { panic!("was taken") };
        let fields: Vec<_> = faults.iter().map(|fault| fault.field.as_str()).collect();
        assert_eq!(fields, ["usage.client_id", "usage.meter", "usage.dimensions[1].name"]);
        assert_eq!(table.len(), 0);
        assert_eq!(number(&mut table, &usage("x", &[])), 1);
        assert!(matches!(place(&mut table, &usage("y", &[])), Err(AppendError::SeriesExhausted(1))));
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
            assert_eq!(place(&mut table, &usage("client_b", dimensions)).unwrap().shard, 0);
        }
        let (used, unused) = (usage("client_b", &ab), usage("client_b", &[]));
        let handles = [used, unused].map(|usage| table.prepare(&usage).unwrap());
        assert_eq!(table.place_prepared(handles[0]).unwrap().shard, 0);
        table.set_map(ShardMap { version: 2, shard_count: NonZeroU32::new(16).unwrap() });
        for dimensions in [&ab, &ba] {
            let placed = place(&mut table, &usage("client_b", dimensions)).unwrap();
            assert_eq!((placed.number.get(), placed.shard, placed.new), (1, 6, false));
        }
        for handle in handles {
            assert_eq!(table.place_prepared(handle).unwrap().shard, 6);
        }
    }
}
