-- Rating beyond sums: states of periods (D19), the values behind them, and the price of a state as a
-- function, so that what charges add up to can be checked with psql alone.

create table ledger.usage_period (
    account_id uuid not null,
    team_id uuid not null,
    price_id uuid not null,
    start timestamptz not null,
    quantity bigint not null check (quantity >= 0),
    primary key (account_id, team_id, price_id, start)
) with (fillfactor = 50);
comment on table ledger.usage_period is
    'One value for each UTC day or month of a max or unique meter; a month''s usage_state is the sum over its periods (D19). Sums and counts have no row here.';
comment on column ledger.usage_period.start is 'First instant of the day or month.';
comment on column ledger.usage_period.quantity is 'The largest value, or the number of distinct ones.';

create table ledger.usage_value (
    account_id uuid not null,
    team_id uuid not null,
    price_id uuid not null,
    start timestamptz not null,
    value bytea not null check (octet_length(value) <= 128),
    primary key (account_id, team_id, price_id, start, value)
);
comment on table ledger.usage_value is
    'The distinct values that a period has seen, one row each: a post looks for its own values and adds the new ones, however many there are.';

create table ledger.charge_values (
    account_id uuid not null,
    team_id uuid not null,
    seq bigint not null,
    posted_at timestamptz not null,
    distinct_values bytea[] not null,
    primary key (account_id, team_id, seq, posted_at)
);
comment on table ledger.charge_values is
    'The values of each charge of a unique meter: from these its periods can be made again, priced otherwise or corrected.';
create trigger charge_values_only_grows before update or delete or truncate on ledger.charge_values
    for each statement execute function ledger.refuse_change();

create function ledger.price_above_quota(units numeric, price ledger.price) returns numeric
language sql immutable return
    case
        when price.free_only then 0
        when cardinality(price.tier_above) = 0 then
            div((units - units % coalesce(price.charged_unit, 1)) * price.micros, price.per_units::numeric)
        else
            div((
                select sum(greatest(least(units, coalesce((price.tier_above)[tier + 1]::numeric, units))
                                    - coalesce((price.tier_above)[tier], 0), 0)
                           * coalesce((price.tier_micros)[tier], price.micros))
                from generate_series(0, cardinality(price.tier_above)) as tier
            ), price.per_units::numeric)
    end;
comment on function ledger.price_above_quota(numeric, ledger.price) is
    'What so many base units above the free quota cost, rounded down once (D14): the same rule as the service''s, written a second time.';
