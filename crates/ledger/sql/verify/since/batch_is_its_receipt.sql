-- The receipt of a new batch tells what its rows say.
with charged as (
    select shard, batch as number, count(*) as charges, sum(amount_micros) as amount, sum(uncharged_micros) as uncharged
    from ledger.new_charges()
    where batch > 0
    group by shard, batch
), kept as (
    select shard, batch as number, count(*) as unattributed from ledger.new_unattributed() group by shard, batch
)
select format('batch %s of shard %s', number, shard)
from ledger.new_batches() b
full join charged c using (shard, number)
full join kept u using (shard, number)
where (coalesce(c.charges, 0), coalesce(u.unattributed, 0)) is distinct from (b.charges, b.unattributed)
   or b.lines <> b.charges + b.unattributed
   or least(coalesce(c.amount, 0), 9223372036854775807) is distinct from b.amount_micros
   or least(coalesce(c.uncharged, 0), 9223372036854775807) is distinct from b.uncharged_micros
order by shard, number
