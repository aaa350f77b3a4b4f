-- Set-up is guarded by the newest settled window of each client id and team: no new usage is newer than its note (D61).
select format('client %s', client_id)
from (
    select client_id, max(window_start) as newest
    from (select client_id, window_start from ledger.new_charges()
          union all
          select client_id, window_start from ledger.new_unattributed()) as usage
    group by client_id
) as usage
left join ledger.client_usage n using (client_id)
where n.last_window is null or n.last_window < usage.newest
union all
select format('team %s', b.team_id)
from ledger.balance b
join (select team_id, max(window_start) as newest from ledger.new_charges() group by team_id) as usage using (team_id)
where b.last_window is null or b.last_window < usage.newest
