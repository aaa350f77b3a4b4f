//! What the naive ledger has committed, and the gate as its specification says: its checks in their order, then the sums
//! by series.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use drawdown_proto::{
    ledger::v1::{self as ledger, LaneState, Meter, PostBatchRequest, ShardCursor, line::State as LineState},
    scalar::timestamp_from_proto,
};
use drawdown_service::{Code, Refusal};
use tonic::Status;

/// (client id, meter, failed) → (events, quantity).
pub(crate) type Sums = BTreeMap<(String, String, bool), (u64, i64)>;
/// (client id, meter, dimensions)
pub(crate) type Series = (String, String, BTreeMap<String, String>);
type LaneKey = (String, u32);

/// What all lines of a series come to (D19).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Booked {
    pub(crate) events: u64,
    /// Sum, or largest value.
    pub(crate) quantity: i64,
    pub(crate) values: BTreeSet<Vec<u8>>,
}
/// Where a shard stands.
pub(crate) type Place = (u64, Option<Vec<u8>>, BTreeMap<LaneKey, (u64, u64)>);

#[derive(Clone, Default)]
struct Shard {
    generation: u64,
    last: u64,
    lanes: BTreeMap<LaneKey, (u64, u64)>,
    digests: HashMap<u64, Vec<u8>>,
    /// Batches as they came, where there are other cells.
    kept: HashMap<u64, PostBatchRequest>,
}

/// Everything that is committed.
#[derive(Clone, Default)]
pub(crate) struct State {
    shards: BTreeMap<u32, Shard>,
    pub(crate) producers: BTreeMap<String, u64>,
    pub(crate) sums: Sums,
    /// Every line that was booked, by client id, meter and dimensions.
    pub(crate) booked: BTreeMap<Series, Booked>,
    pub(crate) unattributed: BTreeMap<String, u64>,
    pub(crate) refused: BTreeMap<String, u64>,
    pub(crate) meters: BTreeMap<String, Meter>,
    /// Client ids without a team.
    pub(crate) strangers: HashSet<String>,
    /// Apps of client ids, of those that have one of their own.
    pub(crate) apps: BTreeMap<String, String>,
    /// Client ids whose account lives in another cell.
    pub(crate) elsewhere: BTreeMap<String, u32>,
    /// Which cell it is, and in the leading one all others.
    pub(crate) cell: u32,
    pub(crate) others: Vec<u32>,
}

pub(super) fn refuse(reason: &'static str, why: impl Into<String>) -> Status {
    Refusal::new(Code::FailedPrecondition, reason, why).into()
}

impl State {
    /// Last batch, its digest, and all lanes with their chains, by shard.
    pub(crate) fn places(&self) -> BTreeMap<u32, Place> {
        let place =
            |shard: &Shard| (shard.last, shard.digests.get(&shard.last).cloned(), shard.lanes.clone());
        // A shard that never settled anything may be unknown to some.
        self.shards.iter().filter(|(_, shard)| shard.last > 0).map(|(n, shard)| (*n, place(shard))).collect()
    }

    fn shard(&mut self, shard: u32) -> &mut Shard {
        self.shards.entry(shard).or_insert_with(|| Shard { generation: rand::random(), ..Shard::default() })
    }

    pub(super) fn cursor(&mut self, number: u32) -> ShardCursor {
        let producers = self.producers.clone();
        let shard = self.shard(number);
        let lanes = shard.lanes.iter().map(|((producer_id, map_version), (settled, chain))| LaneState {
            producer_id: producer_id.clone(),
            map_version: *map_version,
            shard: number,
            epoch: producers.get(producer_id).copied().unwrap_or_default(),
            settled_sequence: *settled,
            settled_chain: *chain,
        });
        ShardCursor {
            shard: number,
            generation: shard.generation,
            last_batch: shard.last,
            lanes: lanes.collect(),
        }
    }

    /// Every shard gets a new generation, as after a restore.
    pub(super) fn renew(&mut self) {
        for shard in self.shards.values_mut() {
            shard.generation = rand::random();
        }
    }

