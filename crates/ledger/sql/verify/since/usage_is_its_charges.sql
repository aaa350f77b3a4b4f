-- What was rolled up since the points is the charges of that part of each team's order, each one once in an hour and
-- once in a day, with their sums and digests.
with sums as (
    select 'hour' as size, hour as start, account_id, team_id, first_seq, last_seq, app_id, client_id, meter, failed,
           dimensions, price_id, zero_rated, charges, events, quantity, amount_micros, uncharged_micros, digest
    from ledger.usage_hour u
    left join ledger.verified_usage v using (account_id, team_id)
    where u.first_seq > coalesce(v.seq, 0)
    union all
    select 'day', day, account_id, team_id, first_seq, last_seq, app_id, client_id, meter, failed,
           dimensions, price_id, zero_rated, charges, events, quantity, amount_micros, uncharged_micros, digest
    from ledger.usage_day u
    left join ledger.verified_usage v using (account_id, team_id)
    where u.first_seq > coalesce(v.seq, 0)
), rolled as (
    select r.account_id, r.team_id, r.seq, coalesce(v.seq, 0) as verified, v.posted_at
    from ledger.usage_rolled r
    left join ledger.verified_usage v using (account_id, team_id)
    where r.seq > coalesce(v.seq, 0)
), rows as (
    select s.size, c.account_id, c.team_id, c.seq, c.app_id, c.client_id, c.meter, c.failed, c.dimensions, c.price_id,
           c.zero_rated, c.events, c.quantity, c.amount_micros, c.uncharged_micros,
           date_bin(('1 ' || s.size)::interval, c.window_start, timestamptz '1970-01-01 00:00:00+00') as start,
           ledger.charge_bytes(c.seq, c.charge_id, c.posted_at, c.window_start, c.events, c.quantity,
                               c.amount_micros, c.uncharged_micros, c.journal_seq) as bytes
    from rolled r
    cross join lateral (
        select c.* from ledger.charge c
        where c.account_id = r.account_id and c.team_id = r.team_id and c.seq > r.verified and c.seq <= r.seq
          and c.posted_at >= coalesce(r.posted_at, '-infinity')
        offset 0) c
    cross join (values ('hour'), ('day')) as s (size)
), found as materialized (
    select c.size, c.account_id, c.team_id, c.seq, c.start, s.first_seq, c.events, c.quantity, c.amount_micros,
           c.uncharged_micros, c.bytes
    from rows c
    left join sums s
      on (s.size, s.account_id, s.team_id, s.start, s.app_id, s.client_id, s.meter, s.failed, s.dimensions)
         = (c.size, c.account_id, c.team_id, c.start, c.app_id, c.client_id, c.meter, c.failed, c.dimensions)
     and s.price_id is not distinct from c.price_id and s.zero_rated is not distinct from c.zero_rated
     and c.seq between s.first_seq and s.last_seq
), made as (
    select size, account_id, team_id, start, first_seq, max(seq) as last_seq, count(*) as charges,
           sum(events) as events, sum(quantity) as quantity, sum(amount_micros) as amount_micros,
           sum(uncharged_micros) as uncharged_micros, sha256(string_agg(bytes, ''::bytea order by seq)) as digest
    from found
    where first_seq is not null
    group by size, account_id, team_id, start, first_seq
)
select format('team %s: charge %s is in %s rows by %s', team_id, seq, count(first_seq), size)
from found
group by size, account_id, team_id, seq
having count(first_seq) <> 1
union all
select format('team %s: %s of %s, first charge %s', s.team_id, s.size, s.start, s.first_seq)
from sums s
left join rolled r using (account_id, team_id)
left join made m using (size, account_id, team_id, start, first_seq)
where s.first_seq > coalesce(r.verified, 0)
  and (m.last_seq, m.charges, m.events, m.quantity, m.amount_micros, m.uncharged_micros, m.digest)
      is distinct from
      (s.last_seq, s.charges, s.events::numeric, s.quantity::numeric, s.amount_micros::numeric,
       s.uncharged_micros::numeric, s.digest)
union all
select format('team %s: its charges by %s', team_id, size)
from (select r.account_id, r.team_id, r.seq, r.verified, k.size,
             coalesce((select sum(s.charges) from sums s
                       where s.account_id = r.account_id and s.team_id = r.team_id and s.size = k.size), 0) as charges
      from rolled r cross join (values ('hour'), ('day')) as k (size)) as counted
where charges <> seq - verified
union all
select format('team %s is rolled up beyond its charges', r.team_id)
from ledger.usage_rolled r
left join ledger.balance b using (account_id, team_id)
left join ledger.verified_usage v using (account_id, team_id)
where b.charges is null or r.seq > b.charges or r.seq < v.seq
order by 1
