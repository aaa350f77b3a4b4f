-- For each key the charges add up to the price of its state, and their quantities to the state (D14).
with sums as (
    select account_id, team_id, price_id,
           date_trunc('month', window_start at time zone 'UTC') at time zone 'UTC' as cycle,
           sum(quantity) as quantity,
           sum(amount_micros) as amount
    from ledger.charge
    where price_id is not null
    group by 1, 2, 3, 4
), terms as (
    select distinct price_id, micros, per_units from ledger.price
)
select format('team %s price %s month %s', team_id, price_id, cycle)
from ledger.usage_state s
full join sums c using (account_id, team_id, price_id, cycle)
left join terms t using (price_id)
where coalesce(s.quantity, 0) <> coalesce(c.quantity, 0)
   or coalesce(c.amount, 0) is distinct from div(coalesce(s.quantity, 0)::numeric * t.micros, t.per_units::numeric)
order by team_id, price_id
