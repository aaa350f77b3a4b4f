-- A correction takes back usage of a charge of its own team, made before it and no correction itself, of the same
-- series, window and price, and all of them together no more than that charge was for (D11, D43). What was charged
-- instead names a charge that was corrected.
with corrections as (
    select account_id, team_id, corrects, min(seq) as first, sum(quantity) as quantity, sum(events) as events,
           count(distinct (app_id, client_id, meter, failed, window_start, dimensions, price_id, zero_rated)) as kinds,
           min(meter || ' ' || client_id || ' ' || window_start::text || coalesce(price_id::text, zero_rated)) as like_what
    from ledger.charge
    where quantity < 0
    group by account_id, team_id, corrects
)
select format('team %s: corrections of charge %s', x.team_id, x.corrects)
from corrections x
left join ledger.charge c on c.account_id = x.account_id and c.team_id = x.team_id and c.charge_id = x.corrects
where c.seq is null or c.seq >= x.first or c.quantity < 0 or c.quantity + x.quantity < 0 or c.events + x.events < 0
   or x.kinds <> 1
   or x.like_what is distinct from c.meter || ' ' || c.client_id || ' ' || c.window_start::text || coalesce(c.price_id::text, c.zero_rated)
union all
select format('team %s: charge %s instead of %s', i.team_id, i.charge_id, i.corrects)
from ledger.charge i
where i.corrects is not null and i.quantity >= 0
  and not exists (select 1 from corrections x where x.corrects = i.corrects)
order by 1
