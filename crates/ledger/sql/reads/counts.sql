-- What a price of a team had counted before a charge ($3, its place in the posting order) and after it: of each month
-- the sum, or of each day or month ($5) the largest value or the number of distinct ones (D14, D19).
with charges as (
    select c.seq, c.posted_at, c.quantity, c.account_id, c.team_id,
           date_trunc($5, c.window_start at time zone 'UTC') at time zone 'UTC' as start
    from ledger.charge c
    where c.account_id = (select account_id from ledger.balance where team_id = $1)
      and c.team_id = $1 and c.seq <= $3 and c.price_id = $2
)
select start as "start!: Instant",
       coalesce(case when $4 = 'sum' then sum(quantity) filter (where seq < $3)
                     else max(quantity) filter (where seq < $3) end, 0)::bigint as "before!",
       case when $4 = 'sum' then sum(quantity) else max(quantity) end::bigint as "after!"
from charges
where $4 <> 'unique'
group by start
union all
select start,
       count(distinct value) filter (where seq < $3),
       count(distinct value)
from charges
join ledger.charge_values v using (account_id, team_id, seq, posted_at)
cross join lateral unnest(v.distinct_values) as value
where $4 = 'unique'
group by start
order by 1
