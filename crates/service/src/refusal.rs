//! How a service says no: a small own set of codes, a stable reason, every offending field at once.
//!
//! A refusal is the caller's to act on and carries nothing internal. What the service itself got wrong
//! goes through [`internal`] or [`unavailable`]: the whole chain of causes is logged here, once, and
//! the caller gets the request id to ask about.

use std::{fmt, time::Duration};

use tonic::Status;
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

use crate::{reason, server::request_id};

/// Whose reasons these are, in `google.rpc.ErrorInfo`.
pub const DOMAIN: &str = "drawdown";
/// At most this many violations are sent; a message with more is wrong as a whole.
pub const VIOLATIONS_MAX: usize = 100;
/// What a caller is told to wait where the service knows nothing better.
pub const RETRY_AFTER_DEFAULT: Duration = Duration::from_secs(1);

/// The codes this platform answers with: a restricted subset of gRPC's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The request is wrong by itself.
    InvalidArgument,
    /// What it names does not exist.
    NotFound,
    /// What it makes exists already.
    AlreadyExists,
    /// It does not fit the present state; retrying does not help.
    FailedPrecondition,
    /// It lost a race; read again and retry.
    Aborted,
    /// Past a limit: of the caller, or of the service.
    ResourceExhausted,
    /// Who asks is not known.
    Unauthenticated,
    /// Who asks may not.
    PermissionDenied,
    /// It took too long.
    DeadlineExceeded,
    /// Not now; the same call may succeed later.
    Unavailable,
    /// The service failed.
    Internal,
}

/// One offending field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Path of the field, such as `lines[3].quantity`.
    pub field: String,
    /// What is wrong and what would be right.
    pub description: String,
    /// A reason of its own, where one call can be wrong in ways that callers tell apart.
    pub reason: Option<&'static str>,
}

/// A refused call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The code.
    pub code: Code,
    /// The stable reason, listed in `proto/README.md`.
    pub reason: &'static str,
    /// For people.
    pub message: String,
    /// The offending fields, all at once.
    pub violations: Vec<Violation>,
    /// When to try again.
    pub retry_after: Option<Duration>,
    /// Values that belong to the reason.
    pub metadata: Vec<(&'static str, String)>,
}

/// Collects what is wrong with a message while it is decoded.
#[derive(Debug, Default)]
pub struct Violations {
    path: String,
    found: Vec<Violation>,
}

impl From<Code> for tonic::Code {
    fn from(code: Code) -> Self {
        match code {
            Code::InvalidArgument => Self::InvalidArgument,
            Code::NotFound => Self::NotFound,
            Code::AlreadyExists => Self::AlreadyExists,
            Code::FailedPrecondition => Self::FailedPrecondition,
            Code::Aborted => Self::Aborted,
            Code::ResourceExhausted => Self::ResourceExhausted,
            Code::Unauthenticated => Self::Unauthenticated,
            Code::PermissionDenied => Self::PermissionDenied,
            Code::DeadlineExceeded => Self::DeadlineExceeded,
            Code::Unavailable => Self::Unavailable,
            Code::Internal => Self::Internal,
        }
    }
}

// === impl Refusal ===

impl Refusal {
    /// A refusal without violations.
    #[must_use]
    pub fn new(code: Code, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            reason,
            message: message.into(),
            violations: Vec::new(),
            retry_after: None,
            metadata: Vec::new(),
        }
    }

    /// With one more offending field.
    #[must_use]
    pub fn violation(mut self, field: impl Into<String>, description: impl fmt::Display) -> Self {
        self.violations.push(Violation {
            field: field.into(),
            description: description.to_string(),
            reason: None,
        });
        self
    }

    /// With a hint when to try again.
    #[must_use]
    pub fn retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self
    }

    /// With a value that belongs to the reason.
    #[must_use]
    pub fn metadata(mut self, key: &'static str, value: impl fmt::Display) -> Self {
        self.metadata.push((key, value.to_string()));
        self
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let metadata: std::collections::HashMap<String, String> =
            refusal.metadata.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        let mut details = ErrorDetails::with_error_info(refusal.reason, DOMAIN, metadata);
        if !refusal.violations.is_empty() {
            let violations: Vec<FieldViolation> = refusal
                .violations
                .into_iter()
                .take(VIOLATIONS_MAX)
                .map(|violation| FieldViolation {
                    field: violation.field,
                    description: violation.description,
                    reason: violation.reason.unwrap_or_default().to_owned(),
                    localized_message: None,
                })
                .collect();
            details.set_bad_request(violations);
        }
        if let Some(delay) = refusal.retry_after {
            details.set_retry_info(Some(delay));
        }
        Self::with_error_details(refusal.code.into(), refusal.message, details)
    }
}

