-- Charges of a team that fit a filter, in posting order: a walk along the primary key. What is open of a
-- charge is the part of its debt items beyond what is settled (D7): beyond the paid position ($5), and not
-- in a part that was settled ahead of it ($14, $15). Its items are the row of kind `uncharged` that was
-- written with it, and what a chargeback made debt again; items opened after the state shown ($16) are not
-- there yet.
select c.seq,
       c.charge_id,
       c.app_id,
       c.client_id,
       c.meter,
       c.failed,
       c.window_start as "window_start: Instant",
       c.dimensions::text as "dimensions!",
       c.events,
       c.quantity,
       c.amount_micros,
       c.uncharged_micros,
       coalesce(o.micros, 0)::bigint as "open_micros!",
       c.price_id,
       c.zero_rated,
       c.posted_at as "posted_at: Instant",
       case when c.amount_micros = 0 then 0 else c.journal_seq end as "journal_seq!",
       c.corrects
from ledger.charge c
left join lateral (
    select sum(i.debt_to - i.debt_from - coalesce(
        (select sum(least(a.debt_to, i.debt_to) - greatest(a.debt_from, i.debt_from))
         from unnest($14::bigint[], $15::bigint[]) as a (debt_from, debt_to)
         where a.debt_from < i.debt_to and a.debt_to > i.debt_from), 0)) as micros
    from (
        (select greatest(j.debt_from_micros, $5) as debt_from, j.debt_to_micros as debt_to
         from ledger.journal j
         where j.account_id = c.account_id and j.team_id = c.team_id and j.seq >= c.journal_seq
           and j.posted_at = c.posted_at and j.kind = 'uncharged' and j.charge_id = c.charge_id
           and c.uncharged_micros > 0
         order by j.seq
         limit 1)
        union all
        select greatest(j.debt_from_micros, $5), j.debt_to_micros
        from ledger.journal j
        where j.team_id = c.team_id and j.charge_id = c.charge_id and j.kind = 'chargeback'
          and j.account_id = c.account_id and j.debt_from_micros < $16
          -- asked once: nearly no team has any, and each charge would look into every month
          and (select exists (select from ledger.journal b where b.team_id = $2 and b.kind = 'chargeback'))
    ) i (debt_from, debt_to)
    where i.debt_from < i.debt_to
) o on true
where c.account_id = $1
  and c.team_id = $2
  and c.seq > $3
  and c.seq <= $4
  and c.posted_at >= $17
  and ($6::uuid[] is null or c.app_id = any($6))
  and ($7::text[] is null or c.client_id = any($7))
  and ($8::text[] is null or c.meter = any($8))
  and ($9::text is null or c.dimensions @> $9::text::jsonb)
  and ($10::timestamptz is null or c.window_start >= $10)
  and ($11::timestamptz is null or c.window_start < $11)
  and ($12::boolean is null or c.failed = $12)
  and ($18::timestamptz is null or c.posted_at <= $18)
order by c.seq
limit $13
