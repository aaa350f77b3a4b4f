-- What a budget says was used in a month is the sum of the charges of that month's windows (D59).
with sums as (
    select b.budget_id,
           date_trunc('month', c.window_start at time zone 'UTC') at time zone 'UTC' as month,
           sum(c.amount_micros) as used
    from ledger.budget b
    join ledger.charge c
      on c.account_id = b.account_id and c.team_id = b.team_id and (b.app_id is null or c.app_id = b.app_id)
     and c.window_start >= b.from_month
    group by 1, 2
)
select format('budget %s month %s', budget_id, month)
from ledger.budget_month m
full join sums s using (budget_id, month)
where coalesce(m.used_micros, 0) <> coalesce(s.used, 0)
  and month >= (select ledger.checked_from())
order by budget_id, month
