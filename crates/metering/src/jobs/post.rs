//! A merged batch as the ledger takes it: a pure mapping, lines in their canonical order.

use std::collections::HashMap;

use drawdown_metering_core::{
    meter::Aggregation,
    series::Outcome,
    settle::{Line, MergedBatch},
};
use drawdown_proto::{
    ledger::v1::{
        self as pb, LaneRange, MeterTotal, PostBatchRequest, RefusedCount, line::Attribution, line::State,
    },
    scalar::timestamp_to_proto,
};
use drawdown_types::{ClientId, Timestamp};

/// Who pays, by client id and window.
pub(crate) type Payers = HashMap<(ClientId, Timestamp), Attribution>;

/// What a batch is settled as.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// The shard.
    pub(crate) shard: u32,
    /// The generation it was sealed under.
    pub(crate) generation: u64,
    /// Its number.
    pub(crate) number: u64,
}

/// The request, or a client id and window that nobody was asked about.
pub(crate) fn request(
    place: Place,
    batch: &MergedBatch,
    payers: &Payers,
) -> Result<PostBatchRequest, (ClientId, Timestamp)> {
    let lines = batch.lines.iter().map(|line| wire_line(line, payers)).collect::<Result<Vec<_>, _>>()?;
    Ok(PostBatchRequest {
        shard: place.shard,
        generation: place.generation,
        number: place.number,
        digest: batch.digest128().to_vec(),
        lanes: batch.lanes.iter().map(lane_range).collect(),
        events: batch.events,
        refused: batch
            .refused
            .iter()
            .map(|(reason, events)| RefusedCount { reason: reason.clone(), events: *events })
            .collect(),
        totals: batch
            .totals
            .iter()
            .map(|(meter, total)| MeterTotal {
                meter: meter.to_string(),
                events: total.events,
                quantity: total.quantity,
            })
            .collect(),
        lines,
    })
}

fn lane_range(span: &drawdown_metering_core::aggregate::LaneSpan) -> LaneRange {
    LaneRange {
        producer_id: span.lane.producer.to_string(),
        map_version: span.lane.map_version,
        from_sequence: span.from,
        to_sequence: span.to,
        chain_before: span.chain_before,
        chain_after: span.chain_after,
        epoch: span.epoch,
    }
}

fn wire_line(line: &Line, payers: &Payers) -> Result<pb::Line, (ClientId, Timestamp)> {
    let series = &line.series;
    let question = (series.client_id().clone(), line.window_start);
    let Some(attribution) = payers.get(&question) else { return Err(question) };
    Ok(pb::Line {
        client_id: series.client_id().to_string(),
        meter: series.meter().to_string(),
        failed: series.outcome() == Outcome::Failed,
        dimensions: series
            .dimensions()
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect(),
        hold_id: series.hold_id().map(|hold| hold.to_string()).unwrap_or_default(),
        window_start: Some(timestamp_to_proto(line.window_start)),
        received_window_start: Some(timestamp_to_proto(line.received_window_start)),
        events: line.events,
        state: Some(match line.aggregation {
            Aggregation::Sum => State::Sum(pb::SumState { quantity: line.quantity }),
            Aggregation::Count => State::Count(pb::CountState {}),
        }),
        attribution: Some(attribution.clone()),
    })
}
