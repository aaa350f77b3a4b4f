-- Charges and journal by month of posting: partitions made ahead, old months detached, archived and put back.
--
-- Who does what. The service has no right to make a table; `make_months` is the one step of this file that it may call.
-- It runs with the rights of who migrates, takes an instant and a number, and can do nothing but add empty months.
-- Everything that takes rows away is for who migrates alone.
--
-- A posting never waits for a month to be made: both tables have a default partition, which takes what no month
-- covers, and every reader reads it. Rows there are an alarm, not a fault: `cut_default` gives them their months.
--
-- Locks. A month is made as a table of its own and then attached, which lets postings through; only the empty
-- default partition is locked for others. What waits here waits for half a second and then fails, to be tried again: a
-- lock that is waited for holds up whoever comes after, and a deadlock would be found only after a second, in anybody.

create schema if not exists ledger_archive;
comment on schema ledger_archive is 'Months that were detached from the ledger''s tables: out of reach of its roles.';
revoke all on schema ledger_archive from public;

create table ledger.charge_default partition of ledger.charge default;
comment on table ledger.charge_default is 'Charges of months that have no partition: should be empty.';
create table ledger.journal_default partition of ledger.journal default;
comment on table ledger.journal_default is 'Journal rows of months that have no partition: should be empty.';

create function ledger.month_start(at timestamptz, months integer default 0) returns timestamptz language sql immutable
    set search_path = pg_catalog, pg_temp return
    (date_trunc('month', at at time zone 'UTC') + make_interval(months => months)) at time zone 'UTC';
comment on function ledger.month_start(timestamptz, integer) is 'The first instant of the UTC month of an instant, or of one so many months later.';

create function ledger.month_name(month timestamptz) returns text language sql immutable
    set search_path = pg_catalog, pg_temp return to_char(month at time zone 'UTC', 'YYYY_MM');
comment on function ledger.month_name(timestamptz) is 'A month as names of tables and files have it.';

-- Sizes are those of the last analyze; -1 where there was none.
create function ledger.partitions()
    returns table (parent text, name text, month timestamptz, month_end timestamptz, estimated_rows bigint, bytes bigint)
    language sql stable set search_path = pg_catalog, pg_temp as $$
    select p.relname::text, c.relname::text, (bound.words)[1]::timestamptz, (bound.words)[2]::timestamptz,
           c.reltuples::bigint, pg_total_relation_size(c.oid)
    from pg_inherits i
    join pg_class p on p.oid = i.inhparent
    join pg_class c on c.oid = i.inhrelid
    cross join lateral (
        select regexp_match(pg_get_expr(c.relpartbound, c.oid), 'FROM \(''([^'']+)''\) TO \(''([^'']+)''\)') as words
    ) as bound
    where p.relnamespace = 'ledger'::regnamespace and p.relkind = 'p' and p.relname in ('charge', 'journal')
$$;
comment on function ledger.partitions() is 'The partitions of charges and journal; the default ones have no month.';

create function ledger.make_partition(parent text, month timestamptz) returns void language plpgsql
    set search_path = pg_catalog, pg_temp as $$
declare
    partition text := format('%s_%s', parent, ledger.month_name(month));
begin
    execute format('create table ledger.%I (like ledger.%I including all)', partition, parent);
    execute format('comment on table ledger.%I is %L', partition,
        format('Rows of ledger.%s posted in %s.', parent, to_char(month at time zone 'UTC', 'YYYY-MM')));
end $$;
comment on function ledger.make_partition(text, timestamptz) is 'The table of a month, not attached yet.';

create function ledger.attach_partition(parent text, month timestamptz) returns void language plpgsql
    set search_path = pg_catalog, pg_temp as $$
declare
    partition text := format('%s_%s', parent, ledger.month_name(month));
begin
    execute format('alter table ledger.%I attach partition ledger.%I for values from (%L) to (%L)',
        parent, partition, month, ledger.month_start(month, 1));
    perform ledger.secure_partition(format('ledger.%I', partition)::regclass);
end $$;
comment on function ledger.attach_partition(text, timestamptz) is 'Makes the table of a month a partition.';

-- Makes what is missing of the months of some tables, from the one of an instant on and none before `since`; gives the
-- number of partitions made. `instant` is the column that they are cut by. Those who may call it are below.
create function ledger.add_months(parents text[], instant text, since timestamptz, at timestamptz, months integer)
    returns integer language plpgsql set search_path = pg_catalog, pg_temp set lock_timeout = '500ms' as $$
declare
    wanted record;
    made integer := 0;
    waits boolean;
