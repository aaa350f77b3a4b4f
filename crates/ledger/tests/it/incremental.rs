//! Incremental verification: it reads what came since the last clean one, finds there what a full one finds, and
//! says what it can not see.

use drawdown_ledger::verify::{INVARIANTS, POINTS, REPLAY, Scope, Since};
use drawdown_proto::ledger::v1::{VerifyLedgerRequest, token_service_server::TokenService};
use drawdown_types::ProducerId;
use tonic::Request;

use crate::{
    corruption::{DISARM, TWICE, back_up, put_back, rich},
    world::{Buyer, DAY, World, at, calls_at, event},
};

/// More of everything after a first history: a lot that expires unspent, a debt, lots that pay it, unattributed usage.
async fn more(world: &World, buyer: Buyer, producer: ProducerId) {
    world.grant(buyer, 5_000_000, None, "2026-03-12T14:00:00Z").await.unwrap();
    world.settle(producer, vec![calls_at(buyer, 2, "2026-03-12T13:30:00Z")]).await;
    world.clock.set(at("2026-03-12T14:30:00Z"));
    world.settle(producer, vec![calls_at(buyer, 900, "2026-03-12T14:29:00Z")]).await;
    world.purchase(buyer, 200, None).await.unwrap();
    world.purchase(buyer, 100, None).await.unwrap();
    let nobody = drawdown_proto::ledger::v1::Line {
        client_id: "stranger".to_owned(),
        attribution: Some(drawdown_proto::ledger::v1::line::Attribution::UnattributedReason(
            "unknown_client".to_owned(),
        )),
        ..calls_at(buyer, 3, "2026-03-12T14:30:00Z")
    };
    world.settle(producer, vec![nobody, calls_at(buyer, 4, "2026-03-12T14:30:00Z")]).await;
    world.clock.advance(DAY + DAY);
    world.settle(producer, vec![calls_at(buyer, 1, "2026-03-14T14:30:00Z")]).await;
    assert!(world.compact.up_to(at("2026-03-14T14:00:00Z")).await.unwrap() > 3);
}

async fn count(world: &World, sql: &str) -> i64 {
    sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(world.database.pool()).await.unwrap()
}

/// The names of what an incremental run finds.
async fn found(world: &World) -> Vec<&'static str> {
    let verified = world.verify(Scope::Incremental).await;
    verified.verdicts.iter().filter(|verdict| verdict.violations > 0).map(|verdict| verdict.name).collect()
}

#[tokio::test]
async fn it_reads_what_came_since_and_nothing_else() {
    let (world, buyer, producer) = rich().await;
    // Without a point there is no past to trust.
    let first = world.verify(Scope::Incremental).await;
    assert!(first.is_clean());
    assert_eq!((first.since, first.point), (None, Some(1)));
    let rows = count(&world, "select count(*) from ledger.full_journal").await;
    assert_eq!((first.effort.teams, first.effort.journal_rows, first.effort.batches), (1, rows, 6));
    let idle = world.verify(Scope::Incremental).await;
    assert_eq!((idle.since, idle.point, idle.effort.teams, idle.effort.batches), (Some(1), Some(2), 0, 0));
    more(&world, buyer, producer).await;
    let other = world.buyer();
    world.purchase(other, 100, None).await.unwrap();
    let all = count(&world, "select count(*) from ledger.full_journal").await;
    let request = Request::new(VerifyLedgerRequest { incremental: true });
    let answer = world.tokens.verify_ledger(request).await.unwrap().into_inner();
    assert!(answer.invariants.iter().all(|invariant| invariant.violations == 0), "{answer:?}");
    assert_eq!((answer.since, answer.point, answer.teams), (2, 3, 2));
    assert_eq!((answer.journal_rows, answer.batches), (all - rows, 4));
    assert!(answer.unseen.contains("full verification"), "{}", answer.unseen);
    let request = Request::new(VerifyLedgerRequest { incremental: false });
    let full = world.tokens.verify_ledger(request).await.unwrap().into_inner();
    assert_eq!((full.since, full.point, full.teams, full.journal_rows, full.batches), (0, 4, 2, all, 10));
    assert_eq!(full.unseen, "");
    // Every statement is run, or the replay stands for it.
    let names = |invariants: &[drawdown_proto::ledger::v1::InvariantResult]| {
        invariants.iter().map(|invariant| invariant.name.clone()).collect::<Vec<_>>()
    };
    let replayed = INVARIANTS.iter().filter(|invariant| matches!(invariant.since, Since::Replayed)).count();
    assert_eq!(names(&answer.invariants).len() + replayed, names(&full.invariants).len() + 1);
    assert!(names(&answer.invariants).contains(&POINTS.name.to_owned()));
}

