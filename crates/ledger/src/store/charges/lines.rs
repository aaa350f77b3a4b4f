//! Charges added up by day and every key, read row by row: what a file of usage is made of.

use drawdown_service::{Code, Refusal};
use drawdown_types::{AccountId, TeamId};
use futures::{StreamExt as _, stream::BoxStream};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{ChargeFilter, Conditions, Debts, SeenTeam, places_in_tx};
use crate::{error::Error, reason, store::Instant};

/// Charges of one UTC day that have all keys in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DayUsage {
    /// Start of the UTC day of the windows.
    pub day: Instant,
    /// For corrections: start of the UTC month in which they were posted.
    pub corrected_in: Option<Instant>,
    /// The team.
    pub team_id: Uuid,
    /// The app.
    pub app_id: Uuid,
    /// The client id as metered.
    pub client_id: String,
    /// The meter's slug.
    pub meter: String,
    /// The metered jobs failed.
    pub failed: bool,
    /// Dimensions as a JSON object of texts.
    pub dimensions: String,
    /// Charges.
    pub charges: i64,
    /// Events.
    pub events: i64,
    /// Quantity in the meter's base unit.
    pub quantity: i64,
    /// Prices in micro-tokens, paid or not.
    pub amount_micros: i64,
    /// What is not paid at the instant of the answer.
    pub open_micros: i64,
}

/// As read: sums of 64 bits are of any size.
struct Row {
    day: Instant,
    corrected_in: Option<Instant>,
    team_id: Uuid,
    app_id: Uuid,
    client_id: String,
    meter: String,
    failed: bool,
    dimensions: String,
    charges: i64,
    events: String,
    quantity: String,
    amount_micros: String,
    open_micros: String,
}

/// A question about charges of some teams, to be read line by line.
pub struct LineQuery {
    account: Uuid,
    debts: Debts,
    places: Vec<i64>,
    conditions: Conditions,
}

fn whole(what: &str, sum: &str) -> Result<i64, Error> {
    sum.parse().map_err(|_| {
        let why = format!("the sum of {what} of one day is {sum} and does not fit 64 bits");
        Refusal::new(Code::FailedPrecondition, reason::SUM_TOO_LARGE, why).into()
    })
}

impl Row {
    fn read(self) -> Result<DayUsage, Error> {
        Ok(DayUsage {
            events: whole("events", &self.events)?,
            quantity: whole("quantities", &self.quantity)?,
            amount_micros: whole("prices", &self.amount_micros)?,
            open_micros: whole("debts", &self.open_micros)?,
            day: self.day,
            corrected_in: self.corrected_in,
            team_id: self.team_id,
            app_id: self.app_id,
            client_id: self.client_id,
            meter: self.meter,
            failed: self.failed,
            dimensions: self.dimensions,
            charges: self.charges,
        })
    }
}

// === impl LineQuery ===

impl LineQuery {
    /// The charges of these teams that fit a filter.
    ///
    /// # Errors
    /// Where the database does not answer.
    pub async fn new(
        tx: &mut PgConnection,
        account: AccountId,
        teams: &[SeenTeam],
        filter: &ChargeFilter,
    ) -> Result<Self, Error> {
        let ids: Vec<TeamId> = teams.iter().map(|team| team.team_id).collect();
        Ok(Self {
            account: account.as_uuid(),
            places: places_in_tx(tx, account, &ids, filter).await?,
            debts: Debts::of(teams),
            conditions: filter.conditions(),
        })
    }

    /// The lines by day and keys, each read when it is asked for: the database waits for a slow reader.
    pub fn lines<'a>(&'a self, tx: &'a mut PgConnection) -> BoxStream<'a, Result<DayUsage, Error>> {
        let (debts, conditions) = (&self.debts, &self.conditions);
        sqlx::query_file_as!(
            Row,
            "sql/reads/usage_lines.sql",
            self.account,
            &debts.teams,
            &self.places,
            &debts.paid,
            &debts.opened,
            conditions.apps.as_deref(),
            conditions.clients.as_deref(),
            conditions.meters.as_deref(),
            conditions.dimensions,
            conditions.from as _,
            conditions.to as _,
            conditions.failed,
            &debts.ahead_teams,
            &debts.ahead_from,
            &debts.ahead_to,
            conditions.recorded_until as _,
        )
        .fetch(tx)
        .map(|row| row.map_err(Error::from).and_then(Row::read))
        .boxed()
    }
}
