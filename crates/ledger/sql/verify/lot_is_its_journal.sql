-- A lot's amounts in a team are the sums of its journal rows there: received, held, paid, forfeited, taken back, moved.
with rows as (
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
    from ledger.full_journal
    where lot_id is not null
    group by account_id, team_id, lot_id
)
select format('lot %s of team %s', lot_id, team_id)
from ledger.lot l
full join rows j using (account_id, team_id, lot_id)
where (l.granted_micros, l.held_micros, l.consumed_micros, l.expired_micros, l.void_micros, l.moved_micros)
      is distinct from (coalesce(j.granted, 0), coalesce(j.held, 0), coalesce(j.consumed, 0), coalesce(j.expired, 0),
                        coalesce(j.void, 0), coalesce(j.moved, 0))
   or l.granted_micros::numeric
      <> l.remaining_micros::numeric + l.held_micros + l.consumed_micros + l.expired_micros + l.void_micros + l.moved_micros
order by team_id, lot_id
