-- What decides what stands of some charges of a team, by sequence: the rows of each, which lie between its first one
-- and the end of its instant, and what a chargeback made debt again; rows that settle a part of a debt they opened;
-- and rows that take a part of one of these back. Parts of the running debt are settled without overlap, so the
-- first row that reaches to an item's end is the last to look at.
with charges as (
    select account_id, team_id, seq, posted_at, charge_id, journal_seq, lot_id
    from ledger.charge
    where account_id = $1 and team_id = $2 and charge_id = any($3) and amount_micros <> 0
), own as (
    select j.*
    from charges c
    cross join lateral (
        select * from ledger.journal
        where account_id = c.account_id and team_id = c.team_id and seq >= c.journal_seq
          and seq <= ledger.journal_seq_before(c.account_id, c.team_id, c.posted_at + interval '1 microsecond')
          and charge_id = c.charge_id and kind in ('charge', 'capture', 'uncharged')
    ) j
    where c.lot_id is null
    union all
    select r.account_id, r.team_id, r.seq, r.posted_at, r.transaction, r.kind, r.debit_book, r.credit_book, r.amount_micros, r.lot_id,
           r.charge_id, r.price_id, r.window_start, r.debt_from_micros, r.debt_to_micros, r.lot_state, r.hold_id, r.reverses,
           r.effective_at
    from charges c
    join ledger.charge_row r on r.account_id = c.account_id and r.team_id = c.team_id and r.charge_seq = c.seq
    union all
    select * from ledger.journal
    where account_id = $1 and team_id = $2 and charge_id = any($3) and kind = 'chargeback'
), settling as (
    select j.*
    from own o
    cross join lateral (
        select * from ledger.journal
        where account_id = o.account_id and team_id = o.team_id and credit_book = 'uncharged'
          and debt_to_micros > 0 and debt_to_micros > o.debt_from_micros and debt_from_micros < o.debt_to_micros
          and debt_to_micros <= coalesce((
              select min(debt_to_micros) from ledger.journal
              where team_id = o.team_id and credit_book = 'uncharged' and debt_to_micros > 0
                and debt_to_micros >= o.debt_to_micros), 9223372036854775807)
    ) j
    where o.debit_book = 'uncharged'
), parts as (
    select * from own
    union
    select * from settling
), found as (
    select * from parts
    union
    select j.*
    from parts p
    join ledger.journal j on j.account_id = p.account_id and j.team_id = p.team_id and j.reverses = p.seq
)
select account_id as "account_id!", team_id as "team_id!", seq as "seq!", transaction as "transaction!", kind as "kind!",
       debit_book as "debit_book!", credit_book as "credit_book!", amount_micros as "amount_micros!", lot_id, lot_state,
       charge_id, price_id, window_start as "window_start: Instant", debt_from_micros as "debt_from_micros!",
       debt_to_micros as "debt_to_micros!", posted_at as "posted_at!: Instant", effective_at as "effective_at!: Instant",
       hold_id, reverses
from found
order by seq
