//! Duration of calls by method and code, and calls in hand.
//!
//! The code of an answer stands in its head (a refusal) or in its trailers (everything else), so the body
//! is watched until its code is known. A body dropped before that is a caller that went away: CANCELLED.

use std::{
    collections::HashSet,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{HeaderMap, Request, Response};
use http_body::{Frame, SizeHint};
use opentelemetry::{
    KeyValue,
    metrics::{Histogram, Meter, UpDownCounter},
};
use tokio::time::Instant;
use tonic::{Code, body::Body};

use super::{Policy, Reply};
use crate::server::methods;

const DURATION_BOUNDS_SECS: [f64; 15] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
const STATUS_HEADER: &str = "grpc-status";

#[derive(Clone, Debug)]
pub(in crate::server) struct Observe {
    methods: Arc<HashSet<String>>,
    duration: Histogram<f64>,
    in_hand: UpDownCounter<i64>,
}

/// One call; records itself when it ends.
struct Call {
    duration: Histogram<f64>,
    in_hand: UpDownCounter<i64>,
    labels: [KeyValue; 2],
    started: Instant,
    recorded: bool,
}

struct Watched {
    body: Body,
    call: Call,
}

impl Observe {
    pub(in crate::server) fn new(meter: &Meter, methods: Arc<HashSet<String>>) -> Self {
        let duration = meter
            .f64_histogram("rpc.server.duration")
            .with_unit("s")
            .with_description("time from request to the end of the answer; of a stream, its life")
            .with_boundaries(DURATION_BOUNDS_SECS.to_vec())
            .build();
        let in_hand = meter
            .i64_up_down_counter("rpc.server.active")
            .with_description("calls in hand, streams included")
            .build();
        Self { methods, duration, in_hand }
    }

    fn begin(&self, path: &str) -> Call {
        let (service, method) = methods::split(&self.methods, path);
        let labels = [
            KeyValue::new("rpc_service", service.to_owned()),
            KeyValue::new("rpc_method", method.to_owned()),
        ];
        self.in_hand.add(1, &labels);
        Call {
            duration: self.duration.clone(),
            in_hand: self.in_hand.clone(),
            labels,
            started: Instant::now(),
            recorded: false,
        }
    }
}

impl Policy for Observe {
    fn apply(
        &self,
        request: Request<Body>,
        next: impl FnOnce(Request<Body>) -> Reply + Send + 'static,
    ) -> Reply {
        let mut call = self.begin(request.uri().path());
        Box::pin(async move {
            let (head, body) = next(request).await.into_parts();
            call.see(&head.headers);
            Response::from_parts(head, Body::new(Watched { body, call }))
        })
    }
}

impl Call {
    /// Recorded as soon as the code is known, before the caller can know it.
    fn see(&mut self, headers: &HeaderMap) {
        if let Some(code) = headers.get(STATUS_HEADER) {
            self.record(Code::from_bytes(code.as_bytes()));
        }
    }

    fn record(&mut self, code: Code) {
        if std::mem::replace(&mut self.recorded, true) {
            return;
        }
        self.in_hand.add(-1, &self.labels);
        let [service, method] = self.labels.clone();
        let labels = [service, method, KeyValue::new("code", format!("{code:?}"))];
        self.duration.record(self.started.elapsed().as_secs_f64(), &labels);
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.record(Code::Cancelled);
    }
}

impl http_body::Body for Watched {
    type Data = <Body as http_body::Body>::Data;
    type Error = <Body as http_body::Body>::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(trailers) = frame.trailers_ref() {
                    self.call.see(trailers);
                }
            }
            Poll::Ready(Some(Err(_))) => self.call.record(Code::Unknown),
            Poll::Ready(None) | Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
