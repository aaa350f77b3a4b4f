-- While a team owes, nothing is left in a lot that was open at its last posting (D42).
select format('team %s owes %s, lot %s has %s', b.team_id, b.debt_opened_micros - b.debt_paid_micros - b.debt_ahead_micros, l.lot_id,
              l.remaining_micros)
from ledger.balance b
join ledger.lot l using (account_id, team_id)
where b.debt_opened_micros > b.debt_paid_micros + b.debt_ahead_micros
  and l.remaining_micros > 0
  and l.starts_at <= b.posted_at and b.posted_at < l.expires_at
order by b.team_id, l.lot_id
