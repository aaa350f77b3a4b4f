-- Holds that are new or changed, with their parts, as they are afterwards. The balances are locked.
with holds as (
    insert into ledger.hold (
        account_id, team_id, hold_id, app_id, window_start, made_at, expires_at, ended_at, ended_how, note)
    select *, $10 from unnest(
        $1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::timestamptz[], $6::timestamptz[], $7::timestamptz[],
        $8::timestamptz[], $9::text[])
    on conflict (account_id, team_id, hold_id) do update
        set expires_at = excluded.expires_at, ended_at = excluded.ended_at, ended_how = excluded.ended_how
)
insert into ledger.hold_lot (account_id, team_id, hold_id, part, lot_id, taken_micros, remaining_micros)
select * from unnest(
    $11::uuid[], $12::uuid[], $13::uuid[], $14::int[], $15::uuid[], $16::bigint[], $17::bigint[])
on conflict (account_id, team_id, hold_id, part) do update set remaining_micros = excluded.remaining_micros
