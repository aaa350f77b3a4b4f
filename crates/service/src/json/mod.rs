//! The public reads as JSON over HTTP: on the port of gRPC, through the same layers, to the same handlers.
//!
//! Shape: whatever is no gRPC call by its content type comes here, before every layer. The path is looked up in the
//! `google.api.http` annotations of the services that are served; the call becomes a gRPC call of that method and goes on
//! through trace, metrics, admission, identity and deadline, which can not tell it from any other; its answer, or their
//! refusal, is turned back. So there is no second implementation of anything, and no second list of methods.
//!
//! - **Nothing is read or checked before the layers**: body, query and path values are turned when the handler's own decoder
//!   asks for the message. A slow body spends the deadline of its call and holds one of the places of admission; who may not
//!   call is told so before anything about the request.
//! - **What no annotation names is asked of the layers too**, as a method that does not exist: so it is counted, and a caller
//!   who is not known learns nothing.
//! - **Bounds**: the target of a request by `http_target_bytes_max`, its body by `message_bytes_max`, its head and the time
//!   for it by the transport; an answer is as large as the same answer by gRPC allows.

mod answer;
mod binding;
mod openapi;
mod request;
mod status;

use std::sync::Arc;

use axum::body::Body as JsonBody;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, Version, header};
use http_body::Body as _;
use http_body_util::{BodyExt as _, LengthLimitError, Limited, StreamBody};
use prost_reflect::DescriptorPool;
use tonic::{Code as GrpcCode, Status, body::Body};

pub(crate) use self::status::grpc_code;
pub use self::{
    binding::BindingError,
    openapi::{document, reads},
};
use self::{
    binding::{Binding, Bindings, Found},
    request::Given,
    status::Refusals,
};
use crate::{Code, Refusal, reason};

pub(crate) const JSON: &str = "application/json";
pub(crate) const LINES: &str = "application/x-ndjson";
/// Where the contract of what is served here can be read, by everybody.
pub const OPENAPI_PATH: &str = "/v1/openapi.json";
const GRPC: &str = "application/grpc";
/// A caller's deadline, as in gRPC.
const DEADLINE: &str = "grpc-timeout";

/// Headers that belong to one connection or one form of a body, not to the call.
const DROPPED: [HeaderName; 8] = [
    header::ACCEPT_ENCODING,
    header::CONNECTION,
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::EXPECT,
    header::HOST,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];
const DROPPED_OF_GRPC: [&str; 2] = ["grpc-accept-encoding", "grpc-encoding"];

/// Bounds of a call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Path and query, in bytes.
    pub(crate) target_bytes_max: usize,
    /// A body, in bytes.
    pub(crate) body_bytes_max: usize,
}

/// Turns HTTP calls into gRPC calls and back.
#[derive(Clone, Debug)]
pub(crate) struct Door(Arc<Inner>);

/// Paths that a service reads itself, by HTTP of whatever form, and the method that each call of them is for every layer.
#[derive(Clone, Copy, Debug)]
pub struct OwnPaths {
    /// Such as `/v1/events`.
    pub paths: &'static [&'static str],
    /// Such as `/drawdown.metering.v1.RecordService/RecordCloudEvents`.
    pub stand_for: &'static str,
}

/// On a call that a service reads itself: where it came to.
#[derive(Clone, Debug)]
pub(crate) struct OwnPath(pub(crate) Uri);

/// On an answer of such a call, which is told as it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OwnAnswer;

#[derive(Debug)]
struct Inner {
    own: Vec<OwnPaths>,
    bindings: Bindings,
    refusals: Refusals,
    openapi: Bytes,
    limits: Limits,
}

// === impl Door ===

impl Door {
    /// For the services of these names, and what they read themselves.
    pub(crate) fn new(names: &[&str], own: Vec<OwnPaths>, limits: Limits) -> Result<Self, BindingError> {
        let pool = contracts();
        let bindings = Bindings::of(&pool, names)?;
        let openapi = openapi::of(&pool, &bindings).to_string().into();
        Ok(Self(Arc::new(Inner { own, bindings, refusals: Refusals::new(), openapi, limits })))
    }

