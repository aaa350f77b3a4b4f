-- The ledger's books. One schema, no reads from any other.
--
-- Conventions: amounts are bigint micro-tokens; 64-bit hashes, chains and generations are bigint
-- with the same bits; instants are timestamptz; every per-account table leads with account_id, the
-- key by which accounts can be spread over several servers.

create schema if not exists ledger;

create function ledger.refuse_change() returns trigger language plpgsql as $$
begin
    raise exception 'table %.% only grows: correct it by a new row', tg_table_schema, tg_table_name
        using errcode = 'restrict_violation';
end $$;
comment on function ledger.refuse_change() is
    'Corrections are new rows that point at what they correct (D11); an update or delete is a fault of the program.';

create table ledger.installation (
    only_row boolean primary key default true check (only_row),
    window_secs bigint not null check (window_secs > 0),
    pool_order text[] not null,
    cell smallint not null default 0 check (cell between 0 and 255)
);
comment on table ledger.installation is
    'Settings that stay for the life of a ledger: another window size would cut windows, another order would undo the replay.';

-- === catalogue ===

create table ledger.catalogue (
    only_row boolean primary key default true check (only_row),
    version bigint not null default 0 check (version >= 0)
);
insert into ledger.catalogue default values;
comment on table ledger.catalogue is
    'Counts changes of meters and prices, so that a posting knows by one number whether what it remembers is in force.';

create table ledger.meter (
    slug text primary key check (octet_length(slug) between 1 and 64),
    unit text not null check (octet_length(unit) between 1 and 64),
    aggregation text not null check (aggregation in ('sum', 'count', 'max', 'unique')),
    period text check (period in ('day', 'month')),
    unique_dimension text,
    dimensions text[] not null check (cardinality(dimensions) <= 8),
    limit_kind text not null check (limit_kind in ('soft', 'hard')),
    created_at timestamptz not null,
    check ((period is not null) = (aggregation in ('max', 'unique'))),
    check ((unique_dimension is not null) = (aggregation = 'unique'))
);
comment on table ledger.meter is 'What is counted. A meter never changes its unit or aggregation: sums of two units have no meaning.';
comment on column ledger.meter.period is 'What max and unique have one value for: a UTC day or month (D19).';
comment on column ledger.meter.unique_dimension is 'The dimension whose distinct values are counted; it is no part of a series.';

create table ledger.rate_card (
    rate_card_id uuid primary key,
    name text not null check (octet_length(name) between 1 and 64),
    contract_kind text not null check (contract_kind in ('flex', 'enterprise')),
    effective_from timestamptz not null,
    set_up boolean not null,
    published_at timestamptz not null,
    unique (name, contract_kind, effective_from)
);
comment on table ledger.rate_card is 'Versions of rate cards (D12). The version in force at a window is the newest that starts at or before it.';
comment on column ledger.rate_card.set_up is 'Entered with its original instant before any usage of its windows was settled (D61).';

create table ledger.price (
    rate_card_id uuid not null references ledger.rate_card,
    meter text not null references ledger.meter,
    price_id uuid not null,
    micros bigint not null check (micros >= 0),
    per_units bigint not null check (per_units >= 1),
    failed_is_free boolean not null,
    tier_above bigint[] not null default '{}' check (cardinality(tier_above) <= 64),
    tier_micros bigint[] not null default '{}',
    charged_unit bigint check (charged_unit >= 1),
    free_quota bigint not null default 0 check (free_quota >= 0),
    free_only boolean not null default false,
    primary key (rate_card_id, meter),
    check (cardinality(tier_above) = cardinality(tier_micros)),
    check (charged_unit is null or cardinality(tier_above) = 0),
    check (not free_only or (free_quota > 0 and micros = 0 and charged_unit is null and cardinality(tier_above) = 0))
);
comment on table ledger.price is 'Micro-tokens per base units, a rational that is never rounded (D13); its shape decides what a state costs.';
comment on column ledger.price.tier_above is 'Where the tiers above the first begin: base units of a month, above the quota (D17).';
comment on column ledger.price.tier_micros is 'Beside each, its micro-tokens for the same per_units.';
comment on column ledger.price.charged_unit is 'Only whole units of so many base units are charged; the unfinished part runs on (D15).';
comment on column ledger.price.free_quota is 'Base units of each month that cost nothing (D16).';
comment on column ledger.price.free_only is 'What is above the quota is recorded and costs nothing (D16).';
comment on column ledger.price.price_id is
    'Names the aggregation state. Not unique: a version that leaves the terms of a meter as they were goes on with the same id (D47).';

