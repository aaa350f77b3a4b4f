-- Every event of a new batch's lane ranges was counted in its lines, refused with a reason, or is in another cell. A batch of events by id has no lanes.
with ranges as (
    select b.shard, b.number, b.events, b.refused, b.elsewhere_events, (
        select sum(l.to_sequence::numeric - l.from_sequence + 1)
        from ledger.batch_lane l where l.shard = b.shard and l.number = b.number) as ranged
    from ledger.new_batches() b
)
select format('batch %s of shard %s', number, shard)
from ranges
where case when shard >= ledger.event_shards() then refused <> 0 or elsewhere_events <> 0 or ranged is not null
           else events::numeric + refused + elsewhere_events is distinct from coalesce(ranged, 0) end
order by shard, number
