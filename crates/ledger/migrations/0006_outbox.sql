-- Facts that others react to, and the order in which they are handed out.
--
-- The outbox is not the truth, the journal is: its rows may be removed when they are old, and nothing is ever
-- computed from them. A row is written in the transaction of its cause. It has no place in the order yet: numbers
-- that writers draw become visible out of order, so a reader that saw 10 could miss a 9 that commits later. The
-- relay gives places afterwards, to what it sees committed, under the lock of the head; so places become visible
-- in order and without a gap, and a reader that goes on after the last place it saw misses nothing.

create table ledger.outbox_head (
    only_row boolean primary key default true check (only_row),
    origin uuid not null default gen_random_uuid(),
    position bigint not null default 0 check (position >= 0),
    removed bigint not null default 0 check (removed between 0 and position)
);
insert into ledger.outbox_head default values;
comment on table ledger.outbox_head is 'The last place given out; locked by whoever gives places, so that only one does at a time.';
comment on column ledger.outbox_head.origin is
    'Names this sequence of places. A cursor of another one is refused; a reset of all shards after a restore begins a new one.';
comment on column ledger.outbox_head.removed is 'The last place that was removed because of its age: a cursor before it has missed something.';

create table ledger.outbox (
    account_id uuid not null,
    team_id uuid not null,
    key text not null check (octet_length(key) between 1 and 200),
    entry bigint generated always as identity,
    notice_id uuid not null,
    kind text not null check (kind in (
        'lot_added', 'level_reached', 'lot_expiring', 'lot_expired', 'lot_closed', 'below_zero', 'back_at_zero',
        'debt_netted', 'budget_reached')),
    occurred_at timestamptz not null,
    noted_at timestamptz not null,
    detail jsonb not null,
    position bigint,
    primary key (account_id, team_id, key)
);
create index outbox_pending on ledger.outbox (entry) where position is null;
create unique index outbox_position on ledger.outbox (position);
create index outbox_account on ledger.outbox (account_id, position);
comment on table ledger.outbox is 'Facts that others react to, each once (D32). Removed when old.';
comment on column ledger.outbox.key is 'What makes the fact one in its team: whoever finds it again writes nothing.';
comment on column ledger.outbox.entry is
    'Order of writing. Writers of one team follow each other under its lock, so in a team it is the order of posting.';
comment on column ledger.outbox.occurred_at is 'When it became true, exact also where it was found later.';
comment on column ledger.outbox.noted_at is 'The instant of the transaction that wrote it.';
comment on column ledger.outbox.position is 'Its place in the order, given after the commit; absent until then.';

-- === budgets ===

create table ledger.budget (
    account_id uuid not null,
    team_id uuid not null,
    budget_id uuid not null unique,
    app_id uuid,
    from_month timestamptz not null,
    primary key (account_id, team_id, budget_id),
    unique nulls not distinct (team_id, app_id),
    foreign key (account_id, team_id) references ledger.balance
);
comment on table ledger.budget is
    'A cap on what a team, or one of its apps, uses in a UTC month (D59). Once made it counts for ever; its terms are versions.';
comment on column ledger.budget.app_id is 'The app, while it is in this team; null for the team''s own budget.';
comment on column ledger.budget.from_month is 'First instant of the first UTC month that is counted.';

create table ledger.budget_terms (
    account_id uuid not null,
    team_id uuid not null,
    budget_id uuid not null,
    from_month timestamptz not null,
    cap_micros bigint check (cap_micros > 0),
    soft_percent smallint[] not null check (cardinality(soft_percent) <= 10),
    hard boolean not null,
    primary key (account_id, team_id, budget_id, from_month),
    foreign key (account_id, team_id, budget_id) references ledger.budget,
    check (cap_micros is not null or (cardinality(soft_percent) = 0 and not hard))
);
comment on table ledger.budget_terms is
    'What a budget allows from a month on, so that a month that is over keeps the cap it had.';
comment on column ledger.budget_terms.cap_micros is 'Null where usage is counted only.';

create table ledger.budget_month (
    account_id uuid not null,
    team_id uuid not null,
    budget_id uuid not null,
    month timestamptz not null,
    used_micros bigint not null,
    primary key (account_id, team_id, budget_id, month),
    foreign key (account_id, team_id, budget_id) references ledger.budget
) with (fillfactor = 50);
comment on table ledger.budget_month is
    'What was used in the windows of a month, kept by the transaction that posts it, under the lock of the team.';
comment on column ledger.budget_month.used_micros is 'Price of the charges of those windows, paid or not, less what was taken back; below zero where a correction gives back what another window had cost (D43).';
