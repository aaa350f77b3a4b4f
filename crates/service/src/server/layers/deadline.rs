//! The lower of the caller's deadline and the service's own limit, up to the head of the answer.

use std::time::Duration;

use http::{HeaderMap, Request};
use tonic::{Status, body::Body};

use super::{Policy, Reply};
use crate::{Code, Refusal, reason};

#[derive(Clone, Copy, Debug)]
pub(in crate::server) struct Deadline {
    at_most: Duration,
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
        let limit = of_caller(request.headers()).map_or(self.at_most, |asked| asked.min(self.at_most));
        Box::pin(async move {
            match tokio::time::timeout(limit, next(request)).await {
                Ok(response) => response,
                Err(_) => {
                    let refusal = Refusal::new(
                        Code::DeadlineExceeded,
                        reason::DEADLINE_EXCEEDED,
                        "the call took too long",
                    )
                    .metadata("limit_ms", limit.as_millis());
                    Status::from(refusal).into_http()
                }
            }
        })
    }
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
    use super::*;

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