begin
    if months is null or months not between 0 and 60 then
        raise exception 'months ahead must be 0 to 60' using errcode = 'invalid_parameter_value';
    end if;
    if at not between now() - interval '10 years' and now() + interval '10 years' then
        raise exception 'months of % are too far away to be made', at using errcode = 'invalid_parameter_value';
    end if;
    if not pg_try_advisory_xact_lock(hashtextextended('ledger.make_months', 0)) then
        return 0; -- somebody else is at it
    end if;
    for wanted in
        select p.parent, ledger.month_start(at, n) as month
        from unnest(parents) as p (parent)
        cross join generate_series(0, months) as n
        where ledger.month_start(at, n) >= since
          and to_regclass(format('ledger.%I', p.parent || '_' || ledger.month_name(ledger.month_start(at, n)))) is null
        order by 2, 1
    loop
        -- rows that came to the default partition meanwhile stay there; cut_default gives charges and journal their months
        execute format('select exists (select from ledger.%I where %I >= %L and %I < %L)',
            wanted.parent || '_default', instant, wanted.month, instant, ledger.month_start(wanted.month, 1)) into waits;
        continue when waits;
        perform ledger.make_partition(wanted.parent, wanted.month);
        perform ledger.attach_partition(wanted.parent, wanted.month);
        made := made + 1;
    end loop;
    return made;
end $$;
comment on function ledger.add_months(text[], text, timestamptz, timestamptz, integer) is
    'Makes what is missing of the months of tables that are cut by an instant; the rows of a default partition stay there.';

create function ledger.make_months(at timestamptz, months integer) returns integer language sql security definer
    set search_path = pg_catalog, pg_temp as $$
    select ledger.add_months(array['charge', 'journal'], 'posted_at', ledger.archived_until(), at, months)
$$;
comment on function ledger.make_months(timestamptz, integer) is
    'Makes what is missing of the month of an instant and of so many after it, and gives the number of partitions made. It only ever adds empty tables, which is why the service may call it.';

create function ledger.months_ahead(at timestamptz) returns integer language sql stable
    set search_path = pg_catalog, pg_temp as $$
    select (count(*) / 2)::integer from ledger.partitions() where month > at
$$;
comment on function ledger.months_ahead(timestamptz) is 'How many months after that of an instant are made.';

create function ledger.default_is_empty() returns boolean language sql stable security definer
    set search_path = pg_catalog, pg_temp as $$
    select not exists (select from ledger.charge_default) and not exists (select from ledger.journal_default)
$$;
comment on function ledger.default_is_empty() is 'Whether every row has the partition of its month.';

create function ledger.cut_default() returns integer language plpgsql
    set search_path = pg_catalog, pg_temp set lock_timeout = '500ms' as $$
declare
    parent text;
    months timestamptz[];
    cut timestamptz;
    made integer := 0;
    moved bigint;
    here bigint;
begin
    perform pg_advisory_xact_lock(hashtextextended('ledger.make_months', 0));
    -- no row may come to them from here on; who reads or posts waits
    lock table ledger.journal, ledger.charge in access exclusive mode;
    select array_agg(distinct m order by m) into months
    from (select ledger.month_start(posted_at) as m from ledger.charge_default
          union all
          select ledger.month_start(posted_at) from ledger.journal_default) as posted;
    if months is null then
        return 0;
    end if;
    foreach parent in array array['charge', 'journal'] loop
        execute format('alter table ledger.%I detach partition ledger.%I', parent, parent || '_default');
        execute format('alter table ledger.%I rename to %I', parent || '_default', parent || '_cut');
        execute format('create table ledger.%I partition of ledger.%I default', parent || '_default', parent);
        execute format('comment on table ledger.%I is %L', parent || '_default',
            'Rows of months that have no partition: should be empty.');
        perform ledger.secure_partition(format('ledger.%I', parent || '_default')::regclass);
        execute format('select count(*) from ledger.%I', parent || '_cut') into here;
        foreach cut in array months loop
            -- a month may have rows of one table only, and its partition in the other already
            continue when to_regclass(format('ledger.%I', format('%s_%s', parent, ledger.month_name(cut)))) is not null;
            perform ledger.make_partition(parent, cut);
            execute format('insert into ledger.%I select * from ledger.%I where posted_at >= %L and posted_at < %L',
                format('%s_%s', parent, ledger.month_name(cut)), parent || '_cut', cut, ledger.month_start(cut, 1));
            get diagnostics moved = row_count;
            here := here - moved;
            perform ledger.attach_partition(parent, cut);
            made := made + 1;
        end loop;
        if here <> 0 then
            raise exception '% rows of the default partition of % have no month', here, parent;
        end if;
        execute format('drop table ledger.%I', parent || '_cut');
    end loop;
    return made;
end $$;
comment on function ledger.cut_default() is
    'Gives the rows of the default partitions the months they belong to, and gives the number of partitions made. Rows are copied as they are; postings wait meanwhile.';

