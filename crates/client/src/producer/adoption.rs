//! How a producer without a log takes its lanes over from the process before it.
//!
//! A producer that keeps its events in memory only starts without knowing any sequence, and its id stays the same:
//! a new id for each start would be an act of an administrator. So each lane is *adopted*:
//!
//! 1. `OpenProducer` raises the epoch in the ledger and says where each lane is settled.
//! 2. Each lane of the map is attached under the new epoch. That raises the epoch of the lane in Redis too, and
//!    answers *applied*: where Redis stands at that moment.
//! 3. Where applied is beyond settled, events of the process before are on their way. The lane waits until it was
//!    told the same position (sequence and chain) as applied and as settled; the lane goes on from there.
//! 4. Meanwhile events wait in frames without a place: a frame gets its sequence and chain when its lane is
//!    adopted, and neither changes after that.
//!
//! Why nothing is counted twice or mixed. Let P be the position of step 3, and e the epoch. The ledger has
//! committed P. Redis stood at P when e was stored there, so from then on it takes nothing of the lane from an older
//! epoch (FENCED), and what it had taken before ends at P. Where Redis loses the lane or its epoch, it is installed
//! from the ledger: at the settled position, which is at least P, with the registered epoch, which is at least e.
//! Batches of a generation before that are refused by the ledger's gate. So behind P only frames of this process
//! (or of a later one, which fences it) can ever be settled, and its sequences are free. Sequences were never
//! reset: the lane goes on, gapless, with the chain that the ledger has.
//!
//! What had not reached Redis when the process before ended, or was lost with Redis before it was settled, is lost:
//! nobody has it. This is what "memory only" means, and it is the only loss.
//!
//! Where Redis goes back while a lane waits (a reset, a stale replica), the lane is told the new position and goes
//! on waiting with that: `applied` may fall, step 3 only asks that both say the same. If an older process manages
//! to get a frame in after P all the same (it would need a Redis that has forgotten e and a metering instance that
//! has not heard of it from the ledger), the chain tells: this producer is DIVERGED and stops, as with a log.

use drawdown_metering_core::shard::{Lane, Position};

use super::error::LaneStop;

/// The reason of a lane that could not be adopted in time.
pub(super) const NOT_ADOPTED: &str = "LANE_NOT_ADOPTED";

/// What is known of a lane that is not adopted yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Adoption {
    /// What the last stream that attached it told: applied, settled.
    told: Option<(Position, Position)>,
    /// Events that wait for it.
    pub(super) waiting_events: u64,
}

impl Adoption {
    /// The answer to attaching the lane.
    pub(super) fn attached(&mut self, applied: Position, settled: Position) -> Option<Position> {
        self.told = Some((applied, settled));
        self.agreed()
    }

    /// Later news of a lane that was attached; what it does not say stays as it was told.
    pub(super) fn moved(&mut self, applied: Position, settled: Option<Position>) -> Option<Position> {
        let (_, known) = self.told?;
        self.told = Some((applied, settled.unwrap_or(known)));
        self.agreed()
    }

    /// Where the lane goes on.
    fn agreed(&self) -> Option<Position> {
        self.told.filter(|(applied, settled)| applied == settled).map(|(applied, _)| applied)
    }

    /// Why the lane is not adopted yet.
    pub(super) fn overdue(&self, lane: Lane) -> LaneStop {
        let detail = match self.told {
            None => "metering has not said where it stands".to_owned(),
            Some((applied, settled)) => format!(
                "what the process before has sent is applied through {} and settled through {}",
                applied.sequence, settled.sequence
            ),
        };
        LaneStop { lane, reason: NOT_ADOPTED.to_owned(), detail, fields: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(sequence: u64) -> Position {
        Position { sequence, chain: sequence.wrapping_mul(7) }
    }

    #[test]
    fn a_lane_goes_on_where_both_say_the_same() {
        let mut lane = Adoption::default();
        assert_eq!(lane.moved(at(5), Some(at(5))), None, "it was not attached");
        assert_eq!(lane.attached(at(50), at(20)), None);
        assert_eq!(lane.moved(at(50), None), None);
        assert_eq!(lane.moved(at(50), Some(at(40))), None);
        assert_eq!(lane.moved(at(50), Some(at(50))), Some(at(50)));
        // Redis lost what was not settled.
        assert_eq!(lane.attached(at(50), at(20)), None);
        assert_eq!(lane.moved(at(20), None), Some(at(20)));
        // Redis is behind the ledger, or holds other events: a reset will tell.
        assert_eq!(lane.attached(at(10), at(20)), None);
        assert_eq!(lane.attached(Position { sequence: 20, chain: 1 }, at(20)), None);
        assert_eq!(lane.attached(Position::START, Position::START), Some(Position::START));
    }
}
