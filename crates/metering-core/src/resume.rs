//! The producer's decision: given what the service and the ledger say of a lane, what may be sent.
//!
//! Doctrine: `settled` is committed in Postgres and binds; `applied` is what Redis has counted and
//! binds only as far as it can be checked against the own chain. Fencing is judged first, then
//! divergence from the ledger: nothing is sent by a copy. Sending below a settled position that was
//! told earlier is right (the ledger may have been restored); sending what was freed is impossible.

use crate::shard::Position;

/// What a log knows of the chain at a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainAt {
    /// A frame ends there, with this chain.
    Boundary(u64),
    /// Inside a frame, or past the end: no frame of this log ends there.
    NoBoundary,
    /// Older than what the log still remembers.
    Forgotten,
}

/// One lane of a log.
pub trait LaneLog {
    /// The last event in the log.
    fn end(&self) -> Position;
    /// The last event that was freed and can not be sent again.
    fn freed(&self) -> Position;
    /// The chain at a sequence; `Boundary(0)` at 0.
    fn chain_at(&self, sequence: u64) -> ChainAt;
}

/// Who says where the lane is settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The ledger itself, asked now (the answer to opening the producer).
    Ledger,
    /// A stream's hello or watermark: true when it was read, perhaps late.
    Stream,
}

/// What was answered for a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The epoch registered in the ledger; 0 where the answer does not say.
    pub registered_epoch: u64,
    /// Counted in Redis; `None` where the answer does not say.
    pub applied: Option<Position>,
    /// Committed in Postgres.
    pub settled: Position,
    /// Who says so.
    pub source: Source,
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    /// Send from this position's sequence + 1, whose chain before is this position's chain.
    SendFrom(Position),
    /// A newer epoch is registered: this copy stops.
    Fenced {
        /// The registered epoch.
        registered: u64,
    },
    /// The ledger holds other events than this log: this copy stops, and a person looks.
    Diverged {
        /// Where the ledger stands.
        settled: Position,
        /// What this log has there.
        mine: ChainAt,
    },
    /// Redis stands below what was freed: send nothing; the service has to look at the shard.
    AskForLook,
    /// The ledger itself stands below what was freed: this range is named as lost, with its proof.
    NameLost {
        /// The ledger's position, whose chain is also in this log.
        settled: Position,
        /// What was freed.
        freed: Position,
    },
    /// Redis is ahead of this log or holds something else: send nothing, wait for `settled`.
    Wait,
}

/// Judges one answer for one lane of an epoch.
pub fn resume(log: &impl LaneLog, epoch: u64, answer: &Answer) -> Resume {
    let Answer { registered_epoch, applied, settled, source } = *answer;
    if registered_epoch > epoch {
        return Resume::Fenced { registered: registered_epoch };
    }
    let mine = log.chain_at(settled.sequence);
    let freed = log.freed();
    let known = mine == ChainAt::Boundary(settled.chain);
    let too_old_to_check = mine == ChainAt::Forgotten && source == Source::Stream;
    if settled.sequence > log.end().sequence || !(known || too_old_to_check) {
        return Resume::Diverged { settled, mine };
    }
    if settled.sequence < freed.sequence {
        // A stream may tell an old position late; only the ledger's own word gives a range up.
        return match source {
            Source::Ledger => Resume::NameLost { settled, freed },
            Source::Stream => Resume::AskForLook,
        };
    }
    let Some(applied) = applied else { return Resume::Wait };
    if applied.sequence > log.end().sequence {
        return Resume::Wait;
    }
    if applied.sequence < freed.sequence {
        return Resume::AskForLook;
    }
    if log.chain_at(applied.sequence) == ChainAt::Boundary(applied.chain) {
        Resume::SendFrom(applied)
    } else {
        Resume::Wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Frames end at 10, 20, 30, 40; freed up to 20; 10 is still remembered, 5 never was an end.
    struct Log;

    fn chain(sequence: u64) -> u64 {
        sequence.wrapping_mul(7)
    }

    fn at(sequence: u64) -> Position {
        Position { sequence, chain: chain(sequence) }
    }

    fn other(sequence: u64) -> Position {
        Position { sequence, chain: 1 }
    }

    impl LaneLog for Log {
        fn end(&self) -> Position {
            at(40)
        }

        fn freed(&self) -> Position {
            at(20)
        }

        fn chain_at(&self, sequence: u64) -> ChainAt {
            match sequence {
                0 | 10 | 20 | 30 | 40 => ChainAt::Boundary(chain(sequence)),
                1..=4 => ChainAt::Forgotten,
                _ => ChainAt::NoBoundary,
            }
        }
    }

    fn check(epoch: u64, applied: Option<Position>, settled: Position, source: Source, expected: Resume) {
        let answer = Answer { registered_epoch: 5, applied, settled, source };
        assert_eq!(resume(&Log, epoch, &answer), expected, "{answer:?}");
    }

    #[test]
    fn every_answer_has_one_consequence() {
        use Source::{Ledger, Stream};
        let diverged = |settled: Position, mine| Resume::Diverged { settled, mine };
        check(4, Some(at(30)), at(30), Stream, Resume::Fenced { registered: 5 });
        check(5, Some(at(30)), at(20), Stream, Resume::SendFrom(at(30)));
        check(6, Some(at(40)), at(40), Ledger, Resume::SendFrom(at(40)));
        // Below a settled position told earlier: after a restore.
        check(5, Some(at(20)), at(20), Stream, Resume::SendFrom(at(20)));
        check(5, Some(at(20)), at(30), Stream, Resume::SendFrom(at(20)));
        // The ledger knows events that this log has not, or has otherwise.
        check(5, Some(at(40)), at(50), Stream, diverged(at(50), ChainAt::NoBoundary));
        check(5, Some(at(40)), other(30), Stream, diverged(other(30), ChainAt::Boundary(chain(30))));
        check(5, Some(at(40)), at(25), Stream, diverged(at(25), ChainAt::NoBoundary));
        check(5, Some(at(40)), other(0), Ledger, diverged(other(0), ChainAt::Boundary(0)));
        // Redis is ahead or holds something else: the ledger will tell.
        check(5, Some(at(50)), at(30), Stream, Resume::Wait);
        check(5, Some(other(30)), at(20), Stream, Resume::Wait);
        check(5, Some(at(35)), at(30), Stream, Resume::Wait);
        check(5, None, at(30), Ledger, Resume::Wait);
        // Below what was freed.
        check(5, Some(at(10)), at(20), Stream, Resume::AskForLook);
        check(5, Some(at(10)), at(10), Stream, Resume::AskForLook);
        check(5, Some(at(10)), at(10), Ledger, Resume::NameLost { settled: at(10), freed: at(20) });
        check(5, None, Position::START, Ledger, Resume::NameLost { settled: Position::START, freed: at(20) });
        // Too old to prove: a late word waits, the ledger's own word is in doubt.
        check(5, Some(at(30)), at(3), Stream, Resume::AskForLook);
        check(5, Some(at(30)), at(3), Ledger, diverged(at(3), ChainAt::Forgotten));
    }
}
