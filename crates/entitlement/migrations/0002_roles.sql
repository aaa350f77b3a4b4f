-- Who may do what in this schema. Roles belong to the server, privileges to a database; the roles here can not sign
-- in: an operator grants them to users of his own. Who migrates owns the tables.
--   drawdown_entitlement_service  the service: reads all, adds rows, changes those of tables named below
--   drawdown_entitlement_reader   people and reports: reads all but the hashes of secrets

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

CREATE FUNCTION entitlement.apply_roles() RETURNS void LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    -- Tables whose rows are changed, or locked while an act is done: a lock needs the same right.
    changed CONSTANT text[] := ARRAY['account', 'team', 'app', 'role_history', 'idempotency', 'adoption', 'app_transfer'];
    -- Histories whose rows are voided, and not changed otherwise.
    voided CONSTANT text[] := ARRAY['account_contract', 'app_team', 'credential_revocation'];
    -- Histories whose rows get their end, and do not change otherwise.
    ended CONSTANT text[] := ARRAY['suspension', 'product_assignment', 'app_editor', 'app_hub'];
    found record;
BEGIN
    -- two migrations at once would update the same rows of the catalogue
    PERFORM pg_advisory_xact_lock(hashtextextended('entitlement.apply_roles', 0));
    REVOKE ALL ON SCHEMA entitlement FROM public;
    GRANT USAGE ON SCHEMA entitlement TO drawdown_entitlement_service, drawdown_entitlement_reader;
    FOR found IN
        SELECT c.relname FROM pg_class c
        WHERE c.relnamespace = 'entitlement'::regnamespace AND c.relkind IN ('r', 'p')
          AND NOT c.relispartition AND c.relname <> '_sqlx_migrations'
        ORDER BY c.relname
    LOOP
        EXECUTE format('REVOKE ALL ON entitlement.%I FROM public, drawdown_entitlement_service, '
            'drawdown_entitlement_reader', found.relname);
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
        IF found.relname <> 'credential' THEN
            EXECUTE format('GRANT SELECT ON entitlement.%I TO drawdown_entitlement_reader', found.relname);
        END IF;
    END LOOP;
    GRANT SELECT (credential_id, app_id, client_id, created_at, known_from, made_at, made_by, made_through) ON entitlement.credential
        TO drawdown_entitlement_reader;
    REVOKE ALL ON ALL FUNCTIONS IN SCHEMA entitlement FROM public;
END $$;
COMMENT ON FUNCTION entitlement.apply_roles() IS
    'Gives the roles their privileges; run after every migration, harmless where nothing is missing.';

SELECT entitlement.apply_roles();
