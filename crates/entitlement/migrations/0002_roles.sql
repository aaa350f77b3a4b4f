-- Who may do what in this schema. Roles belong to the server, privileges to a database; the roles here can not sign
-- in: an operator grants them to users of his own. Who migrates owns the tables.
--   drawdown_entitlement_service  the service: reads all, adds rows, changes those of tables named below
--   drawdown_entitlement_reader   people and reports: reads all but the hashes of secrets
--   drawdown_entitlement_tenant   one account: reads its rows, by row-level security; the service takes this role for
--                                 the length of a read that a caller of one account makes

-- A role exists once a server, this migration runs once a database, perhaps in several at a time.
CREATE FUNCTION entitlement.make_role(role_name text, about text) RETURNS void LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = role_name) THEN
        RETURN;
    END IF;
    EXECUTE format('CREATE ROLE %I NOLOGIN', role_name);
    EXECUTE format('COMMENT ON ROLE %I IS %L', role_name, about);
    -- an owner who is no superuser may take the role too: `drawdown up` does
    IF NOT pg_catalog.pg_has_role(current_user, role_name, 'member') THEN
        EXECUTE format('GRANT %I TO current_user', role_name);
    END IF;
EXCEPTION
    WHEN duplicate_object OR unique_violation THEN
        NULL; -- made by another database's migration, in between
END $$;

SELECT entitlement.make_role('drawdown_entitlement_service', 'the entitlement service');
SELECT entitlement.make_role('drawdown_entitlement_reader', 'reads the hierarchy and its history');
SELECT entitlement.make_role('drawdown_entitlement_tenant', 'reads what is of one account, in a transaction that names it');

CREATE FUNCTION entitlement.tenant_account() RETURNS uuid LANGUAGE sql STABLE
    RETURN nullif(current_setting('drawdown.account', true), '')::uuid;
COMMENT ON FUNCTION entitlement.tenant_account() IS
    'The account whose rows a tenant sees: set for a transaction, never for a session.';

-- Whose an app is changes with a transfer, and the row that says so is the new owner's: a tenant could not see it.
CREATE FUNCTION entitlement.is_tenants_app(asked uuid) RETURNS boolean LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN (SELECT coalesce(
            (SELECT o.account_id FROM entitlement.app_owner o
             WHERE o.app_id = asked AND o.valid_from <= now() ORDER BY o.valid_from DESC LIMIT 1),
            a.account_id) = entitlement.tenant_account()
        FROM entitlement.app a WHERE a.app_id = asked);
END
$$;
COMMENT ON FUNCTION entitlement.is_tenants_app(uuid) IS 'Whether an app is of the account that is set, at present.';

-- Rows of a table: everything for the service and for readers, for a tenant what the terms say. The owner is not bound.
CREATE FUNCTION entitlement.secure_rows(table_name text, tenant_terms text) RETURNS void LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    wanted record;
BEGIN
    -- altering waits for all readers of the table, so only what is missing is made
    IF NOT (SELECT relrowsecurity FROM pg_class WHERE oid = format('entitlement.%I', table_name)::regclass) THEN
        EXECUTE format('ALTER TABLE entitlement.%I ENABLE ROW LEVEL SECURITY', table_name);
    END IF;
    FOR wanted IN
        SELECT * FROM (VALUES
            ('service_all', 'FOR ALL TO drawdown_entitlement_service USING (true) WITH CHECK (true)'),
            ('reader_reads', 'FOR SELECT TO drawdown_entitlement_reader USING (true)'),
            ('tenant_reads', 'FOR SELECT TO drawdown_entitlement_tenant USING (' || tenant_terms || ')')
        ) AS p (policy, terms)
        WHERE terms IS NOT NULL
    LOOP
        IF NOT EXISTS (SELECT FROM pg_policies
                       WHERE schemaname = 'entitlement' AND tablename = table_name AND policyname = wanted.policy) THEN
            EXECUTE format('CREATE POLICY %I ON entitlement.%I %s', wanted.policy, table_name, wanted.terms);
        END IF;
    END LOOP;
END $$;
COMMENT ON FUNCTION entitlement.secure_rows(text, text) IS
    'Row-level security of one table; without terms a tenant sees nothing of it.';

