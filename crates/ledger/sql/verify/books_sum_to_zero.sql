-- What was issued, moved in and is owed is in lots, held, used, expired, void or moved out (D52).
with sums as (
    select team_id,
           lot_micros::numeric + held_micros + consumed_micros + expired_micros + void_micros + moved_out_micros as taken,
           issued_micros::numeric + moved_in_micros + (debt_opened_micros - debt_paid_micros - debt_ahead_micros) as given
    from ledger.balance
)
select format('team %s: %s', team_id, taken - given)
from sums
where taken <> given
order by team_id