// === impl Violations ===

impl Violations {
    /// Nothing wrong yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs a check of one field; `None` and a violation where it fails.
    pub fn field<T, E: fmt::Display>(
        &mut self,
        field: &str,
        check: impl FnOnce() -> Result<T, E>,
    ) -> Option<T> {
        check().map_err(|error| self.push(field, error)).ok()
    }

    /// The value of a field that has to be there.
    pub fn require<T>(&mut self, field: &str, value: Option<T>) -> Option<T> {
        if value.is_none() {
            self.push(field, "must be set");
        }
        value
    }

    /// One more violation.
    pub fn push(&mut self, field: &str, description: impl fmt::Display) {
        self.add(None, field, description.to_string());
    }

    /// One more violation, which has a reason of its own; the first such reason names the refusal.
    pub fn push_as(&mut self, reason: &'static str, field: &str, description: impl fmt::Display) {
        self.add(Some(reason), field, description.to_string());
    }

    fn add(&mut self, reason: Option<&'static str>, field: &str, description: String) {
        let field = match (self.path.as_str(), field) {
            ("", field) => field.to_owned(),
            (path, "") => path.to_owned(),
            (path, field) => format!("{path}.{field}"),
        };
        if self.found.len() < VIOLATIONS_MAX {
            self.found.push(Violation { field, description, reason });
        }
    }

    /// Checks inside a nested message: fields found in there get `path` before their names.
    pub fn within<T>(&mut self, path: &str, check: impl FnOnce(&mut Self) -> T) -> T {
        let outer = self.path.clone();
        self.path = if outer.is_empty() { path.to_owned() } else { format!("{outer}.{path}") };
        let result = check(self);
        self.path = outer;
        result
    }

    /// With what was found elsewhere in the same message.
    pub fn append(&mut self, other: Self) {
        let room = VIOLATIONS_MAX.saturating_sub(self.found.len());
        self.found.extend(other.found.into_iter().take(room));
    }

    /// Nothing was wrong.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// The decoded value, or everything that was wrong with it.
    ///
    /// # Errors
    /// A refusal under `reason`, or under the own reason of a violation.
    pub fn finish<T>(self, reason: &'static str, decoded: Option<T>) -> Result<T, Refusal> {
        match decoded {
            Some(value) if self.found.is_empty() => Ok(value),
            _ => Err(self.into_refusal(reason)),
        }
    }

    /// Nothing, or everything that was wrong.
    ///
    /// # Errors
    /// As [`Violations::finish`].
    pub fn check(self, reason: &'static str) -> Result<(), Refusal> {
        self.finish(reason, Some(()))
    }

    fn into_refusal(self, reason: &'static str) -> Refusal {
        let message = match self.found.as_slice() {
            [] => "request is invalid".to_owned(),
            [only] => format!("{}: {}", only.field, only.description),
            many => format!("{} fields are invalid", many.len()),
        };
        let reason = self.found.iter().find_map(|violation| violation.reason).unwrap_or(reason);
        let mut refusal = Refusal::new(Code::InvalidArgument, reason, message);
        refusal.violations = self.found;
        refusal
    }
}

/// Logs the whole chain of causes once and answers a bare INTERNAL with the request id.
pub fn internal(error: impl Into<anyhow::Error>) -> Status {
    let error = error.into();
    tracing::error!(error.chain = %chain(&error), request.id = %request_id::current(), "call failed");
    let refusal = Refusal::new(Code::Internal, reason::INTERNAL, "the service failed");
    refusal.metadata("request_id", request_id::current()).into()
}

/// Logs the whole chain of causes once and answers UNAVAILABLE: for transient causes.
pub fn unavailable(error: impl Into<anyhow::Error>) -> Status {
    let error = error.into();
    tracing::warn!(error.chain = %chain(&error), request.id = %request_id::current(), "call can not be served now");
    Refusal::new(Code::Unavailable, reason::UNAVAILABLE, "the service can not answer at the moment")
        .retry_after(RETRY_AFTER_DEFAULT)
        .metadata("request_id", request_id::current())
        .into()
}

/// An error and its causes in one line.
#[must_use]
pub fn chain(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests;
