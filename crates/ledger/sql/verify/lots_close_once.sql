-- A lot expires at most once, by a row of the instant at which it was closed, and pays nothing later; what is taken back later was paid before.
-- What a correction gives back to a closed lot passes through it in one transaction: such a lot is no part of this.
with returned as (
    select distinct account_id, team_id, transaction, lot_id
    from ledger.full_journal
    where kind in ('reversal', 'move_in')
), rows as (
    select account_id, team_id, lot_id,
           count(*) filter (where kind = 'expiry') as expiries,
           max(posted_at) filter (where kind = 'expiry') as expired_at,
           max(seq) filter (where kind = 'expiry') as expiry_seq,
           max(seq) filter (where credit_book <> 'void') as last_seq
    from ledger.full_journal j
    where lot_id is not null
      and not exists (
          select 1 from returned r
          where (r.account_id, r.team_id, r.transaction, r.lot_id) = (j.account_id, j.team_id, j.transaction, j.lot_id))
    group by account_id, team_id, lot_id
)
select format('lot %s of team %s', lot_id, team_id)
from rows
join ledger.lot l using (account_id, team_id, lot_id)
where expiries > 1
   or (expiries = 1 and (l.closed_at is distinct from expired_at or last_seq <> expiry_seq))
order by team_id, lot_id
