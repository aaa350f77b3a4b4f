//! A panicking handler answers INTERNAL and takes nothing else down.

use std::{any::Any, panic::AssertUnwindSafe};

use futures::FutureExt;
use http::Request;
use tonic::body::Body;

use super::{Policy, Reply};
use crate::refusal;

#[derive(Clone, Copy, Debug)]
pub(in crate::server) struct Panic;

impl Policy for Panic {
    fn apply(
        &self,
        request: Request<Body>,
        next: impl FnOnce(Request<Body>) -> Reply + Send + 'static,
    ) -> Reply {
        // A handler owns its request and shares only what is safe to share, so nothing half-changed is seen after.
        let handled = AssertUnwindSafe(async move { next(request).await }).catch_unwind();
        Box::pin(async move {
            match handled.await {
                Ok(response) => response,
                Err(payload) => {
                    refusal::internal(anyhow::anyhow!("panic: {}", message(&*payload))).into_http()
                }
            }
        })
    }
}

fn message(payload: &(dyn Any + Send)) -> &str {
    payload
        .downcast_ref::<&'static str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("of unknown kind")
}
