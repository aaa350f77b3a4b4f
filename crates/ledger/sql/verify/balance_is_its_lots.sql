-- Book lot is what remains in the lots, book held what is held of them, and so for every book that lots have.
with lots as (
    select account_id, team_id, sum(remaining_micros) as remaining, sum(held_micros) as held, sum(granted_micros) as granted,
           sum(expired_micros) as expired, sum(void_micros) as void, sum(moved_micros) as moved
    from ledger.lot
    group by account_id, team_id
)
select format('team %s', b.team_id)
from ledger.balance b
left join lots l using (account_id, team_id)
where (b.lot_micros, b.held_micros, b.issued_micros::numeric + b.moved_in_micros, b.expired_micros, b.void_micros, b.moved_out_micros)
      is distinct from (coalesce(l.remaining, 0), coalesce(l.held, 0), coalesce(l.granted, 0), coalesce(l.expired, 0),
                        coalesce(l.void, 0), coalesce(l.moved, 0))
order by b.team_id
