-- What reads need beside the books: places in a team's posting order, and issued statements.

-- Most charges are paid by one lot at once; what the journal says of those the charge says too, so it is not written
-- twice: half of the rows that a post adds.
create view ledger.charge_row with (security_invoker = true) as
    select account_id, team_id, journal_seq as seq, posted_at, transaction, 'charge' as kind, 'lot' as debit_book,
           'consumed' as credit_book, amount_micros, lot_id, charge_id, price_id, window_start,
           0::bigint as debt_from_micros, 0::bigint as debt_to_micros, lot_state, null::uuid as hold_id,
           null::bigint as reverses, window_start as effective_at, seq as charge_seq
    from ledger.charge
    where lot_id is not null;
comment on view ledger.charge_row is 'The charges that are a journal row themselves, as that row; with their places among the charges.';

-- Who reads it sees no difference. Conditions on columns that are the same for all such charges (kind, books, debt) leave
-- the charges out when the statement is planned; a part by sequence is read by ledger.journal_between.
create view ledger.full_journal with (security_invoker = true) as
    select account_id, team_id, seq, posted_at, transaction, kind, debit_book, credit_book, amount_micros, lot_id, charge_id,
           price_id, window_start, debt_from_micros, debt_to_micros, lot_state, hold_id, reverses, effective_at
    from ledger.journal
    union all
    select account_id, team_id, seq, posted_at, transaction, kind, debit_book, credit_book, amount_micros, lot_id, charge_id,
           price_id, window_start, debt_from_micros, debt_to_micros, lot_state, hold_id, reverses, effective_at
    from ledger.charge_row;
comment on view ledger.full_journal is
    'Every journal row: those of ledger.journal, and the charges that one lot paid whole, each of which is its own row. Who reads it needs the rights on both.';

-- What left charges and journal: months that were detached (0020_partitions.sql), always the oldest.
create table ledger.archived_month (
    month timestamptz primary key,
    month_end timestamptz not null,
    detached_at timestamptz not null,
    charges bigint not null check (charges >= 0),
    journal_rows bigint not null check (journal_rows >= 0),
    charge_sha256 bytea check (octet_length(charge_sha256) = 32),
    journal_sha256 bytea check (octet_length(journal_sha256) = 32),
    archived_at timestamptz,
    dropped_at timestamptz,
    check (month < month_end),
    check ((charge_sha256 is null) = (archived_at is null) and (journal_sha256 is null) = (archived_at is null)),
    check (dropped_at is null or archived_at is not null)
);
comment on table ledger.archived_month is 'Months whose charges and journal rows are detached: in tables beside this schema, in files, or both.';
comment on column ledger.archived_month.charge_sha256 is 'Of the file of its charges, as it was written and read again.';
comment on column ledger.archived_month.dropped_at is 'Since then the files are all there is of its rows.';

create table ledger.archived_team (
    account_id uuid not null,
    team_id uuid not null,
    month timestamptz not null references ledger.archived_month on delete cascade,
    journal_seq bigint not null check (journal_seq >= 0),
    charge_seq bigint not null check (charge_seq >= 0),
    primary key (account_id, team_id, month)
);
comment on table ledger.archived_team is 'The last journal row and the last charge of each team that a detached month took along: what is still here follows them.';

create function ledger.archived_until() returns timestamptz language sql stable security definer
    set search_path = pg_catalog, pg_temp return
    coalesce((select max(month_end) from ledger.archived_month), '-infinity'::timestamptz);
comment on function ledger.archived_until() is 'Charges and journal rows posted before are archived; -infinity where none is.';

-- Whose the batches are it does not say, so a tenant may know: it is what his answers stand on.
create function ledger.settled_batches() returns table (shard integer, batch bigint) language sql stable security definer
    set search_path = pg_catalog, pg_temp
    begin atomic
        select c.shard, c.last_batch from ledger.shard_cursor c where c.last_batch > 0;
    end;
