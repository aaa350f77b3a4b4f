//! Each invariant is broken once, by hand, and the verification names it. A corruption that other
//! invariants must see too says which; nothing else may be reported.

use drawdown_ledger::verify::{INVARIANTS, REPLAY};
use drawdown_types::ProducerId;

use crate::world::{Buyer, DAY, World, at, calls, calls_at, event, instead, nobody, usage_at};

struct Corruption {
    sql: &'static str,
    /// The invariants that see it, by name.
    seen_by: &'static [&'static str],
}

/// Constraints and triggers off, so that every row can be broken.
pub(crate) const DISARM: &str = "
    do $$
    declare found record;
    begin
        for found in select conrelid::regclass as tab, conname from pg_constraint
                     where connamespace = 'ledger'::regnamespace and contype = 'c' and coninhcount = 0 loop
            execute format('alter table %s drop constraint %I', found.tab, found.conname);
        end loop;
        for found in select oid::regclass as tab from pg_class
                     where relnamespace = 'ledger'::regnamespace and relkind in ('r', 'p') loop
            execute format('alter table %s disable trigger all', found.tab);
        end loop;
    end $$";

/// Of events by id.
const OF_EVENTS: &[Corruption] = &[
    Corruption {
        sql: "update ledger.event set quantity = quantity + 1",
        seen_by: &["events_are_their_charges"],
    },
    Corruption { sql: "delete from ledger.event", seen_by: &["events_are_their_charges"] },
    Corruption { sql: "update ledger.event set id = id || 'x'", seen_by: &["events_are_their_charges"] },
    Corruption { sql: TWICE, seen_by: &["events_are_their_charges", "events_have_one_place"] },
];

/// Each event is there a second time, in another month.
pub(crate) const TWICE: &str = "insert into ledger.event
    select (jsonb_populate_record(null::ledger.event, to_jsonb(e) || '{\"recorded_at\": \"2026-05-01T00:00:00Z\"}')).*
    from ledger.event e";

