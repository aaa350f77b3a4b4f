-- From its point, the ranges of a lane, settled and lost, join without gap or overlap, chains too, and end at its watermark.
with points as (
    select shard, producer_id, map_version, settled, chain from ledger.verified_lane
), ranges as (
    select l.shard, l.producer_id, l.map_version, l.from_sequence, l.to_sequence, l.chain_before, l.chain_after
    from ledger.new_batches() b
    join ledger.batch_lane l using (shard, number)
    union all
    select l.shard, l.producer_id, l.map_version, l.from_sequence, l.to_sequence, l.chain_before, l.chain_after
    from ledger.lost_range l
    left join points p using (shard, producer_id, map_version)
    where l.from_sequence > coalesce(p.settled, 0)
), joined as (
    select r.*,
           coalesce(lag(r.to_sequence) over lane, p.settled, 0) as previous,
           coalesce(lag(r.chain_after) over lane, p.chain, 0) as chain_previous,
           lead(r.to_sequence) over lane is null as is_last
    from ranges r
    left join points p using (shard, producer_id, map_version)
    window lane as (partition by r.shard, r.producer_id, r.map_version order by r.from_sequence, r.to_sequence)
)
select format('lane %s/%s/%s range %s to %s', producer_id, map_version, shard, from_sequence, to_sequence)
from joined
where from_sequence <> previous + 1 or chain_before <> chain_previous
union all
select format('lane %s/%s/%s', producer_id, map_version, shard)
from ledger.lane_settled l
full join points p using (shard, producer_id, map_version)
full join (select * from joined where is_last) r using (shard, producer_id, map_version)
where (coalesce(r.to_sequence, p.settled, 0), coalesce(r.chain_after, p.chain, 0)) is distinct from (l.settled, l.chain)
