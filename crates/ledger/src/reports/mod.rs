//! What people and billing systems read.
//!
//! Doctrine. A report is of one state: its statements run in one transaction of one snapshot,
//! and what is derived from an instant (open lots, paid debts) comes from the teams as the core rolls them
//! forward to it, never from a stored flag. Nothing here locks a row, and nothing is kept in memory that
//! grows with the number of charges: sums are made by the database, lists are cut into parts.
//!
//! A list in parts needs no transaction that outlives a part, because rows are only added: the last place
//! and the settled parts of the debt that the first part saw are carried along, so all parts show its state.

mod charges;
mod export;
mod forecast;
mod journal;
mod statement;

pub(crate) use charges::{ChargeCursor, ChargeQuestion};
pub(crate) use export::{ExportQuestion, ExportSums, Exported, Taker};
pub(crate) use forecast::TeamForecast;
pub(crate) use journal::{JournalCursor, JournalQuestion};
pub(crate) use statement::{Made, Period};

use drawdown_ledger_core::roll_forward;
use drawdown_service::{Code, Refusal};
use drawdown_types::{AccountId, TeamId, Timestamp};
use sqlx::PgConnection;

use crate::{
    error::Error,
    reason,
    service::Ledger,
    store::{
        self,
        charges::{GroupBy, SeenTeam, Settled, UsageGroup},
        partitions, scope,
        teams::{self, StoredTeam},
        verification, watermarks,
        watermarks::Watermarks,
    },
};

/// What was asked needs rows that are archived.
pub(crate) fn archived(until: Option<Timestamp>) -> Error {
    let here =
        until.map_or_else(String::new, |until| format!(": what was posted before {until} is not here"));
    Refusal::new(Code::FailedPrecondition, reason::MONTHS_ARCHIVED, format!("it needs archived months{here}"))
        .into()
}

/// Single rows from `from` on are asked for; refused where some of them are archived, rather than left out.
pub(crate) async fn check_rows_in_tx(
    tx: &mut PgConnection,
    whose: Scope,
    from: Option<Timestamp>,
) -> Result<(), Error> {
    match partitions::archived_until(tx, whose.account_id, whose.team_id).await? {
        Some(until) if from.is_none_or(|from| from < until) => Err(archived(Some(until))),
        _ => Ok(()),
    }
}

/// Limits of reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReportLimits {
    /// How long one statement of a report may run.
    pub statement_timeout: std::time::Duration,
    /// After so long whatever was posted at an instant is surely there.
    pub recorded_lag: std::time::Duration,
    /// Most groups of one answer.
    pub groups_max: u32,
    /// Most teams of an account that one report adds up.
    pub teams_max: u32,
    /// Most teams of an account that one call issues statements for.
    pub statement_teams_max: u32,
    /// Rows of one message of a stream.
    pub stream_rows: u32,
    /// Explanations and what-ifs that run at once.
    pub whole_reads_max: usize,
    /// Most journal rows of a team whose charges are explained.
    pub explain_rows_max: i64,
    /// Exports that run at once.
    pub exports_max: usize,
    /// How long an export may take, with a reader however slow.
    pub export_timeout: std::time::Duration,
    /// Bytes of one part of a file.
    pub export_part_bytes: usize,
    /// Lines of a group of a Parquet file, which is kept in memory until it is full.
    pub export_group_rows: usize,
    /// Messages of a stream that wait for a slow reader.
    pub stream_messages_max: usize,
}

/// How far the data of an answer reaches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reach {
    /// Everything settled before is in the answer.
    pub(crate) at: Timestamp,
    /// End of the newest window with settled usage.
    pub(crate) newest_window_end: Option<Timestamp>,
    /// Windows that end by then are final.
    pub(crate) final_up_to: Timestamp,
    /// What is settled in the state that was read; nothing where that was more than one.
    pub(crate) settled: Watermarks,
}

/// One account, and one of its teams or all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Scope {
    /// The billed account.
    pub(crate) account_id: AccountId,
    /// The team; none for all teams of the account.
    pub(crate) team_id: Option<TeamId>,
}

/// Sums of usage with how far they reach.
#[derive(Clone, Debug)]
pub(crate) struct Summary {
    /// One for each group.
    pub(crate) groups: Vec<UsageGroup>,
    /// How far the data reaches.
    pub(crate) reach: Reach,
}

// === impl Ledger ===

