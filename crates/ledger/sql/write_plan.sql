-- What a transaction writes, in one statement: charges and journal rows that no charge is (a chunk of them), and lots,
-- balances, states and budgets as they are afterwards, and notices (with the last chunk). The balances are locked.
-- Lots, states and balances that exist are changed by their keys, which costs a third less than to try an insert first; it
-- says how many there were, because a key that finds nothing would change nothing and say nothing.
-- Dimensions that come again are read once and named by their places: reading them for each charge costs a tenth of the whole
-- statement. What all charges have in common is no column.
-- Arrays are unnested in the select list, all in step: in FROM each of them would first be stored whole,
-- which costs half as much as inserting the rows.
with charges as (
    insert into ledger.charge (
        account_id, team_id, seq, posted_at, charge_id, app_id, client_id, meter, failed, window_start,
        dimensions, hold_id, shard, batch, events, quantity, amount_micros, uncharged_micros, price_id,
        zero_rated, journal_seq, lot_id, lot_state, transaction, corrects)
    select account_id, team_id, seq, coalesce(posted_at, $127), charge_id, app_id, client_id, meter,
           coalesce(failed, false), coalesce(window_start, $128),
           coalesce((select $125::text[]::jsonb[])[known_dimensions], dimensions::jsonb), hold_id, $1, $2, events,
           quantity, amount_micros, uncharged_micros, price_id, zero_rated, journal_seq, lot_id, lot_state, transaction, corrects
    from (
        select unnest($3::uuid[]) as account_id, unnest($4::uuid[]) as team_id, unnest($5::bigint[]) as seq,
               unnest($6::timestamptz[]) as posted_at, unnest($7::uuid[]) as charge_id,
               unnest($8::uuid[]) as app_id, unnest($9::text[]) as client_id, unnest($10::text[]) as meter,
               unnest($11::boolean[]) as failed, unnest($12::timestamptz[]) as window_start,
               unnest($126::integer[]) as known_dimensions, unnest($13::text[]) as dimensions,
               unnest($14::uuid[]) as hold_id,
               unnest($15::bigint[]) as events, unnest($16::bigint[]) as quantity,
               unnest($17::bigint[]) as amount_micros, unnest($18::bigint[]) as uncharged_micros,
               unnest($19::uuid[]) as price_id, unnest($20::text[]) as zero_rated,
               unnest($21::bigint[]) as journal_seq, unnest($101::uuid[]) as corrects,
               unnest($103::uuid[]) as lot_id, unnest($104::text[]) as lot_state, unnest($105::bigint[]) as transaction
    ) as c
), rows as (
    insert into ledger.journal (
        account_id, team_id, seq, posted_at, transaction, kind, debit_book, credit_book, amount_micros, lot_id,
        charge_id, price_id, window_start, debt_from_micros, debt_to_micros, lot_state, effective_at, hold_id, reverses)
    select unnest($22::uuid[]), unnest($23::uuid[]), unnest($24::bigint[]), unnest($25::timestamptz[]),
           unnest($26::bigint[]), unnest($27::text[]), unnest($28::text[]), unnest($29::text[]),
           unnest($30::bigint[]), unnest($31::uuid[]), unnest($32::uuid[]), unnest($33::uuid[]),
           unnest($34::timestamptz[]), unnest($35::bigint[]), unnest($36::bigint[]), unnest($37::text[]),
           unnest($38::timestamptz[]), unnest($39::uuid[]), unnest($40::bigint[])
), lots as (
    insert into ledger.lot (
        account_id, team_id, lot_id, pool_kind, original_micros, granted_micros, remaining_micros, held_micros,
        consumed_micros, expired_micros, void_micros, moved_micros, purchased_at, starts_at, valid_from, expires_at,
        closes_at, closed_at, moved_to, order_id, note, leaves_older_debts)
    select unnest($41::uuid[]), unnest($42::uuid[]), unnest($43::uuid[]), unnest($44::text[]),
           unnest($45::bigint[]), unnest($46::bigint[]), unnest($47::bigint[]), unnest($48::bigint[]),
           unnest($49::bigint[]), unnest($50::bigint[]), unnest($51::bigint[]), unnest($52::bigint[]),
           unnest($53::timestamptz[]), unnest($54::timestamptz[]), unnest($55::timestamptz[]),
           unnest($56::timestamptz[]), unnest($57::timestamptz[]), unnest($58::timestamptz[]),
           unnest($59::uuid[]), unnest($60::uuid[]), unnest($61::text[]), unnest($102::boolean[])
), drawn as (
    update ledger.lot l
    set granted_micros = n.granted_micros,
        remaining_micros = n.remaining_micros,
        held_micros = n.held_micros,
        consumed_micros = n.consumed_micros,
        expired_micros = n.expired_micros,
        void_micros = n.void_micros,
        moved_micros = n.moved_micros,
        valid_from = n.valid_from,
        closed_at = n.closed_at,
        moved_to = n.moved_to
    from (
        select unnest($107::uuid[]) as account_id, unnest($108::uuid[]) as team_id, unnest($109::uuid[]) as lot_id,
               unnest($110::bigint[]) as granted_micros, unnest($111::bigint[]) as remaining_micros,
               unnest($112::bigint[]) as held_micros, unnest($113::bigint[]) as consumed_micros,
               unnest($114::bigint[]) as expired_micros, unnest($115::bigint[]) as void_micros,
               unnest($116::bigint[]) as moved_micros, unnest($117::timestamptz[]) as valid_from,
               unnest($118::timestamptz[]) as closed_at, unnest($119::uuid[]) as moved_to
    ) as n
    where l.account_id = n.account_id and l.team_id = n.team_id and l.lot_id = n.lot_id
    returning 1
), states as (
    insert into ledger.usage_state (account_id, team_id, price_id, cycle, meter, quantity)
    select unnest($62::uuid[]), unnest($63::uuid[]), unnest($64::uuid[]), unnest($65::timestamptz[]),
           unnest($66::text[]), unnest($67::bigint[])
), counted as (
    update ledger.usage_state s
    set quantity = n.quantity
    from (
        select unnest($120::uuid[]) as account_id, unnest($121::uuid[]) as team_id, unnest($122::uuid[]) as price_id,
               unnest($123::timestamptz[]) as cycle, unnest($124::bigint[]) as quantity
    ) as n
    where s.account_id = n.account_id and s.team_id = n.team_id and s.price_id = n.price_id and s.cycle = n.cycle
    returning 1
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
    select unnest($96::uuid[]), unnest($97::uuid[]), unnest($98::uuid[]), unnest($99::timestamptz[]),
           unnest($100::bigint[])
    on conflict (account_id, team_id, budget_id, month) do update set used_micros = excluded.used_micros
), changed as (
    -- Who keeps standings in memory hears of these teams: one row a transaction, however many there are.
    insert into ledger.standing_change (changed_at, teams)
    select $94, $68 where cardinality($68::uuid[]) > 0
), balances as (
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
        notice_due = n.notice_due,
        -- Whoever remembers a team of another revision knows nothing of it.
        revision = $106
    from (
        select unnest($68::uuid[]) as team_id, unnest($69::bigint[]) as lot_micros,
               unnest($70::bigint[]) as held_micros, unnest($71::bigint[]) as consumed_micros,
               unnest($72::bigint[]) as expired_micros, unnest($73::bigint[]) as issued_micros,
               unnest($74::bigint[]) as void_micros, unnest($75::bigint[]) as moved_in_micros,
               unnest($76::bigint[]) as moved_out_micros, unnest($77::bigint[]) as debt_opened_micros,
               unnest($78::bigint[]) as debt_paid_micros, unnest($79::bigint[]) as debt_ahead_micros,
               unnest($80::bigint[]) as version, unnest($81::bigint[]) as transactions,
               unnest($82::bigint[]) as charges, unnest($83::timestamptz[]) as negative_since,
               unnest($84::timestamptz[]) as posted_at, unnest($85::timestamptz[]) as last_window,
               unnest($86::smallint[]) as notice_told, unnest($87::timestamptz[]) as notice_due
    ) as n
    where b.team_id = n.team_id
    returning 1
)
select (select count(*) from drawn) as "drawn!", (select count(*) from counted) as "counted!",
       (select count(*) from balances) as "balances!"
