-- The running debt of a team is opened without gap or overlap, in posting order, and settled without overlap and,
-- up to what is settled in turn, without gap (D7).
with opened as (
    select account_id, team_id, seq, kind, debt_from_micros, debt_to_micros,
           lag(debt_to_micros, 1, 0::bigint) over (partition by account_id, team_id order by seq) as before
    from ledger.full_journal
    where debit_book = 'uncharged'
), settled as (
    select account_id, team_id, seq, kind, debt_from_micros, debt_to_micros,
           lag(debt_to_micros, 1, 0::bigint) over (partition by account_id, team_id order by debt_from_micros, seq) as before
    from ledger.full_journal
    where credit_book = 'uncharged'
)
select format('team %s row %s (%s) begins at %s, not at %s', team_id, seq, kind, debt_from_micros, before)
from opened
where debt_from_micros <> before or debt_to_micros <= debt_from_micros
union all
select format('team %s row %s (%s) begins at %s, not at %s', s.team_id, s.seq, s.kind, s.debt_from_micros, s.before)
from settled s
join ledger.balance b using (account_id, team_id)
where s.debt_from_micros < s.before
   or s.debt_to_micros <= s.debt_from_micros
   or (s.debt_from_micros > s.before and s.debt_from_micros <= b.debt_paid_micros)
