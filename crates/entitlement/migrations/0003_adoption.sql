-- Apps that got their first team, until the ledger was told (D49): written by the act of assigning, in its own
-- transaction, and worked off by a job.

CREATE TABLE entitlement.adoption (
    adoption_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    app_id uuid NOT NULL REFERENCES entitlement.app,
    team_id uuid NOT NULL REFERENCES entitlement.team,
    assigned_from timestamptz NOT NULL,
    due_at timestamptz NOT NULL,
    done_at timestamptz,
    taken_back_at timestamptz CHECK (done_at IS NULL OR taken_back_at IS NULL)
);
CREATE INDEX adoption_due ON entitlement.adoption (adoption_id) WHERE done_at IS NULL AND taken_back_at IS NULL;
CREATE INDEX adoption_of_app ON entitlement.adoption (app_id);
COMMENT ON COLUMN entitlement.adoption.taken_back_at IS 'When it stopped to be so before the ledger was told: another first team has a row of its own.';
COMMENT ON TABLE entitlement.adoption IS
    'What the ledger is to be told: usage of the app from before its first team is that team''s (D49). Again where a client id is entered for a past before it.';
COMMENT ON COLUMN entitlement.adoption.assigned_from IS 'The edge from which the app has the team.';
COMMENT ON COLUMN entitlement.adoption.due_at IS 'Not before: until the edge the app may get more client ids, and none of its usage has a team.';
COMMENT ON COLUMN entitlement.adoption.done_at IS 'When the ledger had answered.';