    /// Whether a call is gRPC, which does not come here.
    pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
        headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(GRPC.as_bytes()))
    }

    /// Answers an HTTP call through `next`, which takes gRPC calls.
    pub(crate) async fn answer<F>(
        &self,
        request: Request<Body>,
        next: impl FnOnce(Request<Body>) -> F,
    ) -> Response<Body>
    where
        F: Future<Output = Response<Body>>,
    {
        let own = self.0.own.iter().find(|own| own.paths.contains(&request.uri().path()));
        match own.map(|own| own.stand_for) {
            Some(method) => self.own(method, request, next).await,
            None => self.json(request, next).await.map(Body::new),
        }
    }

    /// The answer to an HTTP call that is refused here and not by what is inside.
    pub(crate) fn refused(&self, refusal: Refusal) -> Response<Body> {
        self.0.refusals.response(&refusal.into()).map(Body::new)
    }

    /// What a service reads itself keeps its form; only its path is another one on the way through the layers.
    async fn own<F>(
        &self,
        method: &'static str,
        mut request: Request<Body>,
        next: impl FnOnce(Request<Body>) -> F,
    ) -> Response<Body>
    where
        F: Future<Output = Response<Body>>,
    {
        let path = std::mem::replace(request.uri_mut(), Uri::from_static(method));
        request.extensions_mut().insert(OwnPath(path));
        let mut response = next(request).await;
        if response.extensions_mut().remove::<OwnAnswer>().is_some() {
            response.headers_mut().remove("grpc-status");
            return response;
        }
        let refused = answer::refused(response.headers());
        let status = refused.unwrap_or_else(|| status::internal("a layer answered without a status"));
        self.0.refusals.response(&status).map(Body::new)
    }

    async fn json<F>(
        &self,
        request: Request<Body>,
        next: impl FnOnce(Request<Body>) -> F,
    ) -> Response<JsonBody>
    where
        F: Future<Output = Response<Body>>,
    {
        let (method, uri) = (request.method(), request.uri());
        if *method == Method::GET && uri.path() == OPENAPI_PATH {
            return described(self.0.openapi.clone());
        }
        match self.place(method, uri) {
            Ok((place, captures)) => {
                let query = uri.query().unwrap_or_default().to_owned();
                self.call(place, Given { captures, query }, request, next).await
            }
            Err(unplaced) => {
                let Unplaced { refusal, allowed } = *unplaced;
                let mut response = self.refuse(refusal, request, next).await;
                if response.status() == http::StatusCode::METHOD_NOT_ALLOWED
                    && let Ok(allowed) = HeaderValue::from_str(&allowed)
                {
                    response.headers_mut().insert(header::ALLOW, allowed);
                }
                response
            }
        }
    }

    /// The binding that a call is for.
    fn place(&self, method: &Method, uri: &Uri) -> Result<(usize, Captures), Box<Unplaced>> {
        let max = self.0.limits.target_bytes_max;
        if uri.path_and_query().is_some_and(|target| target.as_str().len() > max) {
            let what = format!("path and query have more than {max} bytes");
            return Err(Unplaced::new(Code::InvalidArgument, reason::TARGET_TOO_LONG, what));
        }
        match self.0.bindings.find(method, uri.path()) {
            Found::Binding(place, captures) => Ok((place, captures)),
            Found::Methods(methods) => {
                let allowed = methods.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
                let what = format!("{} is read by {allowed}", uri.path());
                let unplaced = Unplaced::new(Code::InvalidArgument, reason::HTTP_METHOD_UNKNOWN, what);
                Err(Box::new(Unplaced { allowed, ..*unplaced }))
            }
            Found::Nothing => {
                let what = format!("no read has the path {}; {OPENAPI_PATH} lists all", uri.path());
                Err(Unplaced::new(Code::NotFound, reason::PATH_UNKNOWN, what))
            }
        }
    }

    async fn call<F>(
        &self,
        place: usize,
        given: Given,
        request: Request<Body>,
        next: impl FnOnce(Request<Body>) -> F,
    ) -> Response<JsonBody>
    where
        F: Future<Output = Response<Body>>,
    {
        let Some(binding) = self.0.bindings.get(place) else {
            return self.0.refusals.response(&status::internal("a binding is gone"));
        };
        let (mut head, body) = request.into_parts();
        let sent = Sent { kind: head.headers.remove(header::CONTENT_TYPE), headers: head.headers.clone() };
        let inner = Arc::clone(&self.0);
        let message = async move { inner.message(place, given, sent, body).await };
        let body = Body::new(StreamBody::new(futures::stream::once(message)));
        become_grpc(&mut head, &binding.grpc_path);
        let response = next(Request::from_parts(head, body)).await;
        let output = binding.method.output();
        if binding.method.is_server_streaming() {
            answer::stream(output, self.0.refusals.clone(), response)
        } else {
            answer::unary(output, &self.0.refusals, response).await
        }
    }

    /// What no annotation names goes through the layers as a call of nothing.
    async fn refuse<F>(
        &self,
        refusal: Refusal,
        request: Request<Body>,
        next: impl FnOnce(Request<Body>) -> F,
    ) -> Response<JsonBody>
    where
        F: Future<Output = Response<Body>>,
    {
        let (mut head, _) = request.into_parts();
        become_grpc(&mut head, "/");
        let response = next(Request::from_parts(head, Body::empty())).await;
        let asked = answer::refused(response.headers());
        let status = asked.filter(|status| status.code() != GrpcCode::Unimplemented);
        self.0.refusals.response(&status.unwrap_or_else(|| refusal.into()))
    }
}

