-- What was issued and what is owed is in lots, held, used, expired or void (D52).
select format('team %s: %s', team_id, lot_micros::numeric + held_micros + consumed_micros + expired_micros + void_micros
              - issued_micros - (debt_opened_micros - debt_paid_micros))
from ledger.balance
where lot_micros::numeric + held_micros + consumed_micros + expired_micros + void_micros
      <> issued_micros::numeric + (debt_opened_micros - debt_paid_micros)
order by team_id
