-- Verification points: up to where the ledger was found clean, and what it was there, so that the next verification
-- can go on from there (`drawdown ledger verify --incremental`).
--
-- A point is written by a clean verification in the transaction of its snapshot, by nobody else. It is no proof about
-- the past: who can change rows can change points. A full verification does not read them.

create table ledger.verification (
    verification bigint primary key check (verification >= 1),
    at timestamptz not null,
    incremental boolean not null,
    teams bigint not null check (teams >= 0),
    journal_rows bigint not null check (journal_rows >= 0),
    batches bigint not null check (batches >= 0),
    invariants bigint not null check (invariants >= 1)
);
comment on table ledger.verification is 'Clean verifications, each with what it read; their last one is the point that the next incremental one begins at.';
comment on column ledger.verification.journal_rows is 'Rows replayed: all of them, or those since the point before.';
create trigger verification_only_grows before update or delete or truncate on ledger.verification
    for each statement execute function ledger.refuse_change();

create table ledger.verified_team (
    account_id uuid not null,
    team_id uuid not null,
    seq bigint not null check (seq >= 0),
    charges bigint not null check (charges >= 0),
    balance jsonb not null,
    lots jsonb not null,
    digest bytea not null check (octet_length(digest) = 32),
    primary key (account_id, team_id)
) with (fillfactor = 70);
comment on table ledger.verified_team is 'A team as it was last found right: where its journal and charges ended, its balance and all its lots.';
comment on column ledger.verified_team.digest is 'SHA-256 over seq, charges, balance and lots: a point that was changed carelessly is told apart.';

create table ledger.verified_replay (
    account_id uuid not null,
    team_id uuid not null,
    state text not null,
    primary key (account_id, team_id)
) with (fillfactor = 70);
comment on table ledger.verified_replay is 'A team as the replay of its journal left it, as JSON: what the next one goes on from.';

create table ledger.verified_state (
    account_id uuid not null,
    team_id uuid not null,
    price_id uuid not null,
    cycle timestamptz not null,
    quantity bigint not null check (quantity >= 0),
    primary key (account_id, team_id, price_id, cycle)
) with (fillfactor = 70);
comment on table ledger.verified_state is 'Usage states as they were last found right: what charges since must add up from (D14).';

create table ledger.verified_shard (
    shard integer primary key,
    number bigint not null check (number >= 0),
    chain bytea not null check (octet_length(chain) = 32)
);
comment on table ledger.verified_shard is 'The last batch of each shard that was found right, with the chain there.';

create table ledger.verified_lane (
    shard integer not null,
    producer_id uuid not null,
    map_version integer not null,
    settled bigint not null check (settled >= 0),
    chain bigint not null,
    primary key (shard, producer_id, map_version)
);
comment on table ledger.verified_lane is 'Where each lane stood when it was last found right.';

create function ledger.team_digest(seq bigint, charges bigint, balance jsonb, lots jsonb)
    returns bytea language sql immutable
    return sha256(int8send(seq) || int8send(charges) || convert_to(balance::text || lots::text, 'UTF8'));

-- A team now, in the shape of its point. Keys of jsonb are sorted, so equal rows are equal texts.
create function ledger.teams_now()
    returns table (account_id uuid, team_id uuid, seq bigint, charges bigint, balance jsonb, lots jsonb)
    language sql stable as $$
    with lots as (
        select l.account_id, l.team_id, jsonb_agg(to_jsonb(l) order by l.lot_id) as lots
        from ledger.lot l group by l.account_id, l.team_id
    )
    select b.account_id, b.team_id, b.version, b.charges, to_jsonb(b) - 'revision', coalesce(l.lots, '[]')
    from ledger.balance b left join lots l using (account_id, team_id)
$$;
comment on function ledger.teams_now() is 'Every team with its balance and lots; its cost is that of all teams and lots, not of their history.';

-- The rows since the points, whatever the balances say of them; they were posted in the month of the point or later, so
-- older months are not looked at. `offset 0` keeps the planner from reading a whole history for the sake of its end.
create function ledger.new_journal() returns setof ledger.full_journal language sql stable as $$
    with points as (
        select b.account_id, b.team_id, coalesce(v.seq, 0) as seq, coalesce(v.charges, 0) as charges,
               coalesce(date_trunc('month', (v.balance->>'posted_at')::timestamptz at time zone 'UTC') at time zone 'UTC',
                        '-infinity') as month
        from ledger.balance b left join ledger.verified_team v using (account_id, team_id)
    )
    select j.account_id, j.team_id, j.seq, j.posted_at, j.transaction, j.kind, j.debit_book, j.credit_book, j.amount_micros,
           j.lot_id, j.charge_id, j.price_id, j.window_start, j.debt_from_micros, j.debt_to_micros, j.lot_state, j.hold_id,
           j.reverses, j.effective_at
    from points p
    cross join lateral (
        select * from ledger.journal j
        where j.account_id = p.account_id and j.team_id = p.team_id and j.seq > p.seq and j.posted_at >= p.month
        offset 0) j
    union all
    select c.account_id, c.team_id, c.seq, c.posted_at, c.transaction, c.kind, c.debit_book, c.credit_book, c.amount_micros,
           c.lot_id, c.charge_id, c.price_id, c.window_start, c.debt_from_micros, c.debt_to_micros, c.lot_state, c.hold_id,
           c.reverses, c.effective_at
    from points p
    cross join lateral (
        select * from ledger.charge_row c
        where c.account_id = p.account_id and c.team_id = p.team_id and c.charge_seq > p.charges and c.posted_at >= p.month
        offset 0) c
$$;
comment on function ledger.new_journal() is 'Journal rows of teams since their points.';

create function ledger.new_charges() returns setof ledger.charge language sql stable as $$
    select c.* from ledger.balance b
    left join ledger.verified_team v using (account_id, team_id)
    cross join lateral (
        select c.* from ledger.charge c
        where c.account_id = b.account_id and c.team_id = b.team_id and c.seq > coalesce(v.charges, 0)
          and c.posted_at >= coalesce(
              date_trunc('month', (v.balance->>'posted_at')::timestamptz at time zone 'UTC') at time zone 'UTC', '-infinity')
        offset 0) c
$$;
comment on function ledger.new_charges() is 'Charges of teams since their points.';

create function ledger.new_batches() returns setof ledger.settlement_batch language sql stable as $$
    select b.* from ledger.shard_cursor s
    left join ledger.verified_shard v using (shard)
    cross join lateral (
        select b.* from ledger.settlement_batch b where b.shard = s.shard and b.number > coalesce(v.number, 0) offset 0) b
$$;
comment on function ledger.new_batches() is 'Batches of shards since their points.';

create function ledger.new_unattributed() returns setof ledger.unattributed language sql stable as $$
    select u.* from ledger.shard_cursor s
    left join ledger.verified_shard v using (shard)
    cross join lateral (
        select u.* from ledger.unattributed u where u.shard = s.shard and u.batch > coalesce(v.number, 0) offset 0) u
$$;
comment on function ledger.new_unattributed() is 'Usage kept by batches since the points of their shards.';
