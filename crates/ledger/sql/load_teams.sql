-- Teams with their live lots and the usage states asked for: one row a team, lots and states as arrays,
-- so that what a lock guards is read in one statement after it.
with lots as (
    select team_id,
           array_agg(lot_id) as ids,
           array_agg(pool_kind) as pools,
           array_agg(granted_micros) as granted,
           array_agg(remaining_micros) as remaining,
           array_agg(consumed_micros) as consumed,
           array_agg(expired_micros) as expired,
           array_agg(purchased_at) as purchased_at,
           array_agg(starts_at) as starts_at,
           array_agg(valid_from) as valid_from,
           array_agg(expires_at) as expires_at,
           array_agg(closes_at) as closes_at
    from ledger.lot
    where team_id = any($1) and closed_at is null
    group by team_id
), states as (
    select s.team_id,
           array_agg(s.price_id) as prices,
           array_agg(s.cycle) as cycles,
           array_agg(s.meter) as meters,
           array_agg(s.quantity) as quantities
    from unnest($2::uuid[], $3::uuid[], $4::timestamptz[]) as k (team_id, price_id, cycle)
    join ledger.balance b on b.team_id = k.team_id
    join ledger.usage_state s
      on s.account_id = b.account_id and s.team_id = k.team_id and s.price_id = k.price_id and s.cycle = k.cycle
    group by s.team_id
), budgets as (
    -- Few teams have any: one text for all of a team's, in the months asked for.
    select g.team_id,
           json_agg(json_build_object(
               'budget_id', g.budget_id, 'app_id', g.app_id, 'month', m.month,
               'used_micros', coalesce(u.used_micros, 0), 'cap_micros', t.cap_micros,
               'soft_percent', t.soft_percent, 'hard', t.hard))::text as list
    from ledger.budget g
    join unnest($5::timestamptz[]) as m (month) on m.month >= g.from_month
    cross join lateral (
        select cap_micros, soft_percent, hard from ledger.budget_terms t
        where t.account_id = g.account_id and t.team_id = g.team_id and t.budget_id = g.budget_id
          and t.from_month <= m.month
        order by t.from_month desc limit 1) t
    left join ledger.budget_month u
      on u.account_id = g.account_id and u.team_id = g.team_id and u.budget_id = g.budget_id and u.month = m.month
    where g.team_id = any($1)
    group by g.team_id
)
select b.account_id,
       b.team_id,
       b.lot_micros,
       b.consumed_micros,
       b.expired_micros,
       b.issued_micros,
       b.debt_opened_micros,
       b.debt_paid_micros,
       b.version,
       b.transactions,
       b.charges,
       b.negative_since,
       b.posted_at,
       b.last_window,
       b.notice_told,
       b.notice_due,
       coalesce(l.ids, '{}') as "lot_ids!",
       coalesce(l.pools, '{}') as "lot_pools!",
       coalesce(l.granted, '{}') as "lot_granted!",
       coalesce(l.remaining, '{}') as "lot_remaining!",
       coalesce(l.consumed, '{}') as "lot_consumed!",
       coalesce(l.expired, '{}') as "lot_expired!",
       coalesce(l.purchased_at, '{}') as "lot_purchased_at!: Vec<Instant>",
       coalesce(l.starts_at, '{}') as "lot_starts_at!: Vec<Instant>",
       coalesce(l.valid_from, '{}') as "lot_valid_from!: Vec<Instant>",
       coalesce(l.expires_at, '{}') as "lot_expires_at!: Vec<Instant>",
       coalesce(l.closes_at, '{}') as "lot_closes_at!: Vec<Instant>",
       coalesce(s.prices, '{}') as "state_prices!",
       coalesce(s.cycles, '{}') as "state_cycles!: Vec<Instant>",
       coalesce(s.meters, '{}') as "state_meters!",
       coalesce(s.quantities, '{}') as "state_quantities!",
       g.list as "budgets?"
from ledger.balance b
left join lots l on l.team_id = b.team_id
left join states s on s.team_id = b.team_id
left join budgets g on g.team_id = b.team_id
where b.team_id = any($1)
