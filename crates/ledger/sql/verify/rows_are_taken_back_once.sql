-- No journal row is taken back beyond its amount, nor by another lot or charge than its own (D43, D44).
with back as (
    select account_id, team_id, reverses as seq, sum(amount_micros) as amount, min(lot_id::text) as lot, max(lot_id::text) as other
    from ledger.full_journal
    where reverses is not null
    group by account_id, team_id, reverses
)
select format('team %s row %s', team_id, seq)
from back
left join ledger.full_journal j using (account_id, team_id, seq)
where j.amount_micros is null or back.amount > j.amount_micros or back.lot <> back.other or back.lot <> j.lot_id::text
order by team_id, seq
