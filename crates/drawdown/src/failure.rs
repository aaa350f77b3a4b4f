//! How a command ends: its exit code, and what is said about a failure.

use std::{fmt::Write, process::ExitCode};

use drawdown_service::{Problem, config::ConfigError};
use tonic::Status;
use tonic_types::StatusExt;

/// Exit code of a command line or a configuration that can not be used (`EX_USAGE` of sysexits).
pub(crate) const BAD_CONFIGURATION: u8 = 64;
/// Exit code of every other failure.
pub(crate) const FAILED: u8 = 1;

/// A configuration that can not be used, with everything that is wrong.
#[derive(Debug, thiserror::Error)]
#[error("the configuration can not be used")]
pub(crate) struct BadConfiguration(pub(crate) Vec<Problem>);

/// A check that found something; the command has printed it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Found(pub(crate) String);

impl From<ConfigError> for BadConfiguration {
    fn from(error: ConfigError) -> Self {
        Self(error.problems())
    }
}

/// The exit code for a failure.
pub(crate) fn exit_code(error: &anyhow::Error) -> ExitCode {
    if error.is::<BadConfiguration>() { ExitCode::from(BAD_CONFIGURATION) } else { ExitCode::from(FAILED) }
}

/// What is said about a failure, on the standard error.
pub(crate) fn describe(error: &anyhow::Error) -> String {
    if let Some(BadConfiguration(problems)) = error.downcast_ref() {
        let lines: String = problems.iter().map(|problem| format!("  {problem}\n")).collect();
        return format!("drawdown: {error}:\n{lines}");
    }
    let status = error.chain().enumerate().find_map(|(depth, cause)| Some((depth, cause.downcast_ref()?)));
    match status {
        Some((depth, status)) => {
            let context: String = error.chain().take(depth).map(|cause| format!("{cause}: ")).collect();
            format!("drawdown: {context}{}", describe_status(status))
        }
        None => format!("drawdown: {}\n", drawdown_service::refusal::chain(error)),
    }
}

fn describe_status(status: &Status) -> String {
    let details = status.get_error_details();
    let reason =
        details.error_info().map_or_else(|| format!("{:?}", status.code()), |info| info.reason.clone());
    let mut text = format!("{} ({reason})\n", status.message());
    if let Some(bad) = details.bad_request() {
        for violation in &bad.field_violations {
            let line = format!("{}: {}", violation.field, violation.description);
            // A refusal for one field says it all in its message.
            if line != status.message() {
                let _ = writeln!(text, "  {line}");
            }
        }
    }
    if let Some(id) = details.error_info().and_then(|info| info.metadata.get("request_id")) {
        let _ = writeln!(text, "  the service's log has the cause under request id {id}");
    }
    if let Some(delay) = details.retry_info().and_then(|info| info.retry_delay) {
        let _ = writeln!(text, "  try again in {} ms", delay.as_millis());
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use drawdown_service::{Code, Refusal};

    use super::*;

    #[test]
    fn a_refusal_is_told_with_its_fields() {
        let refusal = Refusal::new(Code::InvalidArgument, "PURCHASE_BELOW_MINIMUM", "1 field is invalid")
            .violation("tokens", "99 is below the minimum of 100")
            .retry_after(Duration::from_secs(1));
        let error = anyhow::Error::from(Status::from(refusal)).context("purchase");
        insta::assert_snapshot!(describe(&error), @r"
        drawdown: purchase: 1 field is invalid (PURCHASE_BELOW_MINIMUM)
          tokens: 99 is below the minimum of 100
          try again in 1000 ms
        ");
    }

    #[test]
    fn a_bad_configuration_is_told_with_every_problem() {
        let problems =
            vec![Problem::new("ledger.server.listen", "is wrong"), Problem::new("x", "is unknown")];
        let error = anyhow::Error::from(BadConfiguration(problems));
        insta::assert_snapshot!(describe(&error), @r"
        drawdown: the configuration can not be used:
          ledger.server.listen: is wrong
          x: is unknown
        ");
    }

    #[test]
    fn other_failures_are_told_with_their_causes() {
        let error = anyhow::anyhow!("connection refused").context("can not reach the ledger");
        assert_eq!(describe(&error), "drawdown: can not reach the ledger: connection refused\n");
    }
}
