-- A lot that is closed or moved away has nothing left, and none closed before its time but by a chargeback (D3, D44, D55).
select format('lot %s of team %s', lot_id, team_id)
from ledger.lot
where ((closed_at is not null or moved_to is not null) and (remaining_micros <> 0 or held_micros <> 0))
   or (closed_at < closes_at and void_micros = 0)
order by team_id, lot_id
