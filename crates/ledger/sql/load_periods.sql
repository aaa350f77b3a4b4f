-- The periods asked for that exist, each with those of the values asked for that it has seen. The teams
-- are locked.
with seen as (
    select w.team_id, w.price_id, w.start, array_agg(w.value) as values
    from unnest($4::uuid[], $5::uuid[], $6::timestamptz[], $7::bytea[]) as w (team_id, price_id, start, value)
    join ledger.balance b on b.team_id = w.team_id
    join ledger.usage_value v
      on v.account_id = b.account_id and v.team_id = w.team_id and v.price_id = w.price_id
     and v.start = w.start and v.value = w.value
    group by 1, 2, 3
)
select p.team_id,
       p.price_id,
       p.start as "start!: Instant",
       p.quantity,
       coalesce(s.values, '{}') as "values!"
from unnest($1::uuid[], $2::uuid[], $3::timestamptz[]) as k (team_id, price_id, start)
join ledger.balance b on b.team_id = k.team_id
join ledger.usage_period p
  on p.account_id = b.account_id and p.team_id = k.team_id and p.price_id = k.price_id and p.start = k.start
left join seen s on s.team_id = p.team_id and s.price_id = p.price_id and s.start = p.start
