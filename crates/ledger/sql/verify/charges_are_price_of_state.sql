-- For each key the quantities of its charges, or the values of its periods, are those of its state, and
-- its charges add up to the price of the state; charged units of all months together (D14 to D17, D19).
with terms as (
    select distinct on (p.price_id) p.price_id, p as price, m.period is not null as by_period
    from ledger.price p
    join ledger.meter m on m.slug = p.meter
    order by p.price_id
), charges as (
    select account_id, team_id, price_id,
           date_trunc('month', window_start at time zone 'UTC') at time zone 'UTC' as cycle,
           sum(quantity) as quantity,
           sum(amount_micros) as amount
    from ledger.charge
    where price_id is not null
    group by 1, 2, 3, 4
), periods as (
    select account_id, team_id, price_id,
           date_trunc('month', start at time zone 'UTC') at time zone 'UTC' as cycle,
           sum(quantity) as quantity
    from ledger.usage_period
    group by 1, 2, 3, 4
), months as (
    select account_id, team_id, price_id, cycle,
           case when t.by_period then coalesce(p.quantity, 0) else coalesce(c.quantity, 0) end as quantity,
           coalesce(c.amount, 0) as amount
    from charges c
    full join periods p using (account_id, team_id, price_id, cycle)
    left join terms t using (price_id)
), keys as (
    select account_id, team_id, price_id, cycle, m.quantity,
           case when (t.price).charged_unit is null then m.amount end as amount
    from months m
    left join terms t using (price_id)
    union all
    select account_id, team_id, price_id, '0001-01-01T00:00:00Z'::timestamptz,
           sum(greatest(m.quantity - (t.price).free_quota, 0)), sum(m.amount)
    from months m
    join terms t using (price_id)
    where (t.price).charged_unit is not null
    group by account_id, team_id, price_id
)
select format('team %s price %s cycle %s', team_id, price_id, cycle)
from ledger.usage_state s
full join keys k using (account_id, team_id, price_id, cycle)
left join terms t using (price_id)
where cycle >= (select ledger.checked_from()) and (t.price_id is null
   or coalesce(s.quantity, 0) <> coalesce(k.quantity, 0)
   or ((t.price).charged_unit is null or cycle = '0001-01-01T00:00:00Z')
      and coalesce(k.amount, 0) <> ledger.price_above_quota(
          case when (t.price).charged_unit is null
              then greatest(coalesce(s.quantity, 0) - (t.price).free_quota, 0)
              else coalesce(s.quantity, 0)
          end, t.price))
order by team_id, price_id, cycle
