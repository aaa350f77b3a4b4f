-- Charges of parts of teams, by part and sequence: a walk along the primary key for each part.
select p.place as "place!", c.seq, c.charge_id, c.app_id, c.client_id, c.meter, c.failed, c.window_start as "window_start: Instant",
       c.dimensions::text as "dimensions!", c.events, c.quantity, c.amount_micros, c.uncharged_micros, c.price_id, c.zero_rated,
       c.posted_at as "posted_at: Instant", c.journal_seq, c.lot_id, c.corrects
from unnest($2::bigint[], $3::uuid[], $4::bigint[], $5::bigint[]) as p (place, team_id, after, up_to)
cross join lateral (
    select *
    from ledger.charge
    where account_id = $1 and team_id = p.team_id and seq > p.after and seq <= p.up_to
    order by seq
    limit $6
) c
order by p.place, c.seq
