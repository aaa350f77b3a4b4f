-- What a transaction writes, in one statement: charges and journal rows (a chunk of them), and lots,
-- balances, states and budgets as they are afterwards, and notices (with the last chunk). The balances are locked.
with charges as (
    insert into ledger.charge (
        account_id, team_id, seq, posted_at, charge_id, app_id, client_id, meter, failed, window_start,
        dimensions, hold_id, shard, batch, events, quantity, amount_micros, uncharged_micros, price_id,
        zero_rated, journal_seq)
    select c.account_id, c.team_id, c.seq, c.posted_at, c.charge_id, c.app_id, c.client_id, c.meter, c.failed,
           c.window_start, c.dimensions::jsonb, c.hold_id, $1, $2, c.events, c.quantity, c.amount_micros,
           c.uncharged_micros, c.price_id, c.zero_rated, c.journal_seq
    from unnest(
        $3::uuid[], $4::uuid[], $5::bigint[], $6::timestamptz[], $7::uuid[], $8::uuid[], $9::text[], $10::text[],
        $11::boolean[], $12::timestamptz[], $13::text[], $14::uuid[], $15::bigint[], $16::bigint[], $17::bigint[],
        $18::bigint[], $19::uuid[], $20::text[], $21::bigint[]
    ) as c (account_id, team_id, seq, posted_at, charge_id, app_id, client_id, meter, failed, window_start,
            dimensions, hold_id, events, quantity, amount_micros, uncharged_micros, price_id, zero_rated, journal_seq)
), rows as (
    insert into ledger.journal (
        account_id, team_id, seq, posted_at, transaction, kind, debit_book, credit_book, amount_micros, lot_id,
        charge_id, price_id, window_start, debt_from_micros, debt_to_micros, lot_state, effective_at)
    select * from unnest(
        $22::uuid[], $23::uuid[], $24::bigint[], $25::timestamptz[], $26::bigint[], $27::text[], $28::text[],
        $29::text[], $30::bigint[], $31::uuid[], $32::uuid[], $33::uuid[], $34::timestamptz[], $35::bigint[],
        $36::bigint[], $37::text[], $38::timestamptz[])
), lots as (
    insert into ledger.lot (
        account_id, team_id, lot_id, pool_kind, granted_micros, remaining_micros, consumed_micros, expired_micros,
        purchased_at, starts_at, valid_from, expires_at, closes_at, closed_at, order_id, note)
    select * from unnest(
        $39::uuid[], $40::uuid[], $41::uuid[], $42::text[], $43::bigint[], $44::bigint[], $45::bigint[],
        $46::bigint[], $47::timestamptz[], $48::timestamptz[], $49::timestamptz[], $50::timestamptz[],
        $51::timestamptz[], $52::timestamptz[], $53::uuid[], $54::text[])
    on conflict (account_id, team_id, lot_id) do update
        set remaining_micros = excluded.remaining_micros,
            consumed_micros = excluded.consumed_micros,
            expired_micros = excluded.expired_micros,
            closed_at = excluded.closed_at
), states as (
    insert into ledger.usage_state (account_id, team_id, price_id, cycle, meter, quantity)
    select * from unnest($55::uuid[], $56::uuid[], $57::uuid[], $58::timestamptz[], $59::text[], $60::bigint[])
    on conflict (account_id, team_id, price_id, cycle) do update set quantity = excluded.quantity
), notices as (
    insert into ledger.outbox (account_id, team_id, notice_id, kind, key, occurred_at, noted_at, detail)
    select n.account_id, n.team_id, n.notice_id, n.kind, n.key, n.occurred_at, $82, n.detail::jsonb
    from unnest(
        $76::uuid[], $77::uuid[], $78::uuid[], $79::text[], $80::text[], $81::timestamptz[], $83::text[]
    ) with ordinality as n (account_id, team_id, notice_id, kind, key, occurred_at, detail, place)
    order by n.place
    on conflict (account_id, team_id, key) do nothing
), budgets as (
    insert into ledger.budget_month (account_id, team_id, budget_id, month, used_micros)
    select * from unnest($84::uuid[], $85::uuid[], $86::uuid[], $87::timestamptz[], $88::bigint[])
    on conflict (account_id, team_id, budget_id, month) do update set used_micros = excluded.used_micros
)
update ledger.balance b
set lot_micros = n.lot_micros,
    consumed_micros = n.consumed_micros,
    expired_micros = n.expired_micros,
    issued_micros = n.issued_micros,
    debt_opened_micros = n.debt_opened_micros,
    debt_paid_micros = n.debt_paid_micros,
    version = n.version,
    transactions = n.transactions,
    charges = n.charges,
    negative_since = n.negative_since,
    posted_at = n.posted_at,
    last_window = n.last_window,
    notice_told = n.notice_told,
    notice_due = n.notice_due
from unnest(
    $61::uuid[], $62::bigint[], $63::bigint[], $64::bigint[], $65::bigint[], $66::bigint[], $67::bigint[],
    $68::bigint[], $69::bigint[], $70::bigint[], $71::timestamptz[], $72::timestamptz[], $73::timestamptz[],
    $74::smallint[], $75::timestamptz[]
) as n (team_id, lot_micros, consumed_micros, expired_micros, issued_micros, debt_opened_micros, debt_paid_micros,
        version, transactions, charges, negative_since, posted_at, last_window, notice_told, notice_due)
where b.team_id = n.team_id
