-- Suspension of accounts and teams, revocation of credentials, product assignments.

CREATE TABLE entitlement.suspension (
    suspension_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id uuid NOT NULL REFERENCES entitlement.account,
    team_id uuid REFERENCES entitlement.team,
    from_at timestamptz NOT NULL,
    note text NOT NULL CHECK (octet_length(note) BETWEEN 1 AND 500),
    to_at timestamptz CHECK (to_at >= from_at),
    end_note text CHECK (octet_length(end_note) BETWEEN 1 AND 500),
    CHECK ((to_at IS NULL) = (end_note IS NULL))
);
COMMENT ON TABLE entitlement.suspension IS
    'When an account, or one team of it, was suspended by the operator (D56), and why. It stops the gate and nothing else.';
COMMENT ON COLUMN entitlement.suspension.team_id IS 'The team; absent where it is the whole account.';
CREATE UNIQUE INDEX suspension_open_account ON entitlement.suspension (account_id)
    WHERE team_id IS NULL AND to_at IS NULL;
CREATE UNIQUE INDEX suspension_open_team ON entitlement.suspension (team_id)
    WHERE team_id IS NOT NULL AND to_at IS NULL;

CREATE FUNCTION entitlement.ended_once() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.to_at IS NOT NULL OR NEW.to_at IS NULL
        OR to_jsonb(NEW) - 'to_at' - 'end_note' IS DISTINCT FROM to_jsonb(OLD) - 'to_at' - 'end_note'
    THEN
        RAISE EXCEPTION 'a row of %.% only ever gets its end', TG_TABLE_SCHEMA, TG_TABLE_NAME
            USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER ended_once BEFORE UPDATE ON entitlement.suspension
    FOR EACH ROW EXECUTE FUNCTION entitlement.ended_once();
CREATE TRIGGER never_deleted BEFORE DELETE OR TRUNCATE ON entitlement.suspension
    FOR EACH STATEMENT EXECUTE FUNCTION entitlement.refuse_change();

CREATE TABLE entitlement.credential_revocation (
    revocation_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    credential_id uuid NOT NULL REFERENCES entitlement.credential,
    revoked_at timestamptz NOT NULL,
    unknown_from timestamptz NOT NULL CHECK (unknown_from >= revoked_at),
    made_at timestamptz NOT NULL,
    made_by text NOT NULL,
    made_through text NOT NULL,
    voided_at timestamptz
);
COMMENT ON TABLE entitlement.credential_revocation IS
    'When a credential stops: its secret at revoked_at, its client id at the edge unknown_from. Before, all stays as it was.';
CREATE UNIQUE INDEX revocation_in_force ON entitlement.credential_revocation (credential_id) WHERE voided_at IS NULL;
CREATE TRIGGER voided_once BEFORE UPDATE ON entitlement.credential_revocation
    FOR EACH ROW EXECUTE FUNCTION entitlement.voided_once();
CREATE TRIGGER never_deleted BEFORE DELETE OR TRUNCATE ON entitlement.credential_revocation
    FOR EACH STATEMENT EXECUTE FUNCTION entitlement.refuse_change();

CREATE TABLE entitlement.product_assignment (
    assignment_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    team_id uuid NOT NULL REFERENCES entitlement.team,
    user_id uuid NOT NULL REFERENCES entitlement.app_user,
    from_at timestamptz NOT NULL,
    made_by uuid REFERENCES entitlement.app_user,
    to_at timestamptz CHECK (to_at >= from_at)
);
COMMENT ON TABLE entitlement.product_assignment IS
    'Who may use the tokens of a team for the apps that they own, without being a buyer (D27).';
COMMENT ON COLUMN entitlement.product_assignment.made_by IS 'The admin; absent for the operator.';
CREATE UNIQUE INDEX product_open ON entitlement.product_assignment (team_id, user_id) WHERE to_at IS NULL;
CREATE INDEX product_of_user ON entitlement.product_assignment (user_id, assignment_id);
CREATE TRIGGER ended_once BEFORE UPDATE ON entitlement.product_assignment
    FOR EACH ROW EXECUTE FUNCTION entitlement.ended_once();
CREATE TRIGGER never_deleted BEFORE DELETE OR TRUNCATE ON entitlement.product_assignment
    FOR EACH STATEMENT EXECUTE FUNCTION entitlement.refuse_change();

