-- The points of this instant: what a verification of the same snapshot found right. Only what moved is written.
with teams as (
    insert into ledger.verified_team (account_id, team_id, seq, charges, balance, lots, digest)
    select n.account_id, n.team_id, n.seq, n.charges, n.balance, n.lots,
           ledger.team_digest(n.seq, n.charges, n.balance, n.lots)
    from ledger.teams_now() n
    left join ledger.verified_team v using (account_id, team_id)
    where v.team_id is null or v.balance <> n.balance or v.lots <> n.lots
    on conflict (account_id, team_id) do update
        set seq = excluded.seq, charges = excluded.charges, balance = excluded.balance, lots = excluded.lots,
            digest = excluded.digest
), states as (
    insert into ledger.verified_state (account_id, team_id, price_id, cycle, quantity)
    select s.account_id, s.team_id, s.price_id, s.cycle, s.quantity
    from ledger.usage_state s
    left join ledger.verified_state v using (account_id, team_id, price_id, cycle)
    where v.quantity is distinct from s.quantity
    on conflict (account_id, team_id, price_id, cycle) do update set quantity = excluded.quantity
), usage as (
    insert into ledger.verified_usage (account_id, team_id, seq, posted_at)
    select r.account_id, r.team_id, r.seq, r.posted_at
    from ledger.usage_rolled r
    left join ledger.verified_usage v using (account_id, team_id)
    where v.seq is distinct from r.seq
    on conflict (account_id, team_id) do update set seq = excluded.seq, posted_at = excluded.posted_at
), shards as (
    insert into ledger.verified_shard (shard, number, chain)
    select shard, last_batch, chain from ledger.shard_cursor
    on conflict (shard) do update set number = excluded.number, chain = excluded.chain
        where ledger.verified_shard.number <> excluded.number
)
insert into ledger.verified_lane (shard, producer_id, map_version, settled, chain)
select shard, producer_id, map_version, settled, chain from ledger.lane_settled
on conflict (shard, producer_id, map_version) do update set settled = excluded.settled, chain = excluded.chain
    where ledger.verified_lane.settled <> excluded.settled
