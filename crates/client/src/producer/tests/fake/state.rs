//! What the service keeps: lanes with applied and settled positions, and what is to go wrong next.

use std::collections::{BTreeMap, VecDeque};

use drawdown_proto::metering::v1 as wire;
use drawdown_types::ProducerId;

/// Map version and shard.
pub(super) type LaneKey = (u32, u32);

/// What happens when a frame comes.
#[derive(Clone, Debug)]
pub(in crate::producer::tests) enum Fault {
    /// The stream breaks before the frame is looked at.
    Break,
    /// The message was damaged on its way, so that nothing in it can be read.
    Damage,
    /// The stream breaks after the frame was applied, before anybody hears of it.
    BreakAfter,
    /// The store forgets everything that is not settled; every lane is told to go back.
    Forget,
    /// The store forgets, and the stream breaks.
    ForgetAndBreak,
    /// Everything applied is settled.
    Settle,
    /// The frame's lane is stopped.
    Stop(&'static str),
    /// The frame's events are refused for this reason, and applied all the same.
    Refuse(&'static str),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::producer::tests) struct At {
    pub(in crate::producer::tests) sequence: u64,
    pub(in crate::producer::tests) chain: u64,
}

#[derive(Debug, Default)]
pub(super) struct Lane {
    /// The highest epoch that attached it; frames of older ones are refused.
    pub(super) epoch: u64,
    pub(super) applied: At,
    pub(super) settled: At,
    /// Frames above `settled`: where each ends, and events by series.
    pub(super) unsettled: VecDeque<(At, Counts)>,
    pub(super) history: Vec<(At, Counts)>,
}

/// Events and quantity by "client meter".
pub(in crate::producer::tests) type Counts = BTreeMap<String, (u64, u64)>;

#[derive(Debug)]
pub(in crate::producer::tests) struct State {
    pub(in crate::producer::tests) known: Option<ProducerId>,
    pub(in crate::producer::tests) epoch: u64,
    pub(in crate::producer::tests) map_version: u32,
    pub(in crate::producer::tests) shard_count: u32,
    /// The window: sequences beyond `applied` that may be sent.
    pub(in crate::producer::tests) window: u64,
    /// What happens with the next frames, in order; then `Settle` for each.
    pub(in crate::producer::tests) faults: VecDeque<Fault>,
    pub(in crate::producer::tests) settle_by_itself: bool,
    pub(in crate::producer::tests) frames_received: u64,
    pub(in crate::producer::tests) lanes_seen: Vec<LaneKey>,
    /// One stream breaks the next time that anything happens on it.
    pub(in crate::producer::tests) breaks: bool,
    /// Ranges named as lost, each with its lane.
    pub(in crate::producer::tests) lost: Vec<(LaneKey, u64, u64)>,
    /// Older services know nothing of lost ranges.
    pub(in crate::producer::tests) names_lost: bool,
    /// How the messages of the last stream were compressed.
    pub(in crate::producer::tests) encoding: Option<String>,
    pub(super) lanes: BTreeMap<LaneKey, Lane>,
}

fn add(into: &mut Counts, from: &Counts) {
    for (series, (events, quantity)) in from {
        let sum = into.entry(series.clone()).or_default();
        *sum = (sum.0 + events, sum.1 + quantity);
    }
}

impl State {
    /// A service that knows one producer.
    pub(super) fn of(known: ProducerId) -> Self {
        Self {
            known: Some(known),
            epoch: 0,
            map_version: 1,
            shard_count: 4,
            window: 1 << 20,
            faults: VecDeque::new(),
            settle_by_itself: true,
            frames_received: 0,
            lanes_seen: Vec::new(),
            breaks: false,
            lost: Vec::new(),
            names_lost: true,
            encoding: None,
            lanes: BTreeMap::new(),
        }
    }

    /// Everything that was ever settled and not taken back.
    pub(super) fn settled(&self) -> Counts {
        let mut all = Counts::new();
        for lane in self.lanes.values() {
            lane.history.iter().for_each(|(_, counts)| add(&mut all, counts));
        }
        all
    }

    /// The ledger is restored to where each lane had settled `frames` frames only.
    pub(in crate::producer::tests) fn restore(&mut self, frames: usize) {
        for lane in self.lanes.values_mut() {
            lane.history.truncate(frames);
            lane.settled = lane.history.last().map(|(at, _)| *at).unwrap_or_default();
            lane.applied = lane.settled;
            lane.unsettled.clear();
        }
    }

    pub(super) fn give_up(&mut self, claim: &wire::LostClaim) -> wire::LostRange {
        let (settled, freed) = (claim.settled.unwrap(), claim.freed.unwrap());
        let lane = settled.lane.unwrap();
        let (key, freed) =
            ((lane.map_version, lane.shard), At { sequence: freed.sequence, chain: freed.chain });
        let at = self.lanes.get_mut(&key).unwrap();
        assert_eq!(At { sequence: settled.sequence, chain: settled.chain }, at.settled, "no proof");
        assert!(freed.sequence > settled.sequence, "nothing is lost");
        (at.settled, at.applied) = (freed, freed);
        at.unsettled.clear();
        self.lost.push((key, settled.sequence + 1, freed.sequence));
        wire::LostRange { lane: Some(lane), from_sequence: settled.sequence + 1, to_sequence: freed.sequence }
    }

    pub(in crate::producer::tests) fn settle_all(&mut self) {
        for lane in self.lanes.values_mut() {
            lane.history.extend(lane.unsettled.drain(..));
            lane.settled = lane.applied;
        }
    }

    /// The store forgets everything that is not settled.
    pub(in crate::producer::tests) fn forget(&mut self) {
        for lane in self.lanes.values_mut() {
            lane.unsettled.clear();
            lane.applied = lane.settled;
        }
    }

    pub(super) fn position(key: LaneKey, at: At) -> wire::LanePosition {
        let lane = Some(wire::Lane { map_version: key.0, shard: key.1 });
        wire::LanePosition { lane, sequence: at.sequence, chain: at.chain }
    }

    pub(super) fn watermark(&self, key: LaneKey) -> wire::LaneWatermark {
        let lane = self.lanes.get(&key).unwrap();
        wire::LaneWatermark {
            applied: Some(Self::position(key, lane.applied)),
            settled: Some(Self::position(key, lane.settled)),
            send_through_sequence: lane.applied.sequence + self.window,
        }
    }
}
