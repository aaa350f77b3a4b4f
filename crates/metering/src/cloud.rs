//! `CloudEvents` 1.0 as usage: `source` and `id` name the event, `type` is the meter, `subject` the client id, `time` when it
//! happened, and `data` a JSON object with `quantity`, `outcome`, `dimensions` and `hold_id`, all of them optional.
//!
//! Doctrine: what decides about money is never guessed. A member of `data` that nobody knows or that comes twice, a quantity
//! that is no whole number, data in another format: the event is refused with every flaw named. Other attributes are for
//! others, and are not looked at. An event has one shape here ([`Attributes`] and [`Data`]), whatever mode it came in.

mod json;

use std::collections::BTreeMap;

use drawdown_metering_core::{fault::FieldFault, series::SeriesParts};
use drawdown_proto::{
    io::cloudevents::v1::{
        CloudEvent,
        cloud_event::{Data as WireData, cloud_event_attribute_value::Attr},
    },
    scalar::timestamp_from_proto,
};
use drawdown_types::Timestamp;
use serde_json::Value;

pub(crate) use self::json::{Batch, Json};
use crate::record::{Checked, Fields, Flaws, Sent};

/// The version of the specification.
const SPEC_VERSION: &str = "1.0";
/// Members of `data`.
const MEMBERS: [&str; 4] = ["quantity", "outcome", "dimensions", "hold_id"];
/// The most members of `data` and dimensions that are looked at.
const MEMBERS_MAX: usize = 64;

/// The attributes of an event that are looked at; absent ones are empty.
#[derive(Clone, Debug, Default)]
pub(crate) struct Attributes<'a> {
    pub(crate) spec_version: &'a str,
    pub(crate) source: &'a str,
    pub(crate) id: &'a str,
    pub(crate) kind: &'a str,
    pub(crate) subject: &'a str,
    pub(crate) time: Time<'a>,
    pub(crate) content_type: &'a str,
}

/// When it happened.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Time<'a> {
    /// Not said.
    #[default]
    Absent,
    /// RFC 3339.
    Text(&'a str),
    /// As a message.
    Instant(prost_types::Timestamp),
}

/// The data of an event.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Data<'a> {
    /// None.
    Absent,
    /// As bytes of JSON.
    Bytes(&'a [u8]),
    /// As read.
    Value(&'a Value),
    /// In a form that is not taken.
    Other(&'static str),
}

/// An event in the mode of a JSON object.
pub(crate) fn of_json(event: &Json) -> Result<Checked, Flaws> {
    let Value::Object(members) = &event.value else {
        return Err(Flaws::of_fields(vec![FieldFault::new(
            "",
            format!("is {}, must be an object", kind_of(&event.value)),
        )]));
    };
    let mut flaws = twice(event);
    let mut text = |name: &'static str| match members.get(name) {
        None | Some(Value::Null) => "",
        Some(Value::String(text)) => text,
        Some(other) => {
            flaws.push(FieldFault::new(name, format!("is {}, must be a string", kind_of(other))));
            ""
        }
    };
    let attributes = Attributes {
        spec_version: text("specversion"),
        source: text("source"),
        id: text("id"),
        kind: text("type"),
        subject: text("subject"),
        time: Some(text("time")).filter(|time| !time.is_empty()).map_or(Time::Absent, Time::Text),
        content_type: text("datacontenttype"),
    };
    let data = match (members.get("data"), members.get("data_base64")) {
        (_, Some(_)) => Data::Other("data_base64 is not taken: send JSON in data"),
        (None, None) => Data::Absent,
        (Some(data), None) => Data::Value(data),
    };
    event_of(&attributes, data, flaws)
}

/// An event in the mode of a message.
pub(crate) fn of_message(event: &CloudEvent) -> Result<Checked, Flaws> {
    let mut flaws = Vec::new();
    let mut text = |name: &'static str| match event.attributes.get(name).map(|value| &value.attr) {
        None => "",
        Some(Some(Attr::CeString(text) | Attr::CeUri(text) | Attr::CeUriRef(text))) => text,
        Some(_) => {
            flaws.push(FieldFault::new(name, "is not a string"));
            ""
        }
    };
    let (subject, content_type) = (text("subject"), text("datacontenttype"));
    let time = match event.attributes.get("time").and_then(|value| value.attr.as_ref()) {
        Some(Attr::CeTimestamp(time)) => Time::Instant(*time),
        _ => Some(text("time")).filter(|time| !time.is_empty()).map_or(Time::Absent, Time::Text),
    };
    let attributes = Attributes {
        spec_version: &event.spec_version,
        source: &event.source,
        id: &event.id,
        kind: &event.r#type,
        subject,
        time,
        content_type,
    };
    let data = match &event.data {
        None => Data::Absent,
        Some(WireData::BinaryData(bytes)) => Data::Bytes(bytes),
        Some(WireData::TextData(text)) => Data::Bytes(text.as_bytes()),
        Some(WireData::ProtoData(_)) => Data::Other("a message is not taken: send JSON as bytes or text"),
    };
    event_of(&attributes, data, flaws)
}

/// Whether data of this type is JSON; absent says so too.
pub(crate) fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    let subtype = essence.split_once('/').map(|(_, subtype)| subtype.to_ascii_lowercase());
    essence.is_empty() || subtype.is_some_and(|subtype| subtype == "json" || subtype.ends_with("+json"))
}

