//! Stable reasons of this service. Each is listed in `proto/README.md`.

pub mod access;

/// Fields of the request are wrong; the violations name them.
pub const REQUEST_INVALID: &str = "REQUEST_INVALID";
/// More questions than one batch may hold.
pub const BATCH_TOO_LARGE: &str = "BATCH_TOO_LARGE";
/// The request id was used before, for other content.
pub const REQUEST_ID_CONFLICT: &str = "REQUEST_ID_CONFLICT";
/// Only an operator may enter a past, or take back what an operator scheduled.
pub const OPERATOR_NEEDED: &str = "OPERATOR_NEEDED";
/// There is no such account.
pub const ACCOUNT_UNKNOWN: &str = "ACCOUNT_UNKNOWN";
/// Accounts can not be opened in the cell: `cells` does not name it.
pub const CELL_UNKNOWN: &str = "CELL_UNKNOWN";
/// There is no such team.
pub const TEAM_UNKNOWN: &str = "TEAM_UNKNOWN";
/// There is no such user.
pub const USER_UNKNOWN: &str = "USER_UNKNOWN";
/// There is no such app.
pub const APP_UNKNOWN: &str = "APP_UNKNOWN";
/// There is no such credential.
pub const CREDENTIAL_UNKNOWN: &str = "CREDENTIAL_UNKNOWN";
/// The credential is revoked.
pub const CREDENTIAL_REVOKED: &str = "CREDENTIAL_REVOKED";
/// A change is scheduled too far ahead.
pub const CHANGE_TOO_FAR_AHEAD: &str = "CHANGE_TOO_FAR_AHEAD";
/// A contract that begins at or after the edge would be cut.
pub const CONTRACT_OVERLAP: &str = "CONTRACT_OVERLAP";
/// An instant lies in the past, where only the present and the future can be changed.
pub const INSTANT_IN_PAST: &str = "INSTANT_IN_PAST";
/// Only an admin of the team may do this.
pub const ADMIN_NEEDED: &str = "ADMIN_NEEDED";
/// The person has no role in the team.
pub const USER_NOT_OF_TEAM: &str = "USER_NOT_OF_TEAM";
/// There is no such transfer.
pub const TRANSFER_UNKNOWN: &str = "TRANSFER_UNKNOWN";
/// The person has no say in this step of the transfer.
pub const TRANSFER_NOT_PERMITTED: &str = "TRANSFER_NOT_PERMITTED";
/// Another transfer of the app is open.
pub const TRANSFER_OPEN: &str = "TRANSFER_OPEN";
/// The transfer is confirmed, withdrawn, declined or expired.
pub const TRANSFER_OVER: &str = "TRANSFER_OVER";
/// The step does not follow what was done of the transfer so far.
pub const TRANSFER_OUT_OF_ORDER: &str = "TRANSFER_OUT_OF_ORDER";
/// The app is assigned to the team already.
pub const TRANSFER_SAME_TEAM: &str = "TRANSFER_SAME_TEAM";
/// A side of the transfer is not out of its trial.
pub const TRANSFER_IN_TRIAL: &str = "TRANSFER_IN_TRIAL";
/// The person invited owns the app.
pub const USER_OWNS_APP: &str = "USER_OWNS_APP";
/// The person is no buyer of the team and has no product assignment.
pub const PRODUCT_NOT_ASSIGNED: &str = "PRODUCT_NOT_ASSIGNED";
/// The app has no team.
pub const APP_WITHOUT_TEAM: &str = "APP_WITHOUT_TEAM";
/// The account or the team is suspended.
pub const SUSPENDED: &str = "SUSPENDED";
/// The balance of the team is below zero.
pub const BALANCE_BELOW_ZERO: &str = "BALANCE_BELOW_ZERO";
/// The account lives in another cell, whose ledger entitlement does not know.
pub const CELL_UNREACHED: &str = "CELL_UNREACHED";
/// There is no such hub.
pub const HUB_UNKNOWN: &str = "HUB_UNKNOWN";
/// The hub belongs to another account than the app.
pub const HUB_OF_OTHER_ACCOUNT: &str = "HUB_OF_OTHER_ACCOUNT";
/// No change of that id is scheduled.
pub const CHANGE_UNKNOWN: &str = "CHANGE_UNKNOWN";
/// The change is of a confirmed transfer.
pub const CHANGE_OF_TRANSFER: &str = "CHANGE_OF_TRANSFER";
/// The change takes effect too soon to be taken back.
pub const CHANGE_TOO_NEAR: &str = "CHANGE_TOO_NEAR";
/// The app had no team at the end of the interval.
pub const CORRECTION_LEAVES_GAP: &str = "CORRECTION_LEAVES_GAP";
/// The ledger was told of the first team of the app.
pub const FIRST_TEAM_TOLD: &str = "FIRST_TEAM_TOLD";
/// The interval ends before it begins.
pub const INTERVAL_EMPTY: &str = "INTERVAL_EMPTY";
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
/// What is imported does not fit; the violations name each place.
pub const IMPORT_REFUSED: &str = "IMPORT_REFUSED";
/// The account has several teams: the buyer names one.
pub const TEAM_NOT_NAMED: &str = "TEAM_NOT_NAMED";
/// The team belongs to another account.
pub const TEAM_NOT_OF_ACCOUNT: &str = "TEAM_NOT_OF_ACCOUNT";
/// The account is in its trial: end it before buying.
pub const TRIAL_ACTIVE: &str = "TRIAL_ACTIVE";
/// As many watch access at this instance as may.
pub const WATCHERS_EXHAUSTED: &str = "WATCHERS_EXHAUSTED";
/// As many stream questions to this instance as may.
pub const STREAMS_EXHAUSTED: &str = "STREAMS_EXHAUSTED";
/// There is no such principal.
pub const PRINCIPAL_UNKNOWN: &str = "PRINCIPAL_UNKNOWN";
/// The principal ended.
pub const PRINCIPAL_ENDED: &str = "PRINCIPAL_ENDED";
/// The role is none of a principal of this account or team, or of none.
pub const ROLE_MISFIT: &str = "ROLE_MISFIT";
/// There is no such key.
pub const KEY_UNKNOWN: &str = "KEY_UNKNOWN";
/// The key is revoked or expired.
pub const KEY_REVOKED: &str = "KEY_REVOKED";
/// The principal has as many keys that are good as it may have.
pub const KEYS_TOO_MANY: &str = "KEYS_TOO_MANY";
