-- The new charges of a team run from its point to the number its balance knows, and their places in the journal never go back.
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
union all
select format('team %s charge %s: place %s in the journal after place %s', team_id, seq, journal_seq, before)
from (
    select c.team_id, c.seq, c.journal_seq,
           lag(c.journal_seq) over (partition by c.account_id, c.team_id order by c.seq) as before
    from ledger.new_charges() c
) c
where journal_seq < before
order by 1
