//! From a sealed list to a post.
//!
//! A batch with more lines or bytes than one post may have is posted in part: the first blobs that fit, which is a whole
//! and valid batch by itself. What remains of the list can then never be posted under that number, so the
//! shard is reset and the rest is sent again. It costs a replay, so the limits of a batch should not lead here.
//! Distinct values are measured like lines; a line that would have more of them than a post allows is cut the same way.

use std::collections::HashMap;

use bytes::Bytes;
use drawdown_metering_core::{
    blob::{Decoded, FINGERPRINT_START, fingerprint_next},
    cells::{self, LEADING, UnknownCell},
    meter::Aggregation,
    reason,
    series::Outcome,
    settle::{Damage, Line, MergedBatch, Seal, SealedBatch, Total, merge},
};
use drawdown_proto::{
    ledger::v1::{
        CellLines, CountState, Elsewhere, LaneRange, Line as WireLine, MaxState, MeterTotal,
        PostBatchRequest, RefusedCount, SumState, UniqueState,
        line::{Attribution, State},
    },
    scalar::timestamp_to_proto,
};
use drawdown_types::MeterSlug;

use crate::peer::{Question, Resolved};

/// What is posted of a sealed batch.
#[derive(Debug)]
pub(super) struct ToPost {
    pub(super) merged: MergedBatch,
    /// Only a part of the list fits.
    pub(super) partial: bool,
}

/// Bytes of a line in a post beside its texts, at most: ids, instants, numbers, and whom it is charged to.
const LINE_BYTES_MAX: usize = 512;
/// The same of a member of a line: a dimension, or a distinct value.
const MEMBER_BYTES_MAX: usize = 16;

/// What one post may have.
#[derive(Clone, Copy, Debug)]
pub(super) struct PostLimits {
    pub(super) lines: usize,
    pub(super) bytes: usize,
}

/// Merges a sealed list, or as much of it as one post may have.
pub(super) fn merge_to_fit(
    sealed: &SealedBatch,
    entries: &[Bytes],
    limits: PostLimits,
) -> Result<ToPost, Damage> {
    let mut merged = merge(sealed, entries)?;
    let mut part = entries;
    let is_too_large = |merged: &MergedBatch| {
        merged.weight() > limits.lines
            || bytes_at_most(&merged.lines) > limits.bytes
            || merged.refused.contains_key(reason::VALUES_TOO_MANY)
    };
    while is_too_large(&merged) && part.len() > 1 {
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

/// Bytes of the lines in a post, at most.
fn bytes_at_most(lines: &[Line]) -> usize {
    let of_line = |line: &Line| {
        let series = &line.series;
        let texts = series.client_id().as_str().len().saturating_add(series.meter().as_str().len());
        let dimensions = series.dimensions().iter();
        let dimensions = dimensions.map(|(name, value)| name.as_str().len().saturating_add(value.len()));
        let members = dimensions.chain(line.values.iter().map(|value| value.len()));
        members.fold(texts.saturating_add(LINE_BYTES_MAX), |sum, member| {
            sum.saturating_add(member).saturating_add(MEMBER_BYTES_MAX)
        })
    };
    lines.iter().map(of_line).fold(0, usize::saturating_add)
}

/// The questions that the lines of a batch ask: each client id at each of its windows.
pub(super) fn questions(lines: &[Line]) -> impl Iterator<Item = Question> {
    lines.iter().map(|line| (line.series.client_id().clone(), line.window_start))
}

/// Why there is no post.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoRequest {
    /// A resolver never leaves a question out.
    #[error("a question has no answer")]
    NoAnswer,
    /// A payer lives in a cell that this instance does not know. Its usage must not go anywhere else.
    #[error(transparent)]
    Cell(#[from] UnknownCell),
}

/// The post to the only or the leading cell, with what it keeps for the others.
pub(super) fn request(
    sealed: &SealedBatch,
    merged: &MergedBatch,
    answers: &HashMap<Question, Resolved>,
    others: &[u8],
) -> Result<PostBatchRequest, NoRequest> {
    let answer = |line: &Line| answers.get(&(line.series.client_id().clone(), line.window_start));
    let split = cells::split(merged, others, |line| answer(line).map_or(LEADING, |answer| answer.cell))?;
    let wire_lines = |lines: &[&Line]| {
        let wire = lines.iter().map(|line| Some(wire_line(line, answer(line)?.attribution.clone())));
        wire.collect::<Option<Vec<_>>>().ok_or(NoRequest::NoAnswer)
    };
    let parts = split.others.iter();
    let parts = parts.map(|(cell, lines)| Ok(CellLines { cell: (*cell).into(), lines: wire_lines(lines)? }));
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
    let total = |(meter, total): (&MeterSlug, &Total)| MeterTotal {
        meter: meter.to_string(),
        events: total.events,
        quantity: total.quantity,
    };
    let elsewhere = Elsewhere {
        events: split.events_elsewhere,
        totals: split.elsewhere.iter().map(|(meter, sum)| total((meter, sum))).collect(),
    };
    Ok(PostBatchRequest {
        shard: sealed.shard,
        generation: sealed.generation,
        number: sealed.batch,
        digest: merged.digest128().to_vec(),
        lanes: lanes.collect(),
        events: merged.events.saturating_sub(split.events_elsewhere),
        refused: refused.collect(),
        totals: merged.totals.iter().map(total).collect(),
        lines: wire_lines(&split.leading)?,
        elsewhere: (!others.is_empty()).then_some(elsewhere),
        cell: LEADING.into(),
        parts: parts.collect::<Result<_, NoRequest>>()?,
        lost: Vec::new(),
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
            Aggregation::Max => State::Max(MaxState { value: line.quantity }),
            Aggregation::Unique => State::Unique(UniqueState {
                values: line.values.iter().map(|value| value.as_bytes().to_vec()).collect(),
            }),
        }),
        attribution: Some(attribution),
    }
}
