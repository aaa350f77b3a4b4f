-- From the chain at its point, the chain over the new batches of a shard ends at the cursor's; the batch at the point is as it was.
with batches as materialized (
    select b.*, coalesce((
               select string_agg(ledger.lane_bytes(l.producer_id, l.map_version, l.epoch, l.from_sequence, l.to_sequence,
                                                   l.chain_before, l.chain_after),
                                 ''::bytea order by l.producer_id, l.map_version)
               from ledger.batch_lane l where l.shard = b.shard and l.number = b.number), ''::bytea) as lane_bytes
    from ledger.new_batches() b
), chained as (
    select b.*, coalesce(lag(b.chain) over (partition by b.shard order by b.number), v.chain,
                         decode(repeat('00', 32), 'hex')) as previous
    from batches b left join ledger.verified_shard v using (shard)
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
union all
select format('batch %s of shard %s is not as it was', v.number, v.shard)
from ledger.verified_shard v
left join ledger.settlement_batch b using (shard, number)
where v.number > 0 and b.chain is distinct from v.chain
