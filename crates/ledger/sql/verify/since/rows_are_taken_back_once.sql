-- No row that was taken back since the point was so beyond its amount, nor by another lot than its own (D43, D44).
with fresh as (
    select distinct account_id, team_id, reverses as seq from ledger.new_journal() where reverses is not null
), back as (
    select f.account_id, f.team_id, f.seq, sum(j.amount_micros) as amount, min(j.lot_id::text) as lot, max(j.lot_id::text) as other
    from fresh f
    join ledger.journal j on j.account_id = f.account_id and j.team_id = f.team_id and j.reverses = f.seq
    group by f.account_id, f.team_id, f.seq
)
select format('team %s row %s', back.team_id, back.seq)
from back
left join lateral (
    select * from ledger.journal_between(back.account_id, back.team_id, back.seq - 1, back.seq)
) j on true
where j.amount_micros is null or back.amount > j.amount_micros or back.lot <> back.other or back.lot <> j.lot_id::text
order by back.team_id, back.seq
