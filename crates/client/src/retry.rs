//! What a refusal means to a caller, and calling again where that can help.
//!
//! A call is repeated only for codes that say nothing about the request itself. Mutating calls carry a
//! `request_id`, so a repeated one has the effect of one. Every retry is bounded by
//! [`RetryOptions::attempts_max`] and jittered, so that callers do not come back in step.

use std::{error::Error as _, future::Future, time::Duration};

use backon::{ExponentialBuilder, Retryable as _};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// Limits of one retried call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetryOptions {
    /// Most attempts, the first among them.
    pub attempts_max: usize,
    /// The first pause, in ms; each next one doubles.
    pub pause_min_ms: u64,
    /// The longest pause, in ms.
    pub pause_max_ms: u64,
}

impl Default for RetryOptions {
    fn default() -> Self {
        Self { attempts_max: 5, pause_min_ms: 50, pause_max_ms: 2_000 }
    }
}

impl RetryOptions {
    fn backoff(self) -> ExponentialBuilder {
        ExponentialBuilder::new()
            .with_min_delay(Duration::from_millis(self.pause_min_ms))
            .with_max_delay(Duration::from_millis(self.pause_max_ms.max(self.pause_min_ms)))
            .with_max_times(self.attempts_max.saturating_sub(1))
            .with_jitter()
    }
}

/// Calls until an answer comes that another attempt would not change, or the attempts are used up.
///
/// # Errors
/// The last status.
pub async fn retry<T, F, Fut>(options: RetryOptions, call: F) -> Result<T, Status>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, Status>>,
{
    call.retry(options.backoff()).when(is_transient).await
}

/// Whether the same request may succeed when it is sent again.
#[must_use]
pub fn is_transient(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable | Code::ResourceExhausted | Code::Aborted | Code::DeadlineExceeded => true,
        // A broken connection has no code of its own: it is a local status with a cause. The same code
        // sent by the peer has no cause here.
        Code::Unknown | Code::Cancelled | Code::Internal => status.source().is_some(),
        Code::Ok
        | Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::DataLoss
        | Code::Unauthenticated => false,
    }
}

/// The stable reason of a refusal (`ErrorInfo.reason`), where the peer gave one.
#[must_use]
pub fn reason_of(status: &Status) -> Option<String> {
    status.get_details_error_info().map(|info| info.reason)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tonic_types::ErrorDetails;

    use super::*;

    #[test]
    fn codes_about_the_request_are_permanent() {
        for (code, transient) in [
            (Code::Unavailable, true),
            (Code::DeadlineExceeded, true),
            (Code::Aborted, true),
            (Code::ResourceExhausted, true),
            (Code::InvalidArgument, false),
            (Code::NotFound, false),
            (Code::FailedPrecondition, false),
            (Code::Internal, false),
            (Code::Unknown, false),
        ] {
            assert_eq!(is_transient(&Status::new(code, "x")), transient, "{code:?}");
        }
        let broken = Status::from_error(Box::new(std::io::Error::other("connection reset")));
        assert!(is_transient(&broken));
    }

    #[test]
    fn the_reason_is_read_from_the_details() {
        let mut details = ErrorDetails::new();
        details.set_error_info("PRODUCER_UNKNOWN", "drawdown", [("id".to_owned(), "prod_x".to_owned())]);
        let status = Status::with_error_details(Code::NotFound, "producer is not known", details);
        assert_eq!(reason_of(&status).as_deref(), Some("PRODUCER_UNKNOWN"));
        assert_eq!(reason_of(&Status::not_found("x")), None);
    }

    #[tokio::test(start_paused = true)]
    async fn attempts_are_bounded_and_stop_at_the_first_verdict() {
        for (code, expected) in [(Code::Unavailable, 3), (Code::NotFound, 1)] {
            let attempts = AtomicUsize::new(0);
            let options = RetryOptions { attempts_max: 3, ..RetryOptions::default() };
            let outcome: Result<(), Status> = retry(options, || async {
                attempts.fetch_add(1, Ordering::Relaxed);
                Err(Status::new(code, "no"))
            })
            .await;
            assert_eq!(outcome.map_err(|status| status.code()), Err(code));
            assert_eq!(attempts.load(Ordering::Relaxed), expected);
        }
    }
}
