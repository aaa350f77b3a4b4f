-- The price of a new charge is what its journal rows moved, paid or not; both were written together.
with rows as (
    select account_id, team_id, charge_id,
           sum(case debit_book when 'consumed' then -amount_micros else amount_micros end) as amount,
           coalesce(sum(amount_micros) filter (where kind = 'uncharged'), 0)
               - coalesce(sum(amount_micros) filter (where kind = 'cancellation'), 0) as uncharged,
           min(seq) as first
    from ledger.new_journal()
    where charge_id is not null and kind <> 'chargeback'
    group by account_id, team_id, charge_id
)
select format('charge %s of team %s', charge_id, team_id)
from ledger.new_charges() c
full join rows j using (account_id, team_id, charge_id)
where (c.amount_micros, c.uncharged_micros, case when c.amount_micros = 0 then 0 else c.journal_seq end)
      is distinct from (coalesce(j.amount, 0), coalesce(j.uncharged, 0), coalesce(j.first, 0))
order by team_id, charge_id
