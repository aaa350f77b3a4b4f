//! Types of the contracts as JSON Schema (2020-12), and the fields of a request as parameters of a URL.

use std::collections::BTreeMap;

use prost_reflect::{EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Value, json};

use super::Comments;
use crate::json::binding::{Binding, BodyRule};

/// How deep messages are taken apart into parameters; no request is as deep.
const DEPTH_MAX: usize = 8;

/// Which way a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::json) enum Use {
    /// To a caller: everything that is always there is required.
    Answered,
    /// From a caller: nothing is.
    Sent,
}

/// The schemas that are referred to, by name.
pub(in crate::json) struct Schemas<'a> {
    comments: &'a Comments,
    made: BTreeMap<String, Value>,
}

// === impl Schemas ===

impl<'a> Schemas<'a> {
    pub(in crate::json) fn new(comments: &'a Comments) -> Self {
        let made = BTreeMap::from([("google.rpc.Status".to_owned(), status())]);
        Self { comments, made }
    }

    pub(in crate::json) fn finish(self) -> BTreeMap<String, Value> {
        self.made
    }

    /// A reference to a message, whose schema is made where it is not yet.
    pub(in crate::json) fn reference(&mut self, message: &MessageDescriptor, way: Use) -> Value {
        let name = match way {
            Use::Sent if !message.name().ends_with("Request") => {
                format!("{}Input", short(message.full_name()))
            }
            Use::Sent | Use::Answered => short(message.full_name()),
        };
        if !self.made.contains_key(&name) {
            // A message may contain itself.
            self.made.insert(name.clone(), Value::Null);
            let schema = self.message(message, way);
            self.made.insert(name.clone(), schema);
        }
        json!({ "$ref": format!("#/components/schemas/{name}") })
    }

    fn message(&mut self, message: &MessageDescriptor, way: Use) -> Value {
        let mut properties = serde_json::Map::new();
        let mut required = Vec::new();
        for field in message.fields() {
            let schema = self.field(&field, way);
            properties.insert(field.json_name().to_owned(), schema);
            if way == Use::Answered && !field.supports_presence() {
                required.push(field.json_name().to_owned());
            }
        }
        let description = self.comments.at(&message.parent_file(), message.path());
        let mut schema = json!({ "type": "object", "description": description, "properties": properties });
        if !required.is_empty() {
            schema["required"] = json!(required);
        }
        schema
    }

    fn field(&mut self, field: &FieldDescriptor, way: Use) -> Value {
        let mut schema = if let (true, Kind::Message(entry)) = (field.is_map(), field.kind()) {
            let values = self.kind(&entry.map_entry_value_field().kind(), way);
            json!({ "type": "object", "additionalProperties": values })
        } else if field.is_list() {
            json!({ "type": "array", "items": self.kind(&field.kind(), way) })
        } else {
            self.kind(&field.kind(), way)
        };
        let description = self.described(field);
        if !description.is_empty() {
            schema["description"] = json!(description);
        }
        schema
    }

    fn described(&self, field: &FieldDescriptor) -> String {
        let mut description = self.comments.at(&field.parent_message().parent_file(), field.path());
        if let Some(oneof) = field.containing_oneof().filter(|oneof| !oneof.is_synthetic()) {
            let names: Vec<String> = oneof.fields().map(|field| format!("`{}`", field.json_name())).collect();
            description.push_str(&format!(" At most one of {} is there.", names.join(", ")));
        }
        description.trim().to_owned()
    }