CREATE FUNCTION entitlement.apply_roles() RETURNS void LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    -- Tables whose rows are changed, or locked while an act is done: a lock needs the same right.
    changed CONSTANT text[] := ARRAY['account', 'team', 'app', 'role_history', 'idempotency', 'adoption', 'app_transfer'];
    -- Histories whose rows are voided, and not changed otherwise.
    voided CONSTANT text[] := ARRAY['account_contract', 'app_team', 'credential_revocation'];
    -- Histories whose rows get their end, and do not change otherwise.
    ended CONSTANT text[] := ARRAY['suspension', 'product_assignment', 'app_editor', 'app_hub', 'principal', 'principal_key'];
    -- What of a table is a tenant's; of a table that is not named here, nothing. A sub-select is computed once a
    -- statement, not once a row, and sees what a tenant sees.
    of_account CONSTANT text := 'account_id = (SELECT entitlement.tenant_account())';
    of_team CONSTANT text := 'team_id IN (SELECT t.team_id FROM entitlement.team t)';
    of_app CONSTANT text := 'entitlement.is_tenants_app(app_id)';
    tenants CONSTANT jsonb := jsonb_build_object(
        'account', of_account, 'account_contract', of_account, 'team', of_account, 'suspension', of_account,
        'hub', of_account, 'audit_log', of_account, 'app_owner', of_account,
        'app', of_app, 'credential', of_app, 'app_editor', of_app, 'app_hub', of_app,
        'app_team', of_team, 'product_assignment', of_team,
        'role_history', of_account || ' OR ' || of_team,
        'credential_revocation', 'credential_id IN (SELECT c.credential_id FROM entitlement.credential c)',
        'app_transfer', 'from_' || of_account || ' OR to_' || of_team
            || ' OR to_user_id IN (SELECT r.user_id FROM entitlement.role_history r WHERE r.to_at IS NULL)');
    -- The hashes of secrets are for the service alone.
    credential_columns CONSTANT text :=
        'credential_id, app_id, client_id, created_at, known_from, made_at, made_by, made_through';
    found record;
BEGIN
    -- two migrations at once would update the same rows of the catalogue
    PERFORM pg_advisory_xact_lock(hashtextextended('entitlement.apply_roles', 0));
    IF NOT EXISTS (
        SELECT FROM pg_auth_members m WHERE m.roleid = 'drawdown_entitlement_tenant'::regrole
            AND m.member = 'drawdown_entitlement_service'::regrole)
    THEN
        BEGIN
            GRANT drawdown_entitlement_tenant TO drawdown_entitlement_service;
        EXCEPTION WHEN unique_violation THEN
            NULL; -- by another database's migration, in between
        END;
    END IF;
    REVOKE ALL ON SCHEMA entitlement FROM public;
    GRANT USAGE ON SCHEMA entitlement
        TO drawdown_entitlement_service, drawdown_entitlement_reader, drawdown_entitlement_tenant;
    FOR found IN
        SELECT c.relname FROM pg_class c
        WHERE c.relnamespace = 'entitlement'::regnamespace AND c.relkind IN ('r', 'p')
          AND NOT c.relispartition AND c.relname <> '_sqlx_migrations'
        ORDER BY c.relname
    LOOP
        EXECUTE format('REVOKE ALL ON entitlement.%I FROM public, drawdown_entitlement_service, '
            'drawdown_entitlement_reader, drawdown_entitlement_tenant', found.relname);
        PERFORM entitlement.secure_rows(found.relname, tenants ->> found.relname);
        EXECUTE format('GRANT SELECT, INSERT ON entitlement.%I TO drawdown_entitlement_service', found.relname);
        IF found.relname = ANY (changed) THEN
            EXECUTE format('GRANT UPDATE ON entitlement.%I TO drawdown_entitlement_service', found.relname);
        END IF;
        IF found.relname = ANY (voided) THEN
            EXECUTE format('GRANT UPDATE (voided_at) ON entitlement.%I TO drawdown_entitlement_service', found.relname);
        END IF;
        IF found.relname = ANY (ended) THEN
            EXECUTE format('GRANT UPDATE (to_at) ON entitlement.%I TO drawdown_entitlement_service', found.relname);
        END IF;
        IF found.relname = 'suspension' THEN
            GRANT UPDATE (end_note) ON entitlement.suspension TO drawdown_entitlement_service;
        END IF;
        IF found.relname = 'principal_key' THEN
            EXECUTE 'GRANT SELECT (key_id, principal_id, created_at, made_by, to_at) ON entitlement.principal_key '
                'TO drawdown_entitlement_reader';
        ELSIF found.relname = 'credential' THEN
            EXECUTE format('GRANT SELECT (%s) ON entitlement.credential TO drawdown_entitlement_reader, '
                'drawdown_entitlement_tenant', credential_columns);
        ELSE
            EXECUTE format('GRANT SELECT ON entitlement.%I TO drawdown_entitlement_reader', found.relname);
            IF tenants ? found.relname THEN
                EXECUTE format('GRANT SELECT ON entitlement.%I TO drawdown_entitlement_tenant', found.relname);
            END IF;
        END IF;
    END LOOP;
    REVOKE ALL ON ALL FUNCTIONS IN SCHEMA entitlement FROM public;
    GRANT EXECUTE ON FUNCTION entitlement.tenant_account(), entitlement.is_tenants_app(uuid)
        TO drawdown_entitlement_tenant, drawdown_entitlement_service, drawdown_entitlement_reader;
END $$;
COMMENT ON FUNCTION entitlement.apply_roles() IS
    'Gives the roles their privileges; run after every migration, harmless where nothing is missing.';

SELECT entitlement.apply_roles();
