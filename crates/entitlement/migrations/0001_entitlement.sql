-- Accounts, teams, users, apps and credentials, and the history of every link between them.
--
-- A history that decides about money (account_contract, app_team) keeps its changes only: a link ends
-- where the next one begins. So two links cannot overlap, whoever writes. Rows are only ever added, and voided at
-- most once: a scheduled change that was taken back, or a past that was corrected, stays readable.

-- What must be the same for every instance and for every start.
CREATE TABLE entitlement.installation (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    window_secs integer NOT NULL CHECK (window_secs > 0 AND 86400 % window_secs = 0),
    -- the pepper's mark: tells a wrong pepper from a wrong secret, and nothing about the pepper
    pepper_mark bytea NOT NULL CHECK (octet_length(pepper_mark) = 32)
);

CREATE TABLE entitlement.account (
    account_id uuid PRIMARY KEY,
    name text NOT NULL CHECK (octet_length(name) BETWEEN 1 AND 200),
    created_at timestamptz NOT NULL,
    -- the edge from which on there is no trial
    commercial_from timestamptz,
    -- who ended the trial early, and when; absent where it is commercial from the start
    commercial_made_at timestamptz,
    commercial_made_by text,
    -- since the first credential is in force; the end is fixed with it, so that a later setting changes no answer
    trial_started_at timestamptz,
    trial_ends_at timestamptz,
    -- which ledger has its tokens and charges; never changed
    cell smallint NOT NULL DEFAULT 0 CHECK (cell BETWEEN 0 AND 255),
    CHECK ((trial_started_at IS NULL) = (trial_ends_at IS NULL))
);

CREATE TABLE entitlement.account_contract (
    contract_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id uuid NOT NULL REFERENCES entitlement.account,
    valid_from timestamptz NOT NULL,
    kind text NOT NULL CHECK (kind IN ('flex', 'enterprise')),
    -- who made it, when, and by which act
    made_at timestamptz NOT NULL,
    made_by text NOT NULL,
    made_through text NOT NULL,
    voided_at timestamptz
);
CREATE UNIQUE INDEX account_contract_in_force ON entitlement.account_contract (account_id, valid_from)
    WHERE voided_at IS NULL;

CREATE TABLE entitlement.team (
    team_id uuid PRIMARY KEY,
    account_id uuid NOT NULL REFERENCES entitlement.account,
    name text NOT NULL CHECK (octet_length(name) BETWEEN 1 AND 200),
    created_at timestamptz NOT NULL
);
CREATE INDEX team_of_account ON entitlement.team (account_id, team_id);

CREATE TABLE entitlement.app_user (
    user_id uuid PRIMARY KEY,
    email text NOT NULL CHECK (octet_length(email) BETWEEN 3 AND 254),
    name text NOT NULL CHECK (octet_length(name) BETWEEN 1 AND 200)
);
CREATE UNIQUE INDEX app_user_email ON entitlement.app_user (lower(email));

CREATE TABLE entitlement.role_history (
    role_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id uuid NOT NULL REFERENCES entitlement.app_user,
    team_id uuid REFERENCES entitlement.team,
    account_id uuid REFERENCES entitlement.account,
    role text NOT NULL CHECK (role IN ('primary_admin', 'secondary_admin', 'member', 'contract_manager')),
    from_at timestamptz NOT NULL,
    to_at timestamptz CHECK (to_at >= from_at),
    CHECK (num_nonnulls(team_id, account_id) = 1),
    CHECK ((role = 'contract_manager') = (account_id IS NOT NULL))
);
CREATE INDEX role_of_user ON entitlement.role_history (user_id, role_id);
CREATE UNIQUE INDEX role_one_primary_admin ON entitlement.role_history (team_id)
    WHERE role = 'primary_admin' AND to_at IS NULL;
CREATE UNIQUE INDEX role_one_in_team ON entitlement.role_history (team_id, user_id)
    WHERE team_id IS NOT NULL AND to_at IS NULL;
CREATE UNIQUE INDEX role_one_in_account ON entitlement.role_history (account_id, user_id)
    WHERE account_id IS NOT NULL AND to_at IS NULL;

CREATE TABLE entitlement.app (
    app_id uuid PRIMARY KEY,
    account_id uuid NOT NULL REFERENCES entitlement.account,
    owner_user_id uuid REFERENCES entitlement.app_user,
    name text NOT NULL CHECK (octet_length(name) BETWEEN 1 AND 200)
);
CREATE INDEX app_of_account ON entitlement.app (account_id, app_id);

CREATE TABLE entitlement.app_team (
    link_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    app_id uuid NOT NULL REFERENCES entitlement.app,
    valid_from timestamptz NOT NULL,
    team_id uuid NOT NULL REFERENCES entitlement.team,
    -- entered for a past (D61)
    set_up boolean NOT NULL,
    made_at timestamptz NOT NULL,
    made_by text NOT NULL,
    made_through text NOT NULL,
    voided_at timestamptz
);
CREATE INDEX app_team_ahead ON entitlement.app_team (valid_from) WHERE voided_at IS NULL;
CREATE UNIQUE INDEX app_team_in_force ON entitlement.app_team (app_id, valid_from) WHERE voided_at IS NULL;

