//! The functions of `drawdown.lua` that lanes go through, by their numbered checks, over sequences instead of bytes.

use std::collections::BTreeMap;

use drawdown_metering_core::{
    look::{Head, LaneApplied},
    shard::{Lane, Position},
};

use super::{Rule, at};

/// How a blob moves a lane: from (exclusive) and to.
pub(super) type Span = (Lane, u64, u64);

/// A call on its way. It may arrive late, twice or never.
#[derive(Clone, Debug)]
pub(super) enum Call {
    Apply { generation: u64, batch: u64, spans: Vec<Span> },
    Attach { generation: u64, roll: u64, lane: Lane, settled: u64 },
    RetireLanes { generation: u64, roll: u64, next: u64, lanes: Vec<(Lane, Position)> },
    Install { seen: Option<u64>, generation: u64, last: u64 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Ok,
    /// A lane is known, and stands there.
    At(u64),
    /// Nothing was changed.
    Refused,
}

#[derive(Clone, Debug)]
struct Shard {
    generation: u64,
    roll: u64,
    open: u64,
    retired: u64,
    blobs: Vec<Vec<Span>>,
    sealed: BTreeMap<u64, Vec<Vec<Span>>>,
    lanes: BTreeMap<Lane, u64>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Redis(Option<Shard>);

pub(super) fn seal_of(blobs: &[Vec<Span>]) -> String {
    format!("{}:{blobs:?}", blobs.len())
}

impl Redis {
    pub(super) fn lane(&self, lane: &Lane) -> Option<u64> {
        self.0.as_ref().and_then(|shard| shard.lanes.get(lane)).copied()
    }

    pub(super) fn head(&self) -> Option<Head> {
        let shard = self.0.as_ref()?;
        let blobs = u64::try_from(shard.blobs.len()).unwrap();
        let applied = |lane: &Lane, to: &u64| LaneApplied { epoch: 1, applied: at(lane, *to) };
        Some(Head {
            generation: shard.generation,
            roll: shard.roll,
            open: shard.open,
            retired: shard.retired,
            blobs,
            open_length: blobs,
            sealed: shard.sealed.iter().map(|(batch, blobs)| (*batch, seal_of(blobs))).collect(),
            lanes: shard.lanes.iter().map(|(lane, to)| (*lane, applied(lane, to))).collect(),
        })
    }

    /// A sealed list, if its head is still of that generation.
    pub(super) fn list(&self, generation: u64, batch: u64) -> Option<&Vec<Vec<Span>>> {
        let shard = self.0.as_ref().filter(|shard| shard.generation == generation)?;
        shard.sealed.get(&batch)
    }

    pub(super) fn seal(&mut self, generation: u64, batch: u64) {
        if let Some(shard) = &mut self.0
            && (shard.generation, shard.open) == (generation, batch)
            && !shard.blobs.is_empty()
        {
            shard.sealed.insert(batch, std::mem::take(&mut shard.blobs));
            shard.open += 1;
        }
    }

    pub(super) fn retire(&mut self, generation: u64, batch: u64, seal: &str) {
        if let Some(shard) = &mut self.0
            && (shard.generation, shard.retired + 1) == (generation, batch)
            && shard.sealed.get(&batch).is_some_and(|blobs| seal_of(blobs) == seal)
        {
            shard.sealed.remove(&batch);
            shard.retired = batch;
        }
    }

    /// Carries out a call.
    pub(super) fn call(&mut self, call: &Call, rule: Rule) -> Answer {
        if let Call::Install { seen, generation, last } = *call {
            if self.0.as_ref().map(|shard| shard.generation) != seen {
                return Answer::Refused;
            }
            let (blobs, sealed, lanes) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
            let (open, retired) = (last + 1, last);
            self.0 = Some(Shard { generation, roll: 0, open, retired, blobs, sealed, lanes });
            return Answer::Ok;
        }
        let Some(shard) = &mut self.0 else { return Answer::Refused };
        match call {
            Call::Apply { generation, batch, spans } => shard.apply(*generation, *batch, spans),
            Call::Attach { generation, roll, lane, settled } => {
                let another_roll = shard.roll != *roll && rule != Rule::AttachWithoutRoll;
                if shard.generation != *generation || another_roll {
                    return Answer::Refused;
                }
                Answer::At(*shard.lanes.entry(*lane).or_insert(*settled))
            }
            Call::RetireLanes { generation, roll, next, lanes } => {
                if (shard.generation, shard.roll) != (*generation, *roll) {
                    return Answer::Refused;
                }
                let before = shard.lanes.len();
                for (lane, seen) in lanes {
                    let stored = shard.lanes.get(lane).copied();
                    if stored == Some(seen.sequence) || rule == Rule::RetireWithoutBytes {
                        shard.lanes.remove(lane);
                    }
                }
                if shard.lanes.len() < before {
                    shard.roll = *next;
                }
                Answer::Ok
            }
            Call::Install { .. } => Answer::Refused,
        }
    }
}

impl Shard {
    fn apply(&mut self, generation: u64, batch: u64, spans: &[Span]) -> Answer {
        let stands = |(lane, from, _): &Span| self.lanes.get(lane) == Some(from);
        if (self.generation, self.open) != (generation, batch) || !spans.iter().all(stands) {
            return Answer::Refused;
        }
        self.blobs.push(spans.to_vec());
        self.lanes.extend(spans.iter().map(|(lane, _, to)| (*lane, *to)));
        Answer::Ok
    }
}
