-- Decisions about unattributed usage (D25). The usage itself stays as it was settled: its batch still adds up
-- with it. A decision is a row beside it, and what it charges is an ordinary charge of batch 0. Usage of an app from
-- before its first team is decided by a job (D49).

create table ledger.review_decision (
    entry bigint primary key references ledger.unattributed,
    decided_at timestamptz not null,
    kind text not null check (kind in ('charged', 'dismissed', 'adopted')),
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

create table ledger.adoption (
    account_id uuid not null,
    app_id uuid not null unique,
    team_id uuid not null,
    windows_from timestamptz not null,
    windows_to timestamptz not null check (windows_from <= windows_to),
    request_id text not null,
    adopted_at timestamptz not null,
    primary key (account_id, app_id)
);
comment on table ledger.adoption is
    'Apps that got their first team: usage of these windows that was kept because there was no team is charged to it (D49).';
comment on column ledger.adoption.windows_to is 'The edge from which the app has the team.';
create trigger adoption_only_grows before update or delete or truncate on ledger.adoption
    for each statement execute function ledger.refuse_change();

create table ledger.adopted_client (
    account_id uuid not null,
    app_id uuid not null,
    client_id text not null unique,
    arrived bigint not null default 1 check (arrived >= 1),
    looked bigint not null default 0 check (looked between 0 and arrived),
    primary key (account_id, app_id, client_id),
    foreign key (account_id, app_id) references ledger.adoption
) with (fillfactor = 50);
create index adopted_client_due on ledger.adopted_client (app_id) where looked < arrived;
comment on table ledger.adopted_client is 'Client ids of adopted apps, and whether usage of them is to be looked at.';
comment on column ledger.adopted_client.arrived is
    'Batches with usage without a team since it was registered, and the registration itself: each is told in its own transaction.';
comment on column ledger.adopted_client.looked is 'Up to which of them everything was adopted that is.';
