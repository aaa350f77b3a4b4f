//! The dictionary of one stream: number → series, and where an aggregator keeps that series.
//!
//! Shape: small numbers index an array, the others (a long-lived log) a map. Beside each series
//! stands a hint of one aggregator's slot, so that the common case of an event is one index. A hint
//! is valid for one tag only; tags are never used twice while the process lives, so a hint that was
//! overtaken (another shard, another map, an aggregator that forgot) is looked up again, never trusted.
//! Definitions are checked all before the first is taken, so a contradiction among them defines nothing.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use rustc_hash::FxHashMap;

use crate::{
    fault::{FieldFault, FrameFault},
    frame::Definition,
    reason,
    series::{SeriesKey, SeriesNumber},
};

/// Numbers below this index the array: at most 1 MiB a stream.
const DENSE_NUMBERS: u32 = 1 << 16;

/// Says for whom a hint was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tag(u32);

impl Tag {
    const NONE: Self = Self(0);

    /// A tag unlike all others of this process.
    pub(crate) fn fresh() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

#[derive(Clone, Debug)]
struct Entry {
    tag: Tag,
    slot: u32,
    key: Option<Arc<SeriesKey>>,
}

impl Entry {
    const EMPTY: Self = Self { tag: Tag::NONE, slot: 0, key: None };
}

/// Series by number, for one stream.
#[derive(Debug)]
pub struct Dictionary {
    dense: Vec<Entry>,
    sparse: FxHashMap<u32, Entry>,
    count: u32,
    series_max: u32,
}

impl Dictionary {
    /// Empty; takes at most `series_max` series.
    #[must_use]
    pub fn new(series_max: u32) -> Self {
        Self { dense: Vec::new(), sparse: FxHashMap::default(), count: 0, series_max }
    }

    /// How many series are defined.
    #[must_use]
    pub const fn len(&self) -> u32 {
        self.count
    }

    /// No series is defined.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The series with this number.
    #[must_use]
    pub fn get(&self, number: u32) -> Option<&Arc<SeriesKey>> {
        self.entry(number)?.key.as_ref()
    }

    /// Takes definitions, all or none. The same definition again is no fault.
    ///
    /// # Errors
    /// `SERIES_CONFLICT` or `SERIES_TOO_MANY`, with the place of every offending definition.
    pub fn define(&mut self, definitions: &[Definition]) -> Result<(), FrameFault> {
        let mut faults = Vec::new();
        let mut new: FxHashMap<u32, &Arc<SeriesKey>> = FxHashMap::default();
        for (at, definition) in definitions.iter().enumerate() {
            let number = definition.number.get();
            let known = self.get(number).or_else(|| new.get(&number).copied());
            match known {
                Some(key) if **key == *definition.key => {}
                Some(_) => faults.push(FieldFault::new(
                    format!("definitions[{at}].series"),
                    format!(
                        "is not the series that number {number} stands for; numbers are never used again"
                    ),
                )),
                None => {
                    new.insert(number, &definition.key);
                }
            }
        }
        if !faults.is_empty() {
            return Err(FrameFault::new(reason::SERIES_CONFLICT, faults));
        }
        let count = u32::try_from(new.len()).ok().and_then(|new| self.count.checked_add(new));
        let Some(count) = count.filter(|count| *count <= self.series_max) else {
            return Err(FrameFault::one(
                reason::SERIES_TOO_MANY,
                "definitions",
                format!("would make more than {} series on this stream", self.series_max),
            ));
        };
        let new: Vec<(u32, Arc<SeriesKey>)> =
            new.into_iter().map(|(number, key)| (number, Arc::clone(key))).collect();
        for (number, key) in new {
            *self.entry_mut(number) = Entry { key: Some(key), ..Entry::EMPTY };
        }
        self.count = count;
        Ok(())
    }

