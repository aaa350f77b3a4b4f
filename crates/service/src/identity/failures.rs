//! Failed attempts of one address a second: a small table of counts, so that whoever guesses costs little, and costs
//! nobody else. Addresses share a place where their hashes fall together, which only ever refuses sooner.

use std::{
    hash::BuildHasher as _,
    net::IpAddr,
    sync::atomic::{AtomicU64, Ordering},
};

use drawdown_types::Timestamp;

const PLACES: usize = 1_024;
/// The lower half of a place is the count, the upper half the second it is of.
const COUNT_BITS: u32 = 32;

/// Counts of failures.
#[derive(Debug)]
pub(super) struct Failures {
    places: Vec<AtomicU64>,
    hasher: std::hash::RandomState,
    max: u64,
}

impl Failures {
    pub(super) fn new(per_second_max: u32) -> Self {
        Self {
            places: (0..PLACES).map(|_| AtomicU64::new(0)).collect(),
            hasher: std::hash::RandomState::new(),
            max: u64::from(per_second_max),
        }
    }

    /// Whether the address has failed so often in this second that its next attempt is not looked at.
    pub(super) fn is_spent(&self, address: Option<IpAddr>, now: Timestamp) -> bool {
        let held = self.place(address).map_or(0, |place| place.load(Ordering::Relaxed));
        held >> COUNT_BITS == second(now) && held & u64::from(u32::MAX) >= self.max
    }

    /// One more failure.
    pub(super) fn note(&self, address: Option<IpAddr>, now: Timestamp) {
        let second = second(now);
        if let Some(place) = self.place(address) {
            place.update(Ordering::Relaxed, Ordering::Relaxed, |held| {
                let count = if held >> COUNT_BITS == second { held & u64::from(u32::MAX) } else { 0 };
                (second << COUNT_BITS) | (count + 1).min(u64::from(u32::MAX))
            });
        }
    }

    fn place(&self, address: Option<IpAddr>) -> Option<&AtomicU64> {
        let hash = self.hasher.hash_one(address);
        self.places.get(usize::try_from(hash % PLACES as u64).unwrap_or_default())
    }
}

/// Seconds since the epoch, as many as fit.
fn second(now: Timestamp) -> u64 {
    u64::try_from(now.as_millis() / 1_000).unwrap_or_default() & u64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_spent_for_the_rest_of_a_second_and_others_are_not() {
        let failures = Failures::new(3);
        let at = |millis| Timestamp::from_millis(millis).unwrap();
        let guesser = Some(IpAddr::from([10, 0, 0, 1]));
        for millis in [5_000, 5_100, 5_200] {
            assert!(!failures.is_spent(guesser, at(millis)));
            failures.note(guesser, at(millis));
        }
        assert!(failures.is_spent(guesser, at(5_999)));
        assert!(!failures.is_spent(guesser, at(6_000)));
        let spent =
            (1..=200_u8).filter(|last| failures.is_spent(Some(IpAddr::from([10, 0, 1, *last])), at(5_999)));
        assert!(spent.count() < 5, "places are shared by few");
    }
}
