//! Usage of closed windows by hour and by day: every answer is the same with it and without, wherever it ends.

use std::{collections::HashMap, time::Duration};

use drawdown_proto::ledger::v1::{
    ChargeFilter, Line, SumState, SummarizeUsageRequest, UsageKey, UsageSums, line,
};
use drawdown_service::config::Count;
use drawdown_types::{AppId, Clock as _, Timestamp};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use crate::{
    lots::charge_back,
    reports::{KEYS, add, answered, grouped, listed, summarize, summary},
    world::{Buyer, DAY, World, at, calls, calls_at, payer, proto},
};

const HOUR: Duration = Duration::from_secs(3600);

async fn count(world: &World, sql: &str) -> i64 {
    sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(world.database.pool()).await.unwrap()
}

/// A minute before now, at most `back` minutes ago, as text.
fn window(world: &World, rng: &mut StdRng, back: i64) -> String {
    let minute = world.clock.now().as_micros().div_euclid(60_000_000) - rng.random_range(1..=back);
    Timestamp::from_micros(minute * 60_000_000).unwrap().to_string()
}

fn random_line(world: &World, buyer: Buyer, apps: &[AppId], rng: &mut StdRng) -> Line {
    let app = apps[rng.random_range(0..apps.len())];
    // Most usage is of the last hour, some is late, up to the limit.
    let back = if rng.random_ratio(1, 4) { 1400 } else { 60 };
    let mut line = calls_at(Buyer { app, ..buyer }, rng.random_range(1..4), &window(world, rng, back));
    line.client_id = format!("client-{}", rng.random_range(0..3));
    if rng.random_ratio(1, 3) {
        line.meter = "byte".to_owned();
        line.state = Some(line::State::Sum(SumState { quantity: rng.random_range(0..3000) }));
    }
    line.dimensions = match rng.random_range(0..3) {
        0 => HashMap::new(),
        n => HashMap::from([("region".to_owned(), format!("r{n}"))]),
    };
    line.failed = rng.random_ratio(1, 6);
    line.attribution = Some(line::Attribution::Payer(payer(Buyer { app, ..buyer })));
    line
}

/// Asks by random keys and filters, and compares with the charges one by one.
async fn compare(world: &World, buyer: Buyer, apps: &[AppId], rng: &mut StdRng, what: &str) {
    for _ in 0..6 {
        let mut filter = ChargeFilter::default();
        if rng.random_ratio(1, 3) {
            filter.app_ids = vec![apps[0].to_string()];
        }
        if rng.random_ratio(1, 3) {
            filter.meters = vec!["call".to_owned()];
        }
        if rng.random_ratio(1, 4) {
            filter.dimensions = HashMap::from([("region".to_owned(), "r1".to_owned())]);
        }
        if rng.random_ratio(1, 2) {
            filter.from = proto(at(&format!("2026-03-{:02}T00:00:00Z", rng.random_range(9..14))));
        }
        if rng.random_ratio(1, 3) {
            filter.to = proto(at(&format!("2026-03-{:02}T00:00:00Z", rng.random_range(14..17))));
        }
        let keys: Vec<UsageKey> = KEYS.into_iter().filter(|_| rng.random_ratio(1, 3)).collect();
        let region = rng.random_ratio(1, 4);
        let mut charges = listed(world, buyer, &filter).await;
        if !charges.is_empty() && rng.random_ratio(1, 3) {
            let until = charges[rng.random_range(0..charges.len())].posted_at;
            let instant = |posted: Option<prost_types::Timestamp>| posted.map(|at| (at.seconds, at.nanos));
            charges.retain(|charge| instant(charge.posted_at) <= instant(until));
            filter.recorded_until = until;
            assert_eq!(listed(world, buyer, &filter).await, charges, "{what}: {filter:?}");
        }
        let mut totals = UsageSums::default();
        charges.iter().for_each(|charge| add(&mut totals, charge));
        let mut request: SummarizeUsageRequest = summarize(buyer, filter.clone(), &keys);
        request.group_by_dimensions = if region { vec!["region".to_owned()] } else { Vec::new() };
        let answer = summary(world, request).await.unwrap();
        assert_eq!(answer.totals, Some(totals), "{what}: {filter:?}");
        if !keys.is_empty() || region {
            assert_eq!(answered(&answer), grouped(&charges, &keys, region), "{what}: {filter:?} {keys:?}");
        }
    }
}

