-- The new charges of a team run from its point to the number its balance knows.
with ends as (
    select account_id, team_id, count(*) as charges, max(seq) as last
    from ledger.new_charges()
    group by account_id, team_id
)
select format('team %s', team_id)
from ledger.balance b
left join ledger.verified_team v using (account_id, team_id)
left join ends e using (account_id, team_id)
where (coalesce(v.charges, 0) + coalesce(e.charges, 0), coalesce(e.last, v.charges, 0)) is distinct from (b.charges, b.charges)
order by team_id
