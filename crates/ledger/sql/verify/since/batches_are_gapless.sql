-- The new batches of a shard run from its point to its cursor.
with ends as (
    select shard, count(*) as batches, max(number) as last from ledger.new_batches() group by shard
)
select format('shard %s', shard)
from ledger.shard_cursor c
left join ledger.verified_shard v using (shard)
left join ends e using (shard)
where (coalesce(v.number, 0) + coalesce(e.batches, 0), coalesce(e.last, v.number, 0))
      is distinct from (c.last_batch, c.last_batch)
order by shard
