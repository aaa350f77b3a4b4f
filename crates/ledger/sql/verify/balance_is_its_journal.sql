-- The books of a balance are the sums of its journal.
with books as (
    select account_id, team_id,
           sum(case when credit_book = 'lot' then amount_micros when debit_book = 'lot' then -amount_micros else 0 end) as lot,
           sum(case when credit_book = 'held' then amount_micros when debit_book = 'held' then -amount_micros else 0 end) as held,
           sum(case when credit_book = 'consumed' then amount_micros when debit_book = 'consumed' then -amount_micros else 0 end) as consumed,
           sum(case when credit_book = 'expired' then amount_micros when debit_book = 'expired' then -amount_micros else 0 end) as expired,
           sum(case when credit_book = 'void' then amount_micros when debit_book = 'void' then -amount_micros else 0 end) as void,
           sum(case when debit_book = 'issued' then amount_micros else 0 end) as issued,
           sum(case when debit_book = 'moved' then amount_micros else 0 end) as moved_in,
           sum(case when credit_book = 'moved' then amount_micros else 0 end) as moved_out,
           sum(case when debit_book = 'uncharged' then amount_micros else 0 end) as opened,
           sum(case when credit_book = 'uncharged' then amount_micros else 0 end) as paid
    from ledger.full_journal
    group by account_id, team_id
)
select format('team %s', b.team_id)
from ledger.balance b
full join books j using (account_id, team_id)
where (b.lot_micros, b.held_micros, b.consumed_micros, b.expired_micros, b.void_micros, b.issued_micros,
       b.moved_in_micros, b.moved_out_micros, b.debt_opened_micros, b.debt_paid_micros + b.debt_ahead_micros)
      is distinct from
      (coalesce(j.lot, 0), coalesce(j.held, 0), coalesce(j.consumed, 0), coalesce(j.expired, 0), coalesce(j.void, 0),
       coalesce(j.issued, 0), coalesce(j.moved_in, 0), coalesce(j.moved_out, 0), coalesce(j.opened, 0), coalesce(j.paid, 0))
order by team_id
