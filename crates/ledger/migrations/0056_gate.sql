-- What the gate compares a batch with, under the lock of the cursor, by one message.
--
-- A function, because what a lock guards has to be read by a statement that begins after it: a lock that waits refreshes only
-- the row it waited for. Each statement inside of this function sees what was committed when it began.

create function ledger.gate_facts(of_shard int, of_number bigint, producers uuid[], map_versions int[]) returns table (
    generation bigint, last_batch bigint, catalogue bigint,
    digest bytea, posted_at timestamptz, charges bigint, unattributed bigint, amount_micros bigint,
    lines bigint, events bigint, elsewhere_events bigint, elsewhere text,
    producer_id uuid, map_version int, settled bigint, chain bigint
) language plpgsql
    set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
    cursor record;
begin
    select c.generation, c.last_batch, k.version into cursor
    from ledger.shard_cursor c cross join ledger.catalogue k
    where c.shard = of_shard
    for update of c for share of k;
    if not found then
        return;
    end if;
    return query
        select cursor.generation, cursor.last_batch, cursor.version,
               b.digest, b.posted_at, b.charges, b.unattributed, b.amount_micros,
               b.lines, b.events, b.elsewhere_events, b.elsewhere::text,
               l.producer_id, l.map_version, l.settled, l.chain
        from (values (true)) as one
        left join ledger.settlement_batch b on b.shard = of_shard and b.number = of_number
        left join (
            select p.producer_id, w.map_version, coalesce(s.settled, 0) as settled, coalesce(s.chain, 0) as chain
            from unnest(producers, map_versions) as w (producer_id, map_version)
            join ledger.producer p on p.producer_id = w.producer_id
            left join ledger.lane_settled s
              on s.shard = of_shard and s.producer_id = w.producer_id and s.map_version = w.map_version
        ) l on true;
end $$;
comment on function ledger.gate_facts(int, bigint, uuid[], int[]) is
    'Locks the cursor of a shard, and the catalogue for reading, and gives both with the receipt of a batch number, where it is settled, and where lanes of known producers stand; nothing where the shard has no cursor.';
