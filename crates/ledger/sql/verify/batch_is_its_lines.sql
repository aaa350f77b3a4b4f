-- By meter, the events and quantities of a batch are those of its charges, its unattributed lines and what other cells have.
with lines as (
    select shard, batch as number, meter, events, quantity from ledger.charge where batch > 0
    union all
    select shard, batch, meter, events, quantity from ledger.unattributed
    union all
    select shard, number, e.key, (e.value->>'events')::bigint, (e.value->>'quantity')::bigint
    from ledger.settlement_batch
    cross join lateral jsonb_each(elsewhere) as e
), sums as (
    select shard, number, meter, sum(events) as events, sum(quantity) as quantity
    from lines
    group by shard, number, meter
), totals as (
    select shard, number, t.key as meter, (t.value->>'events')::numeric as events, (t.value->>'quantity')::numeric as quantity
    from ledger.settlement_batch
    cross join lateral jsonb_each(totals) as t
)
select format('batch %s of shard %s, meter %s', number, shard, meter)
from totals t
full join sums s using (shard, number, meter)
where (coalesce(t.events, 0), coalesce(t.quantity, 0)) <> (coalesce(s.events, 0), coalesce(s.quantity, 0))
order by shard, number, meter