const CORRUPTIONS: &[Corruption] = &[
    Corruption {
        sql: "update ledger.journal set credit_book = debit_book, amount_micros = 0
              where kind = 'expiry'; update ledger.lot set expired_micros = 0, remaining_micros = expired_micros
              where closed_at is not null",
        seen_by: &[
            "amounts_move_between_books",
            "balance_is_its_journal",
            "balance_is_its_lots",
            "closed_lots_are_empty",
            REPLAY,
        ],
    },
    Corruption {
        sql: "update ledger.balance set expired_micros = expired_micros + 1, issued_micros = issued_micros + 1",
        seen_by: &["balance_is_its_journal", "balance_is_its_lots", REPLAY],
    },
    Corruption {
        sql: "update ledger.balance set held_micros = 1",
        seen_by: &["balance_is_its_journal", "balance_is_its_lots", "books_sum_to_zero", REPLAY],
    },
    Corruption {
        sql: "update ledger.lot set consumed_micros = 0, remaining_micros = granted_micros - expired_micros
              where closed_at is null;
              update ledger.balance set lot_micros = (select sum(remaining_micros) from ledger.lot)",
        seen_by: &["balance_is_its_journal", "books_sum_to_zero", "lot_is_its_journal", REPLAY],
    },
    Corruption {
        sql: "update ledger.lot set void_micros = 7 where closed_at is null",
        seen_by: &["balance_is_its_lots", "lot_is_its_journal", REPLAY],
    },
    Corruption {
        sql: "update ledger.balance set version = version + 1",
        seen_by: &["journal_is_gapless", REPLAY],
    },
    Corruption { sql: "update ledger.balance set charges = charges + 1", seen_by: &["charges_are_gapless"] },
    Corruption {
        sql: "update ledger.charge set uncharged_micros = uncharged_micros + 1 where seq = 1;
              update ledger.charge set uncharged_micros = uncharged_micros - 1 where seq = 2",
        seen_by: &["charge_is_its_journal", "usage_is_its_charges"],
    },
    Corruption {
        sql: "update ledger.usage_state set quantity = quantity + 1",
        seen_by: &["charges_are_price_of_state"],
    },
    Corruption {
        sql: "update ledger.price set micros = micros + 1",
        seen_by: &["charges_are_price_of_state"],
    },
    // One corruption for each shape of a price.
    Corruption {
        sql: "update ledger.usage_state set quantity = quantity + 1 where cycle = '0001-01-01T00:00:00Z'",
        seen_by: &["charges_are_price_of_state"],
    },
    Corruption {
        sql: "update ledger.price set charged_unit = charged_unit + 1 where charged_unit is not null",
        seen_by: &["charges_are_price_of_state"],
    },
    Corruption {
        sql: "update ledger.price set free_quota = free_quota + 1 where free_quota > 0 and not free_only",
        seen_by: &["charges_are_price_of_state"],
    },
    Corruption {
        sql: "update ledger.price set free_only = false, micros = 1 where free_only",
        seen_by: &["charges_are_price_of_state"],
    },
    Corruption {
        sql: "update ledger.price set tier_above = '{3}' where cardinality(tier_above) > 0",
        seen_by: &["charges_are_price_of_state"],
    },
    Corruption {
        sql: "update ledger.usage_period set quantity = quantity + 1
              where price_id = (select price_id from ledger.price where meter = 'peak')",
        seen_by: &["charges_are_price_of_state", "periods_are_their_charges"],
    },
    Corruption {
        sql: "update ledger.usage_value set value = 'zoe' where value = 'ann'",
        seen_by: &["periods_are_their_charges"],
    },
    Corruption {
        sql: "update ledger.charge_values set distinct_values = '{ann,bob,cid}'
              where cardinality(distinct_values) = 2",
        seen_by: &["periods_are_their_charges"],
    },
    Corruption {
        sql: "update ledger.journal set debt_from_micros = debt_from_micros + 1 where kind = 'netting'",
        seen_by: &["debts_are_a_queue", REPLAY],
    },
    Corruption {
        sql: "update ledger.balance set debt_opened_micros = debt_opened_micros + 1, consumed_micros = consumed_micros + 1",
        seen_by: &["balance_is_its_journal", "debt_means_no_usable_lot", REPLAY],
    },
    Corruption {
        sql: "update ledger.charge set window_start = '2020-01-01' where lot_id is not null",
        seen_by: &[
            "budget_is_its_charges",
            "charges_are_price_of_state",
            "lots_pay_inside_validity",
            "periods_are_their_charges",
            "usage_is_its_charges",
            REPLAY,
        ],
    },
    // Charges that are their own journal rows.
    Corruption {
        sql: "update ledger.charge set lot_state = 'closing' where lot_id is not null and lot_state = 'open'",
        seen_by: &[REPLAY],
    },
    Corruption { sql: "update ledger.charge set transaction = transaction + 1000 where lot_id is not null", seen_by: &["lots_pay_inside_validity", REPLAY] },
    Corruption {
        sql: "update ledger.charge set journal_seq = journal_seq + 1000 where lot_id is not null",
        seen_by: &["charges_are_gapless", "journal_is_gapless", "lots_close_once", "usage_is_its_charges", REPLAY],
    },
    Corruption {
        sql: "update ledger.charge set lot_id = gen_random_uuid() where lot_id is not null",
        seen_by: &["lot_is_its_journal", REPLAY],
    },
    Corruption {
        sql: "update ledger.charge set lot_id = null, lot_state = null, transaction = null where lot_id is not null",
        seen_by: &["balance_is_its_journal", "charge_is_its_journal", "journal_is_gapless", "lot_is_its_journal", REPLAY],
    },
    Corruption {
        sql: "update ledger.lot set starts_at = '2099-01-01', valid_from = starts_at
              where lot_id in (select lot_id from ledger.journal where kind = 'netting')",
        seen_by: &["netting_lots_are_open", REPLAY],
    },
    Corruption {
        sql: "update ledger.lot set closes_at = '2099-01-01' where closed_at is not null",
        seen_by: &["closed_lots_are_empty", REPLAY],
    },
    Corruption {
        sql: "update ledger.lot set closed_at = closed_at + interval '1 second' where closed_at is not null",
        seen_by: &["lots_close_once"],
    },
    Corruption {
        sql: "update ledger.lot set order_id = gen_random_uuid() where order_id is not null;
              update ledger.lot set order_id = (select min(order_id::text)::uuid from ledger.lot) where order_id is not null",
        seen_by: &["orders_have_one_lot"],
    },
    Corruption {
        sql: "update ledger.shard_cursor set last_batch = last_batch + 1",
        seen_by: &["batch_chain_recomputes", "batches_are_gapless"],
    },
    Corruption {
        sql: "update ledger.settlement_batch set digest = decode(repeat('ff', 16), 'hex') where number = 1",
        seen_by: &["batch_chain_recomputes"],
    },
    Corruption {
        sql: "update ledger.settlement_batch set totals = jsonb_set(totals, '{call,quantity}', '999') where number = 1",
        seen_by: &["batch_is_its_lines"],
    },
    Corruption {
        sql: "delete from ledger.unattributed",
        seen_by: &[
            "adopted_usage_is_of_its_app",
            "batch_is_its_lines",
            "batch_is_its_receipt",
            "decisions_are_their_charges",
        ],
    },
    Corruption {
        sql: "update ledger.review_decision set charge_seq = charge_seq - 1 where kind = 'charged'",
        seen_by: &["decisions_are_their_charges"],
    },
    Corruption {
        sql: "update ledger.adoption set windows_to = windows_from",
        seen_by: &["adopted_usage_is_of_its_app"],
    },
    Corruption { sql: "delete from ledger.adopted_client", seen_by: &["adopted_usage_is_of_its_app"] },
    Corruption {
        sql: "update ledger.charge set dimensions = '{}' where (team_id, seq) in (select team_id, charge_seq from ledger.review_decision)",
        seen_by: &["decisions_are_their_charges"],
    },
    Corruption {
        sql: "update ledger.settlement_batch set refused = refused + 1 where number = 1",
        seen_by: &["batch_chain_recomputes", "batch_is_its_ranges"],
    },
    Corruption {
        sql: "update ledger.settlement_batch set elsewhere_events = 1 where number = 1",
        seen_by: &["batch_chain_recomputes", "batch_is_its_parts", "batch_is_its_ranges"],
    },
    Corruption {
        sql: "update ledger.settlement_batch set elsewhere = '{\"call\": {\"events\": 1, \"quantity\": 1}}' where number = 1",
        seen_by: &["batch_is_its_lines", "batch_is_its_parts"],
    },
    Corruption {
        sql: "update ledger.lane_settled set settled = settled + 1",
        seen_by: &["lanes_are_their_ranges"],
    },
    Corruption {
        sql: "update ledger.batch_lane set chain_after = chain_after + 1 where number = 1",
        seen_by: &["batch_chain_recomputes", "lanes_are_their_ranges"],
    },
    Corruption { sql: "delete from ledger.client_usage", seen_by: &["usage_is_noted"] },
    Corruption {
        sql: "update ledger.budget_month set used_micros = used_micros + 1",
        seen_by: &["budget_is_its_charges"],
    },
    Corruption {
        sql: "insert into ledger.account_budget (account_id, budget_id, from_month)
              select account_id, gen_random_uuid(), '2020-01-01' from ledger.balance limit 1",
        seen_by: &["account_budgets_count_all_teams"],
    },
    Corruption { sql: "delete from ledger.budget_month", seen_by: &["budget_is_its_charges"] },
    Corruption {
        sql: "delete from ledger.outbox where position = 2",
        seen_by: &["notices_have_their_places"],
    },
    Corruption {
        sql: "with h as (insert into ledger.hold (account_id, team_id, hold_id, window_start, made_at, expires_at, note)
                  select account_id, team_id, gen_random_uuid(), now(), now(), now(), '' from ledger.balance limit 1
                  returning account_id, team_id, hold_id)
              insert into ledger.hold_lot (account_id, team_id, hold_id, part, lot_id, taken_micros, remaining_micros)
              select h.*, 0, l.lot_id, 1, 1 from h join ledger.lot l using (account_id, team_id) limit 1",
        seen_by: &["holds_are_their_journal"],
    },
    Corruption {
        sql: "update ledger.balance set moved_in_micros = 5, moved_out_micros = 6",
        seen_by: &[
            "balance_is_its_journal",
            "balance_is_its_lots",
            "books_sum_to_zero",
            "moves_sum_to_zero",
            REPLAY,
        ],
    },
    Corruption {
        sql: "update ledger.lot set moved_to = gen_random_uuid() where closed_at is not null",
        seen_by: &["moves_sum_to_zero"],
    },
    Corruption {
        sql: "update ledger.usage_day set quantity = quantity + 1 where first_seq = 1",
        seen_by: &["usage_is_its_charges"],
    },
    Corruption { sql: "delete from ledger.usage_hour where first_seq = 3", seen_by: &["usage_is_its_charges"] },
    Corruption {
        sql: "update ledger.usage_hour set digest = sha256(digest) where first_seq = 1",
        seen_by: &["usage_is_its_charges"],
    },
    Corruption { sql: "update ledger.usage_rolled set seq = seq + 1", seen_by: &["usage_is_its_charges"] },
    Corruption {
        sql: "update ledger.journal set reverses = 1 where kind = 'netting'",
        seen_by: &["rows_are_taken_back_once", REPLAY],
    },
    Corruption {
        sql: "update ledger.charge set corrects = (select charge_id from ledger.charge where seq = 1) where quantity < 0",
        seen_by: &["corrections_stand"],
    },
    Corruption {
        sql: "update ledger.charge set corrects = gen_random_uuid() where corrects is not null and quantity > 0",
        seen_by: &["corrections_stand"],
    },
];

