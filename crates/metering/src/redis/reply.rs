//! What the functions answer, typed. An answer that is none of them is [`Malformed`]: its outcome is unknown.

use std::collections::BTreeMap;

use drawdown_metering_core::{
    look::{Head, LaneApplied},
    shard::Position,
};
use redis::Value;

use super::keys::{decode_lane, parse_hex};

/// A reply that this version does not know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{function} answered something unknown: {found}")]
pub struct Malformed {
    function: &'static str,
    found: String,
}

/// Why a write changed nothing, before any lane was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The shard has another generation, or none.
    Generation(Option<u64>),
    /// Lanes were retired since the roll that was named.
    Roll,
    /// Another batch is open.
    Batch,
    /// Counts or fields disagree.
    Damaged,
    /// The open batch has as many blobs as it may have.
    Full,
    /// The dictionary has defined another number of names.
    Names,
}

/// Why one lane of a write was refused, with its place in the write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LaneRefusal {
    /// The lane is not in the head.
    Absent,
    /// A higher epoch was seen.
    Fenced(LaneApplied),
    /// The lane stands elsewhere: a gap or a repetition.
    Sequence(LaneApplied),
    /// The same sequence, another chain.
    Diverged(LaneApplied),
}

/// Answers of `apply`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    /// Appended; the open batch has that many blobs.
    Ok(u64),
    /// Nothing was changed.
    Refused(Refused),
    /// Nothing was changed; these lanes are why, by their place.
    Lanes(Vec<(usize, LaneRefusal)>),
}

/// What became of a lane that was to be made known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// It is known, and stands there.
    Known(LaneApplied),
    /// Lanes are settled one by one, and it is another one's turn.
    Wait,
    /// Its usage can not be settled.
    Aside,
}

/// Answers of `attach`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attached {
    /// What became of the lanes, in the order asked.
    Ok(Vec<Asked>),
    /// Nothing was changed.
    Refused(Refused),
}

/// Answers of `seal`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sealed {
    /// Closed, with its `count:fingerprint`.
    Ok(String),
    /// There is nothing in the open batch.
    Empty,
    /// So many sealed batches wait that no other may.
    Cap,
    /// Nothing was changed.
    Refused(Refused),
}

/// Answers of `retire`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Retired {
    /// Forgotten.
    Ok,
    /// The sealed batch is not the one that was posted.
    Fingerprint,
    /// Nothing was changed.
    Refused(Refused),
}

/// Answers of `install`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Installed {
    /// The head is new.
    Ok,
    /// The generation is another one than was seen.
    Generation(Option<u64>),
}

/// Why there is no head to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeadFault {
    /// The key is not there.
    Absent,
    /// The key is there, and fields are missing or unreadable.
    Unreadable {
        /// The generation, where that is readable.
        generation: Option<u64>,
        /// Which field.
        field: String,
    },
}

impl Malformed {
    pub(super) fn new(function: &'static str, value: &Value) -> Self {
        let found: String = format!("{value:?}").chars().take(256).collect();
        Self { function, found }
    }
}

pub(super) fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}

pub(super) fn count(value: &Value) -> Option<u64> {
    match value {
        Value::Int(number) => u64::try_from(*number).ok(),
        other => text(other)?.parse().ok(),
    }
}

/// Reads `epoch:applied:chain`.
pub(super) fn lane_applied(text: &str) -> Option<LaneApplied> {
    let mut parts = text.split(':');
    let (epoch, sequence, chain) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let applied = Position { sequence: parse_hex(sequence)?, chain: parse_hex(chain)? };
    Some(LaneApplied { epoch: parse_hex(epoch)?, applied })
}

/// The word and the values of an answer.
pub(super) fn words(value: &Value) -> Option<(&str, &[Value])> {
    match value {
        Value::Array(items) => items.split_first().and_then(|(word, rest)| Some((text(word)?, rest))),
        _ => None,
    }
}

pub(super) fn refused(word: &str, rest: &[Value]) -> Option<Refused> {
    match word {
        "GENERATION" => Some(Refused::Generation(rest.first().and_then(text).and_then(parse_hex))),
        "ROLL" => Some(Refused::Roll),
        "BATCH" => Some(Refused::Batch),
        "DAMAGED" => Some(Refused::Damaged),
        "FULL" => Some(Refused::Full),
        "NAMES" => Some(Refused::Names),
        _ => None,
    }
}

fn lane_refusal(part: &[Value]) -> Option<(usize, LaneRefusal)> {
    let [place, word, stored] = part else { return None };
    let place = usize::try_from(count(place)?).ok()?;
    let stored = text(stored)?;
    let refusal = match text(word)? {
        "ATTACH" => LaneRefusal::Absent,
        "FENCED" => LaneRefusal::Fenced(lane_applied(stored)?),
        "SEQUENCE" => LaneRefusal::Sequence(lane_applied(stored)?),
        "DIVERGED" => LaneRefusal::Diverged(lane_applied(stored)?),
        _ => return None,
    };
    Some((place, refusal))
}

