//! The contract of the reads over HTTP as OpenAPI 3.1, made from the descriptors: their names, types and comments.
//!
//! Answers have all fields that are always there as `required`; what is sent has none (proto3 knows no required field), so
//! a message that is sent and answered has two schemas.

use std::collections::{BTreeMap, HashMap};

use prost_reflect::{DescriptorPool, MethodDescriptor, ServiceDescriptor};
use serde_json::{Map, Value, json};

use super::{
    JSON, LINES,
    binding::{Binding, Bindings, BodyRule},
    contracts,
};

pub(super) mod schema;

use self::schema::{Schemas, Use};

const ABOUT: &str = "The reads of Drawdown as JSON over HTTP: the same handlers, limits and reasons as by gRPC. \
    Amounts are whole micro-tokens, times are UTC. 64-bit integers are texts of decimal digits. Fields that are neither \
    optional nor messages are always there, also where they are 0 or empty. Names in a URL may be written as here or as in the \
    contracts (`page_size`).";

/// One read over HTTP.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Read {
    /// `package.Service/Method`.
    pub method: String,
    /// `GET` or `POST`.
    pub http_method: String,
    /// As annotated.
    pub template: String,
}

/// All reads over HTTP that the contracts of these services have.
///
/// # Errors
/// An annotation that can not be served.
pub fn reads(services: &[&str]) -> Result<Vec<Read>, super::BindingError> {
    let read = |binding: &Binding| Read {
        method: binding.grpc_path.trim_start_matches('/').to_owned(),
        http_method: binding.http_method.to_string(),
        template: binding.template.clone(),
    };
    Ok(Bindings::of(&contracts(), services)?.iter().map(read).collect())
}

/// The document for all services of some packages, such as `drawdown.ledger.v1`.
///
/// # Errors
/// An annotation that can not be served.
pub fn document(packages: &[&str]) -> Result<Value, super::BindingError> {
    let pool = contracts();
    let services: Vec<ServiceDescriptor> =
        pool.services().filter(|service| packages.contains(&service.package_name())).collect();
    let names: Vec<&str> = services.iter().map(ServiceDescriptor::full_name).collect();
    Ok(of(&pool, &Bindings::of(&pool, &names)?))
}

pub(super) fn of(pool: &DescriptorPool, bindings: &Bindings) -> Value {
    let comments = Comments::of(pool);
    let mut schemas = Schemas::new(&comments);
    let mut paths: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    let mut tags = BTreeMap::new();
    for binding in bindings.iter() {
        let service = binding.method.parent_service();
        tags.insert(service.name().to_owned(), comments.at(&service.parent_file(), service.path()));
        let operation = operation(binding, &comments, &mut schemas);
        let methods = paths.entry(binding.json_template()).or_default();
        methods.insert(binding.http_method.as_str().to_ascii_lowercase(), operation);
    }
    let tag = |(name, description): (String, String)| json!({ "name": name, "description": description });
    json!({
        "openapi": "3.1.0",
        "info": { "title": "Drawdown", "version": env!("CARGO_PKG_VERSION"), "description": ABOUT,
                  "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" } },
        "servers": [{ "url": "/" }],
        "tags": tags.into_iter().map(tag).collect::<Vec<_>>(),
        "paths": paths,
        "components": {
            "schemas": schemas.finish(),
            "responses": { "Refused": refused() },
            "parameters": { "Deadline": deadline(), "RequestId": request_id() },
        },
    })
}

fn operation(binding: &Binding, comments: &Comments, schemas: &mut Schemas<'_>) -> Value {
    let method = &binding.method;
    let comment = comments.at(&method.parent_file(), method.path());
    let summary = comment.split_inclusive(". ").next().unwrap_or_default().trim_end();
    let mut parameters = schemas.parameters(binding);
    parameters.push(json!({ "$ref": "#/components/parameters/Deadline" }));
    parameters.push(json!({ "$ref": "#/components/parameters/RequestId" }));
    let mut operation = json!({
        "operationId": operation_id(binding),
        "tags": [method.parent_service().name()],
        "summary": summary,
        "description": comment,
        "parameters": parameters,
        "responses": {
            "200": answered(method, schemas),
            "default": { "$ref": "#/components/responses/Refused" },
        },
        "x-grpc-method": binding.grpc_path.trim_start_matches('/'),
    });
    if binding.body == BodyRule::Rest {
        let schema = schemas.reference(&method.input(), Use::Sent);
        operation["requestBody"] = json!({ "required": true, "content": { JSON: { "schema": schema } } });
    }
    operation
}

/// A method with two bindings has two operations.
fn operation_id(binding: &Binding) -> String {
    let name = format!("{}_{}", binding.method.parent_service().name(), binding.method.name());
    if binding.http_method == http::Method::POST { format!("{name}_post") } else { name }
}

fn answered(method: &MethodDescriptor, schemas: &mut Schemas<'_>) -> Value {
    let schema = schemas.reference(&method.output(), Use::Answered);
    if !method.is_server_streaming() {
        return json!({ "description": "The answer.", "content": { JSON: { "schema": schema } } });
    }
    let result = json!({ "type": "object", "required": ["result"], "properties": { "result": schema } });
    let error = json!({ "type": "object", "required": ["error"],
        "properties": { "error": { "$ref": "#/components/schemas/google.rpc.Status" } } });
    json!({
        "description": "A line of JSON for each part, as it comes. What fails after the first line is a last line with an error.",
        "content": { LINES: { "schema": { "oneOf": [result, error] } } },
    })
}

fn refused() -> Value {
    json!({
        "description": "A refusal: the HTTP code follows from its code; its reason is in the detail `google.rpc.ErrorInfo`.",
        "content": { JSON: { "schema": { "$ref": "#/components/schemas/google.rpc.Status" } } },
    })
}

fn deadline() -> Value {
    json!({
        "name": "grpc-timeout", "in": "header",
        "description": "How long the caller waits: at most eight digits and one of H, M, S, m (ms), u, n.",
        "schema": { "type": "string", "pattern": "^[0-9]{1,8}[HMSmun]$" },
    })
}

fn request_id() -> Value {
    json!({
        "name": "x-request-id", "in": "header",
        "description": "An id for the logs of this call: up to 64 letters, digits, `-`, `_`, `.`. It is in the answer's head too.",
        "schema": { "type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$" },
    })
}

/// What the contracts say of their parts, by file and path inside of it.
pub(super) struct Comments(HashMap<(String, Vec<i32>), String>);

// === impl Comments ===

impl Comments {
    fn of(pool: &DescriptorPool) -> Self {
        let mut all = HashMap::new();
        for file in pool.files() {
            let proto = file.file_descriptor_proto();
            let locations = proto.source_code_info.iter().flat_map(|info| &info.location);
            for location in locations.filter(|location| location.leading_comments.is_some()) {
                // A comment is broken over lines where its editor was full.
                let text: Vec<&str> = location.leading_comments().split_whitespace().collect();
                all.insert((file.name().to_owned(), location.path.clone()), text.join(" "));
            }
        }
        Self(all)
    }

    pub(super) fn at(&self, file: &prost_reflect::FileDescriptor, path: &[i32]) -> String {
        self.0.get(&(file.name().to_owned(), path.to_vec())).cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