/// A ledger with something of everything: lots that are open, closing and closed, debts opened and paid,
/// several batches, unattributed usage, a correction.
pub(crate) async fn rich() -> (World, Buyer, ProducerId) {
    let world = World::new().await;
    world.priced().await;
    let shapes = world.shapes().await;
    let (buyer, producer) = (world.buyer(), world.producer().await);
    world.grant(buyer, 5_000_000, None, "2026-03-10T13:00:00Z").await.unwrap();
    world.settle(producer, vec![calls(buyer, 2), calls(buyer, 1)]).await;
    world.clock.set(at("2026-03-10T13:30:00Z"));
    world.settle(producer, vec![calls_at(buyer, 20, "2026-03-10T13:29:00Z")]).await;
    world.purchase(buyer, 100, None).await.unwrap();
    world.purchase(buyer, 200, None).await.unwrap();
    let stranger = drawdown_proto::ledger::v1::Line {
        client_id: "stranger".to_owned(),
        ..nobody(calls(buyer, 3), "unknown_client")
    };
    let orphan = drawdown_proto::ledger::v1::Line {
        client_id: "orphan".to_owned(),
        ..nobody(calls(buyer, 2), "no_team")
    };
    world.settle(producer, vec![stranger, orphan, calls_at(buyer, 4, "2026-03-10T13:30:00Z")]).await;
    world.budget(buyer, None, 1_000_000_000, &[50]).await.unwrap();
    world.clock.advance(DAY + DAY);
    world.settle(producer, vec![calls_at(buyer, 1, "2026-03-12T13:30:00Z")]).await;
    for window in ["2026-03-11T13:30:00Z", "2026-03-12T13:30:00Z"] {
        let lines = shapes.iter().map(|(meter, state)| usage_at(buyer, meter, state.clone(), window));
        world.settle(producer, lines.collect()).await;
    }
    let owed = world.charges(buyer).await.remove(2);
    world.correct(buyer, &owed.charge_id, 3, Some(instead(2))).await.unwrap();
    let left = world.unattributed().await.iter().map(|usage| usage.entry).collect::<Vec<_>>();
    world.decide(crate::review::charge(buyer, &left[..1])).await.unwrap();
    world.adopt_orphan(buyer).await;
    world.relay.look().await.unwrap();
    assert!(world.compact.up_to(at("2026-03-10T13:45:00Z")).await.unwrap() > 3);
    (world, buyer, producer)
}

