-- Usage of closed windows, added up by hour and by day: what reports read instead of single charges.
--
-- Charges are rolled up in posting order, team by team, up to a place (`usage_rolled`): what lies up to it is in the sums,
-- what lies behind it is not, and a report adds the one to the other. A charge enters by its own place in the order, so
-- usage that comes late, and a correction, which is a charge below zero, is a row more of its old hour (a delta),
-- and nothing that was written changes. "Closed" decides only when a charge is rolled up, so that few hours get
-- a second row: a charge waits until nothing received in time for its window can still come (D9, D55).

create function ledger.charge_bytes(
    seq bigint, charge_id uuid, posted_at timestamptz, window_start timestamptz, events bigint, quantity bigint,
    amount_micros bigint, uncharged_micros bigint, journal_seq bigint
) returns bytea language sql immutable return
    int8send(seq) || uuid_send(charge_id) || timestamptz_send(posted_at) || timestamptz_send(window_start)
    || int8send(events) || int8send(quantity) || int8send(amount_micros) || int8send(uncharged_micros)
    || int8send(journal_seq);
comment on function ledger.charge_bytes(
    bigint, uuid, timestamptz, timestamptz, bigint, bigint, bigint, bigint, bigint
) is 'A charge as digests of usage have it; what they are grouped by stands beside the digest.';

create table ledger.usage_rolled (
    account_id uuid not null,
    team_id uuid not null,
    seq bigint not null check (seq >= 0),
    posted_at timestamptz not null,
    primary key (account_id, team_id)
) with (fillfactor = 70);
comment on table ledger.usage_rolled is 'The last charge of each team that is in usage_hour and usage_day; every one before it is too.';
comment on column ledger.usage_rolled.posted_at is 'When it was posted; 0001-01-01 where none is rolled up. Months before it need not be looked at.';

create table ledger.usage_hour (
    account_id uuid not null,
    team_id uuid not null,
    hour timestamptz not null,
    first_seq bigint not null check (first_seq >= 1),
    last_seq bigint not null check (last_seq >= first_seq),
    app_id uuid not null,
    client_id text not null,
    meter text not null,
    failed boolean not null,
    dimensions jsonb not null,
    price_id uuid,
    zero_rated text,
    charges bigint not null check (charges >= 1),
    events bigint not null,
    quantity bigint not null,
    amount_micros bigint not null,
    uncharged_micros bigint not null,
    digest bytea not null check (octet_length(digest) = 32),
    primary key (account_id, team_id, hour, first_seq)
);
comment on table ledger.usage_hour is
    'Charges added up by the hour of their window and what reports group by. Late usage and corrections are rows more of the same hour.';
comment on column ledger.usage_hour.first_seq is 'The first of its charges: those of its hour and keys from there to last_seq.';
comment on column ledger.usage_hour.digest is 'SHA-256 over ledger.charge_bytes of its charges in their order.';
create trigger usage_hour_only_grows before update or delete or truncate on ledger.usage_hour
    for each statement execute function ledger.refuse_change();

create table ledger.usage_day (
    account_id uuid not null,
    team_id uuid not null,
    day timestamptz not null,
    first_seq bigint not null check (first_seq >= 1),
    last_seq bigint not null check (last_seq >= first_seq),
    app_id uuid not null,
    client_id text not null,
    meter text not null,
    failed boolean not null,
    dimensions jsonb not null,
    price_id uuid,
    zero_rated text,
    charges bigint not null check (charges >= 1),
    events bigint not null,
    quantity bigint not null,
    amount_micros bigint not null,
    uncharged_micros bigint not null,
    digest bytea not null check (octet_length(digest) = 32),
    primary key (account_id, team_id, day, first_seq)
);
comment on table ledger.usage_day is 'The same charges as in usage_hour, by the UTC day of their window.';
comment on column ledger.usage_day.first_seq is 'The first of its charges: those of its day and keys from there to last_seq.';
comment on column ledger.usage_day.digest is 'SHA-256 over ledger.charge_bytes of its charges in their order.';
create trigger usage_day_only_grows before update or delete or truncate on ledger.usage_day
    for each statement execute function ledger.refuse_change();

create table ledger.verified_usage (
    account_id uuid not null,
    team_id uuid not null,
    seq bigint not null check (seq >= 0),
    posted_at timestamptz not null,
    primary key (account_id, team_id)
) with (fillfactor = 70);
comment on table ledger.verified_usage is 'Up to which charge the sums of a team were last found right.';

select ledger.apply_roles();