CREATE TABLE entitlement.credential (
    credential_id uuid PRIMARY KEY,
    app_id uuid NOT NULL REFERENCES entitlement.app,
    -- unique for ever: rows are never deleted (D49)
    client_id text NOT NULL UNIQUE CHECK (octet_length(client_id) BETWEEN 1 AND 64),
    secret_hmac bytea NOT NULL CHECK (octet_length(secret_hmac) = 32),
    created_at timestamptz NOT NULL,
    -- the edge from which on usage under it has an app
    known_from timestamptz NOT NULL CHECK (known_from <= created_at),
    made_at timestamptz NOT NULL,
    made_by text NOT NULL,
    made_through text NOT NULL
);
CREATE INDEX credential_of_app ON entitlement.credential (app_id, credential_id);

-- One effect a request id: the row and the effect are one transaction. `response` holds no secret.
CREATE TABLE entitlement.idempotency (
    method text NOT NULL,
    request_id text NOT NULL CHECK (octet_length(request_id) BETWEEN 1 AND 128),
    request_hash bytea NOT NULL CHECK (octet_length(request_hash) = 32),
    response bytea,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (method, request_id)
);

CREATE TABLE entitlement.audit_log (
    audit_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL,
    -- on whose behalf: the person that the act names, or the operator
    actor text NOT NULL,
    -- who called, as far as it was proven
    caller text NOT NULL,
    method text NOT NULL,
    -- the id of what was changed
    subject text NOT NULL,
    account_id uuid,
    -- why, where the act asks for it
    reason text,
    before jsonb,
    after jsonb NOT NULL,
    -- the transaction of the line: what is new since a snapshot is found by it, whatever the order of the numbers
    xact xid8 NOT NULL DEFAULT pg_current_xact_id()
);
CREATE INDEX audit_of_xact ON entitlement.audit_log (xact, audit_id);
CREATE INDEX audit_of_account ON entitlement.audit_log (account_id, audit_id);
CREATE INDEX audit_of_subject ON entitlement.audit_log (subject, audit_id);

CREATE FUNCTION entitlement.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'rows of %.% are only ever added', TG_TABLE_SCHEMA, TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation';
END
$$;

CREATE TRIGGER insert_only BEFORE UPDATE OR DELETE OR TRUNCATE ON entitlement.audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION entitlement.refuse_change();

-- Instances that keep the directory in memory listen; one that does not hear looks now and then.
CREATE FUNCTION entitlement.tell_of_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('entitlement_audit', '');
    RETURN NULL;
END
$$;
CREATE TRIGGER tell_of_change AFTER INSERT ON entitlement.audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION entitlement.tell_of_change();
CREATE TRIGGER never_deleted BEFORE DELETE OR TRUNCATE ON entitlement.app_team
    FOR EACH STATEMENT EXECUTE FUNCTION entitlement.refuse_change();
CREATE TRIGGER never_deleted BEFORE DELETE OR TRUNCATE ON entitlement.account_contract
    FOR EACH STATEMENT EXECUTE FUNCTION entitlement.refuse_change();
CREATE TRIGGER insert_only BEFORE UPDATE OR DELETE OR TRUNCATE ON entitlement.credential
    FOR EACH STATEMENT EXECUTE FUNCTION entitlement.refuse_change();
CREATE TRIGGER never_deleted BEFORE DELETE OR TRUNCATE ON entitlement.role_history
    FOR EACH STATEMENT EXECUTE FUNCTION entitlement.refuse_change();

-- A role ends once; nothing else of it changes.
CREATE FUNCTION entitlement.role_ends_once() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.to_at IS NOT NULL OR NEW.to_at IS NULL
        OR (NEW.role_id, NEW.user_id, NEW.role, NEW.from_at) IS DISTINCT FROM (OLD.role_id, OLD.user_id, OLD.role, OLD.from_at)
        OR (NEW.team_id, NEW.account_id) IS DISTINCT FROM (OLD.team_id, OLD.account_id)
    THEN
        RAISE EXCEPTION 'a role in the history only ever gets its end' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER ends_once BEFORE UPDATE ON entitlement.role_history
    FOR EACH ROW EXECUTE FUNCTION entitlement.role_ends_once();

-- A link is voided once; nothing else of it changes.
CREATE FUNCTION entitlement.voided_once() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.voided_at IS NOT NULL OR NEW.voided_at IS NULL
        OR to_jsonb(NEW) - 'voided_at' IS DISTINCT FROM to_jsonb(OLD) - 'voided_at'
    THEN
        RAISE EXCEPTION 'a row of %.% is only ever voided', TG_TABLE_SCHEMA, TG_TABLE_NAME
            USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER voided_once BEFORE UPDATE ON entitlement.app_team
    FOR EACH ROW EXECUTE FUNCTION entitlement.voided_once();
CREATE TRIGGER voided_once BEFORE UPDATE ON entitlement.account_contract
    FOR EACH ROW EXECUTE FUNCTION entitlement.voided_once();
