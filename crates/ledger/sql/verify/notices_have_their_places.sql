-- Facts for others have each place once, from the last one that was removed up to the head, and none beyond.
select format('place %s', p.place)
from ledger.outbox_head h
cross join lateral generate_series(h.removed + 1, h.position) as p (place)
where not exists (select from ledger.outbox o where o.position = p.place)
union all
select format('place %s', o.position)
from ledger.outbox o cross join ledger.outbox_head h
where o.position <= h.removed or o.position > h.position
