//! At most so many calls in hand; one more is refused at once rather than queued: its caller can go to
//! another instance or wait, and knows how long.
//!
//! Health, reflection and the like are answered in any case: a busy server is not a dead one.

use std::sync::Arc;

use http::Request;
use opentelemetry::metrics::{Counter, Meter};
use tokio::sync::Semaphore;
use tonic::{Status, body::Body};

use super::{Policy, Reply};
use crate::{Code, Refusal, reason, refusal::RETRY_AFTER_DEFAULT};

#[derive(Clone, Debug)]
pub(in crate::server) struct Admission {
    permits: Arc<Semaphore>,
    limit: usize,
    shed: Counter<u64>,
}

impl Admission {
    pub(in crate::server) fn new(limit: usize, meter: &Meter) -> Self {
        let shed =
            meter.u64_counter("rpc.server.shed").with_description("calls refused as one too many").build();
        shed.add(0, &[]);
        Self { permits: Arc::new(Semaphore::new(limit)), limit, shed }
    }
}

impl Policy for Admission {
    fn apply(
        &self,
        request: Request<Body>,
        next: impl FnOnce(Request<Body>) -> Reply + Send + 'static,
    ) -> Reply {
        if request.uri().path().starts_with("/grpc.") {
            return next(request);
        }
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
            self.shed.add(1, &[]);
            let refusal = Refusal::new(
                Code::ResourceExhausted,
                reason::OVERLOADED,
                "the service has too many calls in hand",
            )
            .metadata("calls_max", self.limit)
            .retry_after(RETRY_AFTER_DEFAULT);
            return Box::pin(async move { Status::from(refusal).into_http() });
        };
        Box::pin(async move {
            let response = next(request).await;
            drop(permit);
            response
        })
    }
}
