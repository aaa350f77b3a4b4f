-- The batches of a shard run from 1 to its cursor.
with ends as (
    select shard, count(*) as batches, max(number) as last from ledger.settlement_batch group by shard
)
select format('shard %s', shard)
from ledger.shard_cursor c
full join ends e using (shard)
where (coalesce(e.batches, 0), coalesce(e.last, 0)) is distinct from (c.last_batch, c.last_batch)
order by shard
