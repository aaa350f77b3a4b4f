//! What a batch has for other cells, from its message. A line that another cell could not read would stop it for
//! ever once the batch is settled, so the leading one reads all lines of all cells.

use std::collections::{BTreeMap, HashMap};

use drawdown_ledger_core::Attribution;
use drawdown_proto::ledger::v1;
use drawdown_service::{Refusal, Violations};
use drawdown_types::{MeterSlug, Timestamp, WindowSize};
use prost::Message as _;

use super::{
    decode,
    decode_batch::{LineReader, lane, totals},
};
use crate::{
    posting::{Elsewhere, MeterTotal, Part},
    reason,
};

/// Most other cells.
const CELLS_MAX: usize = 255;

pub(super) fn elsewhere(v: &mut Violations, request: &v1::PostBatchRequest, size: WindowSize) -> Elsewhere {
    let cell = cell(v, request.cell).unwrap_or_default();
    let (events, sums) = match &request.elsewhere {
        Some(told) => (
            decode::stored(v, "elsewhere.events", told.events).unwrap_or_default(),
            v.within("elsewhere", |v| Some(totals(v, "totals", &told.totals))).unwrap_or_default(),
        ),
        None => (0, Vec::new()),
    };
    if request.parts.len() > CELLS_MAX {
        v.push("parts", format!("are {}, at most {CELLS_MAX}", request.parts.len()));
        return Elsewhere::default();
    }
    if cell != 0 && !request.parts.is_empty() {
        v.push("parts", "are for the leading cell only");
    }
    if cell == 0 && !request.lost.is_empty() {
        v.push("lost", "is for other cells than the leading one");
    }
    let parts = request.parts.iter().enumerate();
    let parts = parts
        .filter_map(|(index, part)| v.within(&format!("parts[{index}]"), |v| self::part(v, part, size)))
        .collect();
    let lost = request.lost.iter().enumerate();
    let lost =
        lost.filter_map(|(index, range)| v.within(&format!("lost[{index}]"), |v| lane(v, range))).collect();
    Elsewhere { cell, events, totals: sums, parts, lost }
}

/// Which part is asked for: shard, number, cell.
pub(super) fn wanted(request: &v1::GetCellPartRequest) -> Result<(i32, i64, u8), Refusal> {
    let mut v = Violations::new();
    let shard = decode::shard(&mut v, "shard", request.shard);
    let number = decode::stored(&mut v, "number", request.number);
    let cell = other_cell(&mut v, request.cell);
    let wanted = shard.zip(number).zip(cell).map(|((shard, number), cell)| (shard, number, cell));
    v.finish(reason::REQUEST_INVALID, wanted)
}

fn cell(v: &mut Violations, number: u32) -> Option<u8> {
    v.field("cell", || u8::try_from(number).map_err(|_| format!("{number} is above {}", u8::MAX)))
}

fn other_cell(v: &mut Violations, number: u32) -> Option<u8> {
    if number == 0 {
        v.push("cell", "is the leading one");
    }
    cell(v, number)
}

fn part(v: &mut Violations, part: &v1::CellLines, size: WindowSize) -> Option<Part> {
    let cell = other_cell(v, part.cell);
    let mut reader = LineReader::new(size, part.lines.len());
    for (index, line) in part.lines.iter().enumerate() {
        if let Err(problem) = reader.read(line) {
            v.push(&format!("lines[{index}].{}", problem.field), problem.why);
        }
    }
    if reader.lines.iter().any(|line| matches!(line.attribution, Attribution::Nobody(_))) {
        v.push("lines", "have one that nobody pays: it is of the leading cell");
    }
    let (mut sums, mut newest, mut events): (BTreeMap<&MeterSlug, _>, HashMap<&str, Timestamp>, _) =
        (BTreeMap::new(), HashMap::new(), 0_u64);
    for line in &reader.lines {
        let (in_meter, quantity): &mut (u64, i64) = sums.entry(&line.meter).or_default();
        let units = line.quantity().map_or(0, |quantity| quantity.as_units());
        let (Some(new), Some(more)) = (in_meter.checked_add(line.events), quantity.checked_add(units)) else {
            v.push("lines", format!("of meter {} add up to more than can be kept", line.meter));
            break;
        };
        (*in_meter, *quantity) = (new, more);
        events = events.saturating_add(line.events);
        let window = newest.entry(line.client_id.as_str()).or_insert(line.window);
        *window = line.window.max(*window);
    }
    let total = |(meter, (events, quantity)): (&MeterSlug, (u64, i64))| MeterTotal {
        meter: meter.clone(),
        events,
        quantity,
    };
    Some(Part {
        cell: cell?,
        lines: i64::try_from(part.lines.len()).unwrap_or(i64::MAX),
        events: decode::stored(v, "lines", events)?,
        totals: sums.into_iter().map(total).collect(),
        content: part.encode_to_vec(),
        clients: newest.into_iter().map(|(client_id, window)| (client_id.to_owned(), window)).collect(),
    })
}
