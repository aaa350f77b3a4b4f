-- What is remembered of events by id is what was settled: each batch has its events, and events and quantities of each charge and of what is left are those of their events.
with horizon as (
    -- forgotten events left their charges behind, archived charges their events
    select greatest(forgotten_before, ledger.checked_from()) as since from ledger.event_horizon
), events as (
    select e.* from ledger.event e cross join horizon h where e.recorded_at >= h.since
), batches as (
    select b.shard, b.number, b.events, b.posted_at
    from ledger.settlement_batch b cross join horizon h
    where b.shard >= ledger.event_shards() and b.posted_at >= h.since
), of_batches as (
    select shard, batch as number, count(*) as events, min(recorded_at) as first, max(recorded_at) as last
    from events group by shard, batch
), charges as (
    select c.charge_id, c.shard, c.batch, c.meter, c.window_start, c.events, c.quantity, m.aggregation
    from ledger.charge c cross join horizon h
    left join ledger.meter m on m.slug = c.meter
    where c.shard >= ledger.event_shards() and c.batch > 0 and c.posted_at >= h.since
), of_charges as (
    select charge_id, shard, batch, meter, window_start, count(*) as events, sum(quantity) as total, max(quantity) as largest
    from events where charge_id is not null
    group by charge_id, shard, batch, meter, window_start
), lefts as (
    select u.shard, u.batch, u.meter, u.window_start, u.reason, sum(u.events) as events
    from ledger.unattributed u cross join horizon h
    where u.shard >= ledger.event_shards() and u.posted_at >= h.since
    group by u.shard, u.batch, u.meter, u.window_start, u.reason
), of_lefts as (
    select shard, batch, meter, window_start, left_as as reason, count(*) as events
    from events where left_as is not null
    group by shard, batch, meter, window_start, left_as
)
select format('batch %s of shard %s', number, shard)
from batches b
full join of_batches e using (shard, number)
where (b.events, b.posted_at, b.posted_at) is distinct from (e.events, e.first, e.last)
union all
select format('charge %s of meter %s', charge_id, coalesce(c.meter, e.meter))
from charges c
full join of_charges e using (charge_id, shard, batch, meter, window_start)
where c.events is distinct from e.events
   or c.quantity is distinct from case c.aggregation when 'sum' then e.total when 'count' then e.total
                                                     when 'max' then e.largest else c.quantity end
union all
select format('what is left of batch %s of shard %s, meter %s, as %s', batch, shard, meter, reason)
from lefts u
full join of_lefts e using (shard, batch, meter, window_start, reason)
where u.events is distinct from e.events
union all
select format('event %s of %s', id, source) from ledger.event where name <> ledger.event_name(source, id)
order by 1