-- === producers, shards, lanes: the gate (exactly-once.md) ===

create table ledger.producer (
    producer_id uuid primary key,
    name text not null check (octet_length(name) between 1 and 200),
    epoch bigint not null default 0 check (epoch >= 0),
    created_at timestamptz not null,
    opened_at timestamptz
);
comment on table ledger.producer is 'Owners of durable logs. An id that is not here is refused, never treated as new: it could replay from 0.';
comment on column ledger.producer.epoch is 'Rises at each opening; decides which of two copies of one log stops. The gate never compares it.';

create table ledger.shard_cursor (
    shard integer primary key check (shard >= 0),
    generation bigint not null,
    last_batch bigint not null default 0 check (last_batch >= 0),
    chain bytea not null default decode(repeat('00', 32), 'hex') check (octet_length(chain) = 32),
    changed_at timestamptz not null
);
comment on table ledger.shard_cursor is 'One row a shard: the first lock of every posting, so two posts of a shard never overlap.';
comment on column ledger.shard_cursor.generation is 'Random. Another one makes everything that Redis holds for the shard unpostable: the way to begin again.';
comment on column ledger.shard_cursor.chain is 'Hash over all settled batches of the shard: a changed or missing batch row no longer fits it.';

create table ledger.lane_settled (
    shard integer not null references ledger.shard_cursor,
    producer_id uuid not null references ledger.producer,
    map_version integer not null check (map_version >= 0),
    settled bigint not null check (settled >= 0),
    chain bigint not null,
    primary key (shard, producer_id, map_version)
);
create index lane_settled_producer on ledger.lane_settled (producer_id);
comment on table ledger.lane_settled is
    'The settled watermark of each lane, moved only by the transaction that posts its range: the only thing that frees a producer''s log.';

create table ledger.settlement_batch (
    shard integer not null references ledger.shard_cursor,
    number bigint not null check (number >= 1),
    batch_id uuid not null,
    generation bigint not null,
    digest bytea not null check (octet_length(digest) = 16),
    chain bytea not null check (octet_length(chain) = 32),
    posted_at timestamptz not null,
    lines bigint not null check (lines >= 0),
    events bigint not null check (events >= 0),
    refused bigint not null check (refused >= 0),
    refused_by_reason jsonb not null,
    totals jsonb not null,
    elsewhere_events bigint not null default 0 check (elsewhere_events >= 0),
    elsewhere jsonb not null default '{}',
    charges bigint not null check (charges >= 0),
    unattributed bigint not null check (unattributed >= 0),
    amount_micros bigint not null check (amount_micros >= 0),
    uncharged_micros bigint not null check (uncharged_micros between 0 and amount_micros),
    primary key (shard, number)
);
comment on table ledger.settlement_batch is 'Each settled batch with its receipt: a retry is answered from here, without moving anything.';
comment on column ledger.settlement_batch.digest is '128 bits over raw counters, lanes and chains only, so resolving again on a retry does not change it.';
comment on column ledger.settlement_batch.totals is 'Events and quantity by meter, as checked by the gate: what its charges and unattributed lines must add up to, with what is elsewhere.';
comment on column ledger.settlement_batch.elsewhere_events is 'Events of its ranges that other cells have: in their lines, or refused.';
comment on column ledger.settlement_batch.elsewhere is 'Events and quantity by meter of the lines that other cells have; like totals.';
create trigger settlement_batch_only_grows before update or delete or truncate on ledger.settlement_batch
    for each statement execute function ledger.refuse_change();

