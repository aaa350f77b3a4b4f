-- The usage of a month, the trial apart, by team, meter and span of a price: the quantity of all lines and
-- of those that did not fail, and what was charged. Of max and unique it is the sum over the periods, made
-- from the lines anew, so that lines that entered no state count too where other prices would charge them.
with spans as (
    select * from unnest($5::text[], $6::timestamptz[], $7::timestamptz[]) as s (meter, from_at, to_at)
), lines as (
    select c.account_id, c.team_id, c.seq, c.posted_at, c.meter, c.failed, c.quantity, c.amount_micros,
           coalesce(s.from_at, $3) as span,
           coalesce(m.aggregation, 'sum') as aggregation,
           date_trunc(m.period, c.window_start at time zone 'UTC') as period,
           -- A line of max or unique is taken back whole (D43): its cost is given back, and its values do not count.
           m.period is null or (c.quantity >= 0 and not exists (
               select 1 from ledger.charge x
               where x.account_id = c.account_id and x.team_id = c.team_id and x.corrects = c.charge_id
                 and x.quantity < 0)) as stands
    from ledger.charge c
    left join ledger.meter m on m.slug = c.meter
    left join spans s on s.meter = c.meter and s.from_at <= c.window_start and c.window_start < s.to_at
    where c.account_id = $1
      and ($2::uuid is null or c.team_id = $2)
      and c.window_start >= $3 and c.window_start < $4
      -- Usage of the month may have been posted before it began: clocks differ.
      and c.posted_at >= $8
      and c.zero_rated is distinct from 'trial'
), peaks as (
    select team_id, meter, span, max(quantity) as everything, max(quantity) filter (where not failed) as succeeded
    from lines
    where aggregation = 'max' and stands
    group by team_id, meter, span, period
), quantities as (
    select team_id, meter, span, sum(quantity) as everything, sum(quantity) filter (where not failed) as succeeded
    from lines
    where aggregation in ('sum', 'count')
    group by 1, 2, 3
    union all
    select team_id, meter, span, sum(everything), sum(succeeded)
    from peaks
    group by 1, 2, 3
    union all
    select l.team_id, l.meter, l.span,
           count(distinct (l.period, value)), count(distinct (l.period, value)) filter (where not l.failed)
    from lines l
    join ledger.charge_values v using (account_id, team_id, seq, posted_at)
    cross join lateral unnest(v.distinct_values) as value
    where l.aggregation = 'unique' and l.stands
    group by 1, 2, 3
), costs as (
    select team_id, meter, span, sum(amount_micros) as cost
    from lines
    group by 1, 2, 3
)
select c.team_id as "team_id!",
       c.meter as "meter!",
       c.span as "span!: Instant",
       coalesce(q.everything, 0)::text as "everything!",
       coalesce(q.succeeded, 0)::text as "succeeded!",
       c.cost::text as "cost!"
from costs c
left join quantities q using (team_id, meter, span)
order by c.team_id, c.meter collate "C", c.span
