//! A sealed batch from its message. Metering has refused what a line could not hold before it was
//! applied, so a fault here is a fault of a program: the batch is refused as a whole, by field.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap, HashSet},
};

use drawdown_ledger_core::{Attribution, DistinctValues, Line, Payer, Unattributable, Usage};
use drawdown_proto::ledger::v1::{self, line};
use drawdown_service::{Refusal, Violations};
use drawdown_types::{HoldId, MeterSlug, Quantity, Timestamp, WindowSize};

use super::{
    decode::{contract_kind, instant, map_version, parsed, shard, stored},
    decode_cells,
};
use crate::{
    posting::{LineDetail, MeterTotal, SealedBatch},
    reason,
    store::{settlement::LaneRange, shards::LaneKey},
};

/// Bytes of a digest.
const DIGEST_BYTES: usize = 16;
/// Most lanes of one batch.
const LANES_MAX: usize = 100_000;
/// Most distinct values of one line.
const VALUES_MAX: usize = 100_000;
/// Most bytes of a value: those of a dimension.
const VALUE_BYTES_MAX: usize = 128;
/// Most reasons of refused events.
const REASONS_MAX: usize = 1000;

pub(super) fn batch(
    request: &v1::PostBatchRequest,
    size: WindowSize,
    lines_max: usize,
) -> Result<SealedBatch, Refusal> {
    let mut v = Violations::new();
    let shard = shard(&mut v, "shard", request.shard);
    let number = stored(&mut v, "number", request.number);
    let events = stored(&mut v, "events", request.events);
    if request.digest.len() != DIGEST_BYTES {
        v.push("digest", format!("has {} bytes, must have {DIGEST_BYTES}", request.digest.len()));
    }
    at_most(&mut v, "lanes", request.lanes.len(), LANES_MAX);
    at_most(&mut v, "refused", request.refused.len(), REASONS_MAX);
    at_most(&mut v, "lost", request.lost.len(), LANES_MAX);
    let elsewhere = request.parts.iter().map(|part| part.lines.len());
    let lines = elsewhere.fold(request.lines.len(), usize::saturating_add);
    at_most(&mut v, "lines", lines, lines_max);
    if !v.is_empty() {
        return v.finish(reason::REQUEST_INVALID, None);
    }
    let lanes = lanes(&mut v, "lanes", &request.lanes);
    let refused = refused(&mut v, &request.refused);
    let totals = totals(&mut v, "totals", &request.totals);
    let mut reader = LineReader::new(size, request.lines.len());
    for (index, line) in request.lines.iter().enumerate() {
        if let Err(problem) = reader.read(line) {
            v.push(&format!("lines[{index}].{}", problem.field), problem.why);
        }
    }
    let elsewhere = decode_cells::elsewhere(&mut v, request, size);
    let batch = shard.zip(number).zip(events).map(|((shard, number), events)| SealedBatch {
        shard,
        generation: request.generation,
        number,
        digest: request.digest.clone(),
        lanes,
        events,
        refused,
        totals,
        lines: reader.lines,
        details: reader.details,
        elsewhere,
    });
    v.finish(reason::REQUEST_INVALID, batch)
}

fn at_most(v: &mut Violations, field: &str, found: usize, max: usize) {
    if found > max {
        v.push(field, format!("are {found}, at most {max}"));
    }
}

fn lanes(v: &mut Violations, field: &str, ranges: &[v1::LaneRange]) -> Vec<LaneRange> {
    let mut seen = HashSet::new();
    let mut read = |v: &mut Violations, range: &v1::LaneRange| {
        let range = lane(v, range)?;
        if !seen.insert(range.key) {
            v.push("producer_id", "has two ranges of one lane");
        }
        Some(range)
    };
    let ranges = ranges.iter().enumerate();
    ranges.filter_map(|(index, range)| v.within(&format!("{field}[{index}]"), |v| read(v, range))).collect()
}

