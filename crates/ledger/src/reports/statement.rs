//! Statements (D54): issued once for a period of a team, and made again byte for byte ever after.
//!
//! An issue is two transactions. The first is short and is a posting of nothing: it locks the team, rolls
//! it forward, and moves its last instant to now, which is at or after the end of the period. From then on
//! every row of the team is posted after the period (D40), so the rows of the period are final, and the
//! settled batches read under the lock are those whose rows can be in it. The second adds up and holds no
//! lock, however long the journal is.
//!
//! Opening and closing are counted from two sides: up from the end of the newest statement before (or from
//! the first row), and down from the books as they are. Making a statement again counts up only, so it
//! costs the same however much was posted since, and is compared with the digest of what was issued.

use drawdown_ledger_core::{Position, Statement, StatementError, roll_forward, statement};
use drawdown_service::{Code, Refusal};
use drawdown_types::{AccountId, StatementId, TeamId, Timestamp};
use sqlx::PgConnection;

use super::{Scope, archived, check_rows_in_tx};
use crate::{
    error::Error,
    posting::closed,
    reason,
    service::{Ledger, connection},
    store::{
        audit, partitions, reads, scope,
        statements::{self, Issue, Issued, PartSums},
        teams, verification, watermarks,
        watermarks::Watermarks,
        write::LotNote,
    },
    tokens::only,
};

/// The version of the form in which statements are issued now.
pub(crate) const FORMAT: i16 = 1;

/// `[from, to)`.
pub(crate) type Period = (Timestamp, Timestamp);

/// A statement with what it was made from.
#[derive(Clone, Debug)]
pub(crate) struct Made {
    /// Its bounds.
    pub(crate) issue: Issue,
    /// The statement.
    pub(crate) statement: Statement,
    /// The first and the last window of its usage.
    pub(crate) windows: Option<(Timestamp, Timestamp)>,
    /// Books and lots at its end.
    pub(crate) closing: Position,
}

fn not_over(to: Timestamp, now: Timestamp) -> Error {
    let why = format!("the period ends at {to}, which is not yet reached at {now}");
    Refusal::new(Code::FailedPrecondition, reason::PERIOD_NOT_OVER, why.clone()).violation("to", why).into()
}

fn broken(error: &StatementError) -> Error {
    Error::Broken(format!("a statement does not tie: {error}"))
}

fn line(issued: &Issued) -> audit::Line {
    let issue = &issued.issue;
    let digest: String = issued.digest.iter().map(|byte| format!("{byte:02x}")).collect();
    audit::Line {
        action: "statement.issue",
        subject: issue.statement_id.to_string(),
        detail: serde_json::json!({ "team": issue.team_id.to_string() }),
        before: None,
        after: serde_json::json!({ "statement": {
            "statement": issue.statement_id.to_string(),
            "from": issue.from.to_string(), "to": issue.to.to_string(), "digest": digest,
        } }),
    }
}

// === impl Ledger ===

impl Ledger {
    /// The teams that an issue is for.
    pub(crate) async fn statement_teams(&self, whose: Scope) -> Result<Vec<TeamId>, Error> {
        if let Some(team) = whose.team_id {
            self.check_team_of(team, whose.account_id).await?;
            return Ok(vec![team]);
        }
        let limit = self.limits.reports.statement_teams_max;
        let mut reader = self.pool.read_of(Some(whose.account_id)).await?;
        let limit_rows = i64::from(limit).saturating_add(1);
        let teams = scope::teams_in_tx(&mut reader, whose.account_id, limit_rows).await?;
        if u32::try_from(teams.len()).unwrap_or(u32::MAX) > limit {
            let why = format!("the account has more than {limit} teams: ask for one of them");
            return Err(Refusal::new(Code::ResourceExhausted, reason::TEAMS_TOO_MANY, why).into());
        }
        Ok(teams)
    }

    /// Makes the statement of a period that is over; it is not kept yet.
    pub(crate) async fn draft_statement(
        &self,
        account: AccountId,
        team: TeamId,
        period: Period,
    ) -> Result<Made, Error> {
        let now = self.clock.now();
        if period.1 > now {
            return Err(not_over(period.1, now));
        }
        let (issued_at, watermarks) = self.end_period(account, team, period.1).await?;
        let mut issue = Issue {
            statement_id: StatementId::generate(),
            account_id: account,
            team_id: team,
            from: period.0,
            to: period.1,
            issued_at,
            format: FORMAT,
            opening_seq: 0,
            closing_seq: 0,
            watermarks,
        };
        let mut tx = self.pool.snapshot().await?;
        let connection = connection(&mut tx);
        verification::limit_in_tx(connection, self.limits.reports.statement_timeout).await?;
        let bounds = statements::bounds_in_tx(&mut *connection, (account, team), period).await?;
        (issue.opening_seq, issue.closing_seq) = bounds;
        let made = self.make_in_tx(connection, issue, true).await?;
        tx.commit().await?;
        Ok(made)
    }

