-- Periods as they are afterwards, their new values, and the values of each charge. The teams are locked.
with periods as (
    insert into ledger.usage_period (account_id, team_id, price_id, start, quantity)
    select * from unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::timestamptz[], $5::bigint[])
    on conflict (account_id, team_id, price_id, start) do update set quantity = excluded.quantity
), seen as (
    insert into ledger.usage_value (account_id, team_id, price_id, start, value)
    select * from unnest($6::uuid[], $7::uuid[], $8::uuid[], $9::timestamptz[], $10::bytea[])
)
insert into ledger.charge_values (account_id, team_id, seq, posted_at, distinct_values)
select c.account_id, c.team_id, c.seq, c.posted_at, c.distinct_values::bytea[]
from unnest($11::uuid[], $12::uuid[], $13::bigint[], $14::timestamptz[], $15::text[])
    as c (account_id, team_id, seq, posted_at, distinct_values)
