-- Who may do what in this schema, and what a tenant sees of it.
--
-- Roles belong to the server, privileges to a database. The three roles here can not sign in: an operator
-- grants them to users of his own, whose passwords no migration ever sees. Who migrates owns the tables.
--   drawdown_ledger_service  the service: reads all, adds rows, changes those of tables that are not insert-only
--   drawdown_ledger_reader   people and reports: reads all
--   drawdown_ledger_tenant   one account: reads its rows, by row-level security; the service takes this role for
--                            the length of a read that names an account
-- Privileges follow from the tables (ledger.apply_roles), so a table that a later migration adds has its own.

-- A role exists once a server, this migration runs once a database, perhaps in several at a time.
create function ledger.make_role(role_name text, about text) returns void language plpgsql
    set search_path = pg_catalog, pg_temp as $$
begin
    if exists (select from pg_catalog.pg_roles where rolname = role_name) then
        return;
    end if;
    execute format('create role %I nologin', role_name);
    execute format('comment on role %I is %L', role_name, about);
    -- an owner who is no superuser may take the role too: `drawdown up` does
    if not pg_catalog.pg_has_role(current_user, role_name, 'member') then
        execute format('grant %I to current_user', role_name);
    end if;
exception
    when duplicate_object or unique_violation then
        null; -- made by another database's migration, in between
end $$;
comment on function ledger.make_role(text, text) is 'Makes a role that can not sign in, where the server has none of the name.';

select ledger.make_role('drawdown_ledger_service', 'the ledger''s service');
select ledger.make_role('drawdown_ledger_reader', 'reads everything of the ledger');
select ledger.make_role('drawdown_ledger_tenant', 'reads what is of one account, in a transaction that names it');

create function ledger.tenant_account() returns uuid language sql stable
    return nullif(current_setting('drawdown.account', true), '')::uuid;
comment on function ledger.tenant_account() is 'The account whose rows a tenant sees: set for a transaction, never for a session.';

create function ledger.apply_roles() returns void language plpgsql
    set search_path = pg_catalog, pg_temp as $$
declare
    -- Tables whose rows never change, though no trigger is in the way; those with the trigger need no name here.
    fixed constant text[] := array['installation', 'meter', 'rate_card', 'price', 'idempotency'];
    -- Tables whose rows the service may delete.
    deleted constant text[] := array['outbox', 'usage_value', 'standing_change'];
    -- Tables that only who migrates writes, by functions or by hand.
    owned constant text[] := array['archived_month', 'archived_team', 'event_horizon'];
    found record;
begin
    -- two migrations at once would update the same rows of the catalogue
    perform pg_advisory_xact_lock(hashtextextended('ledger.apply_roles', 0));
    if not exists (
        select from pg_auth_members m
        where m.roleid = 'drawdown_ledger_tenant'::regrole and m.member = 'drawdown_ledger_service'::regrole)
    then
        begin
            grant drawdown_ledger_tenant to drawdown_ledger_service;
        exception when unique_violation then
            null; -- by another database's migration, in between
        end;
    end if;
    revoke all on schema ledger from public;
    grant usage on schema ledger to drawdown_ledger_service, drawdown_ledger_reader, drawdown_ledger_tenant;
    for found in
        select c.oid, c.relname, c.relkind in ('r', 'p') as is_table,
               -- such a view shows what its reader may see of the tables below
               coalesce('security_invoker=true' = any (c.reloptions), false) as as_reader,
               exists (select from pg_trigger t
                       where t.tgrelid = c.oid and t.tgfoid = 'ledger.refuse_change()'::regprocedure) as only_grows,
               exists (select from pg_attribute a
                       where a.attrelid = c.oid and a.attname = 'account_id' and not a.attisdropped) as of_account
        from pg_class c
        where c.relnamespace = 'ledger'::regnamespace and c.relkind in ('r', 'p', 'v', 'm')
          -- a partition is reached through its table, and has no rights of its own (below)
          and not c.relispartition and c.relname <> '_sqlx_migrations'
        order by c.relname
    loop
        execute format('revoke all on ledger.%I from public, drawdown_ledger_service, drawdown_ledger_reader, '
            'drawdown_ledger_tenant', found.relname);
        execute format('grant select on ledger.%I to drawdown_ledger_reader', found.relname);
        execute format('grant select on ledger.%I to drawdown_ledger_service', found.relname);
        if not found.is_table then
            if found.of_account and found.as_reader then
                execute format('grant select on ledger.%I to drawdown_ledger_tenant', found.relname);
            end if;
            continue;
        end if;
        if found.relname = any (owned) then
            if found.of_account then
                execute format('grant select on ledger.%I to drawdown_ledger_tenant', found.relname);
                perform ledger.secure_rows(found.relname);
            end if;
            continue;
        end if;
        execute format('grant insert on ledger.%I to drawdown_ledger_service', found.relname);
        if not found.only_grows and not found.relname = any (fixed) then
            execute format('grant update on ledger.%I to drawdown_ledger_service', found.relname);
        end if;
        if found.relname = any (deleted) then
            execute format('grant delete on ledger.%I to drawdown_ledger_service', found.relname);
        end if;
        if found.of_account then
            execute format('grant select on ledger.%I to drawdown_ledger_tenant', found.relname);
            perform ledger.secure_rows(found.relname);
        end if;
    end loop;
    for found in
        select c.oid, c.relname from pg_class c
        where c.relnamespace = 'ledger'::regnamespace and c.relkind in ('r', 'p') and c.relispartition
        order by c.relname
    loop
        perform ledger.secure_partition(found.oid);
    end loop;
    revoke all on all functions in schema ledger from public;
    grant execute on all functions in schema ledger to drawdown_ledger_service, drawdown_ledger_reader;
    revoke all on function ledger.apply_roles(), ledger.make_role(text, text), ledger.secure_rows(text),
        ledger.secure_partition(regclass)
        from drawdown_ledger_service, drawdown_ledger_reader;
    -- what changes which tables there are; making partitions ahead is the one thing of it that the service may
    for found in
        select p.oid::regprocedure as name from pg_proc p
        where p.pronamespace = 'ledger'::regnamespace
          and p.proname in ('add_months', 'make_partition', 'cut_default', 'detach_month', 'attach_month', 'restored_month', 'drop_month')
    loop
        execute format('revoke all on function %s from drawdown_ledger_service, drawdown_ledger_reader', found.name);
    end loop;
    -- what forgets is for the service alone
    for found in
        select p.oid::regprocedure as name from pg_proc p
        where p.pronamespace = 'ledger'::regnamespace and p.proname = 'forget_events'
    loop
        execute format('revoke all on function %s from drawdown_ledger_reader', found.name);
    end loop;
    revoke all on all functions in schema ledger from drawdown_ledger_tenant;
    for found in
        select p.oid::regprocedure as name from pg_proc p
        where p.pronamespace = 'ledger'::regnamespace
          and p.proname in ('tenant_account', 'charge_seq_before', 'charge_seq_to_row', 'journal_between', 'journal_seq_before', 'archived_until', 'archived_seq',
                            'settled_batches')
    loop
        execute format('grant execute on function %s to drawdown_ledger_tenant', found.name);
    end loop;