    /// A new generation for a shard whose one is known.
    pub(super) fn reset(&mut self, number: u32, expected_generation: u64) -> Result<ShardCursor, Status> {
        let shard = self.shard(number);
        if shard.generation != expected_generation {
            return Err(refuse("GENERATION_STALE", "another generation"));
        }
        shard.generation = rand::random();
        Ok(self.cursor(number))
    }

    /// Gives up what a producer has freed and this ledger lacks.
    pub(super) fn name_lost(&mut self, claim: &ledger::NameLostRequest) -> Result<(u64, u64), Status> {
        let at = claim.at_settled.as_ref().unwrap();
        if self.producers.get(&at.producer_id) != Some(&at.epoch) {
            return Err(refuse("FENCED", "another epoch"));
        }
        let shard = self.shard(at.shard);
        let lane = shard.lanes.entry((at.producer_id.clone(), at.map_version)).or_default();
        if *lane != (at.settled_sequence, at.settled_chain) {
            return Err(refuse("LANE_DIVERGED", "no proof"));
        }
        let from = lane.0 + 1;
        *lane = (claim.freed_sequence, claim.freed_chain);
        shard.generation = rand::random();
        Ok((from, claim.freed_sequence))
    }

    /// A producer's next epoch, and its lanes.
    pub(super) fn open(&mut self, producer: &str, log_epoch: u64) -> Result<(u64, Vec<LaneState>), Status> {
        let epoch = self.producers.get_mut(producer);
        let unknown = || Status::from(Refusal::new(Code::NotFound, "PRODUCER_UNKNOWN", "unknown"));
        let epoch = epoch.ok_or_else(unknown)?;
        *epoch = (*epoch).max(log_epoch) + 1;
        let epoch = *epoch;
        let shards: Vec<u32> = self.shards.keys().copied().collect();
        let lanes = shards.into_iter().flat_map(|shard| self.cursor(shard).lanes);
        Ok((epoch, lanes.filter(|lane| lane.producer_id == producer).collect()))
    }

    /// What another cell is posted of a batch.
    pub(super) fn part(&self, shard: u32, number: u64, cell: u32) -> Result<PostBatchRequest, Status> {
        let kept = self.shards.get(&shard).and_then(|shard| shard.kept.get(&number)).cloned();
        let batch = kept.ok_or_else(|| refuse("BATCH_UNKNOWN", "unknown"))?;
        let part = batch.parts.iter().find(|part| part.cell == cell).cloned();
        let part = part.ok_or_else(|| refuse("CELL_MISMATCH", "no such cell"))?;
        let events: u64 = part.lines.iter().map(|line| line.events).sum();
        let in_lanes: u64 = batch.lanes.iter().map(|range| range.to_sequence - range.from_sequence + 1).sum();
        let mut totals = batch.totals.clone();
        for line in &part.lines {
            let total = totals.iter_mut().find(|total| total.meter == line.meter).unwrap();
            total.events -= line.events;
            total.quantity -= match line.state.as_ref().unwrap() {
                LineState::Sum(sum) => sum.quantity,
                _ => i64::try_from(line.events).unwrap(),
            };
        }
        totals.retain(|total| total.events > 0);
        let elsewhere = Some(ledger::Elsewhere { events: in_lanes - events, totals });
        let (refused, parts) = (Vec::new(), Vec::new());
        Ok(PostBatchRequest { cell, events, elsewhere, refused, parts, lines: part.lines, ..batch })
    }

