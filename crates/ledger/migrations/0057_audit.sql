-- The audit log is read by what an act was done to.
-- contract: the log has a line for each act of a person, so the index is made in a moment, and acts wait for it
create index audit_log_subject on ledger.audit_log (subject, entry);
comment on table ledger.audit_log is
    'What people and services did, with what was there before and after: every act but the posting of usage, which the journal tells.';
comment on column ledger.audit_log.detail is
    'What else is to be known of it; its members before and after say what it changed.';
