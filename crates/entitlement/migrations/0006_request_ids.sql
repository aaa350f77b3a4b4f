-- Request ids are of the account of their caller: what one tenant calls its request takes nothing from another one.

ALTER TABLE entitlement.idempotency ADD COLUMN account text NOT NULL DEFAULT '';
COMMENT ON COLUMN entitlement.idempotency.account IS 'The account of the caller, `acct_…`; empty for callers of the platform.';
-- contract: the key gets one more column; what is kept stays, as that of callers of the platform
ALTER TABLE entitlement.idempotency DROP CONSTRAINT idempotency_pkey;
-- contract: as above; the index over what is kept is made in a moment
ALTER TABLE entitlement.idempotency ADD PRIMARY KEY (account, method, request_id);
