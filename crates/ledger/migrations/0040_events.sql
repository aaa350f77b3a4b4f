-- Events that callers without a log name by an id: what is remembered of each, so that the same one again is answered and
-- not counted.
--
-- A slot is a shard of its own kind, from 65536 on: its cursor is the lock under which ids are looked up and added, and
-- its batches are settled, chained and verified like all others, without lanes. Ids are kept by month of recording and
-- forgotten by month. A partitioned table has no key over all months; the lock is what makes an id unique in all of them.
--
-- What is forgotten can not come again: an event is refused where its time lies before what is kept (`event_horizon`).
-- That is decided by the row of what was forgotten, not by a setting, so it holds when settings change.

create function ledger.event_shards() returns integer language sql immutable
    set search_path = pg_catalog, pg_temp return 65536;
comment on function ledger.event_shards() is 'The first shard that is a slot of events; those below are shards of streams.';

create function ledger.event_name(source text, id text) returns uuid language sql immutable
    set search_path = pg_catalog, pg_temp return
    encode(substr(sha256(convert_to(source, 'UTF8') || '\x00'::bytea || convert_to(id, 'UTF8')), 1, 16), 'hex')::uuid;
comment on function ledger.event_name(text, text) is 'What an event is found by: the first 128 bits of SHA-256 over source, a zero byte and id.';

create table ledger.event (
    name uuid not null,
    recorded_at timestamptz not null,
    source text not null check (octet_length(source) between 1 and 256),
    id text not null check (octet_length(id) between 1 and 256),
    content bytea not null check (octet_length(content) = 32),
    event_time timestamptz,
    shard integer not null check (shard >= 65536),
    batch bigint not null check (batch >= 1),
    meter text not null,
    quantity bigint not null check (quantity >= 0),
    window_start timestamptz not null,
    charge_id uuid,
    left_as text check (left_as in ('no_team', 'unknown_client', 'late', 'poison', 'overflow')),
    primary key (name, recorded_at),
    check ((charge_id is null) = (left_as is not null))
) partition by range (recorded_at);
comment on table ledger.event is
    'Events by id, written in the transaction that charges them: the same one again gets this answer. Cut by month of recording, forgotten by month.';
comment on column ledger.event.name is 'ledger.event_name(source, id).';
comment on column ledger.event.content is 'SHA-256 over what the caller sent beside the id: another content is a conflict.';
comment on column ledger.event.event_time is 'As the caller gave it; null where it gave none, and the receipt picked the window.';
comment on column ledger.event.quantity is 'In base units, of the one event: 1 for a meter that counts, the number of its values for unique.';
comment on column ledger.event.charge_id is 'The charge of its line, which other events of the batch may share.';
comment on column ledger.event.left_as is 'Why nobody is charged; the usage is in ledger.unattributed.';
create trigger event_only_grows before update or delete or truncate on ledger.event
    for each statement execute function ledger.refuse_change();

create table ledger.event_default partition of ledger.event default;
comment on table ledger.event_default is 'Events of months that have no partition: never forgotten.';

create table ledger.event_claim (
    name uuid not null,
    recorded_at timestamptz not null,
    source text not null check (octet_length(source) between 1 and 256),
    id text not null check (octet_length(id) between 1 and 256),
    content bytea not null check (octet_length(content) = 32),
    cell smallint not null check (cell between 1 and 255),
    usage bytea not null,
    primary key (name, recorded_at)
) partition by range (recorded_at);
comment on table ledger.event_claim is
    'In the leading cell: events whose money is another cell''s. An id is looked up here and in ledger.event under one lock, so it is recorded in one cell only. Cut and forgotten as events are.';
comment on column ledger.event_claim.recorded_at is 'When it was claimed; it is recorded in its cell afterwards.';
comment on column ledger.event_claim.usage is 'The NamedUsage as it was first sent: what its cell is given, however often.';
create trigger event_claim_only_grows before update or delete or truncate on ledger.event_claim
    for each statement execute function ledger.refuse_change();

create table ledger.event_claim_default partition of ledger.event_claim default;
comment on table ledger.event_claim_default is 'Claims of months that have no partition: never forgotten.';

create table ledger.event_horizon (
    only_row boolean primary key default true check (only_row),
    forgotten_before timestamptz not null default '-infinity',
    refused_before timestamptz not null default '0001-01-01 00:00:00+00' check (refused_before >= forgotten_before)
);
insert into ledger.event_horizon default values;
comment on table ledger.event_horizon is 'What was forgotten: written by ledger.forget_events alone.';
comment on column ledger.event_horizon.forgotten_before is 'Events recorded before this instant are no longer here.';
comment on column ledger.event_horizon.refused_before is
    'Events whose time lies before this instant may have been recorded and forgotten, so they are refused.';

create function ledger.make_event_months(at timestamptz, months integer) returns integer language sql security definer
    set search_path = pg_catalog, pg_temp as $$
    select ledger.add_months(array['event', 'event_claim'], 'recorded_at', (select forgotten_before from ledger.event_horizon), at, months)
$$;
comment on function ledger.make_event_months(timestamptz, integer) is
    'Makes what is missing of the month of an instant and of so many after it for events, and gives the number of partitions made.';

create function ledger.forget_events(at timestamptz, keep_secs bigint, ahead_secs bigint) returns integer
    language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '500ms' as $$
declare
    old record;
    forgotten integer := 0;
begin
    if keep_secs is null or keep_secs < 86400 or ahead_secs is null or ahead_secs < 0 then
        raise exception 'events are kept for at least a day' using errcode = 'invalid_parameter_value';
    end if;
    if not pg_try_advisory_xact_lock(hashtextextended('ledger.make_months', 0)) then
        return 0; -- somebody else is at it
    end if;
    for old in
        select c.oid::regclass as name, (bound.words)[1]::timestamptz as month_end
        from pg_inherits i
        join pg_class c on c.oid = i.inhrelid
        cross join lateral (
            select regexp_match(pg_get_expr(c.relpartbound, c.oid), 'TO \(''([^'']+)''\)') as words
        ) as bound
        where i.inhparent in ('ledger.event'::regclass, 'ledger.event_claim'::regclass)
          and (bound.words)[1]::timestamptz <= at - make_interval(secs => keep_secs + ahead_secs)
        order by 2
    loop
        -- In the transaction that forgets: whoever looks up an id sees either its row or the bound.
        update ledger.event_horizon
        set forgotten_before = greatest(forgotten_before, old.month_end),
            refused_before = greatest(refused_before, old.month_end + make_interval(secs => ahead_secs));
        execute format('drop table %s', old.name);
        forgotten := forgotten + 1;
    end loop;
    return forgotten;
end $$;
comment on function ledger.forget_events(timestamptz, bigint, bigint) is
    'Forgets the events of months that ended so long before an instant, and gives how many months. No money goes with them; an event of that time is refused from then on. An event is recorded at most ahead_secs before its time.';

select ledger.apply_roles();
