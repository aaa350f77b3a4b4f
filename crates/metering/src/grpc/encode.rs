//! Values to messages.

use drawdown_metering_core::{
    aggregate::RefusedEvents,
    fault::{FieldFault, FrameFault},
    meter::Aggregation,
    series::{Outcome, SeriesKey},
    shard::{Lane, Position},
};
use drawdown_proto::{
    ledger::v1::Aggregation as WireAggregation,
    metering::v1::{self as wire, ingest_response::Response},
    scalar::timestamp_to_proto,
};
use drawdown_service::{Code, Refusal};

use crate::{
    instance::outbox::{Mark, News, Stop},
    live::Usage,
};

pub(super) fn lane(lane: &Lane) -> wire::Lane {
    wire::Lane { map_version: lane.map_version, shard: lane.shard }
}

pub(super) fn position(of: &Lane, at: Position) -> wire::LanePosition {
    wire::LanePosition { lane: Some(lane(of)), sequence: at.sequence, chain: at.chain }
}

/// A message; `window` is how many events a lane may be ahead of what is applied.
pub(super) fn news(news: News, window: u64) -> wire::IngestResponse {
    let response = match news {
        News::Attached(lane, standing) => Response::Attached(wire::LaneAttached {
            applied: Some(position(&lane, standing.applied)),
            settled: Some(position(&lane, standing.settled)),
            registered_epoch: standing.registered_epoch,
            send_through_sequence: standing.applied.sequence.saturating_add(window),
        }),
        News::Rewound(lane, applied) => {
            Response::Rewound(wire::LaneRewound { applied: Some(position(&lane, applied)) })
        }
        News::Watermarks(marks) => Response::Watermarks(wire::Watermarks {
            lanes: marks.iter().map(|(lane, mark)| watermark(lane, mark, window)).collect(),
        }),
        News::Stopped(lane, stop) => Response::Stopped(stopped(&lane, stop)),
    };
    wire::IngestResponse { response: Some(response) }
}

fn watermark(lane: &Lane, mark: &Mark, window: u64) -> wire::LaneWatermark {
    wire::LaneWatermark {
        applied: Some(position(lane, mark.applied)),
        settled: mark.settled.map(|settled| position(lane, settled)),
        send_through_sequence: mark.applied.sequence.saturating_add(window),
    }
}

fn stopped(of: &Lane, stop: Stop) -> wire::LaneStopped {
    wire::LaneStopped {
        lane: Some(lane(of)),
        reason: stop.reason.to_owned(),
        detail: stop.detail,
        faults: stop.faults.into_iter().map(fault).collect(),
        settled: Some(position(of, stop.settled)),
    }
}

fn fault(fault: FieldFault) -> wire::FieldFault {
    wire::FieldFault { field: fault.field, description: fault.description }
}

pub(super) fn refused(of: &Lane, refused: RefusedEvents) -> wire::IngestResponse {
    let response = Response::Refused(wire::EventsRefused {
        lane: Some(lane(of)),
        reason: refused.reason.to_owned(),
        count: refused.count,
        first_sequence: refused.first_sequence,
        fault: Some(fault(refused.fault)),
    });
    wire::IngestResponse { response: Some(response) }
}

/// A fault that ends the stream.
pub(super) fn refusal(fault: FrameFault) -> Refusal {
    let message = fault.to_string();
    let refusal = Refusal::new(Code::InvalidArgument, fault.reason, message);
    fault.fields.into_iter().fold(refusal, |refusal, field| refusal.violation(field.field, field.description))
}

/// Usage, as a query or a watcher is told of it.
pub(super) fn usage(usage: Usage) -> wire::LiveUsage {
    let aggregation = match usage.aggregation {
        Aggregation::Sum => WireAggregation::Sum,
        Aggregation::Count => WireAggregation::Count,
        Aggregation::Max => WireAggregation::Max,
        Aggregation::Unique => WireAggregation::Unique,
    };
    wire::LiveUsage {
        series: Some(series(&usage.series)),
        window_start: Some(timestamp_to_proto(usage.window_start)),
        events: usage.events,
        quantity: usage.quantity,
        aggregation: aggregation.into(),
        app_id: usage.app_id.unwrap_or_default(),
        part: usage.part.map(|(shard, batch, received)| wire::LivePart {
            shard,
            batch,
            received_window_start: Some(timestamp_to_proto(received)),
        }),
    }
}

pub(super) fn standing(standing: crate::live::Standing) -> wire::LivePosition {
    wire::LivePosition {
        shard: standing.shard,
        generation: standing.generation,
        settled_batch: standing.settled,
        open_batch: standing.open,
    }
}

pub(super) fn series(key: &SeriesKey) -> wire::Series {
    let outcome = match key.outcome() {
        Outcome::Succeeded => wire::Outcome::Succeeded,
        Outcome::Failed => wire::Outcome::Failed,
    };
    let dimensions = key
        .dimensions()
        .iter()
        .map(|(name, value)| wire::Dimension { name: name.to_string(), value: value.to_string() });
    wire::Series {
        client_id: key.client_id().to_string(),
        meter: key.meter().to_string(),
        outcome: outcome.into(),
        dimensions: dimensions.collect(),
        hold_id: key.hold_id().map(|id| id.to_string()).unwrap_or_default(),
    }
}
