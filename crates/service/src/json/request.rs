//! From path, query and body of an HTTP call to the request message of its method.
//!
//! Everything that is wrong is told at once, each by its name as the caller wrote it. Texts of the URL are read as proto3
//! JSON reads them (enums by name, 64-bit integers in decimal digits, instants as RFC 3339), so a value means the same in a
//! URL and in a body.

use percent_encoding::percent_decode_str;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value};
use serde_json::json;

use super::binding::{Binding, BodyRule, FieldPath};
use crate::{Refusal, Violations, reason};

/// What a call brings, besides its body.
#[derive(Debug, Default)]
pub(crate) struct Given {
    /// From the path.
    pub(crate) captures: Vec<(FieldPath, Result<String, String>)>,
    /// As it stands in the URL; empty where there is none.
    pub(crate) query: String,
}

/// The message, or everything that is wrong with the call.
///
/// # Errors
/// [`reason::REQUEST_INVALID`].
pub(crate) fn message(binding: &Binding, given: Given, body: &[u8]) -> Result<DynamicMessage, Refusal> {
    let mut violations = Violations::new();
    let input = binding.method.input();
    let mut message = match binding.body {
        BodyRule::Rest => of_body(&input, body, &mut violations),
        BodyRule::Absent => {
            if !body.is_empty() {
                violations.push("body", format!("a {} of this path has no body", binding.http_method));
            }
            DynamicMessage::new(input.clone())
        }
    };
    for (path, value) in given.captures {
        let text = violations.field(&path.json_name(), || value);
        if let (Some(text), Some(place)) = (text, place(&mut message, &path.fields)) {
            *place = Value::String(text);
        }
    }
    for (name, values) in parameters(&given.query, &mut violations) {
        if binding.body == BodyRule::Rest {
            violations.push(&name, "is no parameter here: a POST has its fields in the body");
        } else if let Err(why) = set(&mut message, binding, &name, &values) {
            violations.push(&name, why);
        }
    }
    violations.finish(reason::REQUEST_INVALID, Some(message))
}

fn of_body(input: &MessageDescriptor, body: &[u8], violations: &mut Violations) -> DynamicMessage {
    let empty = || DynamicMessage::new(input.clone());
    if body.is_empty() {
        return empty();
    }
    let json: serde_json::Value = match serde_json::from_slice(body) {
        Ok(json) => json,
        Err(error) => {
            violations.push("body", format!("is no JSON: {error}"));
            return empty();
        }
    };
    let mut unknown = Violations::new();
    strangers(input, &json, "", &mut unknown);
    if !unknown.is_empty() {
        violations.append(unknown);
        return empty();
    }
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(json, &mut track);
    DynamicMessage::deserialize(input.clone(), tracked).unwrap_or_else(|error| {
        let path = track.path().to_string();
        violations.push(if path == "." { "body" } else { &path }, error);
        empty()
    })
}

/// Members of an object, at any depth, that no field of its message has the name of.
fn strangers(message: &MessageDescriptor, json: &serde_json::Value, path: &str, found: &mut Violations) {
    let Some(members) = json.as_object().filter(|_| !is_text(message)) else { return };
    for (name, value) in members {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let field = message.get_field_by_json_name(name).or_else(|| message.get_field_by_name(name));
        let Some(field) = field else {
            found.push(&path, "is no field here");
            continue;
        };
        let kind = field.kind();
        let inner = if field.is_map() {
            kind.as_message().map(|entry| entry.map_entry_value_field().kind())
        } else {
            Some(kind)
        };
        let Some(inner) = inner.as_ref().and_then(Kind::as_message) else { continue };
        match value {
            serde_json::Value::Array(items) if field.is_list() => {
                for (place, item) in items.iter().enumerate() {
                    strangers(inner, item, &format!("{path}[{place}]"), found);
                }
            }
            serde_json::Value::Object(entries) if field.is_map() => {
                for (key, entry) in entries {
                    strangers(inner, entry, &format!("{path}[{key}]"), found);
                }
            }
            value => strangers(inner, value, &path, found),
        }
    }
}

/// Values by name, in the order in which the names come first.
fn parameters(query: &str, violations: &mut Violations) -> Vec<(String, Vec<String>)> {
    let mut found: Vec<(String, Vec<String>)> = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let decoded = |text: &str| {
            let text = text.replace('+', " ");
            percent_decode_str(&text).decode_utf8().map(std::borrow::Cow::into_owned)
        };
        let (Ok(name), Ok(value)) = (decoded(name), decoded(value)) else {
            violations.push(name, "is no UTF-8 when percent-decoded");
            continue;
        };
        match found.iter_mut().find(|(known, _)| *known == name) {
            Some((_, values)) => values.push(value),
            None => found.push((name, vec![value])),
        }
    }
    found
}

fn set(message: &mut DynamicMessage, binding: &Binding, name: &str, values: &[String]) -> Result<(), String> {
    let (path, key) = match name.split_once('[') {
        Some((path, key)) => (path, Some(key.strip_suffix(']').ok_or("has no ] at its end")?)),
        None => (name, None),
    };
    let path = FieldPath::find(&binding.method.input(), path).map_err(|unknown| {
        format!("{unknown:?} is no parameter of {} {}", binding.http_method, binding.json_template())
    })?;
    if binding.path_fields().any(|bound| bound.fields == path.fields) {
        return Err("is in the path already".to_owned());
    }
    let (Some(field), outer) = split_last(&path.fields) else { return Err("has no name".to_owned()) };
    let read = match key {
        Some(key) if field.is_map() => map_entry(field, key, values)?,
        Some(_) => return Err("has no values by key".to_owned()),
        None if field.is_map() => return Err(format!("is given by key, as in {name}[KEY]=VALUE")),
        None if field.is_list() => list(field, values)?,
        None => single(field, one(values)?)?,
    };
    let holder = match outer {
        [] => message,
        outer => place(message, outer).and_then(Value::as_message_mut).ok_or("has no place")?,
    };
    if let Some(oneof) = field.containing_oneof()
        && let Some(other) = oneof.fields().find(|other| other != field && holder.has_field(other))
    {
        return Err(format!("is given beside {}; only one of them may be", other.json_name()));
    }
    match (holder.get_field_mut(field), read) {
        (Value::List(held), Value::List(read)) => held.extend(read),
        (Value::Map(held), Value::Map(read)) => held.extend(read),
        (held, read) => *held = read,
    }
    Ok(())
}

