//! Reading charges: the one module that knows where they are stored, so that sums and lists stay as they
//! are for their callers wherever older usage comes to be kept.
//!
//! Charges have no index but the posting order of their team. A list walks it from a place on: the first that
//! can belong to the first day asked for, since usage is posted after its window began, or shortly before where
//! clocks differ ([`AHEAD_MAX`]). A sum reads what is rolled up by day or by hour, and walks the charges behind
//! that place only.
//!
//! What is still uncharged is never stored: it is a comparison of an item's place in the running debt
//! with what is settled of it (D7), which the caller takes from the team as rolled forward to the instant of
//! the answer, so a lot that started a moment ago has paid in it.

mod lines;

use std::{collections::BTreeMap, time::Duration};

use drawdown_types::{AccountId, AppId, ClientId, MeterSlug, MicroTokens, TeamId, Timestamp};
use sqlx::PgConnection;
use uuid::Uuid;

pub use self::lines::{DayUsage, LineQuery};
use super::Instant;
use crate::error::Error;

/// How long before its window usage may have been posted: far more than events may lie ahead of their
/// receipt.
pub(crate) const AHEAD_MAX: Duration = Duration::from_secs(2 * 86_400);

/// Conditions on charges; all must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct ChargeFilter {
    /// Any of these apps; empty for all.
    pub apps: Vec<AppId>,
    /// Any of these client ids; empty for all.
    pub clients: Vec<ClientId>,
    /// Any of these meters; empty for all.
    pub meters: Vec<MeterSlug>,
    /// These values of these dimensions.
    pub dimensions: BTreeMap<String, String>,
    /// Windows from this start of a UTC day on.
    pub from: Option<Timestamp>,
    /// Windows before this start of a UTC day.
    pub to: Option<Timestamp>,
    /// Only failed jobs, or only others.
    pub failed: Option<bool>,
    /// Only what was posted at this instant or before.
    pub recorded_until: Option<Timestamp>,
}

/// What of a team's running debt is settled.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Settled {
    /// How far it is settled without a gap.
    pub paid: MicroTokens,
    /// Its end.
    pub opened: MicroTokens,
    /// Where parts begin that were settled ahead of their turn.
    pub ahead_from: Vec<i64>,
    /// Where they end.
    pub ahead_to: Vec<i64>,
}

/// A team as a read sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenTeam {
    /// The team.
    pub team_id: TeamId,
    /// Its debt at the instant of the answer.
    pub settled: Settled,
}

/// A part of a team's charges, by posting order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The billed account.
    pub account_id: AccountId,
    /// The team.
    pub team_id: TeamId,
    /// After this one.
    pub after: i64,
    /// Up to this one.
    pub up_to: i64,
    /// What is open is what this leaves of the running debt.
    pub settled: Settled,
    /// At most so many rows.
    pub limit: i64,
}

/// A charge as stored, and what is open of it.
#[derive(Clone, Debug)]
pub struct ChargeRead {
    /// Posting order in the team.
    pub seq: i64,
    /// Its name.
    pub charge_id: Uuid,
    /// The app.
    pub app_id: Uuid,
    /// The client id as metered.
    pub client_id: String,
    /// The meter's slug.
    pub meter: String,
    /// The metered job failed.
    pub failed: bool,
    /// Start of the window.
    pub window_start: Instant,
    /// Dimensions as a JSON object of texts.
    pub dimensions: String,
    /// Events.
    pub events: i64,
    /// Quantity in the meter's base unit.
    pub quantity: i64,
    /// Price, paid or not.
    pub amount_micros: i64,
    /// What no lot covered when it was posted.
    pub uncharged_micros: i64,
    /// What is not paid at the position asked about.
    pub open_micros: i64,
    /// The price, where it has one.
    pub price_id: Option<Uuid>,
    /// Why it costs nothing by rule.
    pub zero_rated: Option<String>,
    /// When it was posted.
    pub posted_at: Instant,
    /// The first of its journal rows; 0 where it has none.
    pub journal_seq: i64,
    /// The charge that it corrects or is made instead of.
    pub corrects: Option<Uuid>,
}