/// What breaks rows since the point, `{j}`, `{c}` and `{b}` being the last journal row, charge and batch before it;
/// and an invariant that sees it.
const CORRUPTIONS: &[(&str, &str)] = &[
    ("update ledger.journal set amount_micros = 0 where kind = 'expiry' and seq > {j}", "amounts_move_between_books"),
    ("update ledger.balance set expired_micros = expired_micros + 1, issued_micros = issued_micros + 1", REPLAY),
    ("update ledger.balance set held_micros = 1", "balance_is_its_lots"),
    (
        "update ledger.lot set consumed_micros = consumed_micros - 1, remaining_micros = remaining_micros + 1
         where closed_at is null; update ledger.balance set lot_micros = (select sum(remaining_micros) from ledger.lot)",
        "books_sum_to_zero",
    ),
    (
        "update ledger.lot set consumed_micros = consumed_micros - 1, remaining_micros = remaining_micros + 1
         where closed_at is null",
        "lot_is_its_journal",
    ),
    ("update ledger.lot set void_micros = 7 where closed_at is null", "lot_is_its_journal"),
    ("update ledger.balance set version = version + 1", REPLAY),
    ("delete from ledger.journal where seq > {j} and kind = 'netting'", REPLAY),
    (
        "insert into ledger.journal
         select (jsonb_populate_record(null::ledger.journal, to_jsonb(j) || jsonb_build_object('seq', b.version + 1))).*
         from ledger.full_journal j join ledger.balance b using (team_id) where j.seq = b.version",
        REPLAY,
    ),
    ("update ledger.balance set charges = charges + 1", "charges_are_gapless"),
    ("delete from ledger.charge where seq > {c}", "charges_are_gapless"),
    (
        "update ledger.charge set uncharged_micros = uncharged_micros - 1 where seq > {c} and uncharged_micros > 0",
        "charge_is_its_journal",
    ),
    ("update ledger.usage_state set quantity = quantity + 1", "charges_are_price_of_state"),
    ("update ledger.charge set quantity = quantity + 1 where seq = {c} + 1", "charges_are_price_of_state"),
    ("delete from ledger.usage_value", "periods_are_their_charges"),
    ("update ledger.journal set debt_from_micros = debt_from_micros + 1 where kind = 'netting' and seq > {j}", REPLAY),
    ("update ledger.balance set debt_opened_micros = debt_opened_micros + 1", "debt_means_no_usable_lot"),
    (
        "update ledger.charge set window_start = '2020-01-01' where lot_id is not null and seq > {c}",
        "lots_pay_inside_validity",
    ),
    ("update ledger.charge set transaction = transaction + 1 where lot_id is not null and seq > {c}", REPLAY),
    (
        "update ledger.lot set starts_at = '2099-01-01', valid_from = starts_at
         where lot_id in (select lot_id from ledger.journal where kind = 'netting' and seq > {j})",
        "netting_lots_are_open",
    ),
    (
        "update ledger.lot set closes_at = '2099-01-01' where lot_id in
         (select lot_id from ledger.journal where kind = 'expiry' and seq > {j})",
        "closed_lots_are_empty",
    ),
    (
        "update ledger.lot set closed_at = closed_at + interval '1 second' where lot_id in
         (select lot_id from ledger.journal where kind = 'expiry' and seq > {j})",
        "lots_close_once",
    ),
    (
        "update ledger.lot set order_id = (select min(order_id::text)::uuid from ledger.lot) where order_id is not null",
        "orders_have_one_lot",
    ),
    ("update ledger.shard_cursor set last_batch = last_batch + 1", "batches_are_gapless"),
    ("delete from ledger.settlement_batch where number = {b} + 1", "batches_are_gapless"),
    (
        "update ledger.settlement_batch set digest = decode(repeat('ff', 16), 'hex') where number = {b} + 1",
        "batch_chain_recomputes",
    ),
    (
        "update ledger.settlement_batch set totals = jsonb_set(totals, '{call,quantity}', '999') where number = {b} + 1",
        "batch_is_its_lines",
    ),
    ("delete from ledger.unattributed where batch > {b}", "batch_is_its_receipt"),
    ("update ledger.settlement_batch set refused = refused + 1 where number = {b} + 1", "batch_is_its_ranges"),
    ("update ledger.settlement_batch set elsewhere_events = 1 where number = {b} + 1", "batch_is_its_parts"),
    ("update ledger.lane_settled set settled = settled + 1", "lanes_are_their_ranges"),
    ("update ledger.batch_lane set chain_after = chain_after + 1 where number = {b} + 1", "lanes_are_their_ranges"),
    ("update ledger.usage_day set amount_micros = amount_micros + 1 where last_seq > {c}", "usage_is_its_charges"),
    ("delete from ledger.usage_hour where last_seq > {c}", "usage_is_its_charges"),
    ("update ledger.charge set events = events + 1 where seq = {c} + 1", "usage_is_its_charges"),
    ("update ledger.usage_rolled set seq = seq - 1", "usage_is_its_charges"),
    ("update ledger.usage_rolled set seq = 1", "usage_is_its_charges"),
    ("delete from ledger.client_usage", "usage_is_noted"),
    ("update ledger.balance set last_window = '2020-01-01'", "usage_is_noted"),
    ("update ledger.review_decision set charge_seq = -charge_seq", "decisions_are_their_charges"),
    ("delete from ledger.adopted_client", "adopted_usage_is_of_its_app"),
    ("update ledger.event set quantity = quantity + 1", "events_are_their_charges"),
    (TWICE, "events_have_one_place"),
    ("update ledger.budget_month set used_micros = used_micros + 1", "budget_is_its_charges"),
    ("delete from ledger.outbox where position = 2", "notices_have_their_places"),
    ("update ledger.journal set reverses = 1 where kind = 'netting' and seq > {j}", "rows_are_taken_back_once"),
    ("update ledger.lot set moved_to = gen_random_uuid() where closed_at is not null", "moves_sum_to_zero"),
    ("update ledger.charge set corrects = gen_random_uuid() where corrects is not null", "corrections_stand"),
    (
        "with h as (insert into ledger.hold (account_id, team_id, hold_id, window_start, made_at, expires_at, note)
             select account_id, team_id, gen_random_uuid(), now(), now(), now(), '' from ledger.balance limit 1
             returning account_id, team_id, hold_id)
         insert into ledger.hold_lot (account_id, team_id, hold_id, part, lot_id, taken_micros, remaining_micros)
         select h.*, 0, l.lot_id, 1, 1 from h join ledger.lot l using (account_id, team_id) limit 1",
        "holds_are_their_journal",
    ),
    // The points, and what they say of rows before them.
    ("update ledger.verified_team set charges = charges - 1", "points_hold"),
    ("update ledger.lot set note = 'other', purchased_at = '2020-01-01' where closed_at is not null", "points_hold"),
    ("delete from ledger.lot where closed_at is not null", "points_hold"),
    (
        "insert into ledger.account_budget (account_id, budget_id, from_month)
         select account_id, gen_random_uuid(), '2020-01-01' from ledger.balance limit 1",
        "account_budgets_count_all_teams",
    ),
    ("delete from ledger.balance", "points_hold"),
    ("delete from ledger.shard_cursor", "points_hold"),
    (
        "update ledger.settlement_batch set chain = decode(repeat('ff', 32), 'hex') where number = {b}",
        "batch_chain_recomputes",
    ),
];

