-- Every journal row moves an amount above zero from one book to another.
select format('team %s row %s: %s from %s to %s', team_id, seq, amount_micros, debit_book, credit_book)
from ledger.full_journal
where amount_micros <= 0 or debit_book = credit_book
order by team_id, seq