    /// The checks of `gate post`, in their order.
    pub(super) fn post(&mut self, batch: &PostBatchRequest) -> Result<bool, Status> {
        let (producers, cell, others) = (self.producers.clone(), self.cell, self.others.clone());
        if batch.cell != cell {
            return Err(refuse("CELL_MISMATCH", "another cell"));
        }
        let shard = self.shard(batch.shard);
        if let Some(digest) = shard.digests.get(&batch.number) {
            let kept = &shard.kept[&batch.number];
            let same = cell == 0 || (&kept.lines, &kept.elsewhere) == (&batch.lines, &batch.elsewhere);
            return if *digest == batch.digest && same {
                Ok(true)
            } else {
                Err(refuse("BATCH_CONFLICT", "conflict"))
            };
        }
        if batch.parts.iter().map(|part| part.cell).collect::<Vec<_>>() != others {
            return Err(refuse("CELL_MISMATCH", "other parts"));
        }
        if batch.number != shard.last + 1 {
            return Err(refuse("BATCH_NOT_NEXT", "not next"));
        }
        if cell == 0 && batch.generation != shard.generation {
            return Err(refuse("GENERATION_STALE", "stale"));
        }
        let mut lanes = shard.lanes.clone();
        let mut in_lanes = 0;
        for range in &batch.lanes {
            if cell == 0 && !producers.contains_key(&range.producer_id) {
                return Err(refuse("LANE_UNKNOWN", "unknown"));
            }
            let key = (range.producer_id.clone(), range.map_version);
            let (settled, chain) = lanes.get(&key).copied().unwrap_or_default();
            if range.from_sequence != settled + 1 || range.from_sequence > range.to_sequence {
                return Err(refuse("LANE_GAP", format!("{} after {settled}", range.from_sequence)));
            }
            if range.chain_before != chain {
                return Err(refuse("LANE_DIVERGED", "diverged"));
            }
            in_lanes += range.to_sequence - range.from_sequence + 1;
            lanes.insert(key, (range.to_sequence, range.chain_after));
        }
        let refused: u64 = batch.refused.iter().map(|refused| refused.events).sum();
        let elsewhere = batch.elsewhere.as_ref().map_or(0, |elsewhere| elsewhere.events);
        if batch.events + refused + elsewhere != in_lanes {
            return Err(refuse("TOTALS_MISMATCH", "events"));
        }
        shard.lanes = lanes;
        shard.last = batch.number;
        shard.generation = batch.generation;
        shard.digests.insert(batch.number, batch.digest.clone());
        shard.kept.insert(batch.number, batch.clone());
        self.book(batch);
        Ok(false)
    }

    fn book(&mut self, batch: &PostBatchRequest) {
        let mut totals: BTreeMap<String, (u64, i64)> = BTreeMap::new();
        for line in &batch.lines {
            let quantity = match line.state.as_ref().unwrap() {
                LineState::Sum(sum) => sum.quantity,
                LineState::Count(_) => i64::try_from(line.events).unwrap(),
                LineState::Max(max) => max.value,
                LineState::Unique(unique) => i64::try_from(unique.values.len()).unwrap(),
            };
            let dimensions = line.dimensions.clone().into_iter().collect();
            let booked =
                self.booked.entry((line.client_id.clone(), line.meter.clone(), dimensions)).or_default();
            booked.events += line.events;
            match line.state.as_ref().unwrap() {
                LineState::Sum(_) | LineState::Count(_) => booked.quantity += quantity,
                LineState::Max(_) => booked.quantity = booked.quantity.max(quantity),
                LineState::Unique(unique) => {
                    assert!(unique.values.is_sorted(), "sorted");
                    booked.values.extend(unique.values.iter().cloned());
                }
            }
            for (sum, more) in [
                self.sums.entry((line.client_id.clone(), line.meter.clone(), line.failed)).or_default(),
                totals.entry(line.meter.clone()).or_default(),
            ]
            .map(|sum| (sum, (line.events, quantity)))
            {
                *sum = (sum.0 + more.0, sum.1 + more.1);
            }
            if let Some(ledger::line::Attribution::UnattributedReason(reason)) = &line.attribution {
                *self.unattributed.entry(reason.clone()).or_default() += line.events;
            }
            timestamp_from_proto(line.window_start.as_ref().unwrap()).unwrap();
        }
        for total in batch.elsewhere.iter().flat_map(|elsewhere| &elsewhere.totals) {
            let sum = totals.entry(total.meter.clone()).or_default();
            *sum = (sum.0 + total.events, sum.1 + total.quantity);
        }
        for total in &batch.totals {
            assert_eq!(totals.remove(&total.meter), Some((total.events, total.quantity)));
        }
        assert!(totals.is_empty());
        for refused in &batch.refused {
            *self.refused.entry(refused.reason.clone()).or_default() += refused.events;
        }
    }
}
