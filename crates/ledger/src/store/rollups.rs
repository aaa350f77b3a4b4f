//! Usage of closed windows by hour and by day. The place of a team is the lock of its roll-up: whoever has it writes
//! what follows it and moves it, so each charge is in the sums once, however many jobs there are.

use drawdown_types::Timestamp;
use sqlx::PgConnection;
use uuid::Uuid;

use super::Instant;
use crate::error::Error;

/// Up to where a team is rolled up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The billed account.
    pub account_id: Uuid,
    /// The team.
    pub team_id: Uuid,
    /// Its last charge in the sums.
    pub seq: i64,
    /// When that was posted.
    pub posted_at: Instant,
}

/// Gives teams that have charges, and none in the sums yet, their places.
pub async fn begin(at: &mut PgConnection) -> Result<(), Error> {
    sqlx::query!(
        "insert into ledger.usage_rolled (account_id, team_id, seq, posted_at)
         select b.account_id, b.team_id, 0, $1
         from ledger.balance b
         where b.charges > 0
           and not exists (select from ledger.usage_rolled r where r.account_id = b.account_id and r.team_id = b.team_id)
         order by b.account_id, b.team_id
         on conflict do nothing",
        Instant(Timestamp::MIN) as _,
    )
    .execute(at)
    .await?;
    Ok(())
}

/// Locks the places of at most `limit` teams whose next charge was posted before an instant. Those that somebody
/// else has locked are left to them.
pub async fn claim_in_tx(tx: &mut PgConnection, before: Timestamp, limit: i64) -> Result<Vec<Place>, Error> {
    let places = sqlx::query_as!(
        Place,
        r#"select r.account_id, r.team_id, r.seq, r.posted_at as "posted_at: Instant"
           from ledger.usage_rolled r
           join ledger.balance b using (account_id, team_id)
           where b.charges > r.seq
             and (select c.posted_at from ledger.charge c
                  where c.account_id = r.account_id and c.team_id = r.team_id and c.seq > r.seq
                    and c.posted_at >= r.posted_at
                  order by c.seq limit 1) < $1
           order by r.account_id, r.team_id
           limit $2
           for update of r skip locked"#,
        Instant(before) as _,
        limit,
    )
    .fetch_all(tx)
    .await?;
    Ok(places)
}

/// Rolls up what follows these places and was posted before an instant, at most `rows` charges of each team;
/// gives their number.
pub async fn roll_up_in_tx(
    tx: &mut PgConnection,
    places: &[Place],
    before: Timestamp,
    rows: i64,
) -> Result<i64, Error> {
    let accounts: Vec<Uuid> = places.iter().map(|place| place.account_id).collect();
    let teams: Vec<Uuid> = places.iter().map(|place| place.team_id).collect();
    let seqs: Vec<i64> = places.iter().map(|place| place.seq).collect();
    let posted: Vec<Instant> = places.iter().map(|place| place.posted_at).collect();
    let rolled = sqlx::query_file_scalar!(
        "sql/roll_up.sql",
        &accounts,
        &teams,
        &seqs,
        posted as _,
        Instant(before) as _,
        rows,
    )
    .fetch_all(tx)
    .await?;
    Ok(rolled.into_iter().fold(0, i64::saturating_add))
}
