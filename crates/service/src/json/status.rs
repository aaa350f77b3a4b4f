//! Refusals over HTTP: `google.rpc.Status` as proto3 JSON, with every detail, under the HTTP code that belongs to its code.

use axum::body::Body as JsonBody;
use http::{HeaderValue, Response, StatusCode, header};
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};
use serde_json::{Value, json};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::answer::text_of;
use crate::reason;

const STATUS: &str = "google.rpc.Status";

/// Writes refusals.
#[derive(Clone, Debug)]
pub(crate) struct Refusals {
    status: Option<MessageDescriptor>,
}

// === impl Refusals ===

impl Refusals {
    pub(crate) fn new() -> Self {
        Self { status: details_pool().get_message_by_name(STATUS) }
    }

    /// As an answer.
    pub(crate) fn response(&self, status: &Status) -> Response<JsonBody> {
        let mut response = Response::new(JsonBody::from(self.json(status).to_string()));
        *response.status_mut() = http_code(status);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(super::JSON));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(delay) = status.get_details_retry_info().and_then(|info| info.retry_delay) {
            // Whole seconds, and never sooner than told.
            let secs = delay.as_secs() + u64::from(delay.subsec_nanos() > 0);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(secs));
        }
        if status.code() == Code::Unauthenticated {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }

    /// As JSON.
    pub(crate) fn json(&self, status: &Status) -> Value {
        let whole = self.status.clone().and_then(|descriptor| {
            let message = DynamicMessage::decode(descriptor, status.details()).ok()?;
            let mut value: Value = serde_json::from_str(&text_of(&message).ok()?).ok()?;
            // Details that were not sent leave an empty message; code and words are always those of the call.
            value["code"] = json!(i32::from(status.code()));
            value["message"] = json!(status.message());
            Some(value)
        });
        let bare = || json!({ "code": i32::from(status.code()), "message": status.message(), "details": [] });
        whole.unwrap_or_else(bare)
    }
}

/// The messages of `google.rpc`.
pub(crate) fn details_pool() -> DescriptorPool {
    let mut pool = DescriptorPool::global();
    // What they do not have is told without details.
    drop(pool.decode_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET));
    pool
}

/// As the comments of `google.rpc.Code` say; where HTTP has a closer word for a reason, that one.
fn http_code(status: &Status) -> StatusCode {
    let reason = status.get_details_error_info().map(|info| info.reason).unwrap_or_default();
    match reason.as_str() {
        reason::HTTP_METHOD_UNKNOWN => return StatusCode::METHOD_NOT_ALLOWED,
        reason::BODY_TOO_LARGE => return StatusCode::PAYLOAD_TOO_LARGE,
        reason::BODY_NOT_JSON => return StatusCode::UNSUPPORTED_MEDIA_TYPE,
        reason::TARGET_TOO_LONG => return StatusCode::URI_TOO_LONG,
        _ => {}
    }
    of_code(status.code())
}

pub(crate) fn of_code(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        // nginx's word for a caller that went away
        Code::Cancelled => StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST),
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => StatusCode::BAD_REQUEST,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// The code by which an answer of HTTP is counted.
pub(crate) fn grpc_code(status: StatusCode) -> Code {
    match status {
        StatusCode::NOT_FOUND => Code::NotFound,
        StatusCode::CONFLICT => Code::AlreadyExists,
        StatusCode::UNAUTHORIZED => Code::Unauthenticated,
        StatusCode::FORBIDDEN => Code::PermissionDenied,
        StatusCode::TOO_MANY_REQUESTS => Code::ResourceExhausted,
        StatusCode::NOT_IMPLEMENTED => Code::Unimplemented,
        StatusCode::SERVICE_UNAVAILABLE => Code::Unavailable,
        StatusCode::GATEWAY_TIMEOUT => Code::DeadlineExceeded,
        status if status.is_success() => Code::Ok,
        status if status.is_client_error() => Code::InvalidArgument,
        _ => Code::Internal,
    }
}

/// The whole answer of a call that failed inside of this module.
pub(crate) fn internal(what: &'static str) -> Status {
    crate::refusal::internal(anyhow::anyhow!(what))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{Code as Ours, Refusal};

    #[test]
    fn details_are_all_there() {
        let refusal = Refusal::new(Ours::ResourceExhausted, "TEST_REASON", "too much")
            .violation("filter.from", "must be an edge")
            .metadata("limit", 7)
            .retry_after(Duration::from_millis(1_500));
        let response = Refusals::new().response(&refusal.clone().into());
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(response.headers().get("retry-after").map(HeaderValue::as_bytes), Some(&b"2"[..]));
        let json = Refusals::new().json(&refusal.into());
        assert_eq!((&json["code"], &json["message"]), (&json!(8), &json!("too much")));
        let details = json["details"].as_array().unwrap();
        let typed = |name: &str| {
            let kind = json!(format!("type.googleapis.com/google.rpc.{name}"));
            details.iter().find(|detail| detail["@type"] == kind).unwrap()
        };
        assert_eq!(typed("ErrorInfo")["reason"], "TEST_REASON");
        assert_eq!(typed("ErrorInfo")["domain"], "drawdown");
        assert_eq!(typed("ErrorInfo")["metadata"], json!({ "limit": "7" }));
        assert_eq!(typed("BadRequest")["fieldViolations"][0]["field"], "filter.from");
        assert_eq!(typed("RetryInfo")["retryDelay"], "1.500s");
    }

    #[test]
    fn a_bare_status_is_told_as_one() {
        let json = Refusals::new().json(&Status::unimplemented("no"));
        assert_eq!(json, json!({ "code": 12, "message": "no", "details": [] }));
    }

    #[test]
    fn reasons_with_an_http_code_of_their_own() {
        for (code, reason, expected) in [
            (Ours::InvalidArgument, reason::HTTP_METHOD_UNKNOWN, 405),
            (Ours::InvalidArgument, reason::BODY_TOO_LARGE, 413),
            (Ours::InvalidArgument, reason::TARGET_TOO_LONG, 414),
            (Ours::InvalidArgument, reason::BODY_NOT_JSON, 415),
            (Ours::InvalidArgument, reason::REQUEST_INVALID, 400),
            (Ours::NotFound, reason::PATH_UNKNOWN, 404),
            (Ours::PermissionDenied, "X", 403),
            (Ours::Unauthenticated, "X", 401),
            (Ours::FailedPrecondition, "X", 400),
            (Ours::Aborted, "X", 409),
            (Ours::Unavailable, "X", 503),
            (Ours::DeadlineExceeded, "X", 504),
        ] {
            let status = Status::from(Refusal::new(code, reason, "x"));
            assert_eq!(http_code(&status).as_u16(), expected, "{code:?} {reason}");
        }
    }
}