comment on function ledger.settled_batches() is 'The last settled batch of each shard that has one.';

create function ledger.archived_seq(account uuid, team uuid, of_charges boolean) returns bigint
    language sql stable set search_path = pg_catalog, pg_temp return
    coalesce((select max(case when of_charges then charge_seq else journal_seq end) from ledger.archived_team
              where account_id = account and team_id = team), 0);
comment on function ledger.archived_seq(uuid, uuid, boolean) is 'The last archived charge or journal row of a team; 0 where none is.';

-- Both look in the month of the instant only, beside one probe of each earlier month: instants never go back in
-- posting order (D40), so what was posted in earlier months comes before it, and the rest of the month after it.

create function ledger.charge_seq_before(account uuid, team uuid, at timestamptz) returns bigint
language plpgsql stable as $$
declare
    first timestamptz := date_trunc('month', at at time zone 'UTC') at time zone 'UTC';
    past timestamptz := (date_trunc('month', at at time zone 'UTC') + interval '1 month') at time zone 'UTC';
    low bigint;
    high bigint;
    middle bigint;
    found_seq bigint;
    found_at timestamptz;
begin
    select seq into low from ledger.charge
    where account_id = account and team_id = team and posted_at < first order by seq desc limit 1;
    low := coalesce(low, ledger.archived_seq(account, team, true));
    select seq into high from ledger.charge
    where account_id = account and team_id = team and posted_at >= first and posted_at < past order by seq desc limit 1;
    high := coalesce(high, low);
    -- All up to `low` were posted before the instant, all after `high` were not.
    while low < high loop
        middle := (low + high + 1) / 2;
        select seq, posted_at into found_seq, found_at from ledger.charge
        where account_id = account and team_id = team and seq >= middle and posted_at >= first and posted_at < past
        order by seq limit 1;
        if found_at < at then
            low := least(found_seq, high);
        else
            high := middle - 1;
        end if;
    end loop;
    return low;
end $$;
comment on function ledger.charge_seq_before(uuid, uuid, timestamptz) is
    'The last charge of a team that was posted before an instant; 0 where none was. What is archived counts as before any instant.';

-- Where a journal row is a charge, it is found by halving: no key leads to it, because places in the journal never go back
-- in the order of charges. A key of its own would cost as much as the primary key, a third of what writing a charge does.
create function ledger.charge_seq_to_row(account uuid, team uuid, row_seq bigint) returns bigint
language plpgsql stable as $$
declare
    low bigint := ledger.archived_seq(account, team, true);
    high bigint;
    last bigint;
    middle bigint;
    place bigint;
begin
    if row_seq <= 0 then
        return low;
    end if;
    select greatest(charges, low), version into high, last
    from ledger.balance where account_id = account and team_id = team;
    if row_seq >= last then
        return high;
    end if;
    while low < high loop
        middle := (low + high + 1) / 2;
        select journal_seq into place from ledger.charge where account_id = account and team_id = team and seq = middle;
        if place <= row_seq then
            low := middle;
        else
            high := middle - 1;
        end if;
    end loop;
    return low;
end $$;
comment on function ledger.charge_seq_to_row(uuid, uuid, bigint) is
    'The last charge of a team with a place in the journal up to a row''s: charges that are rows after that one come after it. Of what is archived, the last charge.';

create function ledger.journal_between(account uuid, team uuid, after bigint, up_to bigint) returns setof ledger.full_journal
language sql stable as $$
    select account_id, team_id, seq, posted_at, transaction, kind, debit_book, credit_book, amount_micros, lot_id, charge_id,
           price_id, window_start, debt_from_micros, debt_to_micros, lot_state, hold_id, reverses, effective_at
    from ledger.journal
    where account_id = account and team_id = team and seq > after and seq <= up_to
    union all
    select account_id, team_id, seq, posted_at, transaction, kind, debit_book, credit_book, amount_micros, lot_id, charge_id,
           price_id, window_start, debt_from_micros, debt_to_micros, lot_state, hold_id, reverses, effective_at
    from ledger.charge_row
    where account_id = account and team_id = team and charge_seq > ledger.charge_seq_to_row(account, team, after)
      and charge_seq <= ledger.charge_seq_to_row(account, team, up_to) and seq > after and seq <= up_to
