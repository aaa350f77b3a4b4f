-- Holds: tokens set aside ahead of use (D45).

create table ledger.hold (
    account_id uuid not null,
    team_id uuid not null,
    hold_id uuid not null unique,
    app_id uuid,
    window_start timestamptz not null,
    made_at timestamptz not null,
    expires_at timestamptz not null,
    ended_at timestamptz,
    ended_how text check (ended_how in ('released', 'captured', 'timed_out', 'void')),
    note text not null check (octet_length(note) <= 200),
    primary key (account_id, team_id, hold_id),
    foreign key (account_id, team_id) references ledger.balance,
    check (expires_at > made_at),
    check ((ended_at is null) = (ended_how is null))
) with (fillfactor = 50);
create index hold_live on ledger.hold (team_id) where ended_at is null;
-- In other words than hold_live, for the reason that lot_due has.
create index hold_due on ledger.hold (expires_at) where num_nonnulls(ended_at) = 0;
comment on table ledger.hold is 'Holds of a team. An ended one holds nothing; it is kept, so that what names it later is told so.';
comment on column ledger.hold.window_start is 'Window in which it was made: prices and lots of its usage are those of this window.';
comment on column ledger.hold.expires_at is 'First instant at which it is over by itself, whether or not any job ran.';

create table ledger.hold_lot (
    account_id uuid not null,
    team_id uuid not null,
    hold_id uuid not null,
    part integer not null check (part >= 0),
    lot_id uuid not null,
    taken_micros bigint not null check (taken_micros > 0),
    remaining_micros bigint not null check (remaining_micros between 0 and taken_micros),
    primary key (account_id, team_id, hold_id, part),
    foreign key (account_id, team_id, hold_id) references ledger.hold,
    foreign key (account_id, team_id, lot_id) references ledger.lot
) with (fillfactor = 50);
comment on table ledger.hold_lot is 'What a hold took from each lot, in the order in which its usage draws them.';