/// Every table of the schema, to be put back as it was.
pub(crate) async fn back_up(world: &World) {
    let backup = "create schema safe; do $$ declare t record; begin
        for t in select relname from pg_class where relnamespace = 'ledger'::regnamespace and relkind = 'r' loop
            execute format('create table safe.%I as table ledger.%I', t.relname, t.relname); end loop; end $$";
    sqlx::raw_sql(backup).execute(world.database.pool()).await.unwrap();
}

pub(crate) async fn put_back(world: &World) {
    let restore = "do $$ declare t record; begin
        for t in select relname from pg_class where relnamespace = 'ledger'::regnamespace and relkind = 'r' loop
            execute format('delete from ledger.%I', t.relname);
            execute format('insert into ledger.%I overriding system value select * from safe.%I', t.relname, t.relname);
        end loop; end $$";
    sqlx::raw_sql(restore).execute(world.database.pool()).await.unwrap();
}

#[tokio::test]
async fn each_invariant_sees_its_corruption_and_nothing_else_is_reported() {
    let (world, ..) = rich().await;
    break_each(&world, CORRUPTIONS).await;
}

#[tokio::test]
async fn what_is_remembered_of_events_by_id_is_compared_with_what_was_settled() {
    let world = World::new().await;
    world.priced().await;
    let buyer = world.buyer();
    let left = nobody(calls(buyer, 1), "unknown_client");
    world.record(&[event("a", 1, calls(buyer, 1)), event("b", 1, left)]).await.unwrap();
    break_each(&world, OF_EVENTS).await;
}

