-- What left the teams of an account arrived in its teams, and each lot lives in exactly one of them (D5, D46).
select format('account %s: %s left, %s arrived', account_id, sum(moved_out_micros), sum(moved_in_micros))
from ledger.balance
group by account_id
having sum(moved_out_micros) <> sum(moved_in_micros)
union all
select format('lot %s lives in %s teams', lot_id, count(*) filter (where moved_to is null))
from ledger.lot
group by lot_id
having count(*) filter (where moved_to is null) <> 1 or count(distinct account_id) <> 1