pub(super) fn lane(v: &mut Violations, range: &v1::LaneRange) -> Option<LaneRange> {
    let producer_id = parsed(v, "producer_id", &range.producer_id);
    let map_version = map_version(v, "map_version", range.map_version);
    let epoch = stored(v, "epoch", range.epoch);
    let from = stored(v, "from_sequence", range.from_sequence);
    let to = stored(v, "to_sequence", range.to_sequence);
    let key = LaneKey { producer_id: producer_id?, map_version: map_version? };
    let (chain_before, chain_after) = (range.chain_before, range.chain_after);
    Some(LaneRange { key, epoch: epoch?, from: from?, to: to?, chain_before, chain_after })
}

fn refused(v: &mut Violations, counts: &[v1::RefusedCount]) -> Vec<(String, i64)> {
    let mut by_reason: BTreeMap<String, i64> = BTreeMap::new();
    for (index, count) in counts.iter().enumerate() {
        let field = format!("refused[{index}]");
        let known = !count.reason.is_empty()
            && count.reason.len() <= 64
            && count
                .reason
                .bytes()
                .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_');
        if !known {
            v.push(&format!("{field}.reason"), "is no upper-case reason");
        }
        if let Some(events) = stored(v, &format!("{field}.events"), count.events) {
            let sum = by_reason.entry(count.reason.clone()).or_default();
            *sum = sum.saturating_add(events);
        }
    }
    by_reason.into_iter().collect()
}

pub(super) fn totals(v: &mut Violations, field: &str, totals: &[v1::MeterTotal]) -> Vec<MeterTotal> {
    let mut seen = HashSet::new();
    let mut read = |v: &mut Violations, total: &v1::MeterTotal| {
        let meter: MeterSlug = parsed(v, "meter", &total.meter)?;
        if !seen.insert(meter.clone()) {
            v.push("meter", "has two totals");
        }
        Some(MeterTotal { meter, events: total.events, quantity: total.quantity })
    };
    let totals = totals.iter().enumerate();
    totals.filter_map(|(index, total)| v.within(&format!("{field}[{index}]"), |v| read(v, total))).collect()
}

/// What is wrong with a line.
pub(super) struct Problem {
    pub(super) field: &'static str,
    pub(super) why: String,
}

fn problem(field: &'static str) -> impl FnOnce(String) -> Problem {
    move |why| Problem { field, why }
}

fn known<T: std::str::FromStr<Err: ToString>>(field: &'static str, text: &str) -> Result<T, Problem> {
    text.parse().map_err(|error: T::Err| error.to_string()).map_err(problem(field))
}

/// Reads lines one after the other; the slugs that most of them share are checked once.
pub(super) struct LineReader {
    size: WindowSize,
    meters: HashMap<String, MeterSlug>,
    pub(super) lines: Vec<Line>,
    pub(super) details: Vec<LineDetail>,
}

// === impl LineReader ===

impl LineReader {
    pub(super) fn new(size: WindowSize, lines: usize) -> Self {
        Self {
            size,
            meters: HashMap::new(),
            lines: Vec::with_capacity(lines),
            details: Vec::with_capacity(lines),
        }
    }

