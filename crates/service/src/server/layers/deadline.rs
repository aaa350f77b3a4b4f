//! The lower of the caller's deadline and the service's own limit, up to the head of the answer.
//!
//! The transport has a timer of its own for `grpc-timeout`, outside of every layer, and it answers 200 with CANCELLED, also where the
//! caller speaks HTTP. It can not be switched off; so it must never be the first. It asks what is inside of it before it looks at itself, hence:
//! - the limit counts from the instant at which the outermost layer saw the call, which is before the transport's begins;
//! - a caller's own deadline is over one [`TICK`] early: timers are rounded up to ticks, and those of one tick have no order;
//! - this layer is outside of all that waits for anything, so that its timer is there whenever the transport's is.

use std::time::Duration;

use http::{HeaderMap, Request};
use tokio::time::Instant;
use tonic::{Status, body::Body};

use super::{Policy, Reply};
use crate::{Code, Refusal, reason};

/// What the timers of the runtime can tell apart.
const TICK: Duration = Duration::from_millis(1);

/// When a call came: read before anything is done for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrived(Instant);

#[derive(Clone, Copy, Debug)]
pub(in crate::server) struct Deadline {
    at_most: Duration,
}

impl Arrived {
    pub(super) fn now() -> Self {
        Self(Instant::now())
    }
}

impl Deadline {
    pub(in crate::server) const fn at_most(at_most: Duration) -> Self {
        Self { at_most }
    }
}

impl Policy for Deadline {
    fn apply(
        &self,
        request: Request<Body>,
        next: impl FnOnce(Request<Body>) -> Reply + Send + 'static,
    ) -> Reply {
        let arrived = request.extensions().get().copied().unwrap_or_else(Arrived::now);
        let asked = of_caller(request.headers());
        let limit = asked.map_or(self.at_most, |asked| asked.min(self.at_most));
        let own = arrived.0 + self.at_most;
        let due = asked.map_or(own, |asked| own.min(before(arrived, asked)));
        Box::pin(async move {
            match tokio::time::timeout_at(due, next(request)).await {
                Ok(response) => response,
                Err(_) => Status::from(exceeded(limit)).into_http(),
            }
        })
    }
}

/// Until when the caller of these headers, who came then, must have an answer, and how long that is; `None` where it asked for nothing.
pub(super) fn asked(arrived: Arrived, headers: &HeaderMap) -> Option<(Instant, Duration)> {
    let asked = of_caller(headers)?;
    Some((before(arrived, asked), asked))
}

pub(super) fn exceeded(limit: Duration) -> Refusal {
    Refusal::new(Code::DeadlineExceeded, reason::DEADLINE_EXCEEDED, "the call took too long")
        .metadata("limit_ms", limit.as_millis())
}

/// Eight digits of hours are far inside of what an instant holds.
fn before(arrived: Arrived, asked: Duration) -> Instant {
    arrived.0 + asked.saturating_sub(TICK)
}

/// `grpc-timeout`: at most eight digits and a unit.
fn of_caller(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(count * 3600)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use http::Response;

    use super::*;
    use crate::server::Door;

    /// What never answers.
    fn silent(_: Request<Body>) -> Reply {
        Box::pin(std::future::pending())
    }

    fn call(arrived: Option<Arrived>, asked: Option<&str>) -> Request<Body> {
        let mut request = Request::new(Body::empty());
        if let Some(arrived) = arrived {
            request.extensions_mut().insert(arrived);
        }
        if let Some(asked) = asked {
            request.headers_mut().insert("grpc-timeout", asked.parse().unwrap());
        }
        request
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_counts_from_the_arrival_and_is_over_before_the_transports() {
        let at_most = Duration::from_millis(100);
        for (asked, waited_ms, expected_ms, limit_ms) in [
            (None, 30, 70, "100"),
            (Some("50m"), 30, 19, "50"),
            (Some("50m"), 0, 49, "50"),
            (Some("100m"), 0, 99, "100"),
            (Some("101m"), 0, 100, "100"),
            (Some("9S"), 0, 100, "100"),
            (Some("1m"), 0, 0, "1"),
            (Some("50m"), 60, 0, "50"),
        ] {
            let arrived = Arrived::now();
            tokio::time::advance(Duration::from_millis(waited_ms)).await;
            let began = Instant::now();
            let answer = Deadline::at_most(at_most).apply(call(Some(arrived), asked), silent).await;
            let status = Status::from_header_map(answer.headers()).unwrap();
            assert_eq!(status.code(), tonic::Code::DeadlineExceeded);
            assert_eq!(began.elapsed().as_millis(), expected_ms, "{asked:?} {waited_ms}");
            let info = tonic_types::StatusExt::get_details_error_info(&status).unwrap();
            assert_eq!(info.metadata["limit_ms"], limit_ms);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_there_in_time_is_answered_also_where_no_time_is_left() {
        let at_once = |_| -> Reply { Box::pin(async { Response::new(Body::empty()) }) };
        let answer = Deadline::at_most(Duration::from_millis(1)).apply(call(None, Some("0n")), at_once).await;
        assert!(answer.headers().is_empty(), "{answer:?}");
    }

    /// Turning a long answer takes time after the inner layers are done.
    #[tokio::test(start_paused = true)]
    async fn a_call_over_http_has_its_deadline_to_the_end_of_its_answer() {
        let limits = crate::json::Limits { target_bytes_max: 100, body_bytes_max: 100 };
        let door = Door::new(&[], Vec::new(), limits).unwrap();
        let began = Instant::now();
        let answer = door.apply(call(None, Some("50m")), silent).await;
        assert_eq!((answer.status().as_u16(), began.elapsed().as_millis()), (504, 49));
    }

    #[test]
    fn the_callers_deadline_is_read() {
        for (text, expected) in [
            ("5S", Some(Duration::from_secs(5))),
            ("99999999H", Some(Duration::from_secs(99_999_999 * 3600))),
            ("250m", Some(Duration::from_millis(250))),
            ("1", None),
            ("", None),
            ("S", None),
            ("+1S", None),
            ("123456789S", None),
            ("1s", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", text.parse().unwrap());
            assert_eq!(of_caller(&headers), expected, "{text}");
        }
    }
}
