//! Events by id from their messages. Metering has refused what is wrong in an event by itself; what is wrong here is a
//! fault of a program, and the call is refused as a whole, by field.

use drawdown_proto::ledger::v1::{NamedUsage, RecordEventsRequest};
use drawdown_service::{Refusal, Violations};
use drawdown_types::{EVENT_SLOTS, EventId, EventName, EventSource, Quantity, WindowSize};
use prost::Message as _;

use super::{
    decode::{optional_instant, parsed},
    decode_batch::LineReader,
};
use crate::{
    cells::Cells,
    posting::{EVENT_SHARDS, NamedEvent, Recording},
    reason,
};

/// Bytes of a content's digest.
const CONTENT_BYTES: usize = 32;

pub(super) fn recording(
    request: &RecordEventsRequest,
    (size, cells): (WindowSize, &Cells),
    events_max: usize,
) -> Result<Recording, Refusal> {
    let mut v = Violations::new();
    let count = request.events.len();
    if !(1..=events_max).contains(&count) {
        v.push("events", format!("are {count}, must be 1 to {events_max}"));
    }
    if request.slot >= EVENT_SLOTS {
        v.push("slot", format!("{} is not below {EVENT_SLOTS}", request.slot));
    }
    if !v.is_empty() {
        return v.finish(reason::REQUEST_INVALID, None);
    }
    let mut events = Vec::with_capacity(count);
    for (index, event) in request.events.iter().enumerate() {
        events
            .extend(v.within(&format!("events[{index}]"), |v| named(v, event, request.slot, (size, cells))));
    }
    let shard = i32::try_from(request.slot).ok().and_then(|slot| EVENT_SHARDS.checked_add(slot));
    v.finish(reason::REQUEST_INVALID, shard.map(|shard| Recording { shard, events }))
}

fn named(
    v: &mut Violations,
    event: &NamedUsage,
    slot: u32,
    (size, cells): (WindowSize, &Cells),
) -> Option<NamedEvent> {
    let source = parsed::<EventSource>(v, "source", &event.source);
    let id = parsed::<EventId>(v, "id", &event.id);
    let name = source.zip(id).map(|(source, id)| EventName { source, id });
    if let Some(name) = name.as_ref().filter(|name| name.slot() != slot) {
        v.push("id", format!("belongs to slot {}, not {slot}", name.slot()));
    }
    let content: Option<[u8; CONTENT_BYTES]> = event.content_digest[..].try_into().ok();
    if content.is_none() {
        let bytes = event.content_digest.len();
        v.push("content_digest", format!("has {bytes} bytes, must have {CONTENT_BYTES}"));
    }
    let time = optional_instant(v, "time", event.time.as_ref());
    let cell = u8::try_from(event.cell).ok().filter(|cell| cells.knows(*cell));
    if cell.is_none() {
        v.push("cell", format!("{} is neither this one nor one that it leads", event.cell));
    }
    let mut reader = LineReader::new(size, 1);
    let usage = v.require("usage", event.usage.as_ref())?;
    if let Err(problem) = reader.read(usage) {
        v.push(&format!("usage.{}", problem.field), problem.why);
    }
    if usage.events != 1 {
        v.push("usage.events", format!("is {}, must be 1", usage.events));
    }
    let (line, detail) = reader.lines.pop().zip(reader.details.pop())?;
    let units = line.quantity().and_then(|quantity| u64::try_from(quantity.as_units()).ok());
    if units.is_none_or(|units| Quantity::of_event(units).is_err()) {
        v.push("usage.state", format!("carries more than {} base units", Quantity::EVENT_MAX));
    }
    let cell = cell?;
    let sent = if cell == cells.number { Vec::new() } else { event.encode_to_vec() };
    Some(NamedEvent { name: name?, content: content?, time: time?, line, detail, cell, sent })
}
