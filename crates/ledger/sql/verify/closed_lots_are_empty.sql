-- A closed lot has nothing left, and was not closed before its time (D3, D55).
select format('lot %s of team %s', lot_id, team_id)
from ledger.lot
where closed_at is not null and (remaining_micros <> 0 or held_micros <> 0 or closed_at < closes_at)
order by team_id, lot_id