-- Why a month can not be detached; no rows where it can. Rows of it have to be of no use to any posting or report that
-- goes by rows: everything about them is closed, rolled up, stated and verified.
create function ledger.month_needs(first timestamptz, at timestamptz, keep_months integer) returns setof text language plpgsql stable
    set search_path = pg_catalog, pg_temp as $$
declare
    until timestamptz := ledger.month_start(first, 1);
    oldest timestamptz;
    charges text := format('ledger.%I', 'charge_' || ledger.month_name(first));
    rows text := format('ledger.%I', 'journal_' || ledger.month_name(first));
    -- The last row of each team, which may be a charge (ledger.full_journal).
    ends text := format(
        'select account_id, team_id, max(seq) as seq
         from (select account_id, team_id, seq from %s union all select account_id, team_id, journal_seq from %s) r group by 1, 2',
        rows, charges);
begin
    if keep_months is null or keep_months < 4 then
        -- a forecast reads 28 days, adoption goes back 90 (D49), and the newest months are under way
        raise exception 'at least 4 months are kept' using errcode = 'invalid_parameter_value';
    end if;
    if (select count(*) from ledger.partitions() p where p.month = first) <> 2 then
        return next 'there is no such month';
        return;
    end if;
    select min(p.month) into oldest from ledger.partitions() p;
    if oldest < first then
        return next format('%s is older, and months go in order', ledger.month_name(oldest));
    end if;
    if until > ledger.month_start(at, 1 - keep_months) then
        return next format('it is one of the last %s months', keep_months);
    end if;
    if not ledger.default_is_empty() then
        return next 'a default partition has rows';
    end if;
    return query
        select format('lot %s of team %s is due in it and not closed', l.lot_id, l.team_id)
        from ledger.lot l where num_nonnulls(l.closed_at, l.moved_to) = 0 and l.closes_at < until limit 3;
    return query
        select format('hold %s of team %s timed out in it and is not ended', h.hold_id, h.team_id)
        from ledger.hold h where num_nonnulls(h.ended_at) = 0 and h.expires_at < until limit 3;
    return query execute format(
        'select format(''team %%s owes for usage of it'', j.team_id) from %s j
         join ledger.balance b using (account_id, team_id)
         where j.debit_book = ''uncharged'' and j.debt_to_micros > b.debt_paid_micros group by j.team_id limit 3', rows);
    return query execute format(
        'select format(''lot %%s of team %%s is open and has rows in it'', lot_id, team_id)
         from (select account_id, team_id, lot_id from %s union all select account_id, team_id, lot_id from %s) j
         join ledger.lot l using (account_id, team_id, lot_id)
         where l.closed_at is null and l.moved_to is null group by lot_id, team_id limit 3', rows, charges);
    return query execute format(
        'select format(''the month of usage of team %%s is not over'', team_id) from %s
         where window_start >= ledger.month_start(%L, -1) group by team_id limit 3', charges, at);
    return query execute format(
        'select format(''charges of team %%s are not rolled up'', c.team_id)
         from (select account_id, team_id, max(seq) as seq from %s group by 1, 2) c
         left join ledger.usage_rolled r using (account_id, team_id)
         where coalesce(r.seq, 0) < c.seq limit 3', charges);
    return query execute format(
        'select format(''no clean verification has read team %%s so far'', j.team_id)
         from (%s) j
         left join (select account_id, team_id, max(seq) as seq from %s group by 1, 2) c using (account_id, team_id)
         left join ledger.verified_team v using (account_id, team_id)
         where coalesce(v.seq, 0) < j.seq or coalesce(v.charges, 0) < coalesce(c.seq, 0) limit 3', ends, charges);
    return query execute format(
        'select format(''no statement of team %%s reaches over it'', j.team_id)
         from (%s) j
         where not exists (select from ledger.statement s where s.account_id = j.account_id
                           and s.team_id = j.team_id and s.closing_seq >= j.seq) limit 3', ends);
end $$;
comment on function ledger.month_needs(timestamptz, timestamptz, integer) is
    'What still needs the rows of a month at an instant, in words; nothing where it can be detached. keep_months, the present one included, stay in any case.';

create function ledger.detach_month(first timestamptz, at timestamptz, keep_months integer) returns void language plpgsql
    set search_path = pg_catalog, pg_temp set lock_timeout = '500ms' as $$
declare
    needs text;
    parent text;
    name text := ledger.month_name(first);
    charges bigint;
    journal_rows bigint;
begin
    perform pg_advisory_xact_lock(hashtextextended('ledger.make_months', 0));
    -- Looked at before anybody has to wait: a month this old gets no new rows, since everything due in it is done.
    select string_agg(n, '; ') into needs from ledger.month_needs(first, at, keep_months) n;
    if needs is not null then
        raise exception 'month % is still needed: %', name, needs using errcode = 'object_in_use';
    end if;
    execute format('select count(*) from ledger.%I', 'charge_' || name) into charges;
    execute format('select count(*) from ledger.%I', 'journal_' || name) into journal_rows;
    insert into ledger.archived_month (month, month_end, detached_at, charges, journal_rows)
    values (first, ledger.month_start(first, 1), at, charges, journal_rows);
    execute format(
        'insert into ledger.archived_team (account_id, team_id, month, journal_seq, charge_seq)
         select account_id, team_id, %L,
                greatest(max(j.seq), max(c.journal_seq), ledger.archived_seq(account_id, team_id, false)),
                greatest(max(c.seq), ledger.archived_seq(account_id, team_id, true))
         from (select account_id, team_id, max(seq) as seq from ledger.%I group by 1, 2) j
         full join (select account_id, team_id, max(seq) as seq, max(journal_seq) as journal_seq from ledger.%I group by 1, 2) c
            using (account_id, team_id)
         group by account_id, team_id', first, 'journal_' || name, 'charge_' || name);
    foreach parent in array array['journal', 'charge'] loop
        execute format('alter table ledger.%I detach partition ledger.%I', parent, parent || '_' || name);
        execute format('alter table ledger.%I set schema ledger_archive', parent || '_' || name);
    end loop;
end $$;
comment on function ledger.detach_month(timestamptz, timestamptz, integer) is
    'Takes the oldest month out of charges and journal, as two tables of the schema ledger_archive; refused while anything needs it. Postings wait for the moment of the detaching.';

create function ledger.attach_month(first timestamptz) returns void language plpgsql
    set search_path = pg_catalog, pg_temp set lock_timeout = '500ms' as $$
declare
    parent text;
    name text := ledger.month_name(first);
    wanted record;
    here bigint;
begin
    perform pg_advisory_xact_lock(hashtextextended('ledger.make_months', 0));
    if (select max(month) from ledger.archived_month) is distinct from first then
        raise exception 'month % is not the one that was detached last', name using errcode = 'invalid_parameter_value';
    end if;
    select m.charges, m.journal_rows into wanted from ledger.archived_month m where month = first;
    foreach parent in array array['charge', 'journal'] loop
        execute format('select count(*) from ledger_archive.%I', parent || '_' || name) into here;
        if here <> (case parent when 'charge' then wanted.charges else wanted.journal_rows end) then
            raise exception 'table % has % rows, which is not what was detached', parent || '_' || name, here;
        end if;
    end loop;
    foreach parent in array array['journal', 'charge'] loop
        execute format('alter table ledger_archive.%I set schema ledger', parent || '_' || name);
        perform ledger.attach_partition(parent, first);
    end loop;
    delete from ledger.archived_month where month = first;
end $$;
comment on function ledger.attach_month(timestamptz) is 'Puts the month that was detached last back where it was; its tables have to be there.';

create function ledger.restored_month(first timestamptz) returns void language plpgsql
    set search_path = pg_catalog, pg_temp set lock_timeout = '500ms' as $$
declare
    parent text;
    name text := ledger.month_name(first);
begin
    if not exists (select from ledger.archived_month where month = first and dropped_at is not null) then
        raise exception 'month % was not dropped', name using errcode = 'object_not_in_prerequisite_state';
    end if;
    foreach parent in array array['charge', 'journal'] loop
        perform ledger.make_partition(parent, first);
        execute format('alter table ledger.%I set schema ledger_archive', parent || '_' || name);
    end loop;
    update ledger.archived_month set dropped_at = null where month = first;
end $$;
comment on function ledger.restored_month(timestamptz) is
    'Makes the tables of a dropped month again, empty: they are filled from its files in the same transaction.';

create function ledger.drop_month(first timestamptz, at timestamptz) returns void language plpgsql
    set search_path = pg_catalog, pg_temp set lock_timeout = '500ms' as $$
declare
    name text := ledger.month_name(first);
begin
    update ledger.archived_month set dropped_at = at
    where month = first and archived_at is not null and dropped_at is null;
    if not found then
        raise exception 'month % has no archive', name using errcode = 'object_not_in_prerequisite_state';
    end if;
    execute format('drop table ledger_archive.%I, ledger_archive.%I', 'charge_' || name, 'journal_' || name);
end $$;
comment on function ledger.drop_month(timestamptz, timestamptz) is 'Removes the tables of a detached month whose files are written and were read again.';

-- === verification beside archived months ===

create function ledger.checked_from() returns timestamptz language sql stable
    set search_path = pg_catalog, pg_temp as $$
    select case when ledger.archived_until() = '-infinity' then '-infinity'
                else ledger.month_start(ledger.archived_until(), 1) end
$$;
comment on function ledger.checked_from() is
    'Months from here on have all their charges here: usage may be posted shortly before its window, so one month after the archived ones is left out too.';

select ledger.apply_roles();
