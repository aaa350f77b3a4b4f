-- Rows of a team's journal that fit a filter, by sequence: a walk along the primary keys of journal and charges, whose
-- places in the journal are in the order of their own sequence.
with rows as (
    (select seq, kind, debit_book, credit_book, amount_micros, lot_id, charge_id, debt_from_micros, debt_to_micros,
            posted_at, effective_at, hold_id, reverses
     from ledger.journal
     where account_id = $1
       and team_id = $2
       and seq > $3
       and seq <= $4
       and ($5::text[] is null or kind = any($5))
       and ($6::uuid is null or lot_id = $6)
       and ($7::uuid is null or charge_id = $7)
     order by seq
     limit $8)
    union all
    (select seq, kind, debit_book, credit_book, amount_micros, lot_id, charge_id, debt_from_micros, debt_to_micros,
            posted_at, effective_at, hold_id, reverses
     from ledger.charge_row
     where account_id = $1
       and team_id = $2
       and charge_seq > ledger.charge_seq_to_row($1, $2, $3)
       and charge_seq <= ledger.charge_seq_to_row($1, $2, $4)
       and seq > $3
       and seq <= $4
       and ($5::text[] is null or kind = any($5))
       and ($6::uuid is null or lot_id = $6)
       and ($7::uuid is null or charge_id = $7)
     order by charge_seq
     limit $8)
)
select seq as "seq!", kind as "kind!", debit_book as "debit_book!", credit_book as "credit_book!",
       amount_micros as "amount_micros!", lot_id, charge_id, debt_from_micros as "debt_from_micros!",
       debt_to_micros as "debt_to_micros!", posted_at as "posted_at!: Instant", effective_at as "effective_at!: Instant",
       hold_id, reverses
from rows
order by seq
limit $8
