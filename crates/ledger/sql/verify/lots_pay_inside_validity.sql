-- A lot pays usage only of windows inside its validity, which began when it last came to the team (D9); debts are apart,
-- and what a correction gave back and charged again (D43).
select format('team %s row %s: window %s, lot %s is valid from %s to %s', team_id, j.seq, j.window_start, lot_id, l.valid_from, l.expires_at)
from ledger.full_journal j
join ledger.lot l using (account_id, team_id, lot_id)
where j.kind in ('charge', 'capture')
  and not exists (
      select 1
      from ledger.full_journal r
      where r.account_id = j.account_id and r.team_id = j.team_id and r.lot_id = j.lot_id
        and r.transaction = j.transaction and r.kind in ('reversal', 'move_in')
        and r.seq < j.seq and r.posted_at = j.posted_at)
  and (j.window_start is null
       or j.window_start >= l.expires_at
       or (j.window_start < l.valid_from and j.window_start < coalesce((
               select m.window_start
               from ledger.full_journal m
               where m.account_id = j.account_id and m.team_id = j.team_id and m.lot_id = j.lot_id
                 and m.kind in ('purchase', 'grant', 'import', 'move_in') and m.seq < j.seq
               order by m.seq desc limit 1), l.valid_from)))
order by team_id, j.seq
