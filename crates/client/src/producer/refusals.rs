//! Events that metering refused, counted once however often their frame was sent.
//!
//! A frame that is sent again is refused again in the same words, so a refusal is remembered by its
//! place until that place is settled. The books are the ledger's (it posts refused events by reason);
//! this is what the streams of this process have told.

use std::collections::{BTreeMap, BTreeSet};

use drawdown_metering_core::shard::{Lane, Position};

/// Most refusals remembered by place; beyond it a repeated one would be counted again.
const PLACES_MAX: usize = 1 << 16;

/// Counts by reason.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    by_reason: BTreeMap<String, u64>,
    places: BTreeSet<(Lane, u64, String)>,
}

impl Refusals {
    /// Counts a refusal; answers whether it is a new one.
    pub(super) fn add(&mut self, lane: Lane, first_sequence: u64, reason: String, count: u32) -> bool {
        if self.places.contains(&(lane, first_sequence, reason.clone())) {
            return false;
        }
        let total = self.by_reason.entry(reason.clone()).or_default();
        *total = total.saturating_add(u64::from(count));
        if self.places.len() < PLACES_MAX {
            self.places.insert((lane, first_sequence, reason));
        }
        true
    }

    /// Forgets places that are settled; what stands there is never sent again.
    pub(super) fn settle(&mut self, lane: Lane, settled: Position) {
        let from = (lane, 0, String::new());
        while let Some(place) = self.places.range(&from..).next().cloned() {
            if place.0 != lane || place.1 > settled.sequence {
                break;
            }
            self.places.remove(&place);
        }
    }

    pub(super) const fn by_reason(&self) -> &BTreeMap<String, u64> {
        &self.by_reason
    }
}

#[cfg(test)]
mod tests {
    use drawdown_types::ProducerId;

    use super::*;

    #[test]
    fn a_refusal_told_twice_counts_once() {
        let lane = Lane { producer: ProducerId::generate(), map_version: 1, shard: 3 };
        let mut refusals = Refusals::default();
        for _ in 0..2 {
            refusals.add(lane, 1, "METER_UNKNOWN".to_owned(), 3);
            refusals.add(lane, 9, "METER_UNKNOWN".to_owned(), 1);
        }
        refusals.settle(lane, Position { sequence: 5, chain: 0 });
        assert_eq!(refusals.places.len(), 1);
        assert_eq!(refusals.by_reason().get("METER_UNKNOWN"), Some(&4));
    }
}
