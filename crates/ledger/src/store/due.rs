//! Teams with something due, for the job that rolls them forward.

use drawdown_types::{TeamId, Timestamp};
use sqlx::PgConnection;

use super::Instant;
use crate::error::Error;

/// Which teams a look is about.
#[derive(Clone, Copy, Debug)]
pub enum Which<'a> {
    /// All but these.
    But(&'a [TeamId]),
    /// This one.
    Only(TeamId),
}

/// Locks teams that have a lot to close by `settled_until`, a hold that timed out, or a lot that started
/// while they owe, or of whom time alone made something true that is not told, at most `limit` of them.
/// Those that somebody else has locked are left to them or to the next look; so several
/// jobs share the work, and none of them waits. Lots and holds are asked for in the words of the indexes of what is
/// due: by team they are asked for in others, so that no plan takes one of these for it. Of teams with something due,
/// only those that `which` says.
pub async fn lock_in_tx(
    tx: &mut PgConnection,
    now: Timestamp,
    settled_until: Timestamp,
    limit: i64,
    which: Which<'_>,
) -> Result<Vec<TeamId>, Error> {
    let uuids = |teams: &[TeamId]| teams.iter().map(|team| team.as_uuid()).collect::<Vec<_>>();
    let (but, only) = match which {
        Which::But(teams) => (uuids(teams), None),
        Which::Only(team) => (Vec::new(), Some(team.as_uuid())),
    };
    let teams = sqlx::query_scalar!(
        "select b.team_id from ledger.balance b
         where b.team_id in (
             select team_id from ledger.lot where num_nonnulls(closed_at, moved_to) = 0 and closes_at <= $2
             union all
             select team_id from ledger.hold where num_nonnulls(ended_at) = 0 and expires_at <= $1
             union all
             select l.team_id from ledger.lot l join ledger.balance o using (account_id, team_id)
             where l.closed_at is null and l.moved_to is null and l.remaining_micros > 0 and l.starts_at <= $1
               and l.starts_at > o.posted_at and o.debt_opened_micros > o.debt_paid_micros + o.debt_ahead_micros
             union all
             select team_id from ledger.balance where notice_due <= $1)
           and b.team_id <> all($4::uuid[]) and ($5::uuid is null or b.team_id = $5)
         order by b.team_id limit $3
         for update of b skip locked",
        Instant(now) as _,
        Instant(settled_until) as _,
        limit,
        &but,
        only,
    )
    .fetch_all(tx)
    .await?;
    Ok(teams.into_iter().map(TeamId::from_uuid).collect())
}
