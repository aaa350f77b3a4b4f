//! Who calls, and whether such a caller may call the method: before a permit is taken and before the body is read.
//!
//! It stands outside of admission: strangers must not take the permits of callers who are known, and a refusal
//! costs less than a permit. What it may cost itself is bounded by the gate: look-ups at once, the time
//! of one, and failures of one address. It stands inside of observe and panic, so its refusals are counted.
//!
//! A stream outlives the moment in which its caller was known. So a stream that began with a key or a token asks
//! again, as often as a key is looked up anew, and ends with UNAUTHENTICATED when the answer is another one. While
//! nobody can say, it goes on.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{HeaderMap, Request, Response, header::AUTHORIZATION};
use http_body::{Frame, SizeHint};
use tokio::time::Interval;
use tonic::{Code, Status, body::Body};

use super::{Policy, Reply};
use crate::identity::{self, Caller, Gate, Proof};

#[derive(Clone)]
pub(in crate::server) enum Identify {
    /// Every call is the local operator's.
    Off(Arc<Caller>),
    /// Callers are known or refused.
    On(Gate),
}

impl Identify {
    pub(in crate::server) fn by(gate: Option<Gate>) -> Self {
        gate.map_or_else(|| Self::Off(Arc::new(Caller::local())), Self::On)
    }
}

impl Policy for Identify {
    fn apply(
        &self,
        mut request: Request<Body>,
        next: impl FnOnce(Request<Body>) -> Reply + Send + 'static,
    ) -> Reply {
        let gate = match self {
            Self::Off(local) => {
                request.extensions_mut().insert(Arc::clone(local));
                return Box::pin(identity::scope(Arc::clone(local), next(request)));
            }
            Self::On(gate) => gate.clone(),
        };
        Box::pin(async move {
            let path = request.uri().path().to_owned();
            let admitted = gate.admit(&path, request.headers(), request.extensions()).await;
            let caller = match admitted {
                Ok(caller) => caller,
                Err(refusal) => return Status::from(refusal).into_http(),
            };
            // nothing behind this layer has a use for the secret
            let secret = request.headers_mut().remove(AUTHORIZATION);
            let again =
                gate.is_stream(&path) && matches!(caller.proof, Proof::Key { .. } | Proof::Token { .. });
            request.extensions_mut().insert(Arc::clone(&caller));
            let response = identity::scope(Arc::clone(&caller), next(request)).await;
            match secret {
                Some(secret) if again => {
                    let mut headers = HeaderMap::new();
                    headers.insert(AUTHORIZATION, secret);
                    let (head, body) = response.into_parts();
                    Response::from_parts(head, Body::new(Rechecked::new(body, gate, caller, headers)))
                }
                _ => response,
            }
        })
    }
}

type Asking = Pin<Box<dyn Future<Output = bool> + Send>>;

/// A stream that ends when its caller is not admitted any more.
struct Rechecked {
    body: Body,
    gate: Gate,
    caller: Arc<Caller>,
    headers: Arc<HeaderMap>,
    interval: Interval,
    asking: Option<Asking>,
    ended: bool,
}

impl Rechecked {
    fn new(body: Body, gate: Gate, caller: Arc<Caller>, headers: HeaderMap) -> Self {
        let every = gate.recheck_interval();
        let mut interval = tokio::time::interval_at(tokio::time::Instant::now() + every, every);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        Self { body, gate, caller, headers: Arc::new(headers), interval, asking: None, ended: false }
    }

    fn ask(&self) -> Asking {
        let (gate, caller, headers) = (self.gate.clone(), self.caller.clone(), self.headers.clone());
        Box::pin(async move { gate.is_still(&caller, &headers).await })
    }

    /// Whether the caller turned out to be admitted no more.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> bool {
        loop {
            let Some(asking) = self.asking.as_mut() else {
                if self.interval.poll_tick(cx).is_pending() {
                    return false;
                }
                self.asking = Some(self.ask());
                continue;
            };
            match asking.as_mut().poll(cx) {
                Poll::Pending => return false,
                Poll::Ready(false) => return true,
                Poll::Ready(true) => self.asking = None,
            }
        }
    }
}

impl http_body::Body for Rechecked {
    type Data = <Body as http_body::Body>::Data;
    type Error = <Body as http_body::Body>::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if self.poll_gone(cx) {
            self.ended = true;
            // the handler learns of it as of a caller who went away
            self.body = Body::empty();
            let status = Status::new(Code::Unauthenticated, "the credential is not accepted any more");
            let mut trailers = HeaderMap::new();
            return match status.add_header(&mut trailers) {
                Ok(()) => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
                Err(status) => Poll::Ready(Some(Err(status))),
            };
        }
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
