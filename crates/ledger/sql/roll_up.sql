-- Rolls up what is next of some teams, which are locked by their places ($1 to $4): of each at most $6 charges that
-- were posted before $5. Hours, days and places are written from the same rows; gives the places reached.
with teams as (
    select account_id, team_id, seq, posted_at
    from unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::timestamptz[]) as t (account_id, team_id, seq, posted_at)
), rows as materialized (
    select c.*
    from teams t
    cross join lateral (
        select c.account_id, c.team_id, c.seq, c.posted_at, c.app_id, c.client_id, c.meter, c.failed, c.dimensions,
               c.price_id, c.zero_rated, c.events, c.quantity, c.amount_micros, c.uncharged_micros,
               date_bin('1 hour', c.window_start, timestamptz '1970-01-01 00:00:00+00') as hour,
               date_bin('1 day', c.window_start, timestamptz '1970-01-01 00:00:00+00') as day,
               ledger.charge_bytes(c.seq, c.charge_id, c.posted_at, c.window_start, c.events, c.quantity,
                                   c.amount_micros, c.uncharged_micros, c.journal_seq) as bytes
        from ledger.charge c
        where c.account_id = t.account_id and c.team_id = t.team_id and c.seq > t.seq
          and c.posted_at >= t.posted_at and c.posted_at < $5
        order by c.seq
        limit $6
    ) c
), hours as (
    insert into ledger.usage_hour (
        account_id, team_id, hour, first_seq, last_seq, app_id, client_id, meter, failed, dimensions, price_id,
        zero_rated, charges, events, quantity, amount_micros, uncharged_micros, digest)
    select account_id, team_id, hour, min(seq), max(seq), app_id, client_id, meter, failed, dimensions, price_id,
           zero_rated, count(*), sum(events), sum(quantity), sum(amount_micros), sum(uncharged_micros),
           sha256(string_agg(bytes, ''::bytea order by seq))
    from rows
    group by account_id, team_id, hour, app_id, client_id, meter, failed, dimensions, price_id, zero_rated
), days as (
    insert into ledger.usage_day (
        account_id, team_id, day, first_seq, last_seq, app_id, client_id, meter, failed, dimensions, price_id,
        zero_rated, charges, events, quantity, amount_micros, uncharged_micros, digest)
    select account_id, team_id, day, min(seq), max(seq), app_id, client_id, meter, failed, dimensions, price_id,
           zero_rated, count(*), sum(events), sum(quantity), sum(amount_micros), sum(uncharged_micros),
           sha256(string_agg(bytes, ''::bytea order by seq))
    from rows
    group by account_id, team_id, day, app_id, client_id, meter, failed, dimensions, price_id, zero_rated
)
update ledger.usage_rolled r
set seq = n.seq, posted_at = n.posted_at
from (select account_id, team_id, max(seq) as seq, max(posted_at) as posted_at, count(*) as charges
      from rows group by account_id, team_id) as n
where r.account_id = n.account_id and r.team_id = n.team_id
returning n.charges as "charges!"
