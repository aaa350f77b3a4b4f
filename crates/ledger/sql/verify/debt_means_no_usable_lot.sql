-- While a team owes, nothing is left in a lot that was open at its last posting (D42), unless it leaves older debts and
-- no part of one of its validity is open (D57).
select format('team %s owes %s, lot %s has %s', b.team_id, b.debt_opened_micros - b.debt_paid_micros - b.debt_ahead_micros, l.lot_id,
              l.remaining_micros)
from ledger.balance b
join ledger.lot l using (account_id, team_id)
where b.debt_opened_micros > b.debt_paid_micros + b.debt_ahead_micros
  and l.remaining_micros > 0
  and l.starts_at <= b.posted_at and b.posted_at < l.expires_at
  and (not l.leaves_older_debts or exists (
      select 1
      from ledger.full_journal i
      where i.account_id = b.account_id and i.team_id = b.team_id and i.debit_book = 'uncharged'
        and i.debt_to_micros > b.debt_paid_micros
        and l.valid_from <= i.window_start and i.window_start < l.expires_at
        and i.debt_to_micros - greatest(i.debt_from_micros, b.debt_paid_micros) > coalesce((
            select sum(least(s.debt_to_micros, i.debt_to_micros)
                       - greatest(s.debt_from_micros, i.debt_from_micros, b.debt_paid_micros))
            from ledger.full_journal s
            where s.account_id = b.account_id and s.team_id = b.team_id and s.credit_book = 'uncharged'
              and s.debt_to_micros > greatest(i.debt_from_micros, b.debt_paid_micros)
              and s.debt_from_micros < i.debt_to_micros), 0)))
order by b.team_id, l.lot_id
