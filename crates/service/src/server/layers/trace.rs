//! A span around each call, child of the caller's W3C context, and the request id. The peer of the connection, where a
//! certificate named it, is put where the inner layers look for it.

use http::{HeaderMap, HeaderValue, Request};
use opentelemetry::{propagation::Extractor, trace::TraceContextExt};
use tonic::body::Body;
use tracing::{Instrument, field};
use tracing_opentelemetry::OpenTelemetrySpanExt;

use super::{Policy, Reply};
use crate::{server::request_id, tls};

#[derive(Clone, Copy, Debug)]
pub(in crate::server) struct Trace;

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(|value| value.to_str().ok())
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}

impl Policy for Trace {
    fn apply(
        &self,
        mut request: Request<Body>,
        next: impl FnOnce(Request<Body>) -> Reply + Send + 'static,
    ) -> Reply {
        // here, outside of every layer that asks who calls
        tls::reveal(request.extensions_mut());
        let id = request_id::of(request.headers());
        let method = request.uri().path().trim_start_matches('/');
        let span = tracing::info_span!(
            "call",
            otel.name = method,
            otel.kind = "server",
            rpc.system = "grpc",
            rpc.method = method,
            request.id = %id,
            trace.id = field::Empty,
        );
        let parent = opentelemetry::global::get_text_map_propagator(|propagator| {
            propagator.extract(&Headers(request.headers()))
        });
        // Without a subscriber for traces there is no parent to set; the call is served all the same.
        if span.set_parent(parent).is_ok() {
            let trace = span.context().span().span_context().trace_id();
            span.record("trace.id", field::display(trace));
        }
        let header = HeaderValue::from_str(&id);
        let handled = async move {
            let mut response = next(request).await;
            if let Ok(header) = header {
                response.headers_mut().insert(request_id::HEADER, header);
            }
            response
        };
        Box::pin(request_id::scope(id, handled).instrument(span))
    }
}
