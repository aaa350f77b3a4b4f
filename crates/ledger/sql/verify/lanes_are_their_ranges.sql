-- The ranges of a lane, settled and lost, join without gap or overlap, chains too, and end at its watermark.
with ranges as (
    select shard, producer_id, map_version, from_sequence, to_sequence, chain_before, chain_after from ledger.batch_lane
    union all
    select shard, producer_id, map_version, from_sequence, to_sequence, chain_before, chain_after from ledger.lost_range
), joined as (
    select *,
           lag(to_sequence, 1, 0::bigint) over lane as previous,
           lag(chain_after, 1, 0::bigint) over lane as chain_previous,
           lead(to_sequence) over lane is null as is_last
    from ranges
    window lane as (partition by shard, producer_id, map_version order by from_sequence, to_sequence)
)
select format('lane %s/%s/%s range %s to %s', producer_id, map_version, shard, from_sequence, to_sequence)
from joined
where from_sequence <> previous + 1 or chain_before <> chain_previous
union all
select format('lane %s/%s/%s', producer_id, map_version, shard)
from ledger.lane_settled l
full join (select * from joined where is_last) r using (shard, producer_id, map_version)
where (coalesce(r.to_sequence, 0), coalesce(r.chain_after, 0)) is distinct from (l.settled, l.chain)
