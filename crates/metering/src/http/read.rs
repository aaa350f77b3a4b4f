//! From headers and a body to events, in the modes of the HTTP binding: binary, structured, batch.

use axum::http::{HeaderMap, header::CONTENT_TYPE};
use drawdown_metering_core::{count_messages, fault::FieldFault};
use drawdown_proto::io::cloudevents::v1::{CloudEvent, CloudEventBatch};
use serde_json::Value;

use super::answer::Problem;
use crate::{
    cloud::{self, Attributes, Batch, Data, Json, Time},
    reason,
    record::{Checked, Flaws},
};

const STRUCTURED: &str = "application/cloudevents+json";
const BATCH: &str = "application/cloudevents-batch+json";
const STRUCTURED_PROTO: &str = "application/cloudevents+protobuf";
const BATCH_PROTO: &str = "application/cloudevents-batch+protobuf";
const PREFIX: &str = "ce-";

/// What an event called itself, as far as it did.
#[derive(Clone, Debug, Default)]
pub(super) struct Called {
    pub(super) source: String,
    pub(super) id: String,
}

/// An event with what it called itself.
type Named = (Called, Result<Checked, Flaws>);

/// All events of a call, at most so many.
pub(super) fn events(headers: &HeaderMap, body: &[u8], max: usize) -> Result<Vec<Named>, Box<Problem>> {
    let content_type =
        single(headers, CONTENT_TYPE.as_str()).map_err(|why| Problem::media(&why))?.unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let counted = |count: usize| match count {
        0 => Err(Problem::bad(reason::EVENTS_COUNT, format!("there is no event, 1 to {max} are allowed"))),
        count if count > max => Err(Problem::bad(
            reason::EVENTS_COUNT,
            format!("there are {count} events, 1 to {max} are allowed"),
        )),
        _ => Ok(()),
    };
    match essence.as_str() {
        STRUCTURED => Ok(vec![structured(&json::<Json>(body)?)]),
        BATCH => {
            let Batch { events, count } = Batch::read(body, max).map_err(|error| malformed(&error))?;
            counted(count)?;
            Ok(events.iter().map(structured).collect())
        }
        STRUCTURED_PROTO => Ok(vec![message(&proto::<CloudEvent>(body)?)]),
        BATCH_PROTO => {
            // Before any is read: an event of two bytes takes some hundred times as many then.
            counted(count_messages(body, &[1]).ok_or_else(|| malformed(&"it is no protobuf"))?)?;
            Ok(proto::<CloudEventBatch>(body)?.events.iter().map(message).collect())
        }
        _ if headers.keys().any(|name| name.as_str().starts_with(PREFIX)) => {
            Ok(vec![binary(headers, &content_type, body)])
        }
        _ => {
            let shown: String = essence.chars().take(64).collect();
            let why = format!(
                "content type {shown:?} without {PREFIX} headers is none of {STRUCTURED}, {BATCH}, {STRUCTURED_PROTO}, {BATCH_PROTO}"
            );
            Err(Problem::media(&why))
        }
    }
}

fn json<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, Box<Problem>> {
    serde_json::from_slice(body).map_err(|error| malformed(&error))
}

fn proto<T: prost::Message + Default>(body: &[u8]) -> Result<T, Box<Problem>> {
    T::decode(body).map_err(|error| malformed(&error))
}

fn malformed(why: &dyn std::fmt::Display) -> Box<Problem> {
    Problem::bad(reason::MESSAGE_MALFORMED, format!("the body can not be read: {why}"))
}

fn structured(event: &Json) -> Named {
    let text = |name| event.value.get(name).and_then(Value::as_str).unwrap_or_default();
    (called(text("source"), text("id")), cloud::of_json(event))
}

fn message(event: &CloudEvent) -> Named {
    (called(&event.source, &event.id), cloud::of_message(event))
}

/// As much of its name as is told back.
fn called(source: &str, id: &str) -> Called {
    let shown = |text: &str| text.chars().take(256).collect();
    Called { source: shown(source), id: shown(id) }
}

fn binary(headers: &HeaderMap, content_type: &str, body: &[u8]) -> Named {
    let mut flaws = Vec::new();
    let mut text = |name: &'static str| match single(headers, &format!("{PREFIX}{name}")) {
        Ok(value) => value.map(|value| decoded(&value)).transpose().unwrap_or_else(|why| {
            flaws.push(FieldFault::new(name, why));
            None
        }),
        Err(why) => {
            flaws.push(FieldFault::new(name, why));
            None
        }
    };
    let [spec_version, source, id, kind, subject, time] =
        ["specversion", "source", "id", "type", "subject", "time"].map(|name| text(name).unwrap_or_default());
    let attributes = Attributes {
        spec_version: &spec_version,
        source: &source,
        id: &id,
        kind: &kind,
        subject: &subject,
        time: if time.is_empty() { Time::Absent } else { Time::Text(&time) },
        content_type,
    };
    (called(&source, &id), cloud::event_of(&attributes, Data::Bytes(body), flaws))
}

/// The one value of a header, or why it has none that could be read.
fn single(headers: &HeaderMap, name: &str) -> Result<Option<String>, String> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(format!("header {name} is there twice"));
    }
    let text = std::str::from_utf8(value.as_bytes());
    text.map(|text| Some(text.to_owned())).map_err(|_| format!("header {name} is not UTF-8"))
}

/// Percent signs stand for bytes that a header can not hold.
fn decoded(value: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let [byte, after @ ..] = rest {
        rest = after;
        if *byte != b'%' {
            bytes.push(*byte);
            continue;
        }
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let byte = match after {
            [high, low, ..] => digit(*high).zip(digit(*low)).map(|(high, low)| high << 4 | low),
            _ => None,
        };
        bytes.push(byte.ok_or_else(|| "has a % without two hexadecimal digits".to_owned())?);
        rest = after.get(2..).unwrap_or_default();
    }
    String::from_utf8(bytes).map_err(|_| "is not UTF-8".to_owned())
}

/// Whether the caller wants an answer for each event.
pub(super) fn wants_answers(headers: &HeaderMap) -> bool {
    let values = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .any(|wish| wish.trim().eq_ignore_ascii_case("return=representation"))
}

#[cfg(test)]
mod tests;
