-- Each period has the largest value, or the number of distinct values, of its charges, and exactly those
-- distinct values are kept; lines that were taken back, which are so whole, do not count (D19, D43).
with charges as (
    select c.account_id, c.team_id, c.price_id, c.seq, c.posted_at, c.quantity, m.aggregation,
           date_trunc(m.period, c.window_start at time zone 'UTC') at time zone 'UTC' as start
    from ledger.charge c
    join ledger.meter m on m.slug = c.meter
    where c.price_id is not null and m.period is not null and c.quantity >= 0
      and not exists (
          select 1 from ledger.charge x
          where x.account_id = c.account_id and x.team_id = c.team_id and x.corrects = c.charge_id and x.quantity < 0)
), seen as (
    select distinct c.account_id, c.team_id, c.price_id, c.start, value
    from charges c
    join ledger.charge_values v using (account_id, team_id, seq, posted_at)
    cross join lateral unnest(v.distinct_values) as value
    where c.aggregation = 'unique'
), periods as (
    select account_id, team_id, price_id, start, max(quantity) as quantity
    from charges
    where aggregation = 'max'
    group by 1, 2, 3, 4
    union all
    select account_id, team_id, price_id, start, count(*)
    from seen
    group by 1, 2, 3, 4
)
select format('team %s price %s from %s', team_id, price_id, start)
from ledger.usage_period u
full join periods p using (account_id, team_id, price_id, start)
where coalesce(u.quantity, 0) <> coalesce(p.quantity, 0)
  and start >= (select ledger.checked_from())
union all
select format('team %s price %s from %s: a value', team_id, price_id, start)
from ledger.usage_value u
full join seen s using (account_id, team_id, price_id, start, value)
where (u.value is null or s.value is null)
  and start >= (select ledger.checked_from())
union all
select format('team %s charge %s: its values', c.team_id, c.seq)
from ledger.charge c
join ledger.meter m on m.slug = c.meter
left join ledger.charge_values v using (account_id, team_id, seq, posted_at)
where case when m.aggregation = 'unique' and c.quantity >= 0 then cardinality(v.distinct_values) is distinct from c.quantity
           else v.seq is not null end
order by 1
