-- What a verification point says is still so: its teams, shards and lots are there, lots keep their terms, and nothing went back.
with points as (
    select v.account_id, v.team_id, l.lot as point
    from ledger.verified_team v
    cross join lateral jsonb_array_elements(v.lots) as l (lot)
), terms as (
    -- what may change of a lot; its validity begins anew where it comes back
    select array['granted_micros', 'remaining_micros', 'held_micros', 'consumed_micros', 'expired_micros', 'void_micros',
                 'moved_micros', 'moved_to', 'valid_from', 'closed_at'] as moving
)
select format('lot %s of team %s', p.point->>'lot_id', p.team_id)
from points p
cross join terms t
left join ledger.lot l
  on l.account_id = p.account_id and l.team_id = p.team_id and l.lot_id = (p.point->>'lot_id')::uuid
where to_jsonb(l) - t.moving is distinct from p.point - t.moving
   or (p.point->>'closed_at' is not null and to_jsonb(l)->>'closed_at' is distinct from p.point->>'closed_at')
union all
select format('team %s', team_id)
from ledger.verified_team v
left join ledger.balance b using (account_id, team_id)
where b.version is null or b.version < v.seq or b.charges < v.charges
   or v.digest <> ledger.team_digest(v.seq, v.charges, v.balance, v.lots)
union all
select format('shard %s', shard)
from ledger.verified_shard v
left join ledger.shard_cursor c using (shard)
where c.last_batch is null or c.last_batch < v.number