/// Keys of sums.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupBy {
    /// By team.
    pub team: bool,
    /// By app.
    pub app: bool,
    /// By client id.
    pub client: bool,
    /// By meter.
    pub meter: bool,
    /// By UTC day of the window.
    pub day: bool,
    /// By UTC hour of the window.
    pub hour: bool,
    /// By outcome.
    pub outcome: bool,
    /// By these dimensions.
    pub dimensions: Vec<String>,
}

/// A group with its sums; keys that were not asked for are `None`. The sums are of any size: one team's
/// fit 64 bits, those of an account need not (D53).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageGroup {
    /// The team.
    pub team_id: Option<Uuid>,
    /// The app.
    pub app_id: Option<Uuid>,
    /// The client id.
    pub client_id: Option<String>,
    /// The meter's slug.
    pub meter: Option<String>,
    /// Start of the day.
    pub day: Option<Instant>,
    /// Start of the hour.
    pub hour: Option<Instant>,
    /// The outcome.
    pub failed: Option<bool>,
    /// Values of the dimensions asked for, in their order; empty where usage has none.
    pub dimensions: Option<Vec<String>>,
    /// Charges.
    pub charges: i64,
    /// Events.
    pub events: String,
    /// Quantity.
    pub quantity: String,
    /// Prices, paid or not.
    pub amount_micros: String,
    /// What is not paid at the instant of the answer.
    pub open_micros: String,
}

/// A filter as parameters: what is not asked for is null.
struct Conditions {
    apps: Option<Vec<Uuid>>,
    clients: Option<Vec<String>>,
    meters: Option<Vec<String>>,
    dimensions: Option<String>,
    from: Option<Instant>,
    to: Option<Instant>,
    failed: Option<bool>,
    recorded_until: Option<Instant>,
}

/// Teams and their debts as parameters.
struct Debts {
    teams: Vec<Uuid>,
    paid: Vec<i64>,
    opened: Vec<i64>,
    ahead_teams: Vec<Uuid>,
    ahead_from: Vec<i64>,
    ahead_to: Vec<i64>,
}

impl Debts {
    fn of(teams: &[SeenTeam]) -> Self {
        let ahead = |team: &SeenTeam| vec![team.team_id.as_uuid(); team.settled.ahead_from.len()];
        Self {
            teams: teams.iter().map(|team| team.team_id.as_uuid()).collect(),
            paid: teams.iter().map(|team| team.settled.paid.as_micros()).collect(),
            opened: teams.iter().map(|team| team.settled.opened.as_micros()).collect(),
            ahead_teams: teams.iter().flat_map(ahead).collect(),
            ahead_from: teams.iter().flat_map(|team| team.settled.ahead_from.iter().copied()).collect(),
            ahead_to: teams.iter().flat_map(|team| team.settled.ahead_to.iter().copied()).collect(),
        }
    }
}

// === impl ChargeFilter ===

impl ChargeFilter {
    fn conditions(&self) -> Conditions {
        fn some<T, U>(values: &[T], value: impl Fn(&T) -> U) -> Option<Vec<U>> {
            (!values.is_empty()).then(|| values.iter().map(value).collect())
        }
        Conditions {
            apps: some(&self.apps, |app| app.as_uuid()),
            clients: some(&self.clients, ToString::to_string),
            meters: some(&self.meters, ToString::to_string),
            dimensions: (!self.dimensions.is_empty()).then(|| serde_json::json!(self.dimensions).to_string()),
            from: self.from.map(Instant),
            to: self.to.map(Instant),
            failed: self.failed,
            recorded_until: self.recorded_until.map(Instant),
        }
    }

    /// Charges of the filter's days were posted from here on.
    fn posted_from(&self) -> Option<Instant> {
        self.from.map(|from| Instant(from.checked_sub(AHEAD_MAX).unwrap_or(Timestamp::MIN)))
    }
}