create table ledger.batch_lane (
    shard integer not null,
    number bigint not null,
    producer_id uuid not null,
    map_version integer not null,
    epoch bigint not null check (epoch >= 0),
    from_sequence bigint not null check (from_sequence >= 1),
    to_sequence bigint not null check (to_sequence >= from_sequence),
    chain_before bigint not null,
    chain_after bigint not null,
    primary key (shard, number, producer_id, map_version),
    foreign key (shard, number) references ledger.settlement_batch
);
comment on table ledger.batch_lane is 'The range of each lane that a batch settled: the proof that each sequence was posted once.';
create trigger batch_lane_only_grows before update or delete or truncate on ledger.batch_lane
    for each statement execute function ledger.refuse_change();

create table ledger.lost_range (
    producer_id uuid not null references ledger.producer,
    map_version integer not null,
    shard integer not null,
    from_sequence bigint not null check (from_sequence >= 1),
    to_sequence bigint not null check (to_sequence >= from_sequence),
    epoch bigint not null,
    chain_before bigint not null,
    chain_after bigint not null,
    named_at timestamptz not null,
    primary key (producer_id, map_version, shard, from_sequence)
);
comment on table ledger.lost_range is 'Ranges that a producer had freed and a restored database no longer has: named after a proof by chain, never silent.';
create trigger lost_range_only_grows before update or delete or truncate on ledger.lost_range
    for each statement execute function ledger.refuse_change();

create function ledger.lane_bytes(
    producer_id uuid, map_version integer, epoch bigint,
    from_sequence bigint, to_sequence bigint, chain_before bigint, chain_after bigint
) returns bytea language sql immutable return
    uuid_send(producer_id) || int4send(map_version) || int8send(epoch) || int8send(from_sequence)
    || int8send(to_sequence) || int8send(chain_before) || int8send(chain_after);

create function ledger.batch_chain(
    previous bytea, number bigint, generation bigint, digest bytea, posted_at timestamptz,
    lines bigint, events bigint, refused bigint, charges bigint, unattributed bigint,
    amount_micros bigint, uncharged_micros bigint, elsewhere_events bigint, lanes bytea
) returns bytea language sql immutable return
    sha256(previous || int8send(number) || int8send(generation) || digest || timestamptz_send(posted_at)
        || int8send(lines) || int8send(events) || int8send(refused) || int8send(charges) || int8send(unattributed)
        || int8send(amount_micros) || int8send(uncharged_micros) || int8send(elsewhere_events) || lanes);
comment on function ledger.batch_chain(
    bytea, bigint, bigint, bytea, timestamptz, bigint, bigint, bigint, bigint, bigint, bigint, bigint, bigint, bytea
) is 'The chain over batches is made and checked by this one function, inside the database, so it can be recomputed with psql alone.';

-- === books ===

create table ledger.balance (
    account_id uuid not null,
    team_id uuid not null unique,
    lot_micros bigint not null default 0 check (lot_micros >= 0),
    held_micros bigint not null default 0 check (held_micros >= 0),
    consumed_micros bigint not null default 0 check (consumed_micros >= 0),
    expired_micros bigint not null default 0 check (expired_micros >= 0),
    issued_micros bigint not null default 0 check (issued_micros >= 0),
    void_micros bigint not null default 0 check (void_micros >= 0),
    moved_in_micros bigint not null default 0 check (moved_in_micros >= 0),
    moved_out_micros bigint not null default 0 check (moved_out_micros >= 0),
    debt_opened_micros bigint not null default 0 check (debt_opened_micros >= 0),
    debt_paid_micros bigint not null default 0 check (debt_paid_micros between 0 and debt_opened_micros),
    debt_ahead_micros bigint not null default 0 check (debt_ahead_micros between 0 and debt_opened_micros - debt_paid_micros),
    version bigint not null default 0 check (version >= 0),
    transactions bigint not null default 0 check (transactions >= 0),
    charges bigint not null default 0 check (charges >= 0),
    negative_since timestamptz,
    posted_at timestamptz,
    last_window timestamptz,
    notice_told smallint default 0 check (notice_told between 0 and 99),
    notice_due timestamptz,
    revision uuid not null default '00000000-0000-0000-0000-000000000000',
    primary key (account_id, team_id)
) with (fillfactor = 50);
create index balance_notice_due on ledger.balance (notice_due) where notice_due is not null;
comment on table ledger.balance is
    'One row a team, one column a book: the first lock of every writer, taken in order of team_id, so that writers wait and never deadlock.';
