//! Stable reasons of this service. Each is listed in `proto/README.md`.

/// Fields of the request are wrong; the violations name them.
pub const REQUEST_INVALID: &str = "REQUEST_INVALID";
/// The request id was used before, for other content.
pub const REQUEST_ID_CONFLICT: &str = "REQUEST_ID_CONFLICT";

// === the gate ===

/// The batch number is settled with another content.
pub const BATCH_CONFLICT: &str = "BATCH_CONFLICT";
/// The batch number does not follow the last settled one.
pub const BATCH_NOT_NEXT: &str = "BATCH_NOT_NEXT";
/// The shard has another generation.
pub const GENERATION_STALE: &str = "GENERATION_STALE";
/// A lane's producer is not registered.
pub const LANE_UNKNOWN: &str = "LANE_UNKNOWN";
/// A lane's range does not follow what is settled of it.
pub const LANE_GAP: &str = "LANE_GAP";
/// A lane's range does not join the settled chain: the same sequence holds other events.
pub const LANE_DIVERGED: &str = "LANE_DIVERGED";
/// Events or totals do not add up.
pub const TOTALS_MISMATCH: &str = "TOTALS_MISMATCH";
/// The batch, or a part of it, is for another cell than the one it was sent to.
pub const CELL_MISMATCH: &str = "CELL_MISMATCH";
/// The shard has settled no batch of that number.
pub const BATCH_UNKNOWN: &str = "BATCH_UNKNOWN";
/// What the batch had for the cell is no longer kept.
pub const PART_GONE: &str = "PART_GONE";
/// The shard has no cursor yet.
pub const SHARD_UNKNOWN: &str = "SHARD_UNKNOWN";
/// The producer is not registered.
pub const PRODUCER_UNKNOWN: &str = "PRODUCER_UNKNOWN";
/// A newer opening of the producer's log is registered.
pub const FENCED: &str = "FENCED";
/// The range named as lost is settled.
pub const NOTHING_LOST: &str = "NOTHING_LOST";

// === events by id ===

/// The id of an event is recorded with another content.
pub const EVENT_ID_CONFLICT: &str = "EVENT_ID_CONFLICT";
/// The time of an event lies before what is kept.
pub const EVENT_TIME_TOO_OLD: &str = "EVENT_TIME_TOO_OLD";
/// The time of an event lies too far ahead.
pub const EVENT_TIME_IN_FUTURE: &str = "EVENT_TIME_IN_FUTURE";

// === catalogue ===

/// Another meter of that slug exists.
pub const METER_EXISTS: &str = "METER_EXISTS";
/// There is no such meter.
pub const METER_UNKNOWN: &str = "METER_UNKNOWN";
/// Another card of the contract kind prices the meter at that time.
pub const METER_PRICED_ELSEWHERE: &str = "METER_PRICED_ELSEWHERE";
/// A price that counts by the month would begin, change or end inside one (D47).
pub const PRICE_INSIDE_MONTH: &str = "PRICE_INSIDE_MONTH";
/// There is no such version of a rate card.
pub const RATE_CARD_UNKNOWN: &str = "RATE_CARD_UNKNOWN";
/// The version does not come after the last one of its card.
pub const RATE_CARD_OUT_OF_ORDER: &str = "RATE_CARD_OUT_OF_ORDER";
/// The version begins too early, and is no set-up.
pub const RATE_CARD_TOO_EARLY: &str = "RATE_CARD_TOO_EARLY";
/// Usage of the windows concerned is settled.
pub const WINDOW_SETTLED: &str = "WINDOW_SETTLED";

// === tokens ===

