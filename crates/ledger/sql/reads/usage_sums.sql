-- Sums of charges of some teams of one account by any of the keys: what is rolled up by day (or by hour, where
-- hours are asked for), and the charges behind that place, one by one; all charges one by one where something
-- is rolled up that was posted after $25, the last instant of posting that counts. A key that is not asked for is one value.
-- `items` are the debt items that reach beyond what is paid, so a team that owes nothing costs nothing there; parts of
-- them may be settled ahead of their turn. Their charges may be rolled up: those are walked from the first of
-- them, for what is open of them alone; a chargeback makes old charges open again, and is walked from the beginning.
with teams as (
    select t.team_id, t.after_seq, t.paid_micros, t.opened_micros, coalesce(r.seq, 0) as rolled_seq,
           coalesce(r.posted_at, '-infinity') as rolled_at
    from unnest($2::uuid[], $3::bigint[], $4::bigint[], $5::bigint[])
        as t (team_id, after_seq, paid_micros, opened_micros)
    left join ledger.usage_rolled r
      on r.account_id = $1 and r.team_id = t.team_id and ($25::timestamptz is null or r.posted_at <= $25)
), ahead as (
    select team_id, debt_from, debt_to
    from unnest($21::uuid[], $22::bigint[], $23::bigint[]) as a (team_id, debt_from, debt_to)
), items as (
    select j.team_id, j.charge_id, j.kind, j.posted_at, greatest(j.debt_from_micros, t.paid_micros) as debt_from,
           j.debt_to_micros as debt_to
    from teams t
    join ledger.journal j on j.account_id = $1 and j.team_id = t.team_id
    where t.opened_micros > t.paid_micros
      and j.kind in ('uncharged', 'chargeback')
      and j.debt_to_micros > 0
      and j.debt_to_micros > t.paid_micros
), open as (
    select i.charge_id, sum(i.debt_to - i.debt_from - coalesce(
        (select sum(least(a.debt_to, i.debt_to) - greatest(a.debt_from, i.debt_from))
         from ahead a
         where a.team_id = i.team_id and a.debt_from < i.debt_to and a.debt_to > i.debt_from), 0)) as micros
    from items i
    group by i.charge_id
), owing as (
    select i.team_id, min(case when i.kind = 'chargeback' then '-infinity' else i.posted_at end) as posted_from
    from items i
    group by i.team_id
), usage as (
    select u.team_id, u.app_id, u.client_id, u.meter, u.failed, u.dimensions, u.day as at, u.charges, u.events,
           u.quantity, u.amount_micros, 0::numeric as open_micros
    from teams t
    join ledger.usage_day u on u.account_id = $1 and u.team_id = t.team_id
    where not $24 and t.rolled_seq > 0
      and u.day >= coalesce($10::timestamptz, '-infinity') and u.day < coalesce($11::timestamptz, 'infinity')
    union all
    select u.team_id, u.app_id, u.client_id, u.meter, u.failed, u.dimensions, u.hour, u.charges, u.events,
           u.quantity, u.amount_micros, 0
    from teams t
    join ledger.usage_hour u on u.account_id = $1 and u.team_id = t.team_id
    where $24 and t.rolled_seq > 0
      and u.hour >= coalesce($10::timestamptz, '-infinity') and u.hour < coalesce($11::timestamptz, 'infinity')
    union all
    select c.team_id, c.app_id, c.client_id, c.meter, c.failed, c.dimensions, c.window_start, 1, c.events,
           c.quantity, c.amount_micros, coalesce(o.micros, 0)
    from teams t
    join ledger.charge c
      on c.account_id = $1 and c.team_id = t.team_id and c.seq > greatest(t.after_seq, t.rolled_seq)
     and c.posted_at >= t.rolled_at and ($25::timestamptz is null or c.posted_at <= $25)
    left join open o on o.charge_id = c.charge_id
    where ($10::timestamptz is null or c.window_start >= $10) and ($11::timestamptz is null or c.window_start < $11)
    union all
    select c.team_id, c.app_id, c.client_id, c.meter, c.failed, c.dimensions, c.window_start, 0, 0, 0, 0, o.micros
    from owing w
    join teams t on t.team_id = w.team_id
    join ledger.charge c
      on c.account_id = $1 and c.team_id = t.team_id and c.seq > t.after_seq and c.seq <= t.rolled_seq
     and c.posted_at >= w.posted_from
    join open o on o.charge_id = c.charge_id
    where ($10::timestamptz is null or c.window_start >= $10) and ($11::timestamptz is null or c.window_start < $11)
)
select case when $13 then u.team_id end as team_id,
       case when $14 then u.app_id end as app_id,
       case when $15 then u.client_id end as client_id,
       case when $16 then u.meter end as meter,
       case when $17 then date_bin('1 day', u.at, timestamptz '1970-01-01 00:00:00+00') end as "day: Instant",
       case when $18 then u.failed end as failed,
       case when cardinality($19::text[]) > 0
            then array(select coalesce(u.dimensions ->> name, '') from unnest($19::text[]) with ordinality
                       as n (name, place) order by place)
       end as "dimensions: Vec<String>",
       case when $24 then date_bin('1 hour', u.at, timestamptz '1970-01-01 00:00:00+00') end as "hour: Instant",
       sum(u.charges)::bigint as "charges!",
       sum(u.events)::text as "events!",
       sum(u.quantity)::text as "quantity!",
       sum(u.amount_micros)::text as "amount_micros!",
       sum(u.open_micros)::text as "open_micros!"
from usage u
where ($6::uuid[] is null or u.app_id = any($6))
  and ($7::text[] is null or u.client_id = any($7))
  and ($8::text[] is null or u.meter = any($8))
  and ($9::text is null or u.dimensions @> $9::text::jsonb)
  and ($12::boolean is null or u.failed = $12)
group by 1, 2, 3, 4, 5, 6, 7, 8
order by 1, 2, 3, 4, 5, 6, 7, 8
limit $20
