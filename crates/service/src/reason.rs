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
/// Fields of the request are wrong; the violations name them.
pub const REQUEST_INVALID: &str = "REQUEST_INVALID";
/// No read has the path.
pub const PATH_UNKNOWN: &str = "PATH_UNKNOWN";
/// The path is not read by this HTTP method.
pub const HTTP_METHOD_UNKNOWN: &str = "HTTP_METHOD_UNKNOWN";
/// The body has more bytes than are taken.
pub const BODY_TOO_LARGE: &str = "BODY_TOO_LARGE";
/// The body is no JSON by its content type.
pub const BODY_NOT_JSON: &str = "BODY_NOT_JSON";
/// The target of the request (path and query) has more bytes than are taken.
pub const TARGET_TOO_LONG: &str = "TARGET_TOO_LONG";
/// The call carries no credential, and the method needs one.
pub const IDENTITY_NEEDED: &str = "IDENTITY_NEEDED";
/// A key is mistyped or cut off: its checksum does not fit.
pub const KEY_MALFORMED: &str = "KEY_MALFORMED";
/// The credential is unknown, wrong, revoked, expired, or of a kind that is not taken.
pub const CREDENTIAL_REFUSED: &str = "CREDENTIAL_REFUSED";
/// Too many failed attempts from one address.
pub const ATTEMPTS_EXHAUSTED: &str = "ATTEMPTS_EXHAUSTED";
/// The caller, or the owner of what is named, can not be found out at the moment.
pub const IDENTITY_UNAVAILABLE: &str = "IDENTITY_UNAVAILABLE";
/// No role of the caller admits to the method.
pub const ROLE_NEEDED: &str = "ROLE_NEEDED";
/// The call is about what is not the caller's own, or does not exist.
pub const NOT_IN_SCOPE: &str = "NOT_IN_SCOPE";
/// The person named as acting is not the one that the caller acts for.
pub const ACTOR_DIFFERS: &str = "ACTOR_DIFFERS";
/// A request whose owner has to be known can not be read in one way only.
pub const REQUEST_UNREADABLE: &str = "REQUEST_UNREADABLE";
