//! Why access is allowed or refused: what follows `ACCESS_REASON_` on the wire, and the labels of its metric.

/// No credential has this client id.
pub const CLIENT_UNKNOWN: &str = "CLIENT_UNKNOWN";
/// The credential is revoked.
pub const CLIENT_REVOKED: &str = "CLIENT_REVOKED";
/// The account is suspended by the operator.
pub const ACCOUNT_SUSPENDED: &str = "ACCOUNT_SUSPENDED";
/// The team is suspended by the operator.
pub const TEAM_SUSPENDED: &str = "TEAM_SUSPENDED";
/// Hub mode is on, and the app is outside of the hubs of its account.
pub const APP_ARCHIVED: &str = "APP_ARCHIVED";
/// The catalogue has no such meter.
pub const METER_NOT_KNOWN: &str = "METER_NOT_KNOWN";
/// The app has no team, and the use would be charged.
pub const TEAM_MISSING: &str = "TEAM_MISSING";
/// The app's owner may not use the tokens of the team.
pub const PRODUCT_MISSING: &str = "PRODUCT_MISSING";
/// The team is below zero and its grace is over.
pub const GRACE_OVER: &str = "GRACE_OVER";
/// The team is below zero, and another team of the account is past its deadline.
pub const ACCOUNT_WITHOUT_GRACE: &str = "ACCOUNT_WITHOUT_GRACE";
/// The team owes more than the debt limit.
pub const DEBT_LIMIT_PASSED: &str = "DEBT_LIMIT_PASSED";
/// The meter is hard, and the balance can not cover the use.
pub const BALANCE_TOO_LOW: &str = "BALANCE_TOO_LOW";
/// The meter is free-tier only, and the use is above the month's free quota.
pub const FREE_QUOTA_USED_UP: &str = "FREE_QUOTA_USED_UP";
/// A hard budget of the app has reached its cap.
pub const APP_BUDGET_REACHED: &str = "APP_BUDGET_REACHED";
/// A hard budget of the team has reached its cap.
pub const TEAM_BUDGET_REACHED: &str = "TEAM_BUDGET_REACHED";
/// A hard budget of the account has reached its cap.
pub const ACCOUNT_BUDGET_REACHED: &str = "ACCOUNT_BUDGET_REACHED";
/// What is known is too old, and the meter's policy refuses.
pub const REFUSED_WHILE_STALE: &str = "REFUSED_WHILE_STALE";
/// Allowed: the account is in its trial.
pub const IN_TRIAL: &str = "IN_TRIAL";
/// Allowed: nothing is in the way.
pub const IN_FULL: &str = "IN_FULL";
/// Allowed: the team is below zero, until the deadline of its grace.
pub const IN_GRACE: &str = "IN_GRACE";
/// Allowed: the use costs nothing, where charged use would be refused or is not known to be allowed.
pub const FREE_OF_CHARGE: &str = "FREE_OF_CHARGE";
/// Allowed: what is known is too old, and the meter's policy allows.
pub const ALLOWED_WHILE_STALE: &str = "ALLOWED_WHILE_STALE";

/// All of them, in the order of `drawdown_entitlement_core::access::Reason`.
pub const NAMES: [&str; 22] = [
    CLIENT_UNKNOWN,
    CLIENT_REVOKED,
    ACCOUNT_SUSPENDED,
    TEAM_SUSPENDED,
    APP_ARCHIVED,
    METER_NOT_KNOWN,
    TEAM_MISSING,
    PRODUCT_MISSING,
    GRACE_OVER,
    ACCOUNT_WITHOUT_GRACE,
    DEBT_LIMIT_PASSED,
    BALANCE_TOO_LOW,
    FREE_QUOTA_USED_UP,
    APP_BUDGET_REACHED,
    TEAM_BUDGET_REACHED,
    ACCOUNT_BUDGET_REACHED,
    REFUSED_WHILE_STALE,
    IN_TRIAL,
    IN_FULL,
    IN_GRACE,
    FREE_OF_CHARGE,
    ALLOWED_WHILE_STALE,
];
