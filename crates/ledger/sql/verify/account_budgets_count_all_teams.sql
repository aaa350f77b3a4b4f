-- Each team of an account with a budget of its own has one too, which counts from the same month at the latest (D59).
select format('account %s team %s', b.account_id, b.team_id)
from ledger.account_budget a
join ledger.balance b using (account_id)
where not exists (
    select from ledger.budget g
    where g.account_id = b.account_id and g.team_id = b.team_id and g.app_id is null and g.from_month <= a.from_month)
order by b.account_id, b.team_id