/// An event of these parts; `flaws` were found on the way here.
pub(crate) fn event_of(
    attributes: &Attributes<'_>,
    data: Data<'_>,
    mut flaws: Vec<FieldFault>,
) -> Result<Checked, Flaws> {
    let version = attributes.spec_version;
    if version != SPEC_VERSION {
        flaws.push(FieldFault::new("specversion", format!("is {version:?}, must be {SPEC_VERSION:?}")));
    }
    let time = match attributes.time {
        Time::Absent => None,
        Time::Text(text) => {
            text.parse::<Timestamp>().map_err(|error| error.to_string()).map(Some).unwrap_or_else(|why| {
                flaws.push(FieldFault::new("time", why));
                None
            })
        }
        Time::Instant(at) => timestamp_from_proto(&at).map(Some).unwrap_or_else(|error| {
            flaws.push(FieldFault::new("time", error.to_string()));
            None
        }),
    };
    if !is_json(attributes.content_type) {
        let found = attributes.content_type;
        flaws.push(FieldFault::new("datacontenttype", format!("is {found:?}, must be application/json")));
    }
    let parsed = match data {
        Data::Bytes(bytes) if !bytes.is_empty() => parse(bytes, &mut flaws),
        Data::Other(why) => {
            flaws.push(FieldFault::new("data", why));
            None
        }
        Data::Absent | Data::Bytes(_) | Data::Value(_) => None,
    };
    let usage = match (data, &parsed) {
        (Data::Value(value), _) | (_, Some(value)) => Usage::read(value, &mut flaws),
        _ => Usage::default(),
    };
    let series = SeriesParts {
        client_id: attributes.subject.as_bytes(),
        meter: attributes.kind.as_bytes(),
        outcome: usage.outcome,
        dimensions: usage
            .dimensions
            .iter()
            .map(|(name, value)| (name.as_bytes(), value.as_bytes()))
            .collect(),
        hold_id: usage.hold_id.as_bytes(),
    };
    let Attributes { source, id, .. } = *attributes;
    Sent { source, id, series, quantity: usage.quantity, time }.check(Fields::CLOUD, flaws)
}

/// Data as JSON of bytes. Depth is bounded by the parser (128).
fn parse(bytes: &[u8], flaws: &mut Vec<FieldFault>) -> Option<Value> {
    let read = Json::read(bytes, "data");
    let read =
        read.map_err(|error| flaws.push(FieldFault::new("data", format!("is no JSON: {error}")))).ok()?;
    flaws.extend(twice(&read));
    Some(read.value)
}

fn twice(read: &Json) -> Vec<FieldFault> {
    read.twice.iter().map(|path| FieldFault::new(path, "is there twice")).collect()
}

/// What `data` says.
struct Usage<'a> {
    quantity: u64,
    outcome: u64,
    dimensions: BTreeMap<&'a str, &'a str>,
    hold_id: &'a str,
}

impl Default for Usage<'_> {
    fn default() -> Self {
        Self { quantity: 1, outcome: 1, dimensions: BTreeMap::new(), hold_id: "" }
    }
}

impl<'a> Usage<'a> {
    fn read(data: &'a Value, flaws: &mut Vec<FieldFault>) -> Self {
        let mut usage = Self::default();
        let members = match data {
            Value::Null => return usage,
            Value::Object(members) => members,
            other => {
                flaws.push(FieldFault::new("data", format!("is {}, must be an object", kind_of(other))));
                return usage;
            }
        };
        for name in members.keys().filter(|name| !MEMBERS.contains(&name.as_str())).take(MEMBERS_MAX) {
            let name: String = name.chars().take(64).collect();
            flaws.push(FieldFault::new(
                format!("data.{name}"),
                format!("is not known; known are {}", MEMBERS.join(", ")),
            ));
        }
        if let Some(quantity) = members.get("quantity") {
            match quantity.as_u64() {
                Some(units) => usage.quantity = units,
                None => flaws.push(FieldFault::new(
                    "data.quantity",
                    format!("is {}, must be a whole number, not below 0", shown(quantity)),
                )),
            }
        }
        match members.get("outcome").map(|outcome| (outcome, outcome.as_str())) {
            None | Some((_, Some("succeeded"))) => {}
            Some((_, Some("failed"))) => usage.outcome = 2,
            Some((other, _)) => flaws.push(FieldFault::new(
                "data.outcome",
                format!("is {}, must be \"succeeded\" or \"failed\"", shown(other)),
            )),
        }
        match members.get("hold_id").map(|hold| (hold, hold.as_str())) {
            None => {}
            Some((_, Some(text))) => usage.hold_id = text,
            Some((other, None)) => flaws
                .push(FieldFault::new("data.hold_id", format!("is {}, must be a string", kind_of(other)))),
        }
        usage.read_dimensions(members.get("dimensions"), flaws);
        usage
    }

    fn read_dimensions(&mut self, dimensions: Option<&'a Value>, flaws: &mut Vec<FieldFault>) {
        let members = match dimensions {
            None => return,
            Some(Value::Object(members)) => members,
            Some(other) => {
                flaws.push(FieldFault::new(
                    "data.dimensions",
                    format!("is {}, must be an object", kind_of(other)),
                ));
                return;
            }
        };
        for (name, value) in members.iter().take(MEMBERS_MAX) {
            match value {
                Value::String(text) => {
                    self.dimensions.insert(name, text);
                }
                other => {
                    let name: String = name.chars().take(64).collect();
                    let why = format!("is {}, must be a string", kind_of(other));
                    flaws.push(FieldFault::new(format!("data.dimensions.{name}"), why));
                }
            }
        }
    }
}

/// A value, as far as it is short.
fn shown(value: &Value) -> String {
    match value {
        Value::Number(_) | Value::Bool(_) | Value::Null => value.to_string(),
        Value::String(text) => format!("{:?}", text.chars().take(64).collect::<String>()),
        Value::Array(_) | Value::Object(_) => kind_of(value).to_owned(),
    }
}

const fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests;