/// The account of the team lives in another cell.
pub const ACCOUNT_ELSEWHERE: &str = "ACCOUNT_ELSEWHERE";
/// Fewer tokens than one purchase buys at least.
pub const PURCHASE_TOO_SMALL: &str = "PURCHASE_TOO_SMALL";
/// More tokens than one lot may hold.
pub const LOT_TOO_LARGE: &str = "LOT_TOO_LARGE";
/// The lot does not live in the team.
pub const LOT_UNKNOWN: &str = "LOT_UNKNOWN";
/// The lot is neither open nor scheduled.
pub const LOT_NOT_OPEN: &str = "LOT_NOT_OPEN";
/// Nothing is left of the lot.
pub const LOT_EMPTY: &str = "LOT_EMPTY";
/// Holds have set aside a part of the lot.
pub const LOT_HELD: &str = "LOT_HELD";
/// The lot was granted: only what was bought is refunded or charged back.
pub const LOT_NOT_BOUGHT: &str = "LOT_NOT_BOUGHT";
/// Less is left of the lot than was asked for.
pub const LOT_REMAINS_LESS: &str = "LOT_REMAINS_LESS";
/// The lot moved while it was looked at: try again.
pub const LOT_MOVED: &str = "LOT_MOVED";
/// The open lots hold less than was asked for.
pub const HOLD_INSUFFICIENT: &str = "HOLD_INSUFFICIENT";
/// A hold would be over before it begins, sooner than it is now, or after the lateness limit.
pub const HOLD_TIME_OUT_OF_RANGE: &str = "HOLD_TIME_OUT_OF_RANGE";
/// The team has no such hold.
pub const HOLD_UNKNOWN: &str = "HOLD_UNKNOWN";
/// The hold has ended.
pub const HOLD_OVER: &str = "HOLD_OVER";
/// The hold is for another app.
pub const HOLD_OF_OTHER_APP: &str = "HOLD_OF_OTHER_APP";
/// The sums of the team would not fit.
pub const BALANCE_OVERFLOW: &str = "BALANCE_OVERFLOW";
/// An original instant lies in the future.
pub const INSTANT_IN_FUTURE: &str = "INSTANT_IN_FUTURE";
/// The team was posted to after the instant asked for.
pub const INSTANT_BEFORE_POSTING: &str = "INSTANT_BEFORE_POSTING";
/// The account is in its trial: end it before buying.
pub const TRIAL_ACTIVE: &str = "TRIAL_ACTIVE";
/// Teams would not hold what an import says they must.
pub const IMPORT_NOT_TIED: &str = "IMPORT_NOT_TIED";
/// Another lot was bought by the order.
pub const ORDER_KNOWN: &str = "ORDER_KNOWN";
/// There is no such team.
pub const TEAM_UNKNOWN: &str = "TEAM_UNKNOWN";
/// The team belongs to another account.
pub const TEAM_NOT_OF_ACCOUNT: &str = "TEAM_NOT_OF_ACCOUNT";

// === corrections ===

/// The team has no such charge; of what can not be corrected itself, it is a correction.
pub const CHARGE_UNKNOWN: &str = "CHARGE_UNKNOWN";
/// Less stands of the charge than is to be taken back.
pub const CHARGE_STANDS_LESS: &str = "CHARGE_STANDS_LESS";
/// Charges of `max` and `unique` meters are taken back whole.
pub const CHARGE_WHOLE_ONLY: &str = "CHARGE_WHOLE_ONLY";
/// More of the latest lines are concerned than one correction may touch.
pub const CORRECTION_TOO_WIDE: &str = "CORRECTION_TOO_WIDE";
/// The usage that is to be charged instead can not be charged.
pub const RECHARGE_UNFIT: &str = "RECHARGE_UNFIT";

// === review ===

/// There is no such entry of unattributed usage.
pub const ENTRY_UNKNOWN: &str = "ENTRY_UNKNOWN";
/// An entry of unattributed usage is decided already.
pub const ENTRY_DECIDED: &str = "ENTRY_DECIDED";
/// Usage of the app was adopted by another team, or from another edge on.
pub const APP_ADOPTED: &str = "APP_ADOPTED";
/// A client id belongs to another app.
pub const CLIENT_OF_OTHER_APP: &str = "CLIENT_OF_OTHER_APP";

// === budgets ===

/// There is no such budget, or not yet in the month asked for.
pub const BUDGET_UNKNOWN: &str = "BUDGET_UNKNOWN";

// === notices ===

/// A cursor of another installation or filter.
pub const CURSOR_FOREIGN: &str = "CURSOR_FOREIGN";
/// Notices behind the cursor were removed because of their age.
pub const CURSOR_EXPIRED: &str = "CURSOR_EXPIRED";
/// This instance has as many streams as it takes.
pub const STREAMS_EXHAUSTED: &str = "STREAMS_EXHAUSTED";

// === reports ===

/// More groups than one answer may have.
pub const GROUPS_TOO_MANY: &str = "GROUPS_TOO_MANY";
/// The account has more teams than one report adds up.
pub const TEAMS_TOO_MANY: &str = "TEAMS_TOO_MANY";
/// A sum does not fit 64 bits.
pub const SUM_TOO_LARGE: &str = "SUM_TOO_LARGE";
/// The period of a statement is not over.
pub const PERIOD_NOT_OVER: &str = "PERIOD_NOT_OVER";
/// What was asked needs charges or journal rows that are archived.
pub const MONTHS_ARCHIVED: &str = "MONTHS_ARCHIVED";
/// There is no such statement.
pub const STATEMENT_UNKNOWN: &str = "STATEMENT_UNKNOWN";
/// As many explanations and what-ifs are running as may run at once.
pub const WHOLE_READS_EXHAUSTED: &str = "WHOLE_READS_EXHAUSTED";
/// The journal of the team is longer than what is replayed to explain a charge.
pub const JOURNAL_TOO_LONG: &str = "JOURNAL_TOO_LONG";
/// As many exports are running as may run at once.
pub const EXPORTS_EXHAUSTED: &str = "EXPORTS_EXHAUSTED";
