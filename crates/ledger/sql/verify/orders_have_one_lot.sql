-- An order bought one lot, so a request that was sent twice had one effect.
select format('order %s: %s lots', order_id, count(distinct lot_id))
from ledger.lot
where order_id is not null
group by order_id
having count(distinct lot_id) > 1
order by order_id