#[tokio::test]
async fn each_invariant_broken_after_the_point_is_found() {
    let (world, buyer, producer) = rich().await;
    assert!(world.verify(Scope::Full).await.is_clean());
    let last = [
        ("{j}", count(&world, "select version from ledger.balance").await),
        ("{c}", count(&world, "select charges from ledger.balance").await),
        ("{b}", count(&world, "select last_batch from ledger.shard_cursor").await),
    ];
    more(&world, buyer, producer).await;
    world.record(&[event("a", 1, calls_at(buyer, 1, "2026-03-14T14:30:00Z"))]).await.unwrap();
    sqlx::raw_sql(DISARM).execute(world.database.pool()).await.unwrap();
    back_up(&world).await;
    assert_eq!(found(&world).await, Vec::<&str>::new());
    put_back(&world).await;
    let mut failures = Vec::new();
    for (sql, expected) in CORRUPTIONS {
        let broken =
            last.iter().fold((*sql).to_owned(), |sql, (name, value)| sql.replace(name, &value.to_string()));
        sqlx::raw_sql(sqlx::AssertSqlSafe(broken)).execute(world.database.pool()).await.unwrap();
        let names = found(&world).await;
        if !names.contains(expected) {
            failures.push(format!("{sql}\n  expected {expected}\n  reported {names:?}"));
        }
        put_back(&world).await;
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn every_invariant_is_broken_after_the_point() {
    let seen: Vec<_> = CORRUPTIONS.iter().map(|(_, name)| *name).collect();
    let run = INVARIANTS.iter().filter(|invariant| !matches!(invariant.since, Since::Replayed));
    let names = run.map(|invariant| invariant.name).chain([REPLAY, POINTS.name]);
    let unseen: Vec<_> = names.filter(|name| !seen.contains(name)).collect();
    assert!(unseen.is_empty(), "{unseen:?}");
}

#[tokio::test]
async fn what_was_verified_and_then_changed_is_seen_by_a_full_run_only() {
    let (world, ..) = rich().await;
    assert!(world.verify(Scope::Full).await.is_clean());
    sqlx::raw_sql(DISARM).execute(world.database.pool()).await.unwrap();
    for sql in [
        "update ledger.charge set lot_state = 'closing'
         where seq = (select min(seq) from ledger.charge where lot_id is not null)",
        "update ledger.charge set events = events + 1 where seq = 2",
        "update ledger.settlement_batch set digest = decode(repeat('ff', 16), 'hex') where number = 1",
    ] {
        sqlx::raw_sql(sql).execute(world.database.pool()).await.unwrap();
        assert_eq!(found(&world).await, Vec::<&str>::new(), "{sql}");
    }
    let full = world.verify(Scope::Full).await;
    assert!(!full.is_clean());
    // What is not clean writes no point.
    assert_eq!(full.point, None);
    let names: Vec<_> =
        full.verdicts.iter().filter(|verdict| verdict.violations > 0).map(|v| v.name).collect();
    for name in [REPLAY, "batch_is_its_lines", "batch_chain_recomputes"] {
        assert!(names.contains(&name), "{names:?}");
    }
}

#[tokio::test]
async fn only_one_verification_at_a_time_writes_points() {
    let (world, ..) = rich().await;
    let lock: i64 = 0x6c65_6467_6572_7074;
    let mut other = world.database.pool().acquire().await.unwrap();
    sqlx::query("select pg_advisory_lock($1)").bind(lock).execute(&mut *other).await.unwrap();
    let beside = world.verify(Scope::Full).await;
    assert!(beside.is_clean());
    assert_eq!(beside.point, None);
    sqlx::raw_sql("select pg_advisory_unlock_all()").execute(&mut *other).await.unwrap();
    assert_eq!(world.verify(Scope::Full).await.point, Some(1));
}
