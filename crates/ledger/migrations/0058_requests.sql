-- Request ids belong to who calls: two tenants that count their requests alike do not meet.

-- A server of the version before writes no account and finds ids of the platform; between two versions an id of a tenant
-- may be taken for a new one, as it is for any other account.
alter table ledger.idempotency add column caller_account text not null default ''
    check (caller_account = '' or octet_length(caller_account) = 36);
comment on column ledger.idempotency.caller_account is
    'The account that the caller is of, as a UUID; empty for callers of the platform, who are of none.';
-- contract: nothing is released yet, so there is no table with rows that anybody waits for
alter table ledger.idempotency drop constraint idempotency_pkey;
-- contract: nothing is released yet, so there is no table with rows that anybody waits for
alter table ledger.idempotency add primary key (request_id, caller_account);
comment on table ledger.idempotency is
    'Answers by the caller''s account and request id, written in the transaction of their effect: a retry is answered from here, another content is a conflict.';
