-- The charges of a team run from 1 to the number its balance knows, and their places in the journal never go back.
with ends as (
    select account_id, team_id, count(*) as charges, min(seq) as first, max(seq) as last
    from ledger.charge
    group by account_id, team_id
)
select format('team %s', team_id)
from ledger.balance b
full join ends e using (account_id, team_id)
where (coalesce(e.charges, 0), coalesce(e.last, 0)) is distinct from (b.charges, b.charges) or e.first > 1
union all
select format('team %s charge %s: place %s in the journal after place %s', team_id, seq, journal_seq, before)
from (
    select team_id, seq, journal_seq, lag(journal_seq) over (partition by account_id, team_id order by seq) as before
    from ledger.charge
) c
where journal_seq < before
order by 1
