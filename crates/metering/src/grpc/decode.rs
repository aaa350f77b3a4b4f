//! Messages to checked values. Everything that is wrong with a message is named at once.

use drawdown_metering_core::shard::{Lane, Position, ShardMap};
use drawdown_proto::metering::v1 as wire;
use drawdown_service::{Refusal, Violations};
use drawdown_types::ProducerId;
use prost::Message as _;

use crate::{config::Config, reason};

/// Who opens a stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hello {
    pub(super) producer: ProducerId,
    pub(super) epoch: u64,
}

/// A lane that a stream asks for.
#[derive(Clone, Copy, Debug)]
pub(super) struct AskedLane {
    pub(super) lane: Lane,
    pub(super) freed: u64,
}

/// Claims of one call.
const CLAIMS_MAX: usize = 1_024;

/// What a producer says of a lane of which the ledger lacks what the log has freed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claim {
    pub(super) lane: Lane,
    pub(super) epoch: u64,
    pub(super) settled: Position,
    pub(super) freed: Position,
}

pub(super) fn lost(request: &wire::NameLostRequest, config: &Config) -> Result<Vec<Claim>, Refusal> {
    let producer = producer(&request.producer_id)?;
    let mut violations = Violations::new();
    let count = request.claims.len();
    if count == 0 || count > CLAIMS_MAX {
        violations.push("claims", format!("are {count}, must be 1 to {CLAIMS_MAX}"));
    }
    let mut claims: Vec<Claim> = Vec::with_capacity(count);
    for (index, claim) in request.claims.iter().take(CLAIMS_MAX).enumerate() {
        let parts = claim.settled.zip(claim.freed);
        let Some((settled, freed, lane)) = parts.and_then(|(settled, freed)| {
            let same = settled.lane == freed.lane;
            settled.lane.filter(|_| same).map(|lane| (settled, freed, lane))
        }) else {
            violations.push(&format!("claims[{index}]"), "must have two positions of one lane");
            continue;
        };
        map_of(lane.map_version, lane.shard, config)?;
        let lane = Lane { producer, map_version: lane.map_version, shard: lane.shard };
        if claims.iter().any(|other| other.lane == lane) {
            violations.push(&format!("claims[{index}]"), "is of a lane that another claim is of");
        }
        let at =
            |position: wire::LanePosition| Position { sequence: position.sequence, chain: position.chain };
        claims.push(Claim { lane, epoch: request.epoch, settled: at(settled), freed: at(freed) });
    }
    violations.finish(reason::REQUEST_INVALID, Some(claims))
}

pub(super) fn producer(id: &str) -> Result<ProducerId, Refusal> {
    let mut violations = Violations::new();
    let producer = violations.field("producer_id", || id.parse::<ProducerId>());
    violations.finish(reason::ID_MALFORMED, producer)
}

pub(super) fn hello(hello: &wire::Hello) -> Result<Hello, Refusal> {
    let producer = producer(&hello.producer_id)?;
    if hello.epoch == 0 {
        let mut violations = Violations::new();
        violations.push("epoch", "is 0; an epoch comes from OpenProducer and is at least 1");
        return violations.finish(reason::REQUEST_INVALID, None);
    }
    Ok(Hello { producer, epoch: hello.epoch })
}

pub(super) fn attach(
    ask: &wire::AttachLane,
    producer: ProducerId,
    config: &Config,
) -> Result<AskedLane, Refusal> {
    let Some(lane) = ask.lane else {
        let mut violations = Violations::new();
        violations.push("lane", "must be set");
        return violations.finish(reason::REQUEST_INVALID, None);
    };
    map_of(lane.map_version, lane.shard, config)?;
    let freed = ask.freed.as_ref().map_or(0, |freed| freed.sequence);
    Ok(AskedLane { lane: Lane { producer, map_version: lane.map_version, shard: lane.shard }, freed })
}

/// The map of a lane, if there is such a lane in it.
pub(super) fn map_of(version: u32, shard: u32, config: &Config) -> Result<ShardMap, Refusal> {
    let mut violations = Violations::new();
    let map = config.map(version);
    match map {
        None => violations.push("lane.map_version", format!("is {version}, which this installation has not")),
        Some(map) if shard >= map.shard_count.get() => {
            violations.push("lane.shard", format!("is {shard}, the map has {} shards", map.shard_count));
        }
        Some(_) => {}
    }
    violations.finish(reason::MAP_VERSION_UNKNOWN, map)
}

/// The lane that a frame names which can not be read as a whole: its first field.
pub(super) fn lane_named(body: &[u8], producer: ProducerId) -> Option<Lane> {
    const FIRST_FIELD_BYTES: u8 = 1 << 3 | 2;
    let (tag, rest) = body.split_first()?;
    let (length, rest) = rest.split_first()?;
    let bytes = rest.get(..usize::from(*length)).filter(|_| *tag == FIRST_FIELD_BYTES && *length < 0x80)?;
    let lane = wire::Lane::decode(bytes).ok()?;
    Some(Lane { producer, map_version: lane.map_version, shard: lane.shard })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_frame_still_names_its_lane() {
        let producer = ProducerId::generate();
        let frame = wire::ColumnFrame {
            lane: Some(wire::Lane { map_version: 2, shard: 5 }),
            first_sequence: 1,
            ..wire::ColumnFrame::default()
        };
        let mut body = frame.encode_to_vec();
        body.push(0xff);
        assert_eq!(lane_named(&body, producer), Some(Lane { producer, map_version: 2, shard: 5 }));
        for other in [&b""[..], b"\x0a", b"\x0a\x05\x08", b"\x12\x00", b"\x0a\x80\x01"] {
            assert_eq!(lane_named(other, producer), None, "{other:?}");
        }
    }
}