/// The charges of a part that fit a filter.
pub async fn list_in_tx(
    tx: &mut PgConnection,
    part: &Part,
    filter: &ChargeFilter,
) -> Result<Vec<ChargeRead>, Error> {
    let conditions = filter.conditions();
    let rows = sqlx::query_file_as!(
        ChargeRead,
        "sql/reads/charges.sql",
        part.account_id.as_uuid(),
        part.team_id.as_uuid(),
        part.after,
        part.up_to,
        part.settled.paid.as_micros(),
        conditions.apps.as_deref(),
        conditions.clients.as_deref(),
        conditions.meters.as_deref(),
        conditions.dimensions,
        conditions.from as _,
        conditions.to as _,
        conditions.failed,
        part.limit,
        &part.settled.ahead_from,
        &part.settled.ahead_to,
        part.settled.opened.as_micros(),
        filter.posted_from().unwrap_or(Instant(Timestamp::MIN)) as _,
        conditions.recorded_until as _,
    )
    .fetch_all(tx)
    .await?;
    Ok(rows)
}

/// The place in each team's posting order behind which the charges of a filter's days lie.
pub async fn places_in_tx(
    tx: &mut PgConnection,
    account: AccountId,
    teams: &[TeamId],
    filter: &ChargeFilter,
) -> Result<Vec<i64>, Error> {
    let Some(from) = filter.posted_from() else { return Ok(vec![0; teams.len()]) };
    let ids: Vec<Uuid> = teams.iter().map(|team| team.as_uuid()).collect();
    let places = sqlx::query_scalar!(
        r#"select ledger.charge_seq_before($1, team_id, $3) as "seq!"
           from unnest($2::uuid[]) with ordinality as t (team_id, place) order by place"#,
        account.as_uuid(),
        &ids,
        from as _,
    )
    .fetch_all(tx)
    .await?;
    Ok(places)
}

/// The window of a team's first charge; none where it has none.
pub async fn first_window_in_tx(
    tx: &mut PgConnection,
    account: AccountId,
    team: TeamId,
) -> Result<Option<Timestamp>, Error> {
    let window = sqlx::query_scalar!(
        r#"select window_start as "window: Instant" from ledger.charge
           where account_id = $1 and team_id = $2 order by seq limit 1"#,
        account.as_uuid(),
        team.as_uuid(),
    )
    .fetch_optional(tx)
    .await?;
    Ok(window.map(Timestamp::from))
}

/// Whether sums of that filter read single charges of days that are rolled up, because some of what is rolled up was
/// recorded later than is asked for.
pub async fn reads_rows_in_tx(
    tx: &mut PgConnection,
    account: AccountId,
    teams: &[SeenTeam],
    filter: &ChargeFilter,
) -> Result<bool, Error> {
    let Some(until) = filter.recorded_until else { return Ok(false) };
    let ids: Vec<Uuid> = teams.iter().map(|team| team.team_id.as_uuid()).collect();
    let reads = sqlx::query_scalar!(
        r#"select exists (select from ledger.usage_rolled
                          where account_id = $1 and team_id = any($2) and posted_at > $3) as "reads!""#,
        account.as_uuid(),
        &ids,
        Instant(until) as _,
    )
    .fetch_one(tx)
    .await?;
    Ok(reads)
}

/// Sums of the charges that fit a filter, at most `limit` groups.
pub async fn sums_in_tx(
    tx: &mut PgConnection,
    account: AccountId,
    teams: &[SeenTeam],
    filter: &ChargeFilter,
    by: &GroupBy,
    limit: i64,
) -> Result<Vec<UsageGroup>, Error> {
    let ids: Vec<TeamId> = teams.iter().map(|team| team.team_id).collect();
    let places = places_in_tx(&mut *tx, account, &ids, filter).await?;
    let debts = Debts::of(teams);
    let conditions = filter.conditions();
    let groups = sqlx::query_file_as!(
        UsageGroup,
        "sql/reads/usage_sums.sql",
        account.as_uuid(),
        &debts.teams,
        &places,
        &debts.paid,
        &debts.opened,
        conditions.apps.as_deref(),
        conditions.clients.as_deref(),
        conditions.meters.as_deref(),
        conditions.dimensions,
        conditions.from as _,
        conditions.to as _,
        conditions.failed,
        by.team,
        by.app,
        by.client,
        by.meter,
        by.day,
        by.outcome,
        &by.dimensions,
        limit,
        &debts.ahead_teams,
        &debts.ahead_from,
        &debts.ahead_to,
        by.hour,
        conditions.recorded_until as _,
    )
    .fetch_all(tx)
    .await?;
    Ok(groups)
}
