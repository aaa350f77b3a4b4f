//! Reads of holds: one statement each.

use drawdown_ledger_core::{Hold, HoldPart, UnknownName};
use drawdown_types::{AppId, HoldId, LotId, MicroTokens, TeamId, Timestamp};
use sqlx::PgConnection;

use crate::error::Error;

/// Holds of a team with their parts, by id after `after`: one by name, whatever became of it, or all that
/// are not ended, at most `limit`.
pub async fn read(
    reader: &mut PgConnection,
    team: TeamId,
    one: Option<HoldId>,
    after: Option<HoldId>,
    limit: i64,
) -> Result<Vec<Hold>, Error> {
    let rows = sqlx::query!(
        r#"select h.hold_id, h.app_id, h.window_start, h.made_at, h.expires_at, h.ended_at, h.ended_how,
                  p.lots as "lots!", p.taken as "taken!", p.remaining as "remaining!"
           from ledger.hold h
           cross join lateral (
               select coalesce(array_agg(lot_id order by part), '{}') as lots,
                      coalesce(array_agg(taken_micros order by part), '{}') as taken,
                      coalesce(array_agg(remaining_micros order by part), '{}') as remaining
               from ledger.hold_lot l
               where l.account_id = h.account_id and l.team_id = h.team_id and l.hold_id = h.hold_id
           ) p
           where h.team_id = $1 and ($2::uuid is null and h.ended_at is null or h.hold_id = $2)
             and ($3::uuid is null or h.hold_id > $3)
           order by h.hold_id limit $4"#,
        team.as_uuid(),
        one.map(HoldId::as_uuid),
        after.map(HoldId::as_uuid),
        limit,
    )
    .fetch_all(reader)
    .await?;
    rows.into_iter()
        .map(|row| {
            let end = row.ended_how.map(|how| how.parse()).transpose();
            let end = end.map_err(|e: UnknownName| Error::stored("end of a hold")(e.into()))?;
            let parts = row.lots.iter().zip(row.taken.iter().zip(&row.remaining));
            let part = |(lot, (taken, remaining)): (&uuid::Uuid, (&i64, &i64))| HoldPart {
                lot_id: LotId::from_uuid(*lot),
                taken: MicroTokens::from_micros(*taken),
                remaining: MicroTokens::from_micros(*remaining),
            };
            Ok(Hold {
                hold_id: HoldId::from_uuid(row.hold_id),
                team_id: team,
                app_id: row.app_id.map(AppId::from_uuid),
                window: row.window_start.0,
                made_at: row.made_at.0,
                expires_at: row.expires_at.0,
                parts: parts.map(part).collect(),
                ended: row.ended_at.map(Timestamp::from).zip(end),
            })
        })
        .collect()
}
