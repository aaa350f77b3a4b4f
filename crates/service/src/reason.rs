//! Stable reasons that every service may answer with. Each is listed in `proto/README.md`.

/// The service failed; the cause is in its log under the request id.
pub const INTERNAL: &str = "INTERNAL";
/// Something the service needs does not answer at the moment; the same call may succeed later.
pub const UNAVAILABLE: &str = "UNAVAILABLE";
/// The service has as many calls in hand as it takes at once.
pub const OVERLOADED: &str = "OVERLOADED";
/// The call took longer than its deadline or the service's own limit.
pub const DEADLINE_EXCEEDED: &str = "DEADLINE_EXCEEDED";
/// A page token that this list did not give out.
pub const PAGE_TOKEN_INVALID: &str = "PAGE_TOKEN_INVALID";
