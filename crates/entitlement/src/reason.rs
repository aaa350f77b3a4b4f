//! Stable reasons of this service. Each is listed in `proto/README.md`.

/// Fields of the request are wrong; the violations name them.
pub const REQUEST_INVALID: &str = "REQUEST_INVALID";
/// More questions than one batch may hold.
pub const BATCH_TOO_LARGE: &str = "BATCH_TOO_LARGE";
/// The request id was used before, for other content.
pub const REQUEST_ID_CONFLICT: &str = "REQUEST_ID_CONFLICT";
/// There is no such account.
pub const ACCOUNT_UNKNOWN: &str = "ACCOUNT_UNKNOWN";
/// Accounts can not be opened in the cell: `cell_max` is below it.
pub const CELL_UNKNOWN: &str = "CELL_UNKNOWN";
/// There is no such team.
pub const TEAM_UNKNOWN: &str = "TEAM_UNKNOWN";
/// There is no such user.
pub const USER_UNKNOWN: &str = "USER_UNKNOWN";
/// There is no such app.
pub const APP_UNKNOWN: &str = "APP_UNKNOWN";
/// Another user has the mail address.
pub const EMAIL_TAKEN: &str = "EMAIL_TAKEN";
/// An original instant lies in the future.
pub const INSTANT_IN_FUTURE: &str = "INSTANT_IN_FUTURE";
/// An original instant lies before the account was opened.
pub const INSTANT_BEFORE_ACCOUNT: &str = "INSTANT_BEFORE_ACCOUNT";
/// An assignment would begin before the team was created.
pub const INSTANT_BEFORE_TEAM: &str = "INSTANT_BEFORE_TEAM";
/// App and team belong to different accounts.
pub const APP_AND_TEAM_DIFFER: &str = "APP_AND_TEAM_DIFFER";
/// An assignment that begins at or after the edge would be cut.
pub const ASSIGNMENT_OVERLAP: &str = "ASSIGNMENT_OVERLAP";
/// An assignment is scheduled too far ahead.
pub const ASSIGNMENT_TOO_FAR_AHEAD: &str = "ASSIGNMENT_TOO_FAR_AHEAD";
/// Usage of the windows concerned is settled.
pub const WINDOW_SETTLED: &str = "WINDOW_SETTLED";
/// The app has as many credentials as it may have.
pub const CREDENTIALS_TOO_MANY: &str = "CREDENTIALS_TOO_MANY";
/// The team has another primary admin.
pub const PRIMARY_ADMIN_TAKEN: &str = "PRIMARY_ADMIN_TAKEN";
/// The ledger can not say at the moment whether usage is settled.
pub const LEDGER_UNAVAILABLE: &str = "LEDGER_UNAVAILABLE";
/// Other acts were in the way; read again and retry.
pub const OVERTAKEN: &str = "OVERTAKEN";
