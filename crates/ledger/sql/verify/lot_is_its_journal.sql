-- A lot's size, what it paid and what it forfeited are the sums of its journal rows, and the rest remains.
with rows as (
    select account_id, team_id, lot_id,
           sum(amount_micros) filter (where kind in ('purchase', 'grant')) as granted,
           sum(amount_micros) filter (where kind in ('charge', 'netting')) as consumed,
           sum(amount_micros) filter (where kind = 'expiry') as expired
    from ledger.journal
    where lot_id is not null
    group by account_id, team_id, lot_id
)
select format('lot %s of team %s', lot_id, team_id)
from ledger.lot l
full join rows j using (account_id, team_id, lot_id)
where (l.granted_micros, l.consumed_micros, l.expired_micros)
      is distinct from (coalesce(j.granted, 0), coalesce(j.consumed, 0), coalesce(j.expired, 0))
   or l.granted_micros::numeric <> l.remaining_micros::numeric + l.held_micros + l.consumed_micros + l.expired_micros + l.void_micros
order by team_id, lot_id
