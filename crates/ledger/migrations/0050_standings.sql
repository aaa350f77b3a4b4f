-- Which teams changed, for those who keep their standings in memory (StandingService).
--
-- A row says which teams a transaction changed, not what of them: whoever reads it reads the teams then, so any number
-- of changes is one state. It is written in the statement that writes the balances, one row a transaction; the posting
-- does nothing else for it: it gives no number, takes no lock and wakes nobody.
--
-- Transactions become visible in another order than that of their numbers. So a reader does not go on after the last
-- number it saw: it keeps the snapshot of its look, and the next one takes what was not visible in that snapshot and is
-- now. Nothing is missed, however long a transaction takes, and none of them is waited for. Numbers mean nothing in a
-- database that was restored or promoted, so a cursor names the server, its timeline and the sequence of notices, too.

create table ledger.standing_change (
    xid xid8 not null default pg_current_xact_id(),
    changed_at timestamptz not null,
    teams uuid[] not null check (cardinality(teams) > 0)
);
-- Random bytes are not worth an attempt to compress them.
alter table ledger.standing_change alter column teams set storage external;
create index standing_change_xid on ledger.standing_change (xid);
comment on table ledger.standing_change is
    'Which teams a transaction changed: balance, lots, holds, budgets or usage states. Removed when old; the teams themselves are the truth.';
comment on column ledger.standing_change.xid is 'The transaction, by which a snapshot tells whether it was visible.';

create table ledger.standing_head (
    only_row boolean primary key default true check (only_row),
    removed xid8 not null default '0'
);
insert into ledger.standing_head default values;
comment on table ledger.standing_head is 'How far changes were removed because of their age.';
comment on column ledger.standing_head.removed is
    'The newest transaction of those whose rows were removed: a reader whose snapshot did not see all up to it may have missed something.';
