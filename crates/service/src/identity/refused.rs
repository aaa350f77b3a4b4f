//! What a caller is told who is not admitted: what to change, and nothing about keys, accounts or things of others.

use crate::{Code, Refusal, reason, refusal::RETRY_AFTER_DEFAULT};

pub(super) fn anonymous() -> Refusal {
    Refusal::new(Code::Unauthenticated, reason::IDENTITY_NEEDED, "the call carries no credential")
}

pub(super) fn malformed() -> Refusal {
    let message = "the key is not written as keys are: was it copied whole?";
    Refusal::new(Code::Unauthenticated, reason::KEY_MALFORMED, message)
}

/// One answer for what is unknown, wrong, revoked, expired, ended and of another kind.
pub(super) fn credential() -> Refusal {
    Refusal::new(Code::Unauthenticated, reason::CREDENTIAL_REFUSED, "the credential is not accepted")
}

pub(super) fn attempts() -> Refusal {
    let message = "too many failed attempts from this address";
    Refusal::new(Code::ResourceExhausted, reason::ATTEMPTS_EXHAUSTED, message)
        .retry_after(RETRY_AFTER_DEFAULT)
}

pub(super) fn unavailable() -> Refusal {
    let message = "who calls can not be found out at the moment";
    Refusal::new(Code::Unavailable, reason::IDENTITY_UNAVAILABLE, message).retry_after(RETRY_AFTER_DEFAULT)
}

pub(super) fn role() -> Refusal {
    Refusal::new(Code::PermissionDenied, reason::ROLE_NEEDED, "no role of the caller admits to this method")
}

/// One answer for what is of others and for what does not exist.
pub(super) fn scope() -> Refusal {
    let message = "the call is about more than the caller's own account or team";
    Refusal::new(Code::PermissionDenied, reason::NOT_IN_SCOPE, message)
}

pub(super) fn actor() -> Refusal {
    let message = "the person named as acting is not the one that the caller acts for";
    Refusal::new(Code::PermissionDenied, reason::ACTOR_DIFFERS, message)
}

pub(super) fn unreadable() -> Refusal {
    let message = "the request can not be read, or not in one way only";
    Refusal::new(Code::InvalidArgument, reason::REQUEST_UNREADABLE, message)
}

/// Whether a refusal was a try at a credential.
pub(super) fn is_failed_attempt(refusal: &Refusal) -> bool {
    matches!(refusal.reason, reason::KEY_MALFORMED | reason::CREDENTIAL_REFUSED)
}
