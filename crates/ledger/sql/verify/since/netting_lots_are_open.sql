-- Since the point only an open lot paid debts, or a closing one those of its validity (D41, D42).
select format('team %s row %s: lot %s', team_id, j.seq, lot_id)
from ledger.new_journal() j
join ledger.lot l using (account_id, team_id, lot_id)
where j.kind = 'netting'
  and (j.posted_at < l.starts_at
       or (j.posted_at >= l.expires_at and exists (
               select 1
               from ledger.journal i
               where i.account_id = j.account_id and i.team_id = j.team_id and i.debit_book = 'uncharged'
                 and i.debt_from_micros < j.debt_to_micros and i.debt_to_micros > j.debt_from_micros
                 and (i.window_start < l.valid_from or i.window_start >= l.expires_at))))
order by team_id, j.seq
