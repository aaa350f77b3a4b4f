-- Teams with their live lots and the usage states asked for: one row a team, lots and states as arrays,
-- so that what a lock guards is read in one statement after it.
--
-- Everything is a probe of a key, once for each team: `offset 0` keeps each of them apart, and what is apart can
-- only be looked up, team by team. Joined in the open, a planner without statistics (a fresh database, a plan for
-- any number of teams) may read all live lots of the ledger, by an index of something else, for one team.
select b.account_id as "account_id!",
       b.team_id as "team_id!",
       b.lot_micros as "lot_micros!",
       b.held_micros as "held_micros!",
       b.consumed_micros as "consumed_micros!",
       b.expired_micros as "expired_micros!",
       b.issued_micros as "issued_micros!",
       b.void_micros as "void_micros!",
       b.moved_in_micros as "moved_in_micros!",
       b.moved_out_micros as "moved_out_micros!",
       b.debt_opened_micros as "debt_opened_micros!",
       b.debt_paid_micros as "debt_paid_micros!",
       b.debt_ahead_micros as "debt_ahead_micros!",
       b.version as "version!",
       b.transactions as "transactions!",
       b.charges as "charges!",
       b.negative_since,
       b.posted_at,
       b.last_window,
       b.notice_told,
       b.notice_due,
       coalesce(l.ids, '{}') as "lot_ids!",
       coalesce(l.pools, '{}') as "lot_pools!",
       coalesce(l.original, '{}') as "lot_original!",
       coalesce(l.granted, '{}') as "lot_granted!",
       coalesce(l.remaining, '{}') as "lot_remaining!",
       coalesce(l.held, '{}') as "lot_held!",
       coalesce(l.consumed, '{}') as "lot_consumed!",
       coalesce(l.expired, '{}') as "lot_expired!",
       coalesce(l.void, '{}') as "lot_void!",
       coalesce(l.moved, '{}') as "lot_moved!",
       coalesce(l.purchased_at, '{}') as "lot_purchased_at!: Vec<Instant>",
       coalesce(l.starts_at, '{}') as "lot_starts_at!: Vec<Instant>",
       coalesce(l.valid_from, '{}') as "lot_valid_from!: Vec<Instant>",
       coalesce(l.expires_at, '{}') as "lot_expires_at!: Vec<Instant>",
       coalesce(l.closes_at, '{}') as "lot_closes_at!: Vec<Instant>",
       coalesce(l.closed_at, '{}') as "lot_closed_at!: Vec<Option<Instant>>",
       coalesce(l.moved_to, '{}') as "lot_moved_to!: Vec<Option<Uuid>>",
       coalesce(l.leaves_older_debts, '{}') as "lot_leaves_older_debts!",
       coalesce(h.ids, '{}') as "hold_ids!",
       coalesce(h.apps, '{}') as "hold_apps!: Vec<Option<Uuid>>",
       coalesce(h.windows, '{}') as "hold_windows!: Vec<Instant>",
       coalesce(h.made_at, '{}') as "hold_made_at!: Vec<Instant>",
       coalesce(h.expires_at, '{}') as "hold_expires_at!: Vec<Instant>",
       coalesce(h.lots, '{}') as "hold_lots!",
       coalesce(h.taken, '{}') as "hold_taken!",
       coalesce(h.remaining, '{}') as "hold_remaining!",
       coalesce(a.froms, '{}') as "ahead_from!",
       coalesce(a.tos, '{}') as "ahead_to!",
       coalesce(i.froms, '{}') as "item_from!",
       coalesce(i.tos, '{}') as "item_to!",
       coalesce(i.windows, '{}') as "item_windows!: Vec<Instant>",
       coalesce(s.prices, '{}') as "state_prices!",
       coalesce(s.cycles, '{}') as "state_cycles!: Vec<Instant>",
       coalesce(s.meters, '{}') as "state_meters!",
       coalesce(s.quantities, '{}') as "state_quantities!",
       g.has_any as "has_budgets!",
       g.list as "budgets?"