/// Breaks what is clean in each of these ways, and puts it back.
async fn break_each(world: &World, corruptions: &[Corruption]) {
    world.assert_clean().await;
    sqlx::raw_sql(DISARM).execute(world.database.pool()).await.unwrap();
    back_up(world).await;
    let mut failures = Vec::new();
    for Corruption { sql, seen_by } in corruptions {
        sqlx::raw_sql(*sql).execute(world.database.pool()).await.unwrap();
        let violated = world.violated().await;
        let names: Vec<_> = violated.iter().map(|verdict| verdict.name).collect();
        if names != *seen_by {
            failures.push(format!("{sql}\n  expected {seen_by:?}\n  reported {names:?}"));
        }
        assert!(violated.iter().all(|verdict| !verdict.examples.is_empty() && !verdict.statement.is_empty()));
        put_back(world).await;
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    world.assert_clean().await;
}

#[test]
fn every_invariant_is_broken_once() {
    let seen: Vec<_> =
        CORRUPTIONS.iter().chain(OF_EVENTS).flat_map(|corruption| corruption.seen_by).collect();
    let names = INVARIANTS.iter().map(|invariant| invariant.name).chain([REPLAY]);
    let unseen: Vec<_> = names.filter(|name| !seen.contains(&name)).collect();
    assert!(unseen.is_empty(), "{unseen:?}");
}

#[tokio::test]
async fn violations_are_counted_by_the_database_and_ten_are_told() {
    let world = World::new().await;
    for _ in 0..25 {
        world.grant(world.buyer(), 1_000_000, None, "2026-04-10T00:00:00Z").await.unwrap();
    }
    sqlx::raw_sql(DISARM).execute(world.database.pool()).await.unwrap();
    let break_all = "update ledger.balance set held_micros = 1";
    sqlx::raw_sql(break_all).execute(world.database.pool()).await.unwrap();
    let violated = world.violated().await;
    let names: Vec<_> = violated.iter().map(|verdict| verdict.name).collect();
    assert_eq!(names, ["balance_is_its_journal", "balance_is_its_lots", "books_sum_to_zero", REPLAY]);
    for verdict in violated {
        let distinct: std::collections::HashSet<_> = verdict.examples.iter().collect();
        assert_eq!((verdict.violations, distinct.len()), (25, 10), "{}", verdict.name);
        assert!(verdict.examples.iter().all(|example| example.contains("team")), "{:?}", verdict.examples);
    }
}
