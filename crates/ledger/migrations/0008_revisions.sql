-- Which state of a team a process knows, and the lock that tells which one is in force.

comment on column ledger.balance.revision is
    'Random, another one whenever anything changes that a posting loads of the team (balance, lots, holds, usage states, budgets): what a process remembers of the team is in force where it is of this revision. Who changes such a row by hand sets another one.';

-- A statement of this function sees what was committed until it begins, so the second one sees the rows as they are under
-- the locks; in one statement a lock that waits would be granted on a newer row than is read.
create function ledger.lock_teams(teams uuid[]) returns table (team_id uuid, revision uuid) language plpgsql
    set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
    there bigint;
begin
    -- An upsert of what exists, which updates nothing, locks the newest version of each row, found by its key,
    -- in the order of its input; without the ORDER BY two batches could lock crosswise. FOR UPDATE starts at
    -- the version of its snapshot and goes on from one to the next: of 64 writers on one team some wait for
    -- longer than a statement may.
    with known as materialized (
        select b.account_id, b.team_id from ledger.balance b where b.team_id = any (teams)
    ), locked as (
        insert into ledger.balance (account_id, team_id) select account_id, team_id from known order by team_id
        on conflict (team_id) do update set version = excluded.version where false
    )
    select count(*) into there from known;
    -- What was made meanwhile is not locked, though the next statement would see it.
    if there = cardinality(teams) then
        return query select b.team_id, b.revision from ledger.balance b where b.team_id = any (teams);
    end if;
end $$;
comment on function ledger.lock_teams(uuid[]) is
    'Locks balances in order of team id and gives their revisions under the locks; nothing where one of the teams, each named once, has no balance.';