comment on column ledger.balance.lot_micros is
    'Book lot: remaining of scheduled, open and closing lots. Readers subtract what is not open at their instant (D3).';
comment on column ledger.balance.debt_opened_micros is
    'Length of the queue of debts since the beginning; the open debt is what lies between paid and opened (D7).';
comment on column ledger.balance.debt_ahead_micros is
    'What is settled of the queue beyond debt_paid_micros: a closing lot pays usage of its validity only, out of turn (D42).';
comment on column ledger.balance.version is 'The last journal sequence: gapless, so a missing row shows.';
comment on column ledger.balance.transactions is 'The last transaction number; each due step, such as a lot''s close, is one of its own (D40).';
comment on column ledger.balance.charges is 'The last charge sequence.';
comment on column ledger.balance.negative_since is 'Posting instant of the transaction that ended below zero, until one ends at or above (D48).';
comment on column ledger.balance.posted_at is 'Last posted instant; no later transaction takes an earlier one (D40).';
comment on column ledger.balance.last_window is 'Newest window charged: set-up before it is refused (D61).';
comment on column ledger.balance.notice_told is
    'Lowest level of what is left, in percent, that was told and is not armed again; null where all are armed (D32).';
comment on column ledger.balance.notice_due is
    'When time alone makes the next fact about the team true; everything before it was told.';

create table ledger.lot (
    account_id uuid not null,
    team_id uuid not null,
    lot_id uuid not null,
    pool_kind text not null check (pool_kind in ('free', 'enterprise', 'credit', 'promotional', 'flex')),
    original_micros bigint not null check (original_micros between 1 and 1000000000000000),
    granted_micros bigint not null check (granted_micros >= 0),
    remaining_micros bigint not null check (remaining_micros >= 0),
    held_micros bigint not null default 0 check (held_micros >= 0),
    consumed_micros bigint not null default 0 check (consumed_micros >= 0),
    expired_micros bigint not null default 0 check (expired_micros >= 0),
    void_micros bigint not null default 0 check (void_micros >= 0),
    moved_micros bigint not null default 0 check (moved_micros >= 0),
    purchased_at timestamptz not null,
    starts_at timestamptz not null,
    valid_from timestamptz not null,
    expires_at timestamptz not null,
    closes_at timestamptz not null,
    closed_at timestamptz,
    moved_to uuid,
    leaves_older_debts boolean not null,
    order_id uuid,
    note text not null check (octet_length(note) <= 200),
    primary key (account_id, team_id, lot_id),
    foreign key (account_id, team_id) references ledger.balance,
    check (starts_at < expires_at and expires_at <= closes_at and valid_from >= starts_at),
    check (granted_micros = remaining_micros + held_micros + consumed_micros + expired_micros + void_micros + moved_micros),
    check ((closed_at is null and moved_to is null) or (remaining_micros = 0 and held_micros = 0)),
    check (closed_at >= closes_at or void_micros > 0),
    check (moved_to <> team_id),
    check ((pool_kind = 'flex') = (order_id is not null))
) with (fillfactor = 50);
create index lot_live on ledger.lot (team_id) where closed_at is null and moved_to is null;
-- Says the same in other words: who asks for the live lots of a team could otherwise be given this index, and with it
-- all live lots of the ledger, as long as there are no statistics.
create index lot_due on ledger.lot (closes_at) where num_nonnulls(closed_at, moved_to) = 0;
create index lot_name on ledger.lot (lot_id);
create index lot_order on ledger.lot (order_id) where order_id is not null;
comment on table ledger.lot is
    'Batches of tokens, one row for each team they lived in (D46). No lot is ever deleted; a closed one is empty.';
