//! That a caller of one account or team names nothing but its own, and that a person acts for nobody else.
//!
//! Inside of admission and deadline: the body is read under the permit and the deadline of the call. For every other caller nothing is read and
//! the request goes on as it came. Enforced here and once for all methods, so no handler can forget it.

use std::sync::Arc;

use http::Request;
use http_body_util::{BodyExt as _, Full, Limited};
use tonic::{Status, body::Body};

use super::{Policy, Reply};
use crate::{
    Code, Refusal,
    identity::{Caller, Gate},
    reason,
};

/// A flag, and the length of the message in four bytes.
const FRAME_HEAD_BYTES: usize = 5;

#[derive(Clone)]
pub(in crate::server) struct Names {
    gate: Option<Gate>,
    message_bytes_max: usize,
}

impl Names {
    pub(in crate::server) const fn new(gate: Option<Gate>, message_bytes_max: usize) -> Self {
        Self { gate, message_bytes_max }
    }
}

impl Policy for Names {
    fn apply(
        &self,
        request: Request<Body>,
        next: impl FnOnce(Request<Body>) -> Reply + Send + 'static,
    ) -> Reply {
        let Some(gate) = self.gate.clone() else { return next(request) };
        let caller = request.extensions().get::<Arc<Caller>>().cloned();
        let caller = caller.filter(|caller| gate.looks_at_names(request.uri().path(), caller));
        let Some(caller) = caller else { return next(request) };
        let bytes_max = self.message_bytes_max.saturating_add(FRAME_HEAD_BYTES);
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let checked = async {
                let body = Limited::new(body, bytes_max).collect().await.map_err(|_| unreadable())?;
                let bytes = body.to_bytes();
                let message = message(&bytes).ok_or_else(unreadable)?;
                gate.check_names(head.uri.path(), &caller, message).await?;
                Ok::<_, Refusal>(bytes)
            };
            match checked.await {
                Ok(bytes) => next(Request::from_parts(head, Body::new(Full::new(bytes)))).await,
                Err(refusal) => Status::from(refusal).into_http(),
            }
        })
    }
}

/// The one message of a request that is neither compressed nor followed by anything.
fn message(body: &[u8]) -> Option<&[u8]> {
    let (head, message) = body.split_at_checked(FRAME_HEAD_BYTES)?;
    let (flag, length) = head.split_first()?;
    let length = u32::from_be_bytes(length.try_into().ok()?);
    (*flag == 0 && usize::try_from(length).ok()? == message.len()).then_some(message)
}

fn unreadable() -> Refusal {
    let message = "the request is compressed, too large, or no single message";
    Refusal::new(Code::InvalidArgument, reason::REQUEST_UNREADABLE, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_plain_message_is_read() {
        for (body, expected) in [
            (&[0, 0, 0, 0, 2, 7, 8][..], Some(&[7, 8][..])),
            (&[0, 0, 0, 0, 0], Some(&[])),
            (&[1, 0, 0, 0, 1, 7], None),
            (&[0, 0, 0, 0, 1], None),
            (&[0, 0, 0, 0, 1, 7, 8], None),
            (&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0], None),
            (&[0, 0], None),
        ] {
            assert_eq!(message(body), expected, "{body:?}");
        }
    }
}