/// Random usage of a week with late windows, debts that are paid and made debt again, and a roll-up that ends at
/// random places, in chunks that cut postings.
#[tokio::test]
async fn sums_are_the_same_wherever_the_roll_up_ends() {
    let (mut rolled, mut deltas, mut debts) = (0, 0, 0);
    for seed in 0..6_u64 {
        let mut rng = StdRng::seed_from_u64(seed);
        let rows = rng.random_range(1..20);
        let world = World::with(|options| {
            options.growth.roll_up_rows_max = Count::of(rows);
            options.growth.roll_up_teams_max = Count::of(2);
        })
        .await;
        world.priced().await;
        let (buyer, producer) = (world.buyer(), world.producer().await);
        let (other, apps) = (world.buyer(), [buyer.app, AppId::generate()]);
        let mut bought = None;
        for step in 0..10 {
            let lines = (0..rng.random_range(1..30)).map(|_| random_line(&world, buyer, &apps, &mut rng));
            let mut lines: Vec<Line> = lines.collect();
            lines.push(calls_at(other, 1, &window(&world, &mut rng, 60)));
            world.settle(producer, lines).await;
            match rng.random_range(0..5) {
                0 => {
                    let micros = rng.random_range(1_000_000..20_000_000);
                    world.grant(buyer, micros, None, "2026-06-01T00:00:00Z").await.unwrap();
                }
                1 => bought = Some(world.purchase(buyer, 100, None).await.unwrap()),
                2 => {
                    if let Some(lot) = bought.take() {
                        charge_back(&world, &lot, buyer).await.unwrap();
                    }
                }
                _ => {}
            }
            debts += i32::from(world.balance(buyer).await.uncharged_micros > 0);
            if rng.random_ratio(1, 2) {
                let back = HOUR * rng.random_range(0..30);
                rolled += world.compact.up_to(world.clock.now().checked_sub(back).unwrap()).await.unwrap();
            }
            compare(&world, buyer, &apps, &mut rng, &format!("seed {seed} step {step}")).await;
            world.clock.advance(HOUR * rng.random_range(1..20));
        }
        deltas += count(
            &world,
            "select count(*) - count(distinct (team_id, day, app_id, client_id, meter, failed, dimensions, price_id,
                                               zero_rated)) from ledger.usage_day",
        )
        .await;
        world.assert_clean().await;
    }
    // What the histories had of each.
    assert!(rolled > 100 && deltas > 20 && debts > 10, "{rolled} rolled up, {deltas} deltas, {debts} debts");
}