    /// Makes an issued statement again.
    pub(crate) async fn remake_statement(&self, issue: Issue) -> Result<Made, Error> {
        if issue.format != FORMAT {
            return Err(Error::Broken(format!("statements of form {} are not known", issue.format)));
        }
        let mut tx = self.pool.snapshot().await?;
        let connection = connection(&mut tx);
        verification::limit_in_tx(connection, self.limits.reports.statement_timeout).await?;
        let made = self.make_in_tx(connection, issue, false).await?;
        tx.commit().await?;
        Ok(made)
    }

    /// Keeps a statement; false where the period has one already.
    pub(crate) async fn keep_statement(&self, made: &Made, digest: Vec<u8>) -> Result<bool, Error> {
        let mut tx = self.begin().await?;
        let issued = Issued { issue: made.issue.clone(), digest };
        let kept = statements::insert_in_tx(connection(&mut tx), &issued, &made.closing).await?;
        if kept {
            audit::note_in_tx(connection(&mut tx), made.issue.issued_at, line(&issued)).await?;
        }
        tx.commit().await?;
        Ok(kept)
    }

    /// An issued statement of an account. Another account's is not known.
    pub(crate) async fn issued_statement(
        &self,
        account: AccountId,
        statement: StatementId,
    ) -> Result<Issued, Error> {
        let mut reader = self.pool.read_of(Some(account)).await?;
        let found = statements::find(&mut reader, statement).await?;
        found.filter(|issued| issued.issue.account_id == account).ok_or_else(|| {
            Refusal::new(Code::NotFound, reason::STATEMENT_UNKNOWN, "there is no such statement")
                .violation("statement_id", format!("{statement} is not one of the account"))
                .into()
        })
    }

    /// Makes sure that nothing more is posted to the team before now, and gives that instant with the
    /// batches settled by then.
    async fn end_period(
        &self,
        account: AccountId,
        team: TeamId,
        to: Timestamp,
    ) -> Result<(Timestamp, Watermarks), Error> {
        let mut command = self.begin_command(account, &[team], &[]).await?;
        let now = command.now;
        if to > now {
            return Err(not_over(to, now));
        }
        let mut rolled = [only(&mut command)?.team.clone()];
        let plan = roll_forward(&mut rolled, now, self.settled_until(now), &self.settings);
        let [mut rolled] = rolled;
        rolled.balance.posted_at = Some(now);
        self.write_command(&mut command, vec![rolled], &plan, &LotNote::default(), None).await?;
        let watermarks = watermarks::read_in_tx(connection(&mut command.tx)).await?;
        command.tx.commit().await?;
        let (lots, expired) = closed(&plan);
        self.metrics.lots_closed(lots, expired);
        self.fresh.notify_one();
        Ok((now, watermarks))
    }

    async fn make_in_tx(&self, tx: &mut PgConnection, issue: Issue, both_sides: bool) -> Result<Made, Error> {
        let whose = (issue.account_id, issue.team_id);
        let (mut stored, _) = teams::load_in_tx(&mut *tx, &[issue.team_id], &[]).await?;
        let stored = stored.pop().ok_or_else(|| Error::Broken("a balance is not there".to_owned()))?;
        let lots: Vec<_> = reads::lots(&mut *tx, issue.team_id).await?;
        let lots: Vec<_> = lots.into_iter().map(|(lot, _)| lot).collect();
        let from = statements::checkpoint_in_tx(&mut *tx, whose, issue.opening_seq).await?;
        // Rows are counted up from there, so none of them may be archived; nor may the bounds lie among those that are.
        if from.seq < partitions::archived_journal(&mut *tx, whose.0, whose.1).await? {
            return Err(archived(None));
        }
        if both_sides {
            let scope = Scope { account_id: whose.0, team_id: Some(whose.1) };
            check_rows_in_tx(&mut *tx, scope, Some(issue.from)).await?;
        }
        let up_to = if both_sides { stored.team.balance.version } else { issue.closing_seq };
        let parts = statements::sums_in_tx(tx, &issue, from.seq, up_to).await?;
        let [before, PartSums { sums, windows }, after] = parts;
        let opening = from.position.after(&before.sums).map_err(|error| broken(&error))?;
        let closing = opening.clone().after(&sums).map_err(|error| broken(&error))?;
        let other_side = if both_sides {
            let now = Position::stored(&stored.team.balance, &lots);
            Some(now.before(&after.sums).map_err(|error| broken(&error))?)
        } else {
            None
        };
        let made = statement((issue.from, issue.to), &opening, &sums, other_side.as_ref(), &lots);
        Ok(Made { statement: made.map_err(|error| broken(&error))?, windows, closing, issue })
    }
}
