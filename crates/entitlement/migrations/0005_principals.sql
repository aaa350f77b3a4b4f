-- Programs that call the services, and their API keys. A principal never changes: it ends, and another one takes its
-- place. A key is there as a hash only.

CREATE TABLE entitlement.principal (
    principal_id uuid PRIMARY KEY,
    name text NOT NULL CHECK (octet_length(name) BETWEEN 1 AND 200),
    roles text[] NOT NULL CHECK (
        cardinality(roles) > 0
        AND roles <@ ARRAY['gateway', 'billing_reader', 'team_admin', 'contract_manager', 'operator']),
    account_id uuid REFERENCES entitlement.account,
    team_id uuid REFERENCES entitlement.team,
    user_id uuid REFERENCES entitlement.app_user,
    created_at timestamptz NOT NULL,
    made_by text NOT NULL,
    to_at timestamptz CHECK (to_at >= created_at),
    CHECK (team_id IS NULL OR account_id IS NOT NULL),
    -- who runs the platform acts for no single account, and who acts for one can not run the platform
    CHECK (account_id IS NULL OR NOT roles && ARRAY['gateway', 'operator']),
    CHECK (team_id IS NOT NULL OR NOT 'team_admin' = ANY (roles)),
    CHECK ((account_id IS NOT NULL AND team_id IS NULL) OR NOT 'contract_manager' = ANY (roles))
);
COMMENT ON TABLE entitlement.principal IS
    'Programs that call the services: what they may do, and whose things they may touch. Rows only ever get their end.';
COMMENT ON COLUMN entitlement.principal.account_id IS 'The one account whose things it may touch; absent for everybody''s.';
COMMENT ON COLUMN entitlement.principal.team_id IS 'The one team of that account; absent for all of it.';
COMMENT ON COLUMN entitlement.principal.user_id IS 'The person that it acts for, and for nobody else.';
COMMENT ON COLUMN entitlement.principal.made_by IS 'Who made it, as the audit log names callers.';
CREATE INDEX principal_of_account ON entitlement.principal (account_id, principal_id);
CREATE TRIGGER ended_once BEFORE UPDATE ON entitlement.principal
    FOR EACH ROW EXECUTE FUNCTION entitlement.ended_once();
CREATE TRIGGER never_deleted BEFORE DELETE OR TRUNCATE ON entitlement.principal
    FOR EACH STATEMENT EXECUTE FUNCTION entitlement.refuse_change();

CREATE TABLE entitlement.principal_key (
    key_id uuid PRIMARY KEY,
    principal_id uuid NOT NULL REFERENCES entitlement.principal,
    secret_hmac bytea NOT NULL CHECK (octet_length(secret_hmac) = 32),
    created_at timestamptz NOT NULL,
    made_by text NOT NULL,
    to_at timestamptz CHECK (to_at >= created_at)
);
COMMENT ON TABLE entitlement.principal_key IS
    'API keys. The hash is an HMAC over the id and the SHA-256 of the secret, under the pepper. An end is only ever brought forward.';
COMMENT ON COLUMN entitlement.principal_key.to_at IS 'From when on it is no good: expired or revoked.';
CREATE INDEX key_of_principal ON entitlement.principal_key (principal_id, key_id);

CREATE FUNCTION entitlement.ends_earlier() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.to_at IS NULL OR NEW.to_at > OLD.to_at OR to_jsonb(NEW) - 'to_at' IS DISTINCT FROM to_jsonb(OLD) - 'to_at'
    THEN
        RAISE EXCEPTION 'a row of %.% only ever gets an earlier end', TG_TABLE_SCHEMA, TG_TABLE_NAME
            USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER ends_earlier BEFORE UPDATE ON entitlement.principal_key
    FOR EACH ROW EXECUTE FUNCTION entitlement.ends_earlier();
CREATE TRIGGER never_deleted BEFORE DELETE OR TRUNCATE ON entitlement.principal_key
    FOR EACH STATEMENT EXECUTE FUNCTION entitlement.refuse_change();