#[tokio::test]
async fn a_window_is_rolled_up_once_nothing_received_in_time_can_come() {
    let world = World::new().await;
    world.priced().await;
    let (buyer, producer) = (world.buyer(), world.producer().await);
    world.clock.set(at("2026-03-10T23:58:30Z"));
    world.settle(producer, vec![calls_at(buyer, 1, "2026-03-10T23:57:00Z")]).await;
    // The last windows of a day are posted after midnight, and belong to it.
    world.clock.set(at("2026-03-11T00:02:00Z"));
    world.settle(producer, vec![calls_at(buyer, 2, "2026-03-10T23:59:00Z")]).await;
    world.clock.set(at("2026-03-11T09:00:00Z"));
    world.settle(producer, vec![calls_at(buyer, 4, "2026-03-11T08:59:00Z")]).await;
    // The lateness limit (24 h), the allowance (5 min) and the slack after midnight (15 min).
    for (instant, expected) in [
        ("2026-03-12T00:19:59Z", 0),
        ("2026-03-12T00:20:00Z", 2),
        ("2026-03-13T00:19:59Z", 0),
        ("2026-03-13T00:20:00Z", 1),
        ("2026-03-14T12:00:00Z", 0),
    ] {
        world.clock.set(at(instant));
        assert_eq!(world.compact.look().await.unwrap(), expected, "{instant}");
    }
    assert_eq!(count(&world, "select count(*) from ledger.usage_day").await, 2);
    assert_eq!(count(&world, "select events from ledger.usage_day where day = '2026-03-10Z'").await, 3);
    // What comes later still for a window that is rolled up is a row more.
    world.settle(producer, vec![calls_at(buyer, 8, "2026-03-13T13:00:00Z")]).await;
    world.compact.up_to(world.clock.now().checked_add(HOUR).unwrap()).await.unwrap();
    world.settle(producer, vec![calls_at(buyer, 16, "2026-03-13T13:30:00Z")]).await;
    world.compact.up_to(world.clock.now().checked_add(HOUR).unwrap()).await.unwrap();
    let hours = "select count(*) from ledger.usage_hour where hour = '2026-03-13T13:00:00Z'";
    assert_eq!(count(&world, hours).await, 2);
    world.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_jobs_roll_each_charge_up_once() {
    let world = World::with(|options| {
        options.growth.roll_up_rows_max = Count::of(3);
        options.growth.roll_up_teams_max = Count::of(2);
    })
    .await;
    world.priced().await;
    let producer = world.producer().await;
    let buyers: Vec<Buyer> = (0..8).map(|_| world.buyer()).collect();
    let lines = |n: u64| {
        buyers.iter().flat_map(move |buyer| (0..7).map(move |_| calls(*buyer, n))).collect::<Vec<_>>()
    };
    world.settle(producer, lines(1)).await;
    let before = world.clock.now().checked_add(DAY).unwrap();
    let jobs = (0..4).map(|_| world.compact.up_to(before));
    let (rolled, _) = tokio::join!(futures::future::try_join_all(jobs), world.settle(producer, lines(2)));
    let rolled: i64 = rolled.unwrap().into_iter().sum::<i64>() + world.compact.up_to(before).await.unwrap();
    assert_eq!(rolled, 112);
    assert_eq!(world.compact.up_to(before).await.unwrap(), 0);
    world.assert_clean().await;
}

#[tokio::test]
async fn a_sum_reads_the_roll_up_and_what_is_newer() {
    let world = World::new().await;
    world.priced().await;
    let (buyer, producer) = (world.buyer(), world.producer().await);
    for _ in 0..20 {
        world.settle(producer, (0..100).map(|_| calls(buyer, 1)).collect()).await;
    }
    let now = world.clock.now();
    assert_eq!(world.compact.up_to(now.checked_add(HOUR).unwrap()).await.unwrap(), 2000);
    assert_eq!(count(&world, "select count(*) from ledger.usage_day").await, 1);
    world.grant(buyer, 2_000_000_000, None, "2026-06-01T00:00:00Z").await.unwrap();
    world.settle(producer, vec![calls(buyer, 1)]).await;
    let answer = summary(&world, summarize(buyer, ChargeFilter::default(), &[UsageKey::Day])).await.unwrap();
    assert_eq!(answer.totals.unwrap().charges, 2001);
    // The charges that are rolled up are not read: without them the answer is the same.
    let gone =
        "alter table ledger.charge_2026_03 disable trigger user; delete from ledger.charge where seq <= 2000";
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!("alter table ledger.charge disable trigger user; {gone}")))
        .execute(world.database.pool())
        .await
        .unwrap();
    let again = summary(&world, summarize(buyer, ChargeFilter::default(), &[UsageKey::Day])).await.unwrap();
    assert_eq!(again.groups, answer.groups);
}
