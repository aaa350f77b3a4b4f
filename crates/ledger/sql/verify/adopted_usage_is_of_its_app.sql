-- Adopted usage was kept because its app had no team, is of a client id and of windows of the app's adoption, and is
-- charged to the first team of the app (D49).
select format('entry %s', d.entry)
from ledger.review_decision d
left join ledger.unattributed u using (entry)
left join ledger.adopted_client c on c.client_id = u.client_id
left join ledger.adoption a on a.app_id = c.app_id
where d.kind = 'adopted'
  and (u.reason, u.window_start >= a.windows_from, u.window_start < a.windows_to, d.account_id, d.team_id, d.app_id)
      is distinct from ('no_team', true, true, a.account_id, a.team_id, a.app_id)
order by d.entry
