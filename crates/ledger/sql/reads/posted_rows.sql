-- Rows of the journal of parts of teams, by part and sequence: those that belong to charges, or those that do not. Charges that are
-- rows themselves are not among them.
select p.place as "place!", j.seq, j.kind, j.debit_book, j.credit_book, j.amount_micros, j.lot_id, j.charge_id, j.debt_from_micros,
       j.debt_to_micros, j.posted_at as "posted_at: Instant", j.effective_at as "effective_at: Instant", j.hold_id, j.reverses
from unnest($2::bigint[], $3::uuid[], $4::bigint[], $5::bigint[]) as p (place, team_id, after, up_to)
cross join lateral (
    select *
    from ledger.journal
    where account_id = $1 and team_id = p.team_id and seq > p.after and seq <= p.up_to
      and (kind in ('charge', 'capture', 'uncharged', 'reversal', 'cancellation')) = $6
    order by seq
    limit $7
) j
order by p.place, j.seq
