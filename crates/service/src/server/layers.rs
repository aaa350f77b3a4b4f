//! The layers around each call. Each is a [`Policy`]: it gets the request and the rest of the way, and
//! gives the answer. Their order is stated in the parent module and made in one place there.

mod admission;
mod deadline;
mod door;
mod identify;
mod names;
mod observe;
mod own;
mod panic;
mod trace;

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use http::{Request, Response};
use tonic::body::Body;
use tower::{Layer, Service};

pub(super) use admission::Admission;
pub(super) use deadline::Deadline;
pub(super) use identify::Identify;
pub(super) use names::Names;
pub(super) use observe::Observe;
pub(super) use own::Own;
pub(super) use panic::Panic;
pub(super) use trace::Trace;

/// An answer on its way.
pub(super) type Reply = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

/// What is done around a call.
pub(super) trait Policy: Clone + Send + Sync + 'static {
    /// Answers the request, through `next` or without it.
    fn apply(
        &self,
        request: Request<Body>,
        next: impl FnOnce(Request<Body>) -> Reply + Send + 'static,
    ) -> Reply;
}

/// A policy as a tower layer.
#[derive(Clone, Debug)]
pub(super) struct Around<P>(P);

/// A service with a policy around it.
#[derive(Clone, Debug)]
pub(super) struct Guarded<S, P> {
    inner: S,
    policy: P,
}

impl<P> Around<P> {
    pub(super) const fn by(policy: P) -> Self {
        Self(policy)
    }
}

impl<S, P: Clone> Layer<S> for Around<P> {
    type Service = Guarded<S, P>;

    fn layer(&self, inner: S) -> Self::Service {
        Guarded { inner, policy: self.0.clone() }
    }
}

impl<S, P> Service<Request<Body>> for Guarded<S, P>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
    P: Policy,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // The service that was polled ready is the one to call; its clone waits in its place.
        let waiting = self.inner.clone();
        let mut ready = std::mem::replace(&mut self.inner, waiting);
        let reply = self.policy.apply(request, move |request| {
            Box::pin(async move {
                match ready.call(request).await {
                    Ok(response) => response,
                    Err(never) => match never {},
                }
            })
        });
        Box::pin(async move { Ok(reply.await) })
    }
}
