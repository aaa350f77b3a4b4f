-- What makes a batch settled: its row with its place in the chain, its lane ranges, the lanes and the
-- cursor moved, and the usage that no team is charged for. The cursor is locked.
with ranges as (
    select * from unnest($14::uuid[], $15::int[], $16::bigint[], $17::bigint[], $18::bigint[], $19::bigint[], $20::bigint[])
        as r (producer_id, map_version, epoch, from_sequence, to_sequence, chain_before, chain_after)
), cursor as (
    update ledger.shard_cursor
    -- The leading cell has this generation already; another one takes it over.
    set last_batch = $2, generation = $3, changed_at = $5,
        chain = ledger.batch_chain(chain, $2, $3, $4, $5, $6, $7, $8, $10, $11, $12, $13, $38, (
            select coalesce(string_agg(
                ledger.lane_bytes(producer_id, map_version, epoch, from_sequence, to_sequence, chain_before, chain_after),
                ''::bytea order by producer_id, map_version), ''::bytea)
            from ranges))
    where shard = $1
    returning chain
), batch as (
    insert into ledger.settlement_batch (
        shard, number, batch_id, generation, digest, chain, posted_at, lines, events, refused, refused_by_reason,
        totals, elsewhere_events, elsewhere, charges, unattributed, amount_micros, uncharged_micros)
    select $1, $2, $21, $3, $4, chain, $5, $6, $7, $8, $9::text::jsonb, $36::text::jsonb, $38, $39::text::jsonb,
           $10, $11, $12, $13 from cursor
), batch_lanes as (
    insert into ledger.batch_lane (
        shard, number, producer_id, map_version, epoch, from_sequence, to_sequence, chain_before, chain_after)
    select $1, $2, producer_id, map_version, epoch, from_sequence, to_sequence, chain_before, chain_after from ranges
), lanes as (
    insert into ledger.lane_settled (shard, producer_id, map_version, settled, chain)
    select $1, producer_id, map_version, to_sequence, chain_after from ranges
    order by producer_id, map_version
    on conflict (shard, producer_id, map_version) do update
        set settled = excluded.settled, chain = excluded.chain
), clients as (
    insert into ledger.client_usage (client_id, last_window)
    -- Nearly all of them are known with this window already: an upsert would lock and log each all the same.
    select c.client_id, c.last_window
    from unnest($22::text[], $23::timestamptz[]) as c (client_id, last_window)
    left join ledger.client_usage u on u.client_id = c.client_id
    where u.last_window is null or u.last_window < c.last_window
    order by c.client_id
    on conflict (client_id) do update set last_window = excluded.last_window
        where ledger.client_usage.last_window < excluded.last_window
), arrived as (
    -- Usage of an app that got its first team meanwhile goes the way of what was kept before (D49). By client id, as
    -- everybody takes these rows.
    update ledger.adopted_client a set arrived = a.arrived + 1
    from (
        select client_id from ledger.adopted_client
        where client_id in (select u.client_id from unnest($24::text[], $32::text[]) as u (client_id, reason)
                            where u.reason = 'no_team')
        order by client_id
        for update
    ) as due
    where a.client_id = due.client_id
)
insert into ledger.unattributed (
    posted_at, shard, batch, client_id, meter, failed, window_start, received_window_start, dimensions, events,
    quantity, reason, distinct_values, account_id, team_id, app_id)
select $5, $1, $2, u.client_id, u.meter, u.failed, u.window_start, u.received_window_start, u.dimensions::jsonb,
       u.events, u.quantity, u.reason, u.distinct_values::bytea[], u.account_id, u.team_id, u.app_id
from unnest(
    $24::text[], $25::text[], $26::boolean[], $27::timestamptz[], $28::timestamptz[], $29::text[], $30::bigint[],
    $31::bigint[], $32::text[], $37::text[], $33::uuid[], $34::uuid[], $35::uuid[]
) as u (client_id, meter, failed, window_start, received_window_start, dimensions, events, quantity, reason,
        distinct_values, account_id, team_id, app_id)