comment on column ledger.lot.original_micros is 'Size when it was made, which decides in the draw order (D4); travels with the lot.';
comment on column ledger.lot.granted_micros is 'Everything it ever received in this team.';
comment on column ledger.lot.moved_to is 'The team it left this one for; what it paid before stays here.';
comment on column ledger.lot.closed_at is
    'Posting instant of its close. Scheduled, open and closing are not stored: they follow from the reader''s instant, not from a job (D3).';
comment on column ledger.lot.valid_from is 'First window it pays for other than as debt: the one in which it came to the team (D9).';
comment on column ledger.lot.leaves_older_debts is 'It pays no usage of windows before valid_from, not as debt either (D57).';
comment on column ledger.lot.closes_at is 'Expiry plus the lateness limit in force when it was made.';

create table ledger.charge (
    account_id uuid not null,
    team_id uuid not null,
    seq bigint not null check (seq >= 1),
    posted_at timestamptz not null,
    charge_id uuid not null,
    app_id uuid not null,
    client_id text not null,
    meter text not null,
    failed boolean not null,
    window_start timestamptz not null,
    dimensions jsonb not null,
    hold_id uuid,
    shard integer not null,
    batch bigint not null,
    events bigint not null,
    quantity bigint not null,
    amount_micros bigint not null,
    uncharged_micros bigint not null,
    price_id uuid,
    zero_rated text check (zero_rated in ('trial', 'failed', 'unpriced', 'over_quota')),
    journal_seq bigint not null check (journal_seq >= 0),
    lot_id uuid,
    lot_state text check (lot_state in ('open', 'closing')),
    transaction bigint check (transaction >= 1),
    corrects uuid,
    primary key (account_id, team_id, seq, posted_at),
    check (case when quantity < 0 then corrects is not null and batch = 0 and events <= 0 and amount_micros <= uncharged_micros and uncharged_micros <= 0
           else events >= 0 and uncharged_micros between 0 and amount_micros end),
    check ((price_id is null) = (zero_rated is not null and zero_rated <> 'over_quota')),
    check (zero_rated is null or amount_micros = 0),
    check (journal_seq > 0 or amount_micros = 0),
    -- A charge that is its own journal row moves its whole price out of one lot (ledger.full_journal).
    check ((lot_id is null) = (transaction is null) and (lot_id is null) = (lot_state is null)),
    check (lot_id is null or (amount_micros > 0 and uncharged_micros = 0 and price_id is not null))
) partition by range (posted_at);
create index charge_correction on ledger.charge (team_id, corrects) where corrects is not null;
create index charge_name on ledger.charge using brin (charge_id) with (autosummarize = on);
comment on column ledger.charge.corrects is
    'The charge that this one takes back a part of (everything in it is below zero then) or is made instead of (D43).';
comment on table ledger.charge is
    'Rated usage, one row for each line of a batch, never changed. cut by month of posting (0020_partitions.sql).';
comment on column ledger.charge.batch is 'Number of its settlement batch; 0 where it was captured under a hold at once, without one.';
comment on column ledger.charge.seq is 'Posting order inside the team.';
comment on column ledger.charge.uncharged_micros is 'What no lot covered when it was posted; what was paid since is a comparison of positions in the journal (D7).';
comment on column ledger.charge.quantity is 'Of this line alone: for max its largest value, for unique the number of its distinct ones (D19).';
comment on column ledger.charge.zero_rated is
    'Why it costs nothing by rule, entering no state (D14, D18, D20); over_quota enters one: some of it lies above the quota of a meter that is free only (D16).';
comment on column ledger.charge.journal_seq is
    'First journal row of this charge; of one that moved nothing, a row of the team before it. Never goes back in posting order, so no index is needed to find a row (ledger.charge_seq_to_row).';
comment on column ledger.charge.lot_id is
    'The lot that paid all of it at once: then the charge is that journal row itself, and ledger.journal has none for it.';
