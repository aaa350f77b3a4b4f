-- Only an open lot pays debts (D41).
select format('team %s row %s: lot %s', team_id, j.seq, lot_id)
from ledger.journal j
join ledger.lot l using (account_id, team_id, lot_id)
where j.kind = 'netting' and (j.posted_at < l.starts_at or j.posted_at >= l.expires_at)
order by team_id, j.seq
