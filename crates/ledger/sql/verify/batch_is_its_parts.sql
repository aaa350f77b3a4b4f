-- In the leading cell, what is elsewhere of a batch is the sum of the parts that it keeps for the other cells.
with parts as (
    select shard, number, sum(events) as events from ledger.batch_part group by shard, number
), by_meter as (
    select p.shard, p.number, t.key as meter, sum((t.value->>'events')::numeric) as events, sum((t.value->>'quantity')::numeric) as quantity
    from ledger.batch_part p
    cross join lateral jsonb_each(p.totals) as t
    group by p.shard, p.number, t.key
), told as (
    select b.shard, b.number, e.key as meter, (e.value->>'events')::numeric as events, (e.value->>'quantity')::numeric as quantity
    from ledger.settlement_batch b
    cross join lateral jsonb_each(b.elsewhere) as e
)
select format('batch %s of shard %s', number, shard)
from ledger.settlement_batch b
full join parts p using (shard, number)
where coalesce((select cell from ledger.installation), 0) = 0
  and coalesce(b.elsewhere_events, -1) <> coalesce(p.events, 0)
union all
select format('batch %s of shard %s, meter %s', number, shard, meter)
from told t
full join by_meter m using (shard, number, meter)
where coalesce((select cell from ledger.installation), 0) = 0
  and (coalesce(t.events, 0), coalesce(t.quantity, 0)) <> (coalesce(m.events, 0), coalesce(m.quantity, 0))
