-- A lot pays usage only of windows inside its validity (D9); debts are apart.
select format('team %s row %s: window %s, lot %s is valid from %s to %s', team_id, j.seq, j.window_start, lot_id, l.valid_from, l.expires_at)
from ledger.journal j
join ledger.lot l using (account_id, team_id, lot_id)
where j.kind = 'charge' and (j.window_start is null or j.window_start < l.valid_from or j.window_start >= l.expires_at)
order by team_id, j.seq
