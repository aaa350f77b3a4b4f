-- Only an open lot pays debts, or a closing one those of its validity (D41, D42); one that leaves older debts none of
-- before it last came to the team (D57).
select format('team %s row %s: lot %s', team_id, j.seq, lot_id)
from ledger.full_journal j
join ledger.lot l using (account_id, team_id, lot_id)
where j.kind = 'netting'
  and (j.posted_at < l.starts_at
       or (j.posted_at >= l.expires_at and exists (
               select 1
               from ledger.full_journal i
               where i.account_id = j.account_id and i.team_id = j.team_id and i.debit_book = 'uncharged'
                 and i.debt_from_micros < j.debt_to_micros and i.debt_to_micros > j.debt_from_micros
                 and (i.window_start < l.valid_from or i.window_start >= l.expires_at)))
       or (l.leaves_older_debts and exists (
               select 1
               from ledger.full_journal i
               where i.account_id = j.account_id and i.team_id = j.team_id and i.debit_book = 'uncharged'
                 and i.debt_from_micros < j.debt_to_micros and i.debt_to_micros > j.debt_from_micros
                 and (i.window_start >= l.expires_at
                      or i.window_start < (
                          select m.window_start
                          from ledger.full_journal m
                          where m.account_id = j.account_id and m.team_id = j.team_id and m.lot_id = j.lot_id
                            and m.kind in ('purchase', 'grant', 'import', 'move_in') and m.seq < j.seq
                          order by m.seq desc limit 1)))))
order by team_id, j.seq
