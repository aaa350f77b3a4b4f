-- In the leading cell, what is elsewhere of a new batch is the sum of the parts that it keeps for the other cells.
with batches as materialized (
    select * from ledger.new_batches() where coalesce((select cell from ledger.installation), 0) = 0
), by_meter as (
    select p.shard, p.number, t.key as meter, sum((t.value->>'events')::numeric) as events, sum((t.value->>'quantity')::numeric) as quantity
    from batches b
    join ledger.batch_part p using (shard, number)
    cross join lateral jsonb_each(p.totals) as t
    group by p.shard, p.number, t.key
), told as (
    select b.shard, b.number, e.key as meter, (e.value->>'events')::numeric as events, (e.value->>'quantity')::numeric as quantity
    from batches b
    cross join lateral jsonb_each(b.elsewhere) as e
)
select format('batch %s of shard %s', b.number, b.shard)
from batches b
where b.elsewhere_events <> (
    select coalesce(sum(p.events), 0) from ledger.batch_part p where p.shard = b.shard and p.number = b.number)
union all
select format('batch %s of shard %s, meter %s', number, shard, meter)
from told t
full join by_meter m using (shard, number, meter)
where (coalesce(t.events, 0), coalesce(t.quantity, 0)) <> (coalesce(m.events, 0), coalesce(m.quantity, 0))
