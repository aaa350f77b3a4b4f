//! The names that callers without a log give their events.

use crate::name::{EventId, EventSource};

/// Slots of an installation. It never changes: two processes that put one name in two slots would not see each other.
/// One post goes on in each at a time, and all calls that wait in a slot share the next one. So few of them are large
/// posts under load; two let one be prepared while the other is written.
pub const EVENT_SLOTS: u32 = 2;

/// What makes an event the same one again: its source and its id there, as `CloudEvents` has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventName {
    /// Who names it.
    pub source: EventSource,
    /// The id, each once for a source.
    pub id: EventId,
}

impl EventName {
    /// Its slot, below [`EVENT_SLOTS`]: events of one slot are recorded one after the other, so two calls with one
    /// name meet.
    #[must_use]
    pub fn slot(&self) -> u32 {
        // FNV-1a, its halves folded: it only has to spread, and to stay the same for ever.
        let bytes = self.source.as_str().bytes().chain([0]).chain(self.id.as_str().bytes());
        let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        let [.., low] = ((hash >> 32) ^ (hash >> 4) ^ hash).to_be_bytes();
        u32::from(low & 0x01)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(source: &str, id: &str) -> EventName {
        EventName { source: EventSource::new(source).unwrap(), id: EventId::new(id).unwrap() }
    }

    #[test]
    fn slots_are_even_and_never_change() {
        let mut counts = [0_u32; 2];
        for id in 0..16_000 {
            counts[usize::try_from(name("/gateway/eu", &format!("event-{id}")).slot()).unwrap()] += 1;
        }
        assert_eq!(counts.len(), usize::try_from(EVENT_SLOTS).unwrap());
        assert!(counts.iter().all(|count| (7_600..8_400).contains(count)), "{counts:?}");
        // Written down: another answer would let a name be recorded twice.
        assert_eq!([name("a", "b").slot(), name("ab", "c").slot(), name("a", "bc").slot()], [0, 0, 1]);
    }

    #[test]
    fn a_name_is_text_without_control_characters() {
        assert!(EventId::new("évènement 7/β").is_ok());
        for wrong in ["", "a\0b", "a\nb", &"x".repeat(257)] {
            assert!(EventId::new(wrong).is_err() && EventSource::new(wrong).is_err(), "{wrong:?}");
        }
    }
}