fn split_last(fields: &[FieldDescriptor]) -> (Option<&FieldDescriptor>, &[FieldDescriptor]) {
    fields.split_last().map_or((None, &[]), |(last, outer)| (Some(last), outer))
}

/// The value of a field inside of a message; messages on the way to it are made.
fn place<'a>(message: &'a mut DynamicMessage, fields: &[FieldDescriptor]) -> Option<&'a mut Value> {
    let (first, rest) = fields.split_first()?;
    let mut value = message.get_field_mut(first);
    for field in rest {
        value = value.as_message_mut()?.get_field_mut(field);
    }
    Some(value)
}

fn one(values: &[String]) -> Result<&str, String> {
    match values {
        [value] => Ok(value),
        values => Err(format!("is given {} times; once is right", values.len())),
    }
}

fn single(field: &FieldDescriptor, text: &str) -> Result<Value, String> {
    in_url(field, &field.kind())?;
    value(field, json!({ field.json_name(): json_of(&field.kind(), text) }))
        .ok_or_else(|| format!("{text:?} is not {}", expected(&field.kind())))
}

fn list(field: &FieldDescriptor, texts: &[String]) -> Result<Value, String> {
    in_url(field, &field.kind())?;
    let mut all = Vec::new();
    for text in texts {
        let read = value(field, json!({ field.json_name(): [json_of(&field.kind(), text)] }));
        match read {
            Some(Value::List(read)) => all.extend(read),
            _ => return Err(format!("{text:?} is not {}", expected(&field.kind()))),
        }
    }
    Ok(Value::List(all))
}

fn map_entry(field: &FieldDescriptor, key: &str, values: &[String]) -> Result<Value, String> {
    let entry = field.kind();
    let kind = entry.as_message().map(|entry| entry.map_entry_value_field().kind());
    let kind = kind.ok_or("is no map")?;
    in_url(field, &kind)?;
    let text = one(values)?;
    match value(field, json!({ field.json_name(): { key: json_of(&kind, text) } })) {
        Some(Value::Map(read)) if read.keys().all(|key| matches!(key, MapKey::String(_))) => {
            Ok(Value::Map(read))
        }
        _ => Err(format!("{text:?} is not {}", expected(&kind))),
    }
}

/// Whether a value of the kind can stand in a URL.
fn in_url(field: &FieldDescriptor, kind: &Kind) -> Result<(), String> {
    match kind {
        Kind::Message(message) if !is_text(message) => {
            let inner = message.fields().next().map(|inner| inner.json_name().to_owned());
            let inner = inner.unwrap_or_default();
            if field.is_list() {
                Err("can not be given in a URL; use POST, where this path takes it".to_owned())
            } else {
                Err(format!("has fields of its own, such as {}.{inner}", field.json_name()))
            }
        }
        _ => Ok(()),
    }
}

/// Messages that are one text in JSON.
fn is_text(message: &MessageDescriptor) -> bool {
    matches!(
        message.full_name(),
        "google.protobuf.Timestamp" | "google.protobuf.Duration" | "google.protobuf.FieldMask"
    )
}

/// proto3 JSON takes every scalar as text but for these.
fn json_of(kind: &Kind, text: &str) -> serde_json::Value {
    match (kind, text) {
        (Kind::Bool, "true") => json!(true),
        (Kind::Bool, "false") => json!(false),
        (Kind::Enum(_), text) => text.parse::<i32>().map_or_else(|_| json!(text), |number| json!(number)),
        (_, text) => json!(text),
    }
}

/// The value of the one field of an object.
fn value(field: &FieldDescriptor, object: serde_json::Value) -> Option<Value> {
    let mut message = DynamicMessage::deserialize(field.parent_message().clone(), object).ok()?;
    // A default that is given is there all the same: a field without presence is not told apart from an absent one.
    Some(message.take_field(field).unwrap_or_else(|| Value::default_value_for_field(field)))
}

fn expected(kind: &Kind) -> String {
    match kind {
        Kind::Bool => "true or false".to_owned(),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => "a whole number of 32 bits".to_owned(),
        Kind::Uint32 | Kind::Fixed32 => "a whole number from 0 on, of 32 bits".to_owned(),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => "a whole number of 64 bits".to_owned(),
        Kind::Uint64 | Kind::Fixed64 => "a whole number from 0 on, of 64 bits".to_owned(),
        Kind::Float | Kind::Double => "a number".to_owned(),
        Kind::String => "a text".to_owned(),
        Kind::Bytes => "bytes in base64".to_owned(),
        Kind::Enum(values) => {
            let names: Vec<String> = values.values().map(|value| value.name().to_owned()).collect();
            format!("one of {}", names.join(", "))
        }
        Kind::Message(message) => match message.full_name() {
            "google.protobuf.Timestamp" => "an instant such as 2026-03-01T00:00:00Z".to_owned(),
            "google.protobuf.Duration" => "a length of time such as 1.5s".to_owned(),
            name => format!("a {name}"),
        },
    }
}

#[cfg(test)]
mod tests;
