-- Decisions about unattributed usage (D25). The usage itself stays as it was settled: its batch still adds up
-- with it. A decision is a row beside it, and what it charges is an ordinary charge of batch 0.

create table ledger.review_decision (
    entry bigint primary key references ledger.unattributed,
    decided_at timestamptz not null,
    kind text not null check (kind in ('charged', 'dismissed')),
    decided_by text not null check (octet_length(decided_by) between 1 and 200),
    reason text not null check (octet_length(reason) between 1 and 200),
    request_id text not null,
    account_id uuid,
    team_id uuid,
    app_id uuid,
    charge_id uuid,
    charge_seq bigint,
    check ((kind <> 'dismissed') = (account_id is not null)),
    check ((account_id is null) = (team_id is null)),
    check ((account_id is null) = (app_id is null)),
    check ((account_id is null) = (charge_id is null)),
    check ((account_id is null) = (charge_seq is null)),
    unique (team_id, charge_seq)
);
comment on table ledger.review_decision is
    'What was decided about unattributed usage, at most once for each entry; of two who decide at the same moment the second is refused by the key.';
comment on column ledger.review_decision.decided_by is 'Who decided, as the caller named them.';
comment on column ledger.review_decision.charge_seq is 'The charge, by its place in the team; its instant is decided_at.';
create trigger review_decision_only_grows before update or delete or truncate on ledger.review_decision
    for each statement execute function ledger.refuse_change();