from (
    -- Beside each team, which of the keys are its.
    select unnest($1::uuid[]) as team_id, unnest($2::int[]) as first_key, unnest($3::int[]) as last_key
) t
cross join lateral (select * from ledger.balance where team_id = t.team_id offset 0) b
cross join lateral (
    select array_agg(o.lot_id) as ids,
           array_agg(o.pool_kind) as pools,
           array_agg(o.original_micros) as original,
           array_agg(o.granted_micros) as granted,
           array_agg(o.remaining_micros) as remaining,
           array_agg(o.held_micros) as held,
           array_agg(o.consumed_micros) as consumed,
           array_agg(o.expired_micros) as expired,
           array_agg(o.void_micros) as void,
           array_agg(o.moved_micros) as moved,
           array_agg(o.purchased_at) as purchased_at,
           array_agg(o.starts_at) as starts_at,
           array_agg(o.valid_from) as valid_from,
           array_agg(o.expires_at) as expires_at,
           array_agg(o.closes_at) as closes_at,
           array_agg(o.closed_at) as closed_at,
           array_agg(o.moved_to) as moved_to,
           array_agg(o.leaves_older_debts) as leaves_older_debts,
           bool_or(o.leaves_older_debts) as any_leaves_older_debts
    from (
        -- By the index of live lots: those that a team had before are not read.
        select * from ledger.lot where team_id = b.team_id and closed_at is null and moved_to is null
        union all
        select * from ledger.lot
        where cardinality($7::uuid[]) > 0 and account_id = b.account_id and team_id = b.team_id and lot_id = any($7)
          and (closed_at is not null or moved_to is not null)
    ) o
) l
cross join lateral (
    -- The parts of a hold in the order in which it took them.
    select array_agg(h.hold_id order by h.hold_id, p.part) as ids,
           array_agg(h.app_id order by h.hold_id, p.part) as apps,
           array_agg(h.window_start order by h.hold_id, p.part) as windows,
           array_agg(h.made_at order by h.hold_id, p.part) as made_at,
           array_agg(h.expires_at order by h.hold_id, p.part) as expires_at,
           array_agg(p.lot_id order by h.hold_id, p.part) as lots,
           array_agg(p.taken_micros order by h.hold_id, p.part) as taken,
           array_agg(p.remaining_micros order by h.hold_id, p.part) as remaining
    from (select * from ledger.hold where team_id = b.team_id and ended_at is null offset 0) h
    -- One probe of the key for each open hold, of which there are few: the parts of ended ones are not read.
    cross join lateral (
        select part, lot_id, taken_micros, remaining_micros
        from ledger.hold_lot
        where account_id = h.account_id and team_id = h.team_id and hold_id = h.hold_id
        offset 0
    ) p
) h
cross join lateral (
    -- One probe of the key for each state: of all that a team ever had, those that are asked for.
    select array_agg(s.price_id) as prices,
           array_agg(s.cycle) as cycles,
           array_agg(s.meter) as meters,
           array_agg(s.quantity) as quantities
    from unnest(($4::uuid[])[t.first_key:t.last_key], ($5::timestamptz[])[t.first_key:t.last_key]) as k (price_id, cycle)
    cross join lateral (
        select * from ledger.usage_state
        where account_id = b.account_id and team_id = b.team_id and price_id = k.price_id and cycle = k.cycle
        offset 0
    ) s
) s
cross join lateral (
    -- Few teams have any: whether, and one text for all of a team's, in the months asked for.
    select count(*) > 0 as has_any,
           (json_agg(json_build_object(
               'budget_id', g.budget_id, 'app_id', g.app_id, 'month', m.month,
               'used_micros', coalesce(m.used_micros, 0), 'cap_micros', m.cap_micros,
               'soft_percent', m.soft_percent, 'hard', m.hard)) filter (where m.month is not null))::text as list
    from (select * from ledger.budget where account_id = b.account_id and team_id = b.team_id offset 0) g
    left join lateral (
        select w.month, t.cap_micros, t.soft_percent, t.hard, u.used_micros
        from unnest($6::timestamptz[]) as w (month)
        cross join lateral (
            select cap_micros, soft_percent, hard from ledger.budget_terms t
            where t.account_id = g.account_id and t.team_id = g.team_id and t.budget_id = g.budget_id
              and t.from_month <= w.month
            order by t.from_month desc limit 1) t
        left join lateral (
            select used_micros from ledger.budget_month
            where account_id = g.account_id and team_id = g.team_id and budget_id = g.budget_id and month = w.month
            offset 0) u on true
        where w.month >= g.from_month
    ) m on true
) g
-- What was settled out of turn, and what a closing lot may pay out of turn: of nearly no team.
left join lateral (
    select array_agg(debt_from_micros order by debt_from_micros) as froms,
           array_agg(debt_to_micros order by debt_from_micros) as tos
    from ledger.journal
    where b.debt_ahead_micros > 0 and account_id = b.account_id and team_id = b.team_id
      and debt_to_micros > b.debt_paid_micros and credit_book = 'uncharged'
) a on b.debt_ahead_micros > 0
left join lateral (
    select array_agg(j.debt_from_micros order by j.debt_from_micros) as froms,
           array_agg(j.debt_to_micros order by j.debt_from_micros) as tos,
           array_agg(j.window_start order by j.debt_from_micros) as windows
    from ledger.journal j
    where (b.held_micros > 0 or cardinality($7::uuid[]) > 0 or l.any_leaves_older_debts or $8)
      and j.account_id = b.account_id and j.team_id = b.team_id
      and j.debt_to_micros > b.debt_paid_micros and j.debit_book = 'uncharged'
      and ($8 or exists (
          select 1 from ledger.lot o
          where o.account_id = b.account_id and o.team_id = b.team_id
            and (o.held_micros > 0 or o.lot_id = any($7)
                 or (o.leaves_older_debts and o.closed_at is null and o.moved_to is null))
            and o.valid_from <= j.window_start and j.window_start < o.expires_at))
) i on (b.held_micros > 0 or cardinality($7::uuid[]) > 0 or l.any_leaves_older_debts or $8)
   and b.debt_opened_micros > b.debt_paid_micros
