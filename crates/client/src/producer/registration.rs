//! OpenProducer: once in the life of a process, before its first frame.

use std::{collections::BTreeMap, num::NonZeroU32};

use drawdown_metering_core::{
    reason,
    resume::{Answer, LaneLog as _, Resume, Source, resume},
    shard::{Lane, Position, ShardMap},
};
use drawdown_proto::metering::v1 as wire;
use drawdown_types::ProducerId;
use tonic::Status;
use tonic_types::StatusExt as _;

use super::{
    encode::{lane_of, position_of, position_to_wire},
    error::Fault,
    index::{Index, LaneLog},
    log::{Meta, Positions, StreamLimits},
    options::FRAME_BYTES_MIN,
    progress::LostRange,
    session::judged,
};
use crate::{
    channel::Channel,
    clients::metering,
    retry::{is_transient, reason_of},
};

/// More shards than any map has; what is above it is a broken answer.
const SHARDS_MAX: u32 = 1 << 16;
/// Reasons that another attempt would only hear again.
const PERMANENT: [&str; 5] =
    ["PRODUCER_UNKNOWN", "ID_MALFORMED", "MAP_VERSION_UNKNOWN", "HELLO_MISSING", reason::FENCED];

/// Where the producer stands in the ledger.
#[derive(Debug)]
pub(super) struct Registration {
    pub(super) epoch: u64,
    pub(super) map: ShardMap,
    pub(super) limits: StreamLimits,
    settled: Positions,
}

/// Events of a lane that the ledger lacks and the log has freed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claim {
    pub(super) lane: Lane,
    /// Where the ledger stands; the log has the same chain there.
    settled: Position,
    freed: Position,
}

/// A call that did not succeed.
#[derive(Debug)]
pub(super) enum CallError {
    /// It may the next time.
    Transient(Status),
    /// It never will.
    Fault(Fault),
}

/// What a status means to a producer.
pub(super) fn judge_status(status: Status, producer: ProducerId, epoch: u64) -> CallError {
    let reason = reason_of(&status);
    match reason.as_deref() {
        Some("PRODUCER_UNKNOWN") => CallError::Fault(Fault::Unknown(producer)),
        Some(reason::FENCED) => {
            let info = status.get_details_error_info();
            let told = info.and_then(|info| info.metadata.get("registered_epoch")?.parse().ok());
            CallError::Fault(Fault::Fenced { registered: told.unwrap_or_default(), mine: epoch })
        }
        // Said of a message that was damaged on its way: nothing in it can be believed, not even its lane.
        Some(reason::FRAME_DAMAGED | "MESSAGE_MALFORMED") => CallError::Transient(status),
        Some(known) if PERMANENT.contains(&known) => refused(reason, status),
        _ if status.code() == tonic::Code::InvalidArgument && !is_transient(&status) => {
            refused(reason, status)
        }
        // Whatever else it is, events are safe in the log: the next attempt costs nothing but time.
        _ => CallError::Transient(status),
    }
}

fn refused(reason: Option<String>, status: Status) -> CallError {
    CallError::Fault(Fault::Refused { reason, status: Box::new(status) })
}

/// Raises the epoch and learns where every lane is settled.
pub(super) async fn register(
    channel: &Channel,
    producer: ProducerId,
    log_epoch: u64,
) -> Result<Registration, CallError> {
    let request = wire::OpenProducerRequest { producer_id: producer.to_string(), log_epoch };
    let answer = metering::producers(channel).open_producer(request).await;
    let answer = answer.map_err(|status| judge_status(status, producer, log_epoch))?.into_inner();
    let broken = |what| CallError::Fault(Fault::Contract(what));
    let shard_count = NonZeroU32::new(answer.shard_count)
        .filter(|count| count.get() <= SHARDS_MAX)
        .ok_or_else(|| broken("a shard count that no map has"))?;
    let limits = answer.limits.ok_or_else(|| broken("no limits for frames"))?;
    if limits.frame_bytes_max < FRAME_BYTES_MIN || limits.frame_events_max == 0 || limits.series_max == 0 {
        return Err(broken("limits that no frame can keep"));
    }
    if answer.epoch <= log_epoch {
        return Err(broken("an epoch that is not above the log's"));
    }
    let mut settled = Positions::new();
    for position in answer.settled {
        let (lane, position) =
            position_of(producer, Some(position)).ok_or_else(|| broken("a position without a lane"))?;
        settled.insert(lane, position);
    }
    Ok(Registration {
        epoch: answer.epoch,
        map: ShardMap { version: answer.map_version, shard_count },
        limits: StreamLimits {
            frame_bytes_max: limits.frame_bytes_max,
            frame_events_max: limits.frame_events_max,
            series_max: limits.series_max,
        },
        settled,
    })
}

