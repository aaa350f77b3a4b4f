-- A team's journal after $3 up to $6, added up in three parts: up to $4, up to $5, and what follows.
-- Rows that take effect before the period ($7) are told apart in the middle part only.
select case when seq <= $4 then 0 when seq <= $5 then 1 else 2 end as "part!",
       kind as "kind!",
       debit_book as "debit_book!",
       credit_book as "credit_book!",
       lot_id,
       (seq > $4 and seq <= $5 and effective_at < $7) as "earlier!",
       count(*) as "rows!",
       sum(amount_micros)::text as "amount!",
       min(window_start) filter (where charge_id is not null) as "first_window: Instant",
       max(window_start) filter (where charge_id is not null) as "last_window: Instant"
from ledger.journal_between($1, $2, $3, $6)
group by 1, 2, 3, 4, 5, 6
