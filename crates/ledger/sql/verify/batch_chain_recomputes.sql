-- The chain over the batches of a shard, made anew from their rows and ranges, ends at the cursor's.
with lanes as (
    select shard, number,
           string_agg(
               ledger.lane_bytes(producer_id, map_version, epoch, from_sequence, to_sequence, chain_before, chain_after),
               ''::bytea order by producer_id, map_version) as bytes
    from ledger.batch_lane
    group by shard, number
), batches as materialized (
    select b.*, coalesce(l.bytes, ''::bytea) as lane_bytes
    from ledger.settlement_batch b
    left join lanes l using (shard, number)
), chained as (
    select shard, number, chain, lag(chain, 1, decode(repeat('00', 32), 'hex')) over (partition by shard order by number) as previous,
           generation, digest, posted_at, lines, events, refused, charges, unattributed, amount_micros, uncharged_micros,
           elsewhere_events, lane_bytes
    from batches
)
select format('batch %s of shard %s', number, shard)
from chained
where chain <> ledger.batch_chain(previous, number, generation, digest, posted_at, lines, events, refused, charges,
                                  unattributed, amount_micros, uncharged_micros, elsewhere_events, lane_bytes)
union all
select format('cursor of shard %s', c.shard)
from ledger.shard_cursor c
left join ledger.settlement_batch b on b.shard = c.shard and b.number = c.last_batch
where c.chain <> coalesce(b.chain, decode(repeat('00', 32), 'hex'))