type Captures = Vec<(binding::FieldPath, Result<String, String>)>;

/// A call of nothing.
#[derive(Debug)]
struct Unplaced {
    refusal: Refusal,
    /// The methods that its path has, for the header `Allow`.
    allowed: String,
}

impl Unplaced {
    fn new(code: Code, reason: &'static str, what: String) -> Box<Self> {
        Box::new(Self { refusal: Refusal::new(code, reason, what), allowed: String::new() })
    }
}

/// What of a call's head decides how it is read.
struct Sent {
    kind: Option<HeaderValue>,
    headers: HeaderMap,
}

// === impl Inner ===

impl Inner {
    /// The one message of a call, as the decoder of its method takes it.
    async fn message(
        &self,
        place: usize,
        given: Given,
        sent: Sent,
        body: Body,
    ) -> Result<http_body::Frame<Bytes>, Status> {
        let binding = self.bindings.get(place).ok_or_else(|| status::internal("a binding is gone"))?;
        let body = self.body(binding, &sent, body).await?;
        let built = request::message(binding, given, &body);
        let deadline = sent.headers.get(DEADLINE).is_none_or(is_deadline);
        let message = if deadline { built? } else { return Err(with_deadline(built.err()).into()) };
        Ok(http_body::Frame::data(answer::framed(&message)))
    }

    async fn body(&self, binding: &Binding, sent: &Sent, body: Body) -> Result<Bytes, Status> {
        if body.is_end_stream() {
            return Ok(Bytes::new());
        }
        let refuse = |reason, what: String| Status::from(Refusal::new(Code::InvalidArgument, reason, what));
        let kind = sent.kind.as_ref().map(HeaderValue::as_bytes).unwrap_or_default();
        let essence = kind.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        let is_json = essence.is_empty() || essence.eq_ignore_ascii_case(JSON.as_bytes());
        let encoding = sent.headers.get(header::CONTENT_ENCODING);
        let is_plain = encoding.is_none_or(|encoding| encoding == "identity");
        if binding.http_method == Method::POST && !(is_json && is_plain) {
            let what = format!("a body is {JSON}, and not compressed");
            return Err(refuse(reason::BODY_NOT_JSON, what));
        }
        let max = self.limits.body_bytes_max;
        match Limited::new(body, max).collect().await {
            Ok(collected) => Ok(collected.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => {
                Err(refuse(reason::BODY_TOO_LARGE, format!("the body has more than {max} bytes")))
            }
            Err(_) => Err(refuse(reason::REQUEST_INVALID, "the body did not come whole".to_owned())),
        }
    }
}

/// What is wrong with a call besides its deadline is told with it.
fn with_deadline(other: Option<Refusal>) -> Refusal {
    let what = "is no deadline: at most eight digits and one of H, M, S, m, u, n, such as 500m or 10S";
    let bare = || Refusal::new(Code::InvalidArgument, reason::REQUEST_INVALID, format!("{DEADLINE} {what}"));
    other.unwrap_or_else(bare).violation(DEADLINE, what)
}

fn is_deadline(value: &HeaderValue) -> bool {
    let bytes = value.as_bytes();
    let Some((unit, digits)) = bytes.split_last() else { return false };
    (1..=8).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit) && b"HMSmun".contains(unit)
}

/// The head of a gRPC call of that path. What layers and handlers read of a caller stays: credentials, trace, request id.
fn become_grpc(head: &mut http::request::Parts, path: &str) {
    head.method = Method::POST;
    head.version = Version::HTTP_2;
    head.uri = path.parse().unwrap_or_default();
    for name in DROPPED {
        head.headers.remove(name);
    }
    for name in DROPPED_OF_GRPC {
        head.headers.remove(name);
    }
    head.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(GRPC));
    head.headers.insert(header::TE, HeaderValue::from_static("trailers"));
}

fn described(openapi: Bytes) -> Response<JsonBody> {
    let mut response = Response::new(JsonBody::from(openapi));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(JSON));
    response
}

/// All contracts, with their comments and annotations.
fn contracts() -> DescriptorPool {
    // They are compiled into the program, and a test reads them; without them nothing is served over HTTP.
    DescriptorPool::decode(drawdown_proto::FILE_DESCRIPTOR_SET).unwrap_or_default()
}

#[cfg(test)]
mod tests;
