//! Loading teams reads what is of them and nothing else, whatever the planner knows: on a fresh database it knows nothing.

use drawdown_ledger::store::teams;
use drawdown_types::TeamId;
use sqlx::{AssertSqlSafe, PgConnection};
use uuid::Uuid;

use crate::world::World;

const TEAMS: i64 = 2_000;

/// Many teams with three live lots and one closed one each, and tables that nobody analyses.
const FILL: &str = "
    alter table ledger.balance set (autovacuum_enabled = off);
    alter table ledger.lot set (autovacuum_enabled = off);
    alter table ledger.hold set (autovacuum_enabled = off);
    insert into ledger.balance (account_id, team_id)
    select gen_random_uuid(), gen_random_uuid() from generate_series(1, 2000);
    insert into ledger.lot (
        account_id, team_id, lot_id, pool_kind, original_micros, granted_micros, remaining_micros, expired_micros,
        purchased_at, starts_at, valid_from, expires_at, closes_at, closed_at, note, leaves_older_debts)
    select account_id, team_id, gen_random_uuid(), 'free', 10, 10, case n when 0 then 0 else 10 end,
           case n when 0 then 10 else 0 end, '2026-01-01', '2026-01-01', '2026-01-01', '2026-02-01', '2026-02-02',
           case n when 0 then '2026-02-02'::timestamptz end, '', false
    from ledger.balance, generate_series(0, 3) as n;
    insert into ledger.hold (account_id, team_id, hold_id, window_start, made_at, expires_at, note)
    select account_id, team_id, gen_random_uuid(), '2026-01-01', '2026-01-01', '2026-01-02', '' from ledger.balance;
    insert into ledger.hold_lot (account_id, team_id, hold_id, part, lot_id, taken_micros, remaining_micros)
    select h.account_id, h.team_id, h.hold_id, 0, l.lot_id, 1, 1
    from ledger.hold h
    cross join lateral (select lot_id from ledger.lot where team_id = h.team_id and closed_at is null limit 1) l";

/// Rows of balances, lots, holds and their parts that this session has read and not reported yet.
async fn read(tx: &mut PgConnection) -> Vec<i64> {
    sqlx::query_scalar(
        "select (idx_tup_fetch + seq_tup_read)::bigint from pg_stat_xact_user_tables
         where schemaname = 'ledger' and relname in ('balance', 'lot', 'hold', 'hold_lot')
         order by array_position(array['balance', 'lot', 'hold', 'hold_lot'], relname::text)",
    )
    .fetch_all(tx)
    .await
    .unwrap()
}

#[tokio::test]
async fn without_statistics_a_load_reads_the_rows_of_its_teams_only() {
    let world = World::new().await;
    sqlx::raw_sql(FILL).execute(world.database.pool()).await.unwrap();
    let ids: Vec<Uuid> = sqlx::query_scalar("select team_id from ledger.balance")
        .fetch_all(world.database.pool())
        .await
        .unwrap();
    assert_eq!(i64::try_from(ids.len()).unwrap(), TEAMS);
    for mode in ["force_custom_plan", "force_generic_plan"] {
        for count in [1, 20, 300] {
            let mut tx = world.database.pool().begin().await.unwrap();
            let told = AssertSqlSafe(format!(
                "set local plan_cache_mode = {mode}; set local role drawdown_ledger_service"
            ));
            sqlx::raw_sql(told).execute(&mut *tx).await.unwrap();
            let before = read(&mut tx).await;
            let of: Vec<TeamId> = ids[..count].iter().copied().map(TeamId::from_uuid).collect();
            let (stored, _) = teams::load_in_tx(&mut tx, &of, &[]).await.unwrap();
            assert!(stored.iter().all(|stored| (stored.team.lots.len(), stored.team.holds.len()) == (3, 1)));
            let count = i64::try_from(count).unwrap();
            assert_eq!(i64::try_from(stored.len()).unwrap(), count);
            let after = read(&mut tx).await;
            let rows: Vec<i64> = before.iter().zip(&after).map(|(before, after)| after - before).collect();
            assert_eq!(rows, [1, 3, 1, 1].map(|of_each| of_each * count), "{mode}");
        }
    }
}