/// Claims of one call.
const CLAIMS_MAX: usize = 1_024;

/// Has the ledger name what it lacks and the log has freed. Metering that does not know how is told by a fault: a
/// person has to decide then.
pub(super) async fn name_lost(
    channel: &Channel,
    producer: ProducerId,
    epoch: u64,
    claims: &[Claim],
) -> Result<Vec<LostRange>, CallError> {
    let mut lost = Vec::with_capacity(claims.len());
    for claims in claims.chunks(CLAIMS_MAX) {
        let asked = claims.iter().map(|Claim { lane, settled, freed }| wire::LostClaim {
            settled: Some(position_to_wire(*lane, *settled)),
            freed: Some(position_to_wire(*lane, *freed)),
        });
        let claimed = asked.collect();
        let request = wire::NameLostRequest { producer_id: producer.to_string(), epoch, claims: claimed };
        let answer = metering::producers(channel).name_lost(request).await;
        let answer = answer.map_err(|status| match (status.code(), claims.first()) {
            (tonic::Code::Unimplemented, Some(Claim { lane, settled, freed })) => {
                CallError::Fault(Fault::Freed {
                    lane: *lane,
                    settled: settled.sequence,
                    freed: freed.sequence,
                })
            }
            _ => judge_status(status, producer, epoch),
        })?;
        for range in answer.into_inner().lost {
            let lane = lane_of(producer, range.lane);
            let lane = lane.ok_or(CallError::Fault(Fault::Contract("a lost range without a lane")))?;
            let (from_sequence, to_sequence) = (range.from_sequence, range.to_sequence);
            lost.push(LostRange { lane, from_sequence, to_sequence });
        }
    }
    Ok(lost)
}

impl Registration {
    /// Where the ledger stands before what the log has freed: only what the log remembers of it proves anything.
    pub(super) fn behind(&self, index: &Index) -> BTreeMap<Lane, u64> {
        let lanes = index.lanes().map(|(lane, log)| (lane, log.freed().sequence));
        let told = lanes.map(|(lane, freed)| (lane, self.settled_of(lane).sequence, freed));
        told.filter(|(_, told, freed)| (1..*freed).contains(told))
            .map(|(lane, told, _)| (lane, told))
            .collect()
    }

    fn settled_of(&self, lane: Lane) -> Position {
        self.settled.get(&lane).copied().unwrap_or_default()
    }

    /// Compares every lane with the ledger's own word, and takes that word over. Answers what the ledger lacks and
    /// the log has freed, with the proof that it was just that.
    pub(super) fn check(&self, index: &mut Index) -> Result<Vec<Claim>, Fault> {
        let mut claims = Vec::new();
        let unheard: Vec<Lane> =
            index.lanes().map(|(lane, _)| lane).filter(|lane| !self.settled.contains_key(lane)).collect();
        let unheard = unheard.into_iter().map(|lane| (lane, Position::START));
        let told = self.settled.iter().map(|(lane, position)| (*lane, *position));
        for (lane, settled) in told.chain(unheard) {
            let answer =
                Answer { registered_epoch: self.epoch, applied: None, settled, source: Source::Ledger };
            match index.lane_mut(lane) {
                Some(log) => {
                    match resume(log, self.epoch, &answer) {
                        Resume::NameLost { settled, freed } => claims.push(Claim { lane, settled, freed }),
                        verdict => {
                            judged(verdict, lane, self.epoch)?;
                        }
                    }
                    log.set_settled(settled);
                }
                // A lane that this log never had: only an empty one agrees.
                None => {
                    judged(resume(&LaneLog::default(), self.epoch, &answer), lane, self.epoch)?;
                }
            }
            index.settle_refusals(lane, settled);
        }
        Ok(claims)
    }

    /// What a log has to note: until it is written there, no frame of this epoch may be sent.
    pub(super) const fn meta(&self, producer: ProducerId) -> Meta {
        Meta::new(producer, self.epoch, self.map, self.limits)
    }

    /// Every lane of the map, and where the ledger has settled it.
    pub(super) fn lanes(&self, producer: ProducerId) -> impl Iterator<Item = (Lane, Position)> {
        let map_version = self.map.version;
        let lanes = (0..self.map.shard_count.get()).map(move |shard| Lane { producer, map_version, shard });
        lanes.map(|lane| (lane, self.settled.get(&lane).copied().unwrap_or_default()))
    }
}
