//! What the producer's log remembers of a source: how far it was read, and what came of it.
//!
//! It travels as the mark of the event that the line gave, so the counts are exactly those of the lines
//! whose events are durable, however often the replay is killed. Never changed but by a new version byte.

use crate::source::Left;

const VERSION: u8 = 1;
const BYTES: usize = 1 + 8 * 8 + 2;

/// Lines by what became of them, from the start of the source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Tally {
    /// Lines read.
    pub lines: u64,
    /// Lines that became an event.
    pub events: u64,
    /// Lines that could not be read, or whose usage is not valid.
    pub malformed: u64,
    /// Lines that no rule meters.
    pub ignored: u64,
}

impl Tally {
    /// What came after `earlier`.
    #[must_use]
    pub const fn since(&self, earlier: &Self) -> Self {
        Self {
            lines: self.lines.saturating_sub(earlier.lines),
            events: self.events.saturating_sub(earlier.events),
            malformed: self.malformed.saturating_sub(earlier.malformed),
            ignored: self.ignored.saturating_sub(earlier.ignored),
        }
    }
}

/// A position in a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) left: Left,
    pub(crate) tally: Tally,
    /// Added to every instant, in µs; fixed by the first run.
    pub(crate) shift_micros: i64,
    /// Whether the first run shifted at all.
    pub(crate) shifted: bool,
}

impl Position {
    pub(crate) const fn start(shift_micros: Option<i64>) -> Self {
        Self {
            left: Left { offset: 0, line: 0, line_hash: 0, terminated: true },
            tally: Tally { lines: 0, events: 0, malformed: 0, ignored: 0 },
            shift_micros: match shift_micros {
                Some(micros) => micros,
                None => 0,
            },
            shifted: shift_micros.is_some(),
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(BYTES);
        out.push(VERSION);
        for number in [
            self.left.offset,
            self.left.line,
            self.left.line_hash,
            self.tally.lines,
            self.tally.events,
            self.tally.malformed,
            self.tally.ignored,
        ] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&self.shift_micros.to_le_bytes());
        out.push(u8::from(self.left.terminated));
        out.push(u8::from(self.shifted));
        out
    }

    /// `None` for bytes that no version wrote.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (version, rest) = bytes.split_first()?;
        if *version != VERSION || bytes.len() != BYTES {
            return None;
        }
        let (numbers, flags) = rest.split_at_checked(64)?;
        let mut numbers = numbers.chunks_exact(8).filter_map(|chunk| chunk.try_into().ok());
        let mut next = || numbers.next().map(u64::from_le_bytes);
        let (offset, line, line_hash) = (next()?, next()?, next()?);
        let tally = Tally { lines: next()?, events: next()?, malformed: next()?, ignored: next()? };
        let shift_micros = next()?.cast_signed();
        let flag = |at: usize| match flags.get(at) {
            Some(0) => Some(false),
            Some(1) => Some(true),
            _ => None,
        };
        let left = Left { offset, line, line_hash, terminated: flag(0)? };
        Some(Self { left, tally, shift_micros, shifted: flag(1)? })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_position_survives_its_bytes() {
        let position = Position {
            left: Left { offset: 1 << 40, line: 7, line_hash: u64::MAX, terminated: false },
            tally: Tally { lines: 7, events: 4, malformed: 2, ignored: 1 },
            shift_micros: -5,
            shifted: true,
        };
        assert_eq!(Position::decode(&position.encode()), Some(position));
        assert_eq!(position.encode().len(), BYTES);
        let start = Position::start(None);
        assert_eq!(Position::decode(&start.encode()), Some(start));
    }

    #[test]
    fn bytes_once_written_are_still_read() {
        let mut bytes = vec![1];
        for number in [10_u64, 2, 3, 2, 1, 1, 0] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&(-1_i64).to_le_bytes());
        bytes.extend_from_slice(&[1, 1]);
        let position = Position::decode(&bytes).unwrap();
        assert_eq!((position.left.offset, position.tally.events, position.shift_micros), (10, 1, -1));
    }

    proptest! {
        #[test]
        fn other_bytes_are_no_position(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Some(position) = Position::decode(&bytes) {
                prop_assert_eq!(position.encode(), bytes);
            }
        }
    }
}
