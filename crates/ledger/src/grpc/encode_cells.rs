//! What a settled batch has for another cell, as the post that the other cell takes. It is put together from what is
//! stored, and the other cell's gate checks all of it again: a part that was changed does not add up there.

use std::collections::BTreeMap;

use drawdown_proto::ledger::v1;
use prost::Message as _;
use serde::Deserialize;

use super::encode::{small, unsigned};
use crate::{
    error::Error,
    store::{parts::StoredPart, settlement::LaneRange},
};

#[derive(Clone, Copy, Default, Deserialize)]
struct Sums {
    events: u64,
    quantity: i64,
}

type ByMeter = BTreeMap<String, Sums>;

/// The post of batch `number` for a cell; `None` where what it had is gone.
pub(super) fn part(
    shard: i32,
    number: i64,
    cell: u8,
    stored: &StoredPart,
) -> Result<Option<v1::PostBatchRequest>, Error> {
    let all = by_meter(&stored.totals)?;
    let (events, ours, lines) = match &stored.gets {
        None => (0, ByMeter::new(), Vec::new()),
        Some(gets) => {
            let Some(content) = &gets.content else { return Ok(None) };
            let lines = v1::CellLines::decode(content.as_slice())
                .map_err(|error| Error::stored("part of a batch")(error.into()))?;
            (unsigned(gets.events), by_meter(&gets.totals)?, lines.lines)
        }
    };
    let in_lanes = stored.lanes.iter().fold(0_u64, |sum, range| {
        sum.saturating_add(unsigned(range.to.saturating_sub(range.from).saturating_add(1)))
    });
    let elsewhere = all.iter().filter_map(|(meter, sums)| {
        let here = ours.get(meter).copied().unwrap_or_default();
        let events = sums.events.saturating_sub(here.events);
        let quantity = sums.quantity.saturating_sub(here.quantity);
        (events > 0 || quantity != 0).then(|| v1::MeterTotal { meter: meter.clone(), events, quantity })
    });
    let total = |(meter, sums): (&String, &Sums)| v1::MeterTotal {
        meter: meter.clone(),
        events: sums.events,
        quantity: sums.quantity,
    };
    Ok(Some(v1::PostBatchRequest {
        shard: small(shard),
        generation: stored.generation,
        number: unsigned(number),
        digest: stored.digest.clone(),
        lanes: stored.lanes.iter().map(range).collect(),
        events,
        refused: Vec::new(),
        totals: all.iter().map(total).collect(),
        lines,
        elsewhere: Some(v1::Elsewhere {
            events: in_lanes.saturating_sub(events),
            totals: elsewhere.collect(),
        }),
        cell: cell.into(),
        parts: Vec::new(),
        lost: stored.lost.iter().map(range).collect(),
    }))
}

fn by_meter(sums: &str) -> Result<ByMeter, Error> {
    serde_json::from_str(sums).map_err(|error| Error::stored("sums of a batch")(error.into()))
}

fn range(range: &LaneRange) -> v1::LaneRange {
    v1::LaneRange {
        producer_id: range.key.producer_id.to_string(),
        map_version: small(range.key.map_version),
        from_sequence: unsigned(range.from),
        to_sequence: unsigned(range.to),
        chain_before: range.chain_before,
        chain_after: range.chain_after,
        epoch: unsigned(range.epoch),
    }
}
