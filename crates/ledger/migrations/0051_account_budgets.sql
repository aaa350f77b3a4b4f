-- Budgets of accounts: the sum of what all teams of the account use in a month.
--
-- No row is written by all teams of an account: each team counts for itself, under its own lock, in the budget of the
-- team, which is made for it where it has none. Whoever makes a balance and whoever sets an account's budget
-- hold the same advisory lock, the first shared, the second alone, so no team is left out by either.

create table ledger.account_budget (
    account_id uuid primary key,
    budget_id uuid not null unique,
    from_month timestamptz not null
);
comment on table ledger.account_budget is
    'A cap on what all teams of an account use in a UTC month (D59). Each of its teams has a budget of its own, which counts.';
comment on column ledger.account_budget.from_month is 'First instant of the first UTC month that is counted.';

create table ledger.account_budget_terms (
    account_id uuid not null references ledger.account_budget,
    from_month timestamptz not null,
    cap_micros bigint check (cap_micros > 0),
    soft_percent smallint[] not null check (cardinality(soft_percent) <= 10),
    hard boolean not null,
    primary key (account_id, from_month),
    check (cap_micros is not null or (cardinality(soft_percent) = 0 and not hard))
);
comment on table ledger.account_budget_terms is
    'What an account''s budget allows from a month on, so that a month that is over keeps the cap it had.';

create function ledger.account_budget_key(account uuid) returns bigint language sql immutable
    return hashtextextended('ledger.account_budget ' || account::text, 0);
comment on function ledger.account_budget_key(uuid) is
    'The advisory lock of an account''s budget: shared by whoever makes a balance of the account, alone for whoever sets the budget.';