end $$;
comment on function ledger.apply_roles() is
    'Gives the roles their privileges and every per-account table its policies; run after every migration, harmless where nothing is missing.';

-- Rows by account: everything for the service and for readers, one account's for a tenant. The owner is not bound.
create function ledger.secure_rows(table_name text) returns void language plpgsql
    set search_path = pg_catalog, pg_temp as $$
declare
    wanted record;
begin
    -- altering waits for all readers of the table, so only what is missing is made
    if not (select relrowsecurity from pg_class where oid = format('ledger.%I', table_name)::regclass) then
        execute format('alter table ledger.%I enable row level security', table_name);
    end if;
    for wanted in
        select * from (values
            ('service_all', 'for all to drawdown_ledger_service using (true) with check (true)'),
            ('reader_reads', 'for select to drawdown_ledger_reader using (true)'),
            -- a sub-select is computed once a statement, not once a row
            ('tenant_reads', 'for select to drawdown_ledger_tenant using (account_id = (select ledger.tenant_account()))')
        ) as p (policy, terms)
    loop
        if not exists (select from pg_policies
                       where schemaname = 'ledger' and tablename = table_name and policyname = wanted.policy) then
            execute format('create policy %I on ledger.%I %s', wanted.policy, table_name, wanted.terms);
        end if;
    end loop;
end $$;
comment on function ledger.secure_rows(text) is 'Row-level security of one per-account table.';

-- A partition is reached through its table, whose policies hold for it then. Named by itself it is nobody's: no
-- grant, row-level security without a policy, and its table's trigger, which Postgres does not hand down.
create function ledger.secure_partition(partition regclass) returns void language plpgsql
    set search_path = pg_catalog, pg_temp as $$
declare
    missing record;
begin
    execute format('revoke all on %s from public, drawdown_ledger_service, drawdown_ledger_reader, '
        'drawdown_ledger_tenant', partition);
    if not (select relrowsecurity from pg_class where oid = partition) then
        execute format('alter table %s enable row level security', partition);
    end if;
    for missing in
        select t.tgname from pg_inherits i join pg_trigger t on t.tgrelid = i.inhparent
        where i.inhrelid = partition and t.tgfoid = 'ledger.refuse_change()'::regprocedure
          and not exists (select from pg_trigger o
                          where o.tgrelid = partition and o.tgfoid = 'ledger.refuse_change()'::regprocedure)
    loop
        execute format('create trigger %I before update or delete or truncate on %s '
            'for each statement execute function ledger.refuse_change()', missing.tgname, partition);
    end loop;
end $$;
comment on function ledger.secure_partition(regclass) is 'Takes a partition out of everybody''s reach but through its table.';

select ledger.apply_roles();