$$;
comment on function ledger.journal_between(uuid, uuid, bigint, bigint) is
    'The journal rows of a team after a sequence, up to another; it costs what it gives.';

create function ledger.journal_seq_before(account uuid, team uuid, at timestamptz) returns bigint
language plpgsql stable as $$
declare
    first timestamptz := date_trunc('month', at at time zone 'UTC') at time zone 'UTC';
    past timestamptz := (date_trunc('month', at at time zone 'UTC') + interval '1 month') at time zone 'UTC';
    low bigint;
    high bigint;
    middle bigint;
    found_seq bigint;
    found_at timestamptz;
begin
    -- Among the rows that no charge is, whose sequences have gaps; then the place of the last charge.
    select seq into low from ledger.journal
    where account_id = account and team_id = team and posted_at < first order by seq desc limit 1;
    low := greatest(low, ledger.archived_seq(account, team, false));
    select seq into high from ledger.journal
    where account_id = account and team_id = team and posted_at >= first and posted_at < past order by seq desc limit 1;
    high := greatest(high, low);
    while low < high loop
        middle := (low + high + 1) / 2;
        select seq, posted_at into found_seq, found_at from ledger.journal
        where account_id = account and team_id = team and seq >= middle and posted_at >= first and posted_at < past
        order by seq limit 1;
        if found_at < at then
            low := least(found_seq, high);
        else
            high := middle - 1;
        end if;
    end loop;
    return greatest(low, (
        select journal_seq from ledger.charge
        where account_id = account and team_id = team and seq = ledger.charge_seq_before(account, team, at)));
end $$;
comment on function ledger.journal_seq_before(uuid, uuid, timestamptz) is
    'The last journal row of a team that was posted before an instant; 0 where none was. What is archived counts as before any instant.';

create table ledger.statement (
    statement_id uuid primary key,
    account_id uuid not null,
    team_id uuid not null,
    period_from timestamptz not null,
    period_to timestamptz not null,
    issued_at timestamptz not null,
    format smallint not null check (format >= 1),
    opening_seq bigint not null check (opening_seq >= 0),
    closing_seq bigint not null check (closing_seq >= opening_seq),
    shards integer[] not null,
    batches bigint[] not null check (cardinality(batches) = cardinality(shards)),
    closing jsonb not null,
    digest bytea not null check (octet_length(digest) = 32),
    unique (account_id, team_id, period_from, period_to),
    foreign key (account_id, team_id) references ledger.balance,
    check (period_from < period_to and period_to <= issued_at)
);
comment on table ledger.statement is
    'Issued statements: what is needed to make each again byte for byte. Its rows are the journal''s after opening_seq up to closing_seq (D54).';
comment on column ledger.statement.format is 'Version of the form of a statement; a newer program makes old ones in their own form.';
comment on column ledger.statement.batches is
    'The last settled batch of each of the shards when the team was locked for the issue: later ones were posted after the period.';
comment on column ledger.statement.closing is
    'Books and lots at the end: where the next statement begins to add up. It only saves time: the whole journal gives the same.';
comment on column ledger.statement.digest is 'SHA-256 of the statement as it was issued; making it again is compared with it.';
create trigger statement_only_grows before update or delete or truncate on ledger.statement
    for each statement execute function ledger.refuse_change();

-- What a chargeback made debt again is looked up by its charge; there are few such rows.
-- contract: nothing is released yet, so there is no table with rows that anybody waits for
create index journal_chargeback on ledger.journal (team_id, charge_id) where kind = 'chargeback';