comment on column ledger.charge.lot_state is 'Of that row: the lot''s state as used.';
comment on column ledger.charge.transaction is 'Of that row: the number of its transaction in the team.';
create trigger charge_only_grows before update or delete or truncate on ledger.charge
    for each statement execute function ledger.refuse_change();

create table ledger.usage_state (
    account_id uuid not null,
    team_id uuid not null,
    price_id uuid not null,
    cycle timestamptz not null,
    meter text not null,
    quantity bigint not null check (quantity >= 0),
    primary key (account_id, team_id, price_id, cycle)
) with (fillfactor = 50);
comment on table ledger.usage_state is
    'Cumulative quantity per key: a charge is price(after) - price(before), so no split into windows or batches changes a sum (D14).';
comment on column ledger.usage_state.cycle is
    'First instant of the UTC month of the windows; 0001-01-01 for what charged units of all months count: what lay above each month''s quota (D15).';

create table ledger.journal (
    account_id uuid not null,
    team_id uuid not null,
    seq bigint not null check (seq >= 1),
    posted_at timestamptz not null,
    transaction bigint not null check (transaction >= 1),
    kind text not null check (kind in (
        'purchase', 'grant', 'adjustment', 'import', 'prior_debt', 'move_out', 'move_in', 'void', 'void_expired',
        'chargeback', 'hold', 'release', 'charge', 'capture', 'uncharged', 'netting', 'expiry', 'reversal', 'cancellation')),
    debit_book text not null,
    credit_book text not null,
    amount_micros bigint not null check (amount_micros > 0),
    lot_id uuid,
    charge_id uuid,
    price_id uuid,
    window_start timestamptz,
    debt_from_micros bigint not null default 0 check (debt_from_micros >= 0),
    debt_to_micros bigint not null default 0,
    lot_state text check (lot_state in ('scheduled', 'open', 'closing', 'closed', 'moved')),
    hold_id uuid,
    reverses bigint,
    effective_at timestamptz not null,
    primary key (account_id, team_id, seq, posted_at),
    check (case kind
        when 'purchase' then debit_book = 'issued' and credit_book = 'lot'
        when 'grant' then debit_book = 'issued' and credit_book = 'lot'
        when 'import' then debit_book = 'issued' and credit_book = 'lot'
        when 'prior_debt' then debit_book = 'uncharged' and credit_book = 'consumed'
        when 'adjustment' then debit_book = 'issued' and credit_book = 'lot'
        when 'move_out' then debit_book = 'lot' and credit_book = 'moved'
        when 'move_in' then debit_book = 'moved' and credit_book = 'lot'
        when 'void' then debit_book = 'lot' and credit_book = 'void'
        when 'void_expired' then debit_book = 'expired' and credit_book = 'void'
        when 'chargeback' then debit_book = 'uncharged' and credit_book = 'void'
        when 'hold' then debit_book = 'lot' and credit_book = 'held'
        when 'release' then debit_book = 'held' and credit_book = 'lot'
        when 'charge' then debit_book = 'lot' and credit_book = 'consumed'
        when 'capture' then debit_book = 'held' and credit_book = 'consumed'
        when 'uncharged' then debit_book = 'uncharged' and credit_book = 'consumed'
        when 'netting' then debit_book = 'lot' and credit_book = 'uncharged'
        when 'expiry' then debit_book = 'lot' and credit_book = 'expired'
        when 'reversal' then debit_book = 'consumed' and credit_book = 'lot'
        when 'cancellation' then debit_book = 'consumed' and credit_book = 'uncharged'
    end),
    check ((lot_id is null) = (kind in ('uncharged', 'prior_debt', 'cancellation'))),
    -- What a lot paid may be usage from before an import, which has no charge (D61).
    check (kind = 'chargeback'
           or (charge_id is not null) = (kind in ('charge', 'capture', 'uncharged', 'reversal', 'cancellation'))),
    check ((hold_id is not null) = (kind in ('hold', 'release', 'capture'))),
    check ((reverses is not null) = (kind in ('chargeback', 'reversal'))),
    check (debt_to_micros - debt_from_micros = case
        when kind in ('uncharged', 'prior_debt', 'netting', 'chargeback', 'cancellation') or (kind = 'reversal' and debt_to_micros > 0)
        then amount_micros else 0 end)
) partition by range (posted_at);
create index journal_reverses on ledger.journal (team_id, reverses) where reverses is not null;
create index journal_debt on ledger.journal (team_id, debt_to_micros) where debt_to_micros > 0;
comment on table ledger.journal is
    'One row = one debit book, one credit book, one positive amount: an unbalanced entry cannot be written. Never changed (D11); cut by month of posting. Rows that a charge says alone are not here: read ledger.full_journal.';
