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
        charge_id, price_id, window_start, debt_from_micros, debt_to_micros, lot_state, effective_at, hold_id, reverses)
    select * from unnest(
        $22::uuid[], $23::uuid[], $24::bigint[], $25::timestamptz[], $26::bigint[], $27::text[], $28::text[],
        $29::text[], $30::bigint[], $31::uuid[], $32::uuid[], $33::uuid[], $34::timestamptz[], $35::bigint[],
        $36::bigint[], $37::text[], $38::timestamptz[], $39::uuid[], $40::bigint[])
), lots as (
    insert into ledger.lot (
        account_id, team_id, lot_id, pool_kind, original_micros, granted_micros, remaining_micros, held_micros,
        consumed_micros, expired_micros, void_micros, moved_micros, purchased_at, starts_at, valid_from, expires_at,
        closes_at, closed_at, moved_to, order_id, note)
    select * from unnest(
        $41::uuid[], $42::uuid[], $43::uuid[], $44::text[], $45::bigint[], $46::bigint[], $47::bigint[], $48::bigint[],
        $49::bigint[], $50::bigint[], $51::bigint[], $52::bigint[], $53::timestamptz[], $54::timestamptz[],
        $55::timestamptz[], $56::timestamptz[], $57::timestamptz[], $58::timestamptz[], $59::uuid[], $60::uuid[],
        $61::text[])
    on conflict (account_id, team_id, lot_id) do update
        set granted_micros = excluded.granted_micros,
            remaining_micros = excluded.remaining_micros,
            held_micros = excluded.held_micros,
            consumed_micros = excluded.consumed_micros,
            expired_micros = excluded.expired_micros,
            void_micros = excluded.void_micros,
            moved_micros = excluded.moved_micros,
            valid_from = excluded.valid_from,
            closed_at = excluded.closed_at,
            moved_to = excluded.moved_to
), states as (
    insert into ledger.usage_state (account_id, team_id, price_id, cycle, meter, quantity)
    select * from unnest($62::uuid[], $63::uuid[], $64::uuid[], $65::timestamptz[], $66::text[], $67::bigint[])
    on conflict (account_id, team_id, price_id, cycle) do update set quantity = excluded.quantity
), notices as (
    insert into ledger.outbox (account_id, team_id, notice_id, kind, key, occurred_at, noted_at, detail)
    select n.account_id, n.team_id, n.notice_id, n.kind, n.key, n.occurred_at, $94, n.detail::jsonb
    from unnest(
        $88::uuid[], $89::uuid[], $90::uuid[], $91::text[], $92::text[], $93::timestamptz[], $95::text[]
    ) with ordinality as n (account_id, team_id, notice_id, kind, key, occurred_at, detail, place)
    order by n.place
    on conflict (account_id, team_id, key) do nothing
), budgets as (
    insert into ledger.budget_month (account_id, team_id, budget_id, month, used_micros)
    select * from unnest($96::uuid[], $97::uuid[], $98::uuid[], $99::timestamptz[], $100::bigint[])
    on conflict (account_id, team_id, budget_id, month) do update set used_micros = excluded.used_micros
)
update ledger.balance b
set lot_micros = n.lot_micros,
    held_micros = n.held_micros,
    consumed_micros = n.consumed_micros,
    expired_micros = n.expired_micros,
    issued_micros = n.issued_micros,
    void_micros = n.void_micros,
    moved_in_micros = n.moved_in_micros,
    moved_out_micros = n.moved_out_micros,
    debt_opened_micros = n.debt_opened_micros,
    debt_paid_micros = n.debt_paid_micros,
    debt_ahead_micros = n.debt_ahead_micros,
    version = n.version,
    transactions = n.transactions,
    charges = n.charges,
    negative_since = n.negative_since,
    posted_at = n.posted_at,
    last_window = n.last_window,
    notice_told = n.notice_told,
    notice_due = n.notice_due
from unnest(
    $68::uuid[], $69::bigint[], $70::bigint[], $71::bigint[], $72::bigint[], $73::bigint[], $74::bigint[],
    $75::bigint[], $76::bigint[], $77::bigint[], $78::bigint[], $79::bigint[], $80::bigint[], $81::bigint[],
    $82::bigint[], $83::timestamptz[], $84::timestamptz[], $85::timestamptz[], $86::smallint[], $87::timestamptz[]
) as n (team_id, lot_micros, held_micros, consumed_micros, expired_micros, issued_micros, void_micros,
        moved_in_micros, moved_out_micros, debt_opened_micros, debt_paid_micros, debt_ahead_micros, version,
        transactions, charges, negative_since, posted_at, last_window, notice_told, notice_due)
where b.team_id = n.team_id
