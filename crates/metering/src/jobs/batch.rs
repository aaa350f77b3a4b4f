//! From a sealed list to a post.
//!
//! A batch with more lines than one post may have is posted in part: the first blobs that fit, which is a whole
//! and valid batch by itself. What remains of the list can then never be posted under that number, so the
//! shard is reset and the rest is sent again. It costs a replay, so the limits of a batch should not lead here.

use std::collections::HashMap;

use bytes::Bytes;
use drawdown_metering_core::{
    blob::{Decoded, FINGERPRINT_START, fingerprint_next},
    meter::Aggregation,
    series::Outcome,
    settle::{Damage, Line, MergedBatch, Seal, SealedBatch, merge},
};
use drawdown_proto::{
    ledger::v1::{
        CountState, LaneRange, Line as WireLine, MeterTotal, PostBatchRequest, RefusedCount, SumState,
        line::{Attribution, State},
    },
    scalar::timestamp_to_proto,
};
use drawdown_types::{ClientId, Timestamp};

/// What is posted of a sealed batch.
#[derive(Debug)]
pub(super) struct ToPost {
    pub(super) merged: MergedBatch,
    /// Only a part of the list fits.
    pub(super) partial: bool,
}

/// Merges a sealed list, or as much of it as one post may have.
pub(super) fn merge_to_fit(
    sealed: &SealedBatch,
    entries: &[Bytes],
    lines_max: usize,
) -> Result<ToPost, Damage> {
    let mut merged = merge(sealed, entries)?;
    let mut part = entries;
    while merged.lines.len() > lines_max && part.len() > 1 {
        part = part.get(..part.len() / 2).unwrap_or_default();
        let fingerprint = part.iter().try_fold(FINGERPRINT_START.to_owned(), |before, entry| {
            Decoded::read(entry).map(|blob| fingerprint_next(&before, blob.checksum))
        });
        let fingerprint = fingerprint.map_err(|fault| Damage::Blob { at: 0, fault })?;
        let count = u64::try_from(part.len()).unwrap_or(u64::MAX);
        merged = merge(&SealedBatch { seal: Seal { count, fingerprint }, ..sealed.clone() }, part)?;
    }
    Ok(ToPost { merged, partial: part.len() < entries.len() })
}

/// The questions that the lines of a batch ask: each client id at each of its windows.
pub(super) fn questions(lines: &[Line]) -> impl Iterator<Item = (ClientId, Timestamp)> {
    lines.iter().map(|line| (line.series.client_id().clone(), line.window_start))
}

/// The post; `None` where a line has no answer, which a resolver never leaves out.
pub(super) fn request(
    sealed: &SealedBatch,
    merged: &MergedBatch,
    answers: &HashMap<(ClientId, Timestamp), Attribution>,
) -> Option<PostBatchRequest> {
    let lines = merged.lines.iter().map(|line| {
        let asked = (line.series.client_id().clone(), line.window_start);
        answers.get(&asked).map(|answer| wire_line(line, answer.clone()))
    });
    let lanes = merged.lanes.iter().map(|span| LaneRange {
        producer_id: span.lane.producer.to_string(),
        map_version: span.lane.map_version,
        from_sequence: span.from,
        to_sequence: span.to,
        chain_before: span.chain_before,
        chain_after: span.chain_after,
        epoch: span.epoch,
    });
    let refused = merged
        .refused
        .iter()
        .map(|(reason, events)| RefusedCount { reason: reason.clone(), events: *events });
    let totals = merged.totals.iter().map(|(meter, total)| MeterTotal {
        meter: meter.to_string(),
        events: total.events,
        quantity: total.quantity,
    });
    Some(PostBatchRequest {
        shard: sealed.shard,
        generation: sealed.generation,
        number: sealed.batch,
        digest: merged.digest128().to_vec(),
        lanes: lanes.collect(),
        events: merged.events,
        refused: refused.collect(),
        totals: totals.collect(),
        lines: lines.collect::<Option<Vec<_>>>()?,
    })
}

fn wire_line(line: &Line, attribution: Attribution) -> WireLine {
    let series = &line.series;
    let dimensions =
        series.dimensions().iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    WireLine {
        client_id: series.client_id().to_string(),
        meter: series.meter().to_string(),
        failed: series.outcome() == Outcome::Failed,
        dimensions,
        hold_id: series.hold_id().map(|id| id.to_string()).unwrap_or_default(),
        window_start: Some(timestamp_to_proto(line.window_start)),
        received_window_start: Some(timestamp_to_proto(line.received_window_start)),
        events: line.events,
        state: Some(match line.aggregation {
            Aggregation::Sum => State::Sum(SumState { quantity: line.quantity }),
            Aggregation::Count => State::Count(CountState {}),
        }),
        attribution: Some(attribution),
    }
}
