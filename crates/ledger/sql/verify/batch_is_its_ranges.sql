-- Every event of a batch's lane ranges was counted in its lines, refused with a reason, or is in another cell. A batch of events by id has no lanes.
with ranges as (
    select shard, number, sum(to_sequence::numeric - from_sequence + 1) as events from ledger.batch_lane group by shard, number
)
select format('batch %s of shard %s', number, shard)
from ledger.settlement_batch b
full join ranges r using (shard, number)
where case when shard >= ledger.event_shards() then b.refused <> 0 or b.elsewhere_events <> 0 or r.events is not null
           else b.events::numeric + b.refused + b.elsewhere_events is distinct from coalesce(r.events, 0) end
order by shard, number
