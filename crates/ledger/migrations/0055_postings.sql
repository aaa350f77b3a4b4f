-- The order in which a billing system pulls what was posted to an account.
--
-- Charges and journal rows have no order over teams: each team has its own two sequences, gapless, visible in their order because
-- writers of a team follow each other under its lock. So the order over teams is made when it is asked for: under the lock of the
-- account's head, each team that has more than was cut before gets a slice, from there up to what is committed. A slice never changes, so
-- its rows neither, and a cursor is a slice and two numbers inside of it. Posting knows nothing of this and pays nothing. There is no
-- foreign key to the balance, since that would lock it.

create table ledger.posting_head (
    account_id uuid primary key,
    position bigint not null default 0 check (position >= 0)
);
comment on table ledger.posting_head is 'The last slice of an account; locked by whoever cuts slices, so that only one does at a time.';

create table ledger.posting_slice (
    account_id uuid not null,
    position bigint not null check (position >= 1),
    team_id uuid not null,
    mark uuid not null default gen_random_uuid(),
    charge_after bigint not null check (charge_after >= 0),
    charge_to bigint not null check (charge_to >= charge_after),
    row_after bigint not null check (row_after >= 0),
    row_to bigint not null check (row_to >= row_after),
    primary key (account_id, position),
    check (charge_after < charge_to or row_after < row_to)
);
create unique index posting_slice_team on ledger.posting_slice (account_id, team_id, position);
comment on table ledger.posting_slice is
    'Parts of the teams'' histories in the order in which they are pulled: of a team gapless and without overlap.';
comment on column ledger.posting_slice.position is 'Its place in the account''s order, gapless from 1.';
comment on column ledger.posting_slice.mark is
    'Another one for each slice that was ever cut: a cursor of a database that was set back finds another one at its place, and is refused.';
comment on column ledger.posting_slice.charge_after is 'Charges after this sequence …';
comment on column ledger.posting_slice.charge_to is '… up to this one.';
comment on column ledger.posting_slice.row_after is 'Journal rows after this sequence …';
comment on column ledger.posting_slice.row_to is '… up to this one.';
create trigger posting_slice_only_grows before update or delete or truncate on ledger.posting_slice
    for each statement execute function ledger.refuse_change();
