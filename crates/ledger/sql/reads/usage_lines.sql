-- Charges of some teams of one account, one line for each day and all other keys. As usage_sums.sql, with
-- whole sets of dimensions as keys; read row by row. What corrections took back and charged instead (D43) are
-- lines of their own, by the month they were posted in. Texts are ordered by their bytes, so a file is the same on every server.
with teams as (
    select team_id, after_seq, paid_micros, opened_micros
    from unnest($2::uuid[], $3::bigint[], $4::bigint[], $5::bigint[])
        as t (team_id, after_seq, paid_micros, opened_micros)
), ahead as (
    select team_id, debt_from, debt_to
    from unnest($13::uuid[], $14::bigint[], $15::bigint[]) as a (team_id, debt_from, debt_to)
), items as (
    select j.team_id, j.charge_id, greatest(j.debt_from_micros, t.paid_micros) as debt_from,
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
)
select date_bin('1 day', c.window_start, timestamptz '1970-01-01 00:00:00+00') as "day!: Instant",
       case when c.corrects is not null then date_trunc('month', c.posted_at, 'UTC') end
           as "corrected_in: Instant",
       c.team_id as "team_id!",
       c.app_id as "app_id!",
       c.client_id collate "C" as "client_id!",
       c.meter collate "C" as "meter!",
       c.failed as "failed!",
       c.dimensions::text collate "C" as "dimensions!",
       count(*) as "charges!",
       sum(c.events)::text as "events!",
       sum(c.quantity)::text as "quantity!",
       sum(c.amount_micros)::text as "amount_micros!",
       coalesce(sum(o.micros), 0)::text as "open_micros!"
from teams t
join ledger.charge c on c.account_id = $1 and c.team_id = t.team_id and c.seq > t.after_seq
left join open o on o.charge_id = c.charge_id
where ($6::uuid[] is null or c.app_id = any($6))
  and ($7::text[] is null or c.client_id = any($7))
  and ($8::text[] is null or c.meter = any($8))
  and ($9::text is null or c.dimensions @> $9::text::jsonb)
  and ($10::timestamptz is null or c.window_start >= $10)
  and ($11::timestamptz is null or c.window_start < $11)
  and ($12::boolean is null or c.failed = $12)
  and ($16::timestamptz is null or c.posted_at <= $16)
group by 1, 2, 3, 4, 5, 6, 7, 8
order by 1, 2 nulls first, 3, 4, 5, 6, 7, 8