impl Ledger {
    /// What can be said of the data of an answer at `at` about teams whose newest window is `newest`, read in one
    /// state together with what was `settled` in it.
    pub(crate) fn reach(&self, at: Timestamp, newest: Option<Timestamp>, settled: Watermarks) -> Reach {
        let size = self.settings.window_size;
        let final_up_to = self.settled_until(at).checked_sub(self.settings.lateness_limit);
        Reach {
            at,
            newest_window_end: newest
                .and_then(|start| size.starting_at(start))
                .map(|window| window.end(size)),
            final_up_to: size.floor(final_up_to.unwrap_or(Timestamp::MIN)),
            settled,
        }
    }

    /// Adds charges up by any keys (D31).
    pub(crate) async fn summarize(
        &self,
        whose: Scope,
        filter: &crate::store::charges::ChargeFilter,
        by: &GroupBy,
    ) -> Result<Summary, Error> {
        let limits = self.limits.reports;
        if let Some(team) = whose.team_id {
            self.check_team_of(team, whose.account_id).await?;
        }
        let now = self.clock.now();
        let mut tx = self.pool.snapshot().await?;
        let connection = crate::service::connection(&mut tx);
        verification::limit_in_tx(connection, limits.statement_timeout).await?;
        let stored = self.scope_in_tx(connection, whose).await?;
        let settled = watermarks::read_in_tx(connection).await?;
        let (seen, reach) = self.seen(&stored, now, settled);
        let limit = i64::from(limits.groups_max);
        if store::charges::reads_rows_in_tx(connection, whose.account_id, &seen, filter).await? {
            check_rows_in_tx(connection, whose, filter.from).await?;
        }
        let groups = store::charges::sums_in_tx(
            connection,
            whose.account_id,
            &seen,
            filter,
            by,
            limit.saturating_add(1),
        )
        .await?;
        tx.commit().await?;
        if i64::try_from(groups.len()).unwrap_or(i64::MAX) > limit {
            let why = format!("more than {limit} groups: ask for fewer keys or fewer days");
            return Err(Refusal::new(Code::ResourceExhausted, reason::GROUPS_TOO_MANY, why).into());
        }
        Ok(Summary { groups, reach })
    }

    /// The teams of a scope as stored.
    async fn scope_in_tx(&self, tx: &mut PgConnection, whose: Scope) -> Result<Vec<StoredTeam>, Error> {
        let limit = self.limits.reports.teams_max;
        let ids = match whose.team_id {
            Some(team) => vec![team],
            None => {
                scope::teams_in_tx(&mut *tx, whose.account_id, i64::from(limit).saturating_add(1)).await?
            }
        };
        if u32::try_from(ids.len()).unwrap_or(u32::MAX) > limit {
            let why = format!("the account has more than {limit} teams: ask for one of them");
            return Err(Refusal::new(Code::ResourceExhausted, reason::TEAMS_TOO_MANY, why).into());
        }
        let (stored, _) = teams::load_in_tx(tx, &ids, &[]).await?;
        Ok(stored)
    }

    /// Teams rolled forward to one instant: now, or the last posting where that is later.
    fn seen(&self, stored: &[StoredTeam], now: Timestamp, settled: Watermarks) -> (Vec<SeenTeam>, Reach) {
        let last = stored.iter().filter_map(|stored| stored.team.balance.posted_at).max();
        let at = last.map_or(now, |last| last.max(now));
        let newest = stored.iter().filter_map(|stored| stored.last_window).max();
        let seen = stored.iter().map(|stored| self.seen_team(stored, at)).collect();
        (seen, self.reach(at, newest, settled))
    }

    /// A team with its debts as the core rolls it forward to `at`, which lies at or after its last posting.
    pub(crate) fn seen_team(&self, stored: &StoredTeam, at: Timestamp) -> SeenTeam {
        let mut teams = [stored.team.clone()];
        roll_forward(&mut teams, at, self.settled_until(at), &self.settings);
        let [team] = teams;
        let ahead = team.settled_ahead.iter().filter(|part| part.to > team.balance.debt_paid);
        let (ahead_from, ahead_to) = ahead.map(|part| (part.from.as_micros(), part.to.as_micros())).unzip();
        let settled =
            Settled { paid: team.balance.debt_paid, opened: team.balance.debt_opened, ahead_from, ahead_to };
        SeenTeam { team_id: team.balance.team_id, settled }
    }
}
