-- Slices of an account from a place on, with what of them is archived.
select s.position, s.team_id, s.mark, s.charge_after, s.charge_to, s.row_after, s.row_to,
       case when $6 then ledger.archived_seq(s.account_id, s.team_id, true) else 0 end as "charges_archived!",
       case when $6 then ledger.archived_seq(s.account_id, s.team_id, false) else 0 end as "rows_archived!"
from ledger.posting_slice s
where s.account_id = $1
  and ($2::uuid is null or s.team_id = $2)
  and s.position >= $3
  and s.position <= $4
order by s.position
limit $5
