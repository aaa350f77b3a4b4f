-- The running debt of a team is opened and paid without gap or overlap, in posting order (D7).
with rows as (
    select account_id, team_id, seq, kind, debt_from_micros, debt_to_micros,
           lag(debt_to_micros, 1, 0::bigint) over (partition by account_id, team_id, kind order by seq) as before
    from ledger.journal
    where kind in ('uncharged', 'netting')
)
select format('team %s row %s (%s) begins at %s, not at %s', team_id, seq, kind, debt_from_micros, before)
from rows
where debt_from_micros <> before or debt_to_micros <= debt_from_micros
order by team_id, seq