    /// Takes one definition.
    ///
    /// # Errors
    /// As [`Dictionary::define`].
    pub fn define_one(&mut self, number: SeriesNumber, key: SeriesKey) -> Result<(), FrameFault> {
        self.define(&[Definition { number, key: Arc::new(key) }])
    }

    /// The slot, where the hint was made for `tag`.
    #[inline]
    pub(crate) fn hint(&self, number: u32, tag: Tag) -> Option<u32> {
        self.entry(number).filter(|entry| entry.tag == tag).map(|entry| entry.slot)
    }

    pub(crate) fn set_hint(&mut self, number: u32, tag: Tag, slot: u32) {
        let entry = self.entry_mut(number);
        entry.tag = tag;
        entry.slot = slot;
    }

    #[inline]
    fn entry(&self, number: u32) -> Option<&Entry> {
        if number < DENSE_NUMBERS {
            usize::try_from(number).ok().and_then(|at| self.dense.get(at))
        } else {
            self.sparse.get(&number)
        }
    }

    fn entry_mut(&mut self, number: u32) -> &mut Entry {
        let at = usize::try_from(number).unwrap_or(usize::MAX);
        if number < DENSE_NUMBERS && at >= self.dense.len() {
            self.dense.resize(at.saturating_add(1), Entry::EMPTY);
        }
        match self.dense.get_mut(at) {
            Some(entry) if number < DENSE_NUMBERS => entry,
            _ => self.sparse.entry(number).or_insert(Entry::EMPTY),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::series::Outcome;
    use drawdown_types::{ClientId, MeterSlug};

    fn definition(number: u32, client: &str) -> Definition {
        let client = ClientId::new(client).unwrap();
        let meter = MeterSlug::new("m").unwrap();
        let key = SeriesKey::new(client, meter, Outcome::Succeeded, vec![], None).unwrap();
        Definition { number: SeriesNumber::new(number).unwrap(), key: Arc::new(key) }
    }

    #[test]
    fn the_same_definition_again_changes_nothing() {
        let mut dictionary = Dictionary::new(2);
        let both = [definition(1, "a"), definition(DENSE_NUMBERS + 5, "b"), definition(1, "a")];
        dictionary.define(&both).unwrap();
        dictionary.define(&both).unwrap();
        assert_eq!(dictionary.len(), 2);
        assert_eq!(dictionary.get(DENSE_NUMBERS + 5).map(|key| key.client_id().as_str()), Some("b"));
        assert_eq!((dictionary.get(0), dictionary.get(2), dictionary.get(u32::MAX)), (None, None, None));
    }

    #[test]
    fn a_contradiction_defines_nothing() {
        let mut dictionary = Dictionary::new(9);
        dictionary.define(&[definition(1, "a")]).unwrap();
        let fault = dictionary
            .define(&[definition(2, "b"), definition(1, "x"), definition(3, "c"), definition(3, "d")])
            .unwrap_err();
        let fields: Vec<&str> = fault.fields.iter().map(|field| field.field.as_str()).collect();
        assert_eq!(fault.reason, reason::SERIES_CONFLICT);
        assert_eq!(fields, ["definitions[1].series", "definitions[3].series"]);
        assert_eq!((dictionary.len(), dictionary.get(2)), (1, None));
    }

    #[test]
    fn a_stream_defines_only_so_many() {
        let mut dictionary = Dictionary::new(1);
        let fault = dictionary.define(&[definition(1, "a"), definition(2, "b")]).unwrap_err();
        assert_eq!((fault.reason, dictionary.len()), (reason::SERIES_TOO_MANY, 0));
    }

    #[test]
    fn a_hint_counts_for_its_tag_only() {
        let mut dictionary = Dictionary::new(1);
        dictionary.define(&[definition(1, "a")]).unwrap();
        let (tag, other) = (Tag::fresh(), Tag::fresh());
        assert_eq!(dictionary.hint(1, tag), None);
        dictionary.set_hint(1, tag, 7);
        assert_eq!((dictionary.hint(1, tag), dictionary.hint(1, other)), (Some(7), None));
    }
}
