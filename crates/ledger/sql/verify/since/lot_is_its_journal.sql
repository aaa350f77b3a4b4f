-- A lot's amounts in a team rose since its point by its new journal rows there, and what it received is what became of it.
with points as (
    select l.account_id, l.team_id, l.lot_id, l.granted_micros as granted, l.held_micros as held,
           l.consumed_micros as consumed, l.expired_micros as expired, l.void_micros as void, l.moved_micros as moved
    from ledger.verified_team v
    cross join lateral jsonb_populate_recordset(null::ledger.lot, v.lots) l
), rows as (
    select account_id, team_id, lot_id,
           coalesce(sum(amount_micros) filter (where kind in ('purchase', 'grant', 'adjustment', 'import', 'move_in')), 0) as granted,
           coalesce(sum(case credit_book when 'held' then amount_micros end), 0)
               - coalesce(sum(case debit_book when 'held' then amount_micros end), 0) as held,
           coalesce(sum(amount_micros) filter (where kind in ('charge', 'capture', 'netting')), 0)
               - coalesce(sum(amount_micros) filter (where kind in ('chargeback', 'reversal')), 0) as consumed,
           coalesce(sum(amount_micros) filter (where kind = 'expiry'), 0)
               - coalesce(sum(amount_micros) filter (where kind = 'void_expired'), 0) as expired,
           coalesce(sum(amount_micros) filter (where credit_book = 'void'), 0) as void,
           coalesce(sum(amount_micros) filter (where kind = 'move_out'), 0) as moved
    from ledger.new_journal()
    where lot_id is not null
    group by account_id, team_id, lot_id
)
select format('lot %s of team %s', lot_id, team_id)
from ledger.lot l
full join points p using (account_id, team_id, lot_id)
full join rows j using (account_id, team_id, lot_id)
where (l.granted_micros, l.held_micros, l.consumed_micros, l.expired_micros, l.void_micros, l.moved_micros)
      is distinct from (coalesce(p.granted, 0) + coalesce(j.granted, 0), coalesce(p.held, 0) + coalesce(j.held, 0),
                        coalesce(p.consumed, 0) + coalesce(j.consumed, 0), coalesce(p.expired, 0) + coalesce(j.expired, 0),
                        coalesce(p.void, 0) + coalesce(j.void, 0), coalesce(p.moved, 0) + coalesce(j.moved, 0))
   or l.granted_micros::numeric
      <> l.remaining_micros::numeric + l.held_micros + l.consumed_micros + l.expired_micros + l.void_micros + l.moved_micros
order by team_id, lot_id