impl Applied {
    pub(super) fn parse(value: &Value) -> Result<Self, Malformed> {
        let parsed = words(value).and_then(|(word, rest)| match word {
            "OK" => rest.first().and_then(count).map(Self::Ok),
            "LANES" => rest.chunks(3).map(lane_refusal).collect::<Option<Vec<_>>>().map(Self::Lanes),
            other => refused(other, rest).map(Self::Refused),
        });
        parsed.ok_or_else(|| Malformed::new("apply", value))
    }
}

impl Attached {
    pub(super) fn parse(value: &Value) -> Result<Self, Malformed> {
        let parsed = words(value).and_then(|(word, rest)| match word {
            "OK" => {
                let lanes = rest.iter().map(|lane| match text(lane)? {
                    "WAIT" => Some(Asked::Wait),
                    "ASIDE" => Some(Asked::Aside),
                    lane => lane_applied(lane).map(Asked::Known),
                });
                lanes.collect::<Option<Vec<_>>>().map(Self::Ok)
            }
            other => refused(other, rest).map(Self::Refused),
        });
        parsed.ok_or_else(|| Malformed::new("attach", value))
    }
}

impl Sealed {
    pub(super) fn parse(value: &Value) -> Result<Self, Malformed> {
        let parsed = words(value).and_then(|(word, rest)| match word {
            "OK" => rest.first().and_then(text).map(|seal| Self::Ok(seal.to_owned())),
            "EMPTY" => Some(Self::Empty),
            "CAP" => Some(Self::Cap),
            other => refused(other, rest).map(Self::Refused),
        });
        parsed.ok_or_else(|| Malformed::new("seal", value))
    }
}

impl Retired {
    pub(super) fn parse(value: &Value) -> Result<Self, Malformed> {
        let parsed = words(value).and_then(|(word, rest)| match word {
            "OK" => Some(Self::Ok),
            "FINGERPRINT" => Some(Self::Fingerprint),
            other => refused(other, rest).map(Self::Refused),
        });
        parsed.ok_or_else(|| Malformed::new("retire", value))
    }
}

impl Installed {
    pub(super) fn parse(value: &Value) -> Result<Self, Malformed> {
        let parsed = words(value).and_then(|(word, rest)| match (word, refused(word, rest)) {
            ("OK", _) => Some(Self::Ok),
            (_, Some(Refused::Generation(stored))) => Some(Self::Generation(stored)),
            _ => None,
        });
        parsed.ok_or_else(|| Malformed::new("install", value))
    }
}

/// The number of lists that a sweep dropped; 0 where there was no head to compare with.
pub(super) fn parse_swept(value: &Value) -> Result<u64, Malformed> {
    let parsed = words(value).and_then(|(word, rest)| match word {
        "OK" => rest.first().and_then(count),
        "GENERATION" => Some(0),
        _ => None,
    });
    parsed.ok_or_else(|| Malformed::new("sweep", value))
}

/// Reads the answer of `look`; the inner error is about what Redis holds, not about the call.
pub(super) fn parse_head(shard: u32, value: &Value) -> Result<Result<Head, HeadFault>, Malformed> {
    let fields = match value {
        Value::Array(parts) => match parts.as_slice() {
            [Value::Array(fields), Value::Int(length)] => Some((fields, *length)),
            _ => None,
        },
        _ => None,
    };
    let (fields, length) = fields.ok_or_else(|| Malformed::new("look", value))?;
    if fields.is_empty() {
        return Ok(Err(HeadFault::Absent));
    }
    let mut raw = BTreeMap::new();
    for pair in fields.chunks(2) {
        if let [field, content] = pair
            && let (Some(field), Some(content)) = (text(field), text(content))
        {
            raw.insert(field, content);
        }
    }
    Ok(head_from_fields(shard, &raw, length))
}

fn head_from_fields(shard: u32, raw: &BTreeMap<&str, &str>, length: i64) -> Result<Head, HeadFault> {
    let generation = raw.get("g").and_then(|text| parse_hex(text));
    let fault = |field: &str| HeadFault::Unreadable { generation, field: field.to_owned() };
    let number =
        |field: &str| raw.get(field).and_then(|text| text.parse::<u64>().ok()).ok_or_else(|| fault(field));
    let mut head = Head {
        generation: generation.ok_or_else(|| fault("g"))?,
        roll: raw.get("r").map_or(Some(0), |text| parse_hex(text)).ok_or_else(|| fault("r"))?,
        open: number("o")?,
        retired: number("b")?,
        blobs: number("n")?,
        // The key of the open list may hold something else: no length is its length.
        open_length: u64::try_from(length).map_err(|_| fault("open list"))?,
        sealed: BTreeMap::new(),
        lanes: BTreeMap::new(),
    };
    if !raw.contains_key("f") {
        return Err(fault("f"));
    }
    for (field, content) in raw {
        if let Some(lane) = field.strip_prefix("p:") {
            let lane = decode_lane(shard, lane).ok_or_else(|| fault(field))?;
            head.lanes.insert(lane, lane_applied(content).ok_or_else(|| fault(field))?);
        } else if let Some(batch) = field.strip_prefix("s:") {
            let batch = batch.parse().map_err(|_| fault(field))?;
            head.sealed.insert(batch, (*content).to_owned());
        }
    }
    Ok(head)
}
