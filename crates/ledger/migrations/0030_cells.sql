-- Accounts on several servers: what the leading cell keeps for the others.

create table ledger.batch_part (
    shard integer not null,
    number bigint not null,
    cell smallint not null check (cell between 1 and 255),
    lines bigint not null check (lines >= 0),
    events bigint not null check (events >= 0),
    totals jsonb not null,
    content bytea,
    posted_at timestamptz not null,
    primary key (shard, number, cell),
    foreign key (shard, number) references ledger.settlement_batch
);
create index batch_part_kept on ledger.batch_part (shard, posted_at) where content is not null;
comment on table ledger.batch_part is
    'What each other cell gets of a batch, written with it by the leading cell: from then on the split of the batch is fixed.';
comment on column ledger.batch_part.totals is 'Events and quantity of its lines by meter.';
comment on column ledger.batch_part.content is
    'Its lines as the message CellLines; null once all cells have the batch and the time to restore a cell is over.';
