-- Every event of a new batch's lane ranges was counted in its lines, refused with a reason, or is in another cell.
select format('batch %s of shard %s', b.number, b.shard)
from ledger.new_batches() b
where b.events::numeric + b.refused + b.elsewhere_events is distinct from (
    select coalesce(sum(l.to_sequence::numeric - l.from_sequence + 1), 0)
    from ledger.batch_lane l where l.shard = b.shard and l.number = b.number)
order by b.shard, b.number
