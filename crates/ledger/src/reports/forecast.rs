//! The forecast of a team (D35): its rate from the charges, the rest is the core's.

use drawdown_ledger_core::{BurnRate, Forecast, ForecastMethod, forecast, trailing_days};
use drawdown_types::{AccountId, MicroTokens, TeamId, Timestamp};
use sqlx::PgConnection;

use super::{Reach, Scope};
use crate::{
    error::Error,
    service::{Ledger, connection},
    store::{
        charges::{self, ChargeFilter, GroupBy, SeenTeam, Settled},
        teams::StoredTeam,
        verification, watermarks,
    },
    tokens::{Of, read_refusal},
};

/// A forecast, and what its rate was taken from.
#[derive(Clone, Debug)]
pub(crate) struct TeamForecast {
    /// The forecast.
    pub(crate) forecast: Forecast,
    /// How the rate was found.
    pub(crate) method: ForecastMethod,
    /// The days that the rate was taken from, `[from, to)`.
    pub(crate) days: Option<(Timestamp, Timestamp)>,
    /// How far the data reaches.
    pub(crate) reach: Reach,
}

// === impl Ledger ===

impl Ledger {
    /// Looks ahead at the rate of the last whole days, or at a rate given for a day.
    pub(crate) async fn forecast(
        &self,
        account_id: AccountId,
        team_id: TeamId,
        given: Option<BurnRate>,
    ) -> Result<TeamForecast, Error> {
        let untouched = self.stored_team(Of { account: Some(account_id), team: team_id }).await?;
        let now = self.clock.now();
        let mut tx = self.pool.snapshot().await?;
        let connection = connection(&mut tx);
        verification::limit_in_tx(connection, self.limits.reports.statement_timeout).await?;
        let whose = Scope { account_id, team_id: Some(team_id) };
        // A team that nothing was posted to has no row.
        let stored = self.scope_in_tx(connection, whose).await?.pop().unwrap_or(untouched);
        let settled = watermarks::read_in_tx(&mut *connection).await?;
        let at = stored.team.balance.posted_at.map_or(now, |last| last.max(now));
        let (rate, method, days) = match given {
            Some(rate) => (rate, ForecastMethod::Given, None),
            None => self.trailing_in_tx(connection, &stored, at).await?,
        };
        tx.commit().await?;
        let forecast = forecast(&stored.team, at, self.settled_until(at), rate, &self.settings);
        let forecast = forecast.map_err(read_refusal)?;
        Ok(TeamForecast { forecast, method, days, reach: self.reach(at, stored.last_window, settled) })
    }

    async fn trailing_in_tx(
        &self,
        tx: &mut PgConnection,
        stored: &StoredTeam,
        at: Timestamp,
    ) -> Result<(BurnRate, ForecastMethod, Option<(Timestamp, Timestamp)>), Error> {
        let balance = &stored.team.balance;
        let first = charges::first_window_in_tx(&mut *tx, balance.account_id, balance.team_id).await?;
        let broken = || Error::Broken("charges of some days are no rate".to_owned());
        let Some((from, to, days)) = trailing_days(first, at) else {
            let nothing = BurnRate::new(MicroTokens::ZERO, 1).ok_or_else(broken)?;
            return Ok((nothing, ForecastMethod::TrailingMean, None));
        };
        let filter = ChargeFilter { from: Some(from), to: Some(to), ..ChargeFilter::default() };
        // What is open plays no part in a rate.
        let seen = [SeenTeam { team_id: balance.team_id, settled: Settled::default() }];
        let sums =
            charges::sums_in_tx(tx, balance.account_id, &seen, &filter, &GroupBy::default(), 1).await?;
        // Corrections count in the days of the charges they correct, whatever their price was: they may give back more
        // than these days cost (D43). That is no usage, and no usage is a rate of nothing.
        let micros: i64 = match sums.first() {
            Some(sums) => sums.amount_micros.parse().map_err(|_| broken())?,
            None => 0,
        };
        let micros = micros.max(0);
        let rate = BurnRate::new(MicroTokens::from_micros(micros), days).ok_or_else(broken)?;
        Ok((rate, ForecastMethod::TrailingMean, Some((from, to))))
    }
}