comment on column ledger.journal.seq is 'Gapless per team, together with the rows that charges are; the last one is balance.version.';
comment on column ledger.journal.transaction is 'Number of its transaction in the team: rows of one number were posted as one.';
comment on column ledger.journal.debt_from_micros is 'The part of the team''s running debt that this row opens or settles, or whose payment it takes back (D7): which lot paid which item is a comparison.';
comment on column ledger.journal.reverses is 'The row of this team that this one takes back, by its seq.';
comment on column ledger.journal.window_start is 'Window of the usage; of a lot that is made or arrives, the first one it may pay.';
comment on column ledger.journal.lot_state is 'The lot''s state as used, so that a replay can be computed from rows alone.';
create trigger journal_only_grows before update or delete or truncate on ledger.journal
    for each statement execute function ledger.refuse_change();

create table ledger.unattributed (
    entry bigint generated always as identity primary key,
    posted_at timestamptz not null,
    shard integer not null,
    batch bigint not null,
    client_id text not null,
    meter text not null,
    failed boolean not null,
    window_start timestamptz not null,
    received_window_start timestamptz not null,
    dimensions jsonb not null,
    events bigint not null check (events >= 0),
    quantity bigint not null check (quantity >= 0),
    reason text not null check (reason in ('no_team', 'unknown_client', 'late', 'poison', 'overflow')),
    distinct_values bytea[],
    account_id uuid,
    team_id uuid,
    app_id uuid
);
create index unattributed_batch on ledger.unattributed (shard, batch);
create index unattributed_client on ledger.unattributed (client_id, window_start, entry);
comment on table ledger.unattributed is 'Usage that happened and could not be charged: kept with its reason, never dropped (D25).';
comment on column ledger.unattributed.distinct_values is 'The values of a line of a unique meter (D19): it could not be charged later without them.';
comment on column ledger.unattributed.team_id is 'Who would have paid, where that was known: for the operator who decides.';
create trigger unattributed_only_grows before update or delete or truncate on ledger.unattributed
    for each statement execute function ledger.refuse_change();

create table ledger.client_usage (
    client_id text primary key,
    last_window timestamptz not null
) with (fillfactor = 50);
create index client_usage_window on ledger.client_usage (last_window);
comment on table ledger.client_usage is
    'Newest settled window of each client id, charged or not: the guard of set-up (D61) without an index over all charges.';

-- === requests ===

create table ledger.idempotency (
    request_id text primary key check (octet_length(request_id) between 1 and 128),
    method text not null,
    request_hash bytea not null check (octet_length(request_hash) = 32),
    response bytea not null,
    created_at timestamptz not null
);
comment on table ledger.idempotency is
    'Answers by request id, written in the transaction of their effect: a retry is answered from here, another content is a conflict.';

create table ledger.audit_log (
    entry bigint generated always as identity primary key,
    at timestamptz not null,
    caller text not null,
    action text not null,
    subject text not null,
    detail jsonb not null
);
comment on column ledger.audit_log.caller is
    'Who called, as far as it was proven: key prin_…/key_…, token SUBJECT at ISSUER, certificate NAME, local where identity is off, or process.';
comment on table ledger.audit_log is 'What operators and services did outside the money: set-up, prices, producers, resets.';
create trigger audit_log_only_grows before update or delete or truncate on ledger.audit_log
    for each statement execute function ledger.refuse_change();
