//! Batches and lines of usage, as metering would send them.

use std::collections::HashMap;

use drawdown_proto::ledger::v1::{line, *};
use drawdown_types::{EventName, ProducerId};

use super::{Buyer, at, proto};

/// A batch that follows what `cursor` says.
pub(crate) fn batch(cursor: &ShardCursor, producer: ProducerId, lines: Vec<Line>) -> PostBatchRequest {
    let events: u64 = lines.iter().map(|line| line.events).sum();
    let lane = cursor.lanes.iter().find(|lane| lane.producer_id == producer.to_string());
    let (settled, chain) = lane.map_or((0, 0), |lane| (lane.settled_sequence, lane.settled_chain));
    let mut totals: HashMap<String, MeterTotal> = HashMap::new();
    for line in &lines {
        let total = totals
            .entry(line.meter.clone())
            .or_insert_with(|| MeterTotal { meter: line.meter.clone(), ..MeterTotal::default() });
        total.events += line.events;
        total.quantity += match &line.state {
            Some(line::State::Sum(SumState { quantity })) => *quantity,
            Some(line::State::Max(MaxState { value })) => *value,
            Some(line::State::Unique(UniqueState { values })) => i64::try_from(values.len()).unwrap(),
            _ => i64::try_from(line.events).unwrap(),
        };
    }
    let number = cursor.last_batch + 1;
    let range = LaneRange {
        producer_id: producer.to_string(),
        map_version: 1,
        from_sequence: settled + 1,
        to_sequence: settled + events.max(1),
        chain_before: chain,
        chain_after: chain.wrapping_mul(31).wrapping_add(number),
        epoch: 1,
    };
    // An empty batch still has a lane, whose one event was refused.
    let refused = if events == 0 {
        vec![RefusedCount { reason: "METER_UNKNOWN".to_owned(), events: 1 }]
    } else {
        Vec::new()
    };
    PostBatchRequest {
        shard: cursor.shard,
        generation: cursor.generation,
        number,
        digest: u128::from(number).to_be_bytes().to_vec(),
        lanes: vec![range],
        events,
        refused,
        totals: totals.into_values().collect(),
        lines,
        ..PostBatchRequest::default()
    }
}

/// `events` of the meter `call` in the window before now, received in that window.
pub(crate) fn calls(buyer: Buyer, events: u64) -> Line {
    calls_at(buyer, events, "2026-03-10T12:00:00Z")
}

pub(crate) fn calls_at(buyer: Buyer, events: u64, window: &str) -> Line {
    Line {
        client_id: format!("client-{}", buyer.app),
        meter: "call".to_owned(),
        failed: false,
        dimensions: HashMap::from([("region".to_owned(), "eu".to_owned())]),
        hold_id: String::new(),
        window_start: proto(at(window)),
        received_window_start: proto(at(window)),
        events,
        state: Some(line::State::Count(CountState {})),
        attribution: Some(line::Attribution::Payer(payer(buyer))),
    }
}

/// Usage of another meter in that window.
pub(crate) fn usage_at(buyer: Buyer, meter: &str, state: line::State, window: &str) -> Line {
    Line { meter: meter.to_owned(), state: Some(state), ..calls_at(buyer, 1, window) }
}

/// So much of the same instead.
pub(crate) fn instead(quantity: i64) -> InsteadUsage {
    InsteadUsage { quantity, ..InsteadUsage::default() }
}

/// Usage that nobody pays for, for this reason.
pub(crate) fn nobody(line: Line, reason: &str) -> Line {
    Line { attribution: Some(line::Attribution::UnattributedReason(reason.to_owned())), ..line }
}

pub(crate) fn sum(quantity: i64) -> line::State {
    line::State::Sum(SumState { quantity })
}

pub(crate) fn largest(value: i64) -> line::State {
    line::State::Max(MaxState { value })
}

pub(crate) fn distinct(values: &[&str]) -> line::State {
    line::State::Unique(UniqueState {
        values: values.iter().map(|value| value.as_bytes().to_vec()).collect(),
    })
}

pub(crate) fn payer(buyer: Buyer) -> Payer {
    Payer {
        account_id: buyer.account.to_string(),
        team_id: buyer.team.to_string(),
        app_id: buyer.app.to_string(),
        contract_kind: ContractKind::Flex.into(),
        in_trial: false,
    }
}

/// An event of the source `/test`, with a content of its own for each `content`.
pub(crate) fn event(id: &str, content: u8, usage: Line) -> NamedUsage {
    NamedUsage {
        source: "/test".to_owned(),
        id: id.to_owned(),
        content_digest: vec![content; 32],
        time: usage.window_start,
        usage: Some(usage),
        cell: 0,
    }
}

pub(crate) fn slot_of(event: &NamedUsage) -> u32 {
    EventName { source: event.source.parse().unwrap(), id: event.id.parse().unwrap() }.slot()
}

/// An id of the source `/test` in this slot.
pub(crate) fn id_in(slot: u32, from: u32) -> String {
    let mut ids = (from..).map(|number| format!("e-{number}"));
    ids.find(|id| {
        slot_of(&NamedUsage { source: "/test".to_owned(), id: id.clone(), ..NamedUsage::default() }) == slot
    })
    .unwrap()
}