    pub(super) fn read(&mut self, line: &v1::Line) -> Result<(), Problem> {
        let client_id = known("client_id", &line.client_id)?;
        let meter = self.meter(&line.meter)?;
        let window = self.edge("window_start", line.window_start.as_ref())?;
        let received_window = self.edge("received_window_start", line.received_window_start.as_ref())?;
        let usage = match &line.state {
            Some(line::State::Sum(sum)) => Usage::Sum(
                Quantity::new(sum.quantity).map_err(|e| e.to_string()).map_err(problem("sum.quantity"))?,
            ),
            Some(line::State::Count(_)) => Usage::Count,
            Some(line::State::Max(max)) => {
                Usage::Max(Quantity::new(max.value).map_err(|e| e.to_string()).map_err(problem("max.value"))?)
            }
            Some(line::State::Unique(unique)) => Usage::Unique(distinct(&unique.values)?),
            None => return Err(problem("state")("must be set".to_owned())),
        };
        let attribution = match &line.attribution {
            Some(line::Attribution::Payer(payer)) => Attribution::Payer(self::payer(payer)?),
            Some(line::Attribution::UnattributedReason(reason)) => {
                Attribution::Nobody(known::<Unattributable>("unattributed_reason", reason)?)
            }
            None => return Err(problem("attribution")("must be set".to_owned())),
        };
        if i64::try_from(line.events).is_err() {
            return Err(problem("events")(format!("{} is above {}", line.events, i64::MAX)));
        }
        let hold_id: Option<HoldId> = match line.hold_id.as_str() {
            "" => None,
            text => Some(known("hold_id", text)?),
        };
        let dimensions = dimensions(&line.dimensions);
        let mut series = dimensions.clone().into_bytes();
        series.extend_from_slice(line.hold_id.as_bytes());
        self.lines.push(Line {
            client_id,
            meter,
            failed: line.failed,
            series,
            window,
            received_window,
            events: line.events,
            usage,
            hold_id,
            attribution,
        });
        self.details.push(LineDetail { dimensions });
        Ok(())
    }

    fn meter(&mut self, text: &str) -> Result<MeterSlug, Problem> {
        if let Some(meter) = self.meters.get(text) {
            return Ok(meter.clone());
        }
        let meter: MeterSlug = known("meter", text)?;
        self.meters.insert(text.to_owned(), meter.clone());
        Ok(meter)
    }

    fn edge(&self, field: &'static str, at: Option<&prost_types::Timestamp>) -> Result<Timestamp, Problem> {
        let mut v = Violations::new();
        let at = instant(&mut v, field, at);
        let window = at.and_then(|at| self.size.starting_at(at));
        let secs = self.size.as_secs();
        window
            .map(|window| window.start())
            .ok_or_else(|| problem(field)(format!("is no edge of a {secs} s window")))
    }
}

fn payer(payer: &v1::Payer) -> Result<Payer, Problem> {
    let kind = v1::ContractKind::try_from(payer.contract_kind).ok().and_then(contract_kind);
    Ok(Payer {
        account_id: known("payer.account_id", &payer.account_id)?,
        team_id: known("payer.team_id", &payer.team_id)?,
        app_id: known("payer.app_id", &payer.app_id)?,
        contract_kind: kind
            .ok_or_else(|| problem("payer.contract_kind")("must be flex or enterprise".to_owned()))?,
        in_trial: payer.in_trial,
    })
}

fn shown(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { text.replace('\0', "\u{fffd}").into() } else { text.into() }
}

/// Distinct values: each must be there once, or the batch's totals would be no proof of them.
fn distinct(values: &[Vec<u8>]) -> Result<DistinctValues, Problem> {
    let wrong = |why: String| Err(problem("unique.values")(why));
    if values.len() > VALUES_MAX {
        return wrong(format!("are {}, at most {VALUES_MAX}", values.len()));
    }
    if let Some(long) = values.iter().find(|value| value.len() > VALUE_BYTES_MAX) {
        return wrong(format!("one has {} bytes, at most {VALUE_BYTES_MAX}", long.len()));
    }
    let read = DistinctValues::new(values.iter().map(|value| value.as_slice().into()));
    if read.as_slice().len() == values.len() { Ok(read) } else { wrong("have one value twice".to_owned()) }
}

/// Dimensions as a JSON object, sorted by name. Postgres keeps no NUL in a text, and usage is never
/// refused for one, so it becomes the sign for what can not be shown.
fn dimensions(map: &HashMap<String, String>) -> String {
    if map.is_empty() {
        return "{}".to_owned();
    }
    let sorted: BTreeMap<_, _> = map.iter().map(|(name, value)| (shown(name), shown(value))).collect();
    serde_json::to_string(&sorted).unwrap_or_else(|_| "{}".to_owned())
}
