//! Between the contract's messages and the core's values.

use drawdown_metering_core::{
    series::SeriesKey,
    shard::{Lane, Position},
};
use drawdown_proto::metering::v1 as wire;
use drawdown_types::ProducerId;

pub(super) const fn lane_to_wire(lane: Lane) -> wire::Lane {
    wire::Lane { map_version: lane.map_version, shard: lane.shard }
}

pub(super) const fn position_to_wire(lane: Lane, position: Position) -> wire::LanePosition {
    wire::LanePosition { lane: Some(lane_to_wire(lane)), sequence: position.sequence, chain: position.chain }
}

pub(super) fn lane_of(producer: ProducerId, lane: Option<wire::Lane>) -> Option<Lane> {
    lane.map(|lane| Lane { producer, map_version: lane.map_version, shard: lane.shard })
}

pub(super) fn position_of(
    producer: ProducerId,
    position: Option<wire::LanePosition>,
) -> Option<(Lane, Position)> {
    let wire::LanePosition { lane, sequence, chain } = position?;
    Some((lane_of(producer, lane)?, Position { sequence, chain }))
}

pub(super) fn definition(number: u32, key: &SeriesKey) -> wire::SeriesDefinition {
    let dimensions = key.dimensions().iter();
    wire::SeriesDefinition {
        number,
        series: Some(wire::Series {
            client_id: key.client_id().to_string(),
            meter: key.meter().to_string(),
            outcome: i32::from(key.outcome().as_wire()),
            dimensions: dimensions
                .map(|(name, value)| wire::Dimension { name: name.to_string(), value: value.to_string() })
                .collect(),
            hold_id: key.hold_id().map(|id| id.to_string()).unwrap_or_default(),
        }),
    }
}
