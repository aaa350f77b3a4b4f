-- The periods asked for that exist, and those of the values asked for that their periods have seen: a row each, with
-- one of the two. The teams are locked. One probe of a key for each, whatever the planner expects.
select k.team_id as "team_id!",
       k.price_id as "price_id!",
       k.start as "start!: Instant",
       p.quantity as "quantity?",
       null::bytea as "value?"
from unnest($1::uuid[], $2::uuid[], $3::timestamptz[]) as k (team_id, price_id, start)
cross join lateral (select account_id from ledger.balance where team_id = k.team_id offset 0) b
cross join lateral (
    select quantity from ledger.usage_period
    where account_id = b.account_id and team_id = k.team_id and price_id = k.price_id and start = k.start
    offset 0) p
union all
select w.team_id, w.price_id, w.start, null, v.value
from unnest($4::uuid[], $5::uuid[], $6::timestamptz[], $7::bytea[]) as w (team_id, price_id, start, value)
cross join lateral (select account_id from ledger.balance where team_id = w.team_id offset 0) b
cross join lateral (
    select value from ledger.usage_value
    where account_id = b.account_id and team_id = w.team_id and price_id = w.price_id and start = w.start
      and value = w.value
    offset 0) v