    fn kind(&mut self, kind: &Kind, way: Use) -> Value {
        match kind {
            Kind::Bool => json!({ "type": "boolean" }),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => json!({ "type": "integer", "format": "int32" }),
            Kind::Uint32 | Kind::Fixed32 => json!({ "type": "integer", "format": "int64", "minimum": 0 }),
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => {
                json!({ "type": "string", "format": "int64", "pattern": "^-?[0-9]+$" })
            }
            Kind::Uint64 | Kind::Fixed64 => {
                json!({ "type": "string", "format": "uint64", "pattern": "^[0-9]+$" })
            }
            Kind::Float | Kind::Double => json!({ "type": "number" }),
            Kind::String => json!({ "type": "string" }),
            Kind::Bytes => json!({ "type": "string", "contentEncoding": "base64" }),
            Kind::Enum(values) => self.values(values),
            Kind::Message(message) => match message.full_name() {
                "google.protobuf.Timestamp" => json!({ "type": "string", "format": "date-time" }),
                "google.protobuf.Duration" => {
                    json!({ "type": "string", "pattern": "^-?[0-9]+(\\.[0-9]+)?s$" })
                }
                _ => self.reference(message, way),
            },
        }
    }

    fn values(&mut self, values: &EnumDescriptor) -> Value {
        let name = short(values.full_name());
        if !self.made.contains_key(&name) {
            let file = values.parent_file();
            let line = |value: prost_reflect::EnumValueDescriptor| {
                format!("`{}`: {}", value.name(), self.comments.at(&file, value.path()))
            };
            let about = self.comments.at(&file, values.path());
            let lines: Vec<String> = std::iter::once(about).chain(values.values().map(line)).collect();
            let names: Vec<String> = values.values().map(|value| value.name().to_owned()).collect();
            let schema = json!({ "type": "string", "enum": names, "description": lines.join("\n\n") });
            self.made.insert(name.clone(), schema);
        }
        json!({ "$ref": format!("#/components/schemas/{name}") })
    }

    /// Of path and query.
    pub(in crate::json) fn parameters(&mut self, binding: &Binding) -> Vec<Value> {
        let mut parameters = Vec::new();
        for path in binding.path_fields() {
            let description = path.fields.last().map(|field| self.described(field)).unwrap_or_default();
            parameters.push(json!({ "name": path.json_name(), "in": "path", "required": true,
                "description": description, "schema": { "type": "string", "minLength": 1 } }));
        }
        if binding.body == BodyRule::Absent {
            let bound: Vec<String> =
                binding.path_fields().map(super::super::binding::FieldPath::json_name).collect();
            self.query(&binding.method.input(), "", &bound, &mut parameters);
        }
        parameters
    }

    fn query(&mut self, message: &MessageDescriptor, outer: &str, bound: &[String], all: &mut Vec<Value>) {
        for field in message.fields() {
            let name = format!("{outer}{}", field.json_name());
            let inner = match field.kind() {
                Kind::Message(inner) if !inner.full_name().starts_with("google.protobuf.") => Some(inner),
                _ => None,
            };
            if bound.contains(&name) {
                continue;
            }
            let style = match inner {
                // Only a body takes those.
                Some(_) if field.is_list() => continue,
                Some(_) if field.is_map() => "deepObject",
                Some(inner) => {
                    if outer.split('.').count() <= DEPTH_MAX {
                        self.query(&inner, &format!("{name}."), bound, all);
                    }
                    continue;
                }
                None => "form",
            };
            let mut schema = self.field(&field, Use::Sent);
            let description = schema.as_object_mut().and_then(|schema| schema.remove("description"));
            all.push(json!({ "name": name, "in": "query", "style": style, "explode": true, "schema": schema,
                "description": description.unwrap_or_default() }));
        }
    }
}

fn short(name: &str) -> String {
    name.trim_start_matches("drawdown.").to_owned()
}

fn status() -> Value {
    let detail = json!({ "type": "object", "required": ["@type"], "properties": { "@type": { "type": "string" } },
        "description": "A message by its type, such as `type.googleapis.com/google.rpc.ErrorInfo` with `reason`, `domain` and \
            `metadata`, or `…BadRequest` with `fieldViolations`." });
    json!({
        "type": "object",
        "required": ["code", "message", "details"],
        "description": "A refusal, as `google.rpc.Status`.",
        "properties": {
            "code": { "type": "integer", "format": "int32", "description": "A number of `google.rpc.Code`." },
            "message": { "type": "string", "description": "For people." },
            "details": { "type": "array", "items": detail },
        },
    })
}
