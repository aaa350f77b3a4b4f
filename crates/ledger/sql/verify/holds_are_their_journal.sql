-- What a hold has of each lot is what it took less what it gave back and paid; an ended hold has nothing (D45).
with rows as (
    select account_id, team_id, hold_id, lot_id,
           sum(case credit_book when 'held' then amount_micros else 0 end) as taken,
           sum(case credit_book when 'held' then amount_micros else -amount_micros end) as remaining
    from ledger.full_journal
    where hold_id is not null
    group by account_id, team_id, hold_id, lot_id
), parts as (
    select account_id, team_id, hold_id, lot_id, sum(taken_micros) as taken, sum(remaining_micros) as remaining
    from ledger.hold_lot
    group by account_id, team_id, hold_id, lot_id
)
select format('hold %s of team %s, lot %s', hold_id, team_id, lot_id)
from parts p
full join rows j using (account_id, team_id, hold_id, lot_id)
left join ledger.hold h using (account_id, team_id, hold_id)
where (p.taken, p.remaining) is distinct from (j.taken, j.remaining)
   or (h.ended_at is not null and p.remaining <> 0)
order by team_id, hold_id, lot_id