-- Handing apps to other owners (D26).
CREATE TABLE entitlement.app_transfer (
    transfer_id uuid PRIMARY KEY,
    app_id uuid NOT NULL REFERENCES entitlement.app,
    from_account_id uuid NOT NULL REFERENCES entitlement.account,
    from_user_id uuid REFERENCES entitlement.app_user,
    to_user_id uuid NOT NULL REFERENCES entitlement.app_user,
    invited_at timestamptz NOT NULL,
    invited_by text NOT NULL,
    expires_at timestamptz NOT NULL CHECK (expires_at > invited_at),
    accepted_at timestamptz,
    team_chosen_at timestamptz CHECK (accepted_at IS NOT NULL OR team_chosen_at IS NULL),
    to_team_id uuid REFERENCES entitlement.team,
    closed_at timestamptz,
    closed_as text CHECK (closed_as IN ('confirmed', 'withdrawn', 'declined', 'expired')),
    effective_from timestamptz,
    CHECK ((team_chosen_at IS NULL) = (to_team_id IS NULL)),
    CHECK ((closed_at IS NULL) = (closed_as IS NULL)),
    CHECK ((closed_as = 'confirmed') IS NOT DISTINCT FROM (effective_from IS NOT NULL) OR closed_as IS NULL)
);
COMMENT ON TABLE entitlement.app_transfer IS
    'The handing of an app to another owner: invited, accepted, team chosen, closed. What was done by whom is in the audit log.';
CREATE UNIQUE INDEX transfer_open ON entitlement.app_transfer (app_id) WHERE closed_at IS NULL;
CREATE INDEX transfer_of_app ON entitlement.app_transfer (app_id, transfer_id);
CREATE INDEX transfer_to_user ON entitlement.app_transfer (to_user_id, transfer_id);
CREATE INDEX transfer_from_account ON entitlement.app_transfer (from_account_id, transfer_id);

CREATE TABLE entitlement.app_owner (
    owner_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    app_id uuid NOT NULL REFERENCES entitlement.app,
    valid_from timestamptz NOT NULL,
    account_id uuid NOT NULL REFERENCES entitlement.account,
    owner_user_id uuid NOT NULL REFERENCES entitlement.app_user,
    transfer_id uuid NOT NULL UNIQUE REFERENCES entitlement.app_transfer,
    made_at timestamptz NOT NULL,
    made_by text NOT NULL,
    made_through text NOT NULL,
    UNIQUE (app_id, valid_from)
);
COMMENT ON TABLE entitlement.app_owner IS
    'Whose an app is since transfers; before the first one, what its own row says. A link ends where the next one begins.';
CREATE INDEX owner_of_account ON entitlement.app_owner (account_id, app_id);
CREATE TRIGGER insert_only BEFORE UPDATE OR DELETE OR TRUNCATE ON entitlement.app_owner
    FOR EACH STATEMENT EXECUTE FUNCTION entitlement.refuse_change();

CREATE TABLE entitlement.app_editor (
    editor_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    app_id uuid NOT NULL REFERENCES entitlement.app,
    user_id uuid NOT NULL REFERENCES entitlement.app_user,
    from_at timestamptz NOT NULL,
    to_at timestamptz CHECK (to_at >= from_at)
);
COMMENT ON TABLE entitlement.app_editor IS
    'Who may change an app without owning it: who handed it over, from the edge of the transfer on (D26).';
CREATE UNIQUE INDEX editor_open ON entitlement.app_editor (app_id, user_id) WHERE to_at IS NULL;
CREATE TRIGGER ended_once BEFORE UPDATE ON entitlement.app_editor
    FOR EACH ROW EXECUTE FUNCTION entitlement.ended_once();
CREATE TRIGGER never_deleted BEFORE DELETE OR TRUNCATE ON entitlement.app_editor
    FOR EACH STATEMENT EXECUTE FUNCTION entitlement.refuse_change();

-- Hub mode (D29).
CREATE TABLE entitlement.hub (
    hub_id uuid PRIMARY KEY,
    account_id uuid NOT NULL REFERENCES entitlement.account,
    name text NOT NULL CHECK (octet_length(name) BETWEEN 1 AND 200),
    created_at timestamptz NOT NULL
);
COMMENT ON TABLE entitlement.hub IS 'Where apps have to be while hub mode is on.';
CREATE INDEX hub_of_account ON entitlement.hub (account_id, hub_id);

CREATE TABLE entitlement.app_hub (
    place_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    app_id uuid NOT NULL REFERENCES entitlement.app,
    hub_id uuid NOT NULL REFERENCES entitlement.hub,
    from_at timestamptz NOT NULL,
    to_at timestamptz CHECK (to_at >= from_at)
);
COMMENT ON TABLE entitlement.app_hub IS
    'Which app is in which hub. It counts while the hub is of the account of the app: a transfer takes it out by itself.';
CREATE UNIQUE INDEX app_hub_open ON entitlement.app_hub (app_id) WHERE to_at IS NULL;
CREATE INDEX app_hub_of_app ON entitlement.app_hub (app_id, place_id);
CREATE TRIGGER ended_once BEFORE UPDATE ON entitlement.app_hub
    FOR EACH ROW EXECUTE FUNCTION entitlement.ended_once();
CREATE TRIGGER never_deleted BEFORE DELETE OR TRUNCATE ON entitlement.app_hub
    FOR EACH STATEMENT EXECUTE FUNCTION entitlement.refuse_change();
