-- The journal of a team runs from 1 to the version of its balance, and its instants never go back (D40).
with rows as (
    select account_id, team_id, seq, posted_at,
           lag(seq, 1, 0::bigint) over team as previous,
           lag(posted_at) over team as posted_before
    from ledger.full_journal
    window team as (partition by account_id, team_id order by seq)
), ends as (
    select account_id, team_id, max(seq) as last from ledger.full_journal group by account_id, team_id
)
select format('team %s row %s follows row %s', team_id, seq, previous)
from rows
where seq <> previous + 1 or posted_at < posted_before
union all
select format('team %s: last row %s, version %s', b.team_id, coalesce(e.last, 0), b.version)
from ledger.balance b
left join ends e using (account_id, team_id)
where b.version <> coalesce(e.last, 0)
