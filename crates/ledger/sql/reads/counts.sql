-- What a price of a team had counted before a charge ($3, its place in the posting order) and after it: of each month
-- the sum, or of each day or month ($5) the largest value or the number of distinct ones (D14, D19). Lines of these two
-- are taken back whole (D43), and do not count from the correction on.
with charges as (
    select c.seq, c.posted_at, c.quantity, c.account_id, c.team_id,
           date_trunc($5, c.window_start at time zone 'UTC') at time zone 'UTC' as start,
           (select min(x.seq) from ledger.charge x
            where x.account_id = c.account_id and x.team_id = c.team_id and x.corrects = c.charge_id and x.quantity < 0
           ) as gone
    from ledger.charge c
    where c.account_id = (select account_id from ledger.balance where team_id = $1)
      and c.team_id = $1 and c.seq <= $3 and c.price_id = $2
), stands as (
    select *, seq < $3 and (gone is null or gone >= $3) as before, gone is null or gone > $3 as after
    from charges
    where quantity >= 0
)
select start as "start!: Instant",
       coalesce(sum(quantity) filter (where seq < $3), 0)::bigint as "before!",
       sum(quantity)::bigint as "after!"
from charges
where $4 = 'sum'
group by start
union all
select start,
       coalesce(max(quantity) filter (where before), 0),
       coalesce(max(quantity) filter (where after), 0)
from stands
where $4 = 'max'
group by start
union all
select start,
       count(distinct value) filter (where before),
       count(distinct value) filter (where after)
from stands
join ledger.charge_values v using (account_id, team_id, seq, posted_at)
cross join lateral unnest(v.distinct_values) as value
where $4 = 'unique'
group by start
order by 1
