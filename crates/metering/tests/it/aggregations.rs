//! Count, sum, max and unique (D19), and dimensions with too many values, from a producer's log to the ledger.

use std::collections::BTreeMap;

use drawdown_metering_core::series::{OTHER, SeriesKey};
use drawdown_proto::ledger::v1::Aggregation;
use drawdown_service::config::Count;

use crate::{
    gate::{Booked, Mode, Series},
    producer::{Log, Session, Until, clients_of_all_shards, deliver, key_of, open},
    rig::{Rig, now, soon},
};

const METERS: [&str; 4] = ["web.byte", "web.call", "web.peak", "web.user"];

/// An event, counted as plainly as it can be.
fn count(naive: &mut BTreeMap<Series, Booked>, key: &SeriesKey, quantity: u64) {
    let meter = key.meter().to_string();
    let mut dimensions: BTreeMap<String, String> =
        key.dimensions().iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    let user = if meter == "web.user" { dimensions.remove("user") } else { None };
    let booked = naive.entry((key.client_id().to_string(), meter.clone(), dimensions)).or_default();
    let quantity = i64::try_from(quantity).unwrap();
    booked.events += 1;
    match meter.as_str() {
        "web.byte" => booked.quantity += quantity,
        "web.call" => booked.quantity += 1,
        "web.peak" => booked.quantity = booked.quantity.max(quantity),
        _ => drop(booked.values.insert(user.unwrap().into_bytes())),
    }
}

/// Frames in which all meters, three regions and nine users come again and again.
fn fill(log: &mut Log, naive: &mut BTreeMap<Series, Booked>, seed: u64, frames: u64) {
    let clients = clients_of_all_shards();
    for frame in 0..frames {
        let client = &clients[usize::try_from((frame + seed) % 3).unwrap()];
        let events: Vec<(SeriesKey, u64)> = (0..12)
            .map(|event| {
                let mixed = (seed * 31 + frame * 7 + event).wrapping_mul(0x9e37_79b9) >> 7;
                let meter = METERS[usize::try_from(mixed % 4).unwrap()];
                let (region, user) = (format!("r{}", mixed % 3), format!("u{}", (mixed + frame) % 9));
                let key = match meter {
                    "web.user" => key_of(client, meter, &[("region", &region), ("user", &user)]),
                    "web.call" | "web.peak" => key_of(client, meter, &[("region", &region)]),
                    _ => key_of(client, meter, &[]),
                };
                (key, mixed % 1000)
            })
            .collect();
        events.iter().for_each(|(key, quantity)| count(naive, key, *quantity));
        log.append_events(client, &events);
    }
}

async fn rig() -> Rig {
    let rig = Rig::new().await;
    rig.gate.meter("web.peak", Aggregation::Max, &["region"]);
    rig.gate.unique_meter("web.user", &["region", "user"], "user");
    rig
}

#[tokio::test]
async fn sums_maxima_and_sets_are_those_of_a_plain_count_even_where_usage_is_sent_again() {
    let mut rig = rig().await;
    let (one, two) = (rig.start().await, rig.start().await);
    let mut naive = BTreeMap::new();
    let mut logs = [Log::new(rig.gate.producer()), Log::new(rig.gate.producer())];
    for (seed, log) in (1..).zip(&mut logs) {
        fill(log, &mut naive, seed, 30);
    }
    let both = async {
        tokio::join!(
            deliver(&logs[0], one.address, Until::Settled),
            deliver(&logs[1], two.address, Until::Settled),
        )
    };
    soon("settlement", both).await;
    assert_eq!(rig.gate.state().booked, naive);

    // What is applied and not settled is lost, and comes again in other batches.
    rig.gate.set_mode(Mode::Down);
    for (seed, log) in (11..).zip(&mut logs) {
        fill(log, &mut naive, seed, 20);
    }
    soon("applied", deliver(&logs[0], two.address, Until::Applied)).await;
    rig.flush_all().await;
    rig.gate.set_mode(Mode::Open);
    let both = async {
        tokio::join!(
            deliver(&logs[0], one.address, Until::Settled),
            deliver(&logs[1], one.address, Until::Settled),
        )
    };
    soon("settlement", both).await;
    assert_eq!(rig.gate.state().booked, naive);
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn a_user_who_is_not_named_is_refused_in_the_events_place() {
    let rig = rig().await;
    let running = rig.start().await;
    let mut log = Log::new(rig.gate.producer());
    let named = key_of("c", "web.user", &[("user", "ann")]);
    log.append_events("c", &[(named.clone(), 1), (key_of("c", "web.user", &[]), 1), (named, 1)]);
    let epoch = open(running.address, log.producer).await.unwrap();
    let mut session = Session::begin(&log, running.address, epoch).await.unwrap();
    soon("settlement", session.run(Until::Settled)).await;
    let told: Vec<_> =
        session.refused.iter().map(|r| (r.reason.as_str(), r.count, r.first_sequence)).collect();
    assert_eq!(told, [("DIMENSION_MISSING", 1, 2)]);
    let state = rig.gate.state();
    assert_eq!(state.refused, BTreeMap::from([("DIMENSION_MISSING".to_owned(), 1)]));
    assert_eq!(state.booked.values().map(|booked| (booked.events, booked.values.len())).next(), Some((2, 1)));
    running.stop().await;
}

#[tokio::test]
async fn values_beyond_the_bound_are_counted_together_and_seen() {
    let rig = rig().await;
    let mut options = rig.options();
    options.ingest.dimension_values_max = Count::of(3);
    let running = rig.start_with(options).await;
    let mut log = Log::new(rig.gate.producer());
    for request in 0..40 {
        let place = format!("request-{request}");
        log.append_events("c", &[(key_of("c", "web.call", &[("region", &place)]), 1)]);
    }
    // Users are counted and have a bound of their own.
    let users = (0..40).map(|user| (key_of("c", "web.user", &[("user", &format!("u{user}"))]), 1));
    log.append_events("c", &users.collect::<Vec<_>>());
    soon("settlement", deliver(&log, running.address, Until::Settled)).await;
    let state = rig.gate.state();
    let calls: BTreeMap<&str, u64> = state
        .booked
        .iter()
        .filter(|((_, meter, _), _)| meter == "web.call")
        .map(|((_, _, dimensions), booked)| (dimensions["region"].as_str(), booked.events))
        .collect();
    assert_eq!((calls.len(), calls[OTHER], calls.values().sum::<u64>()), (4, 37, 40));
    let users = state.booked.iter().find(|((_, meter, _), _)| meter == "web.user").unwrap();
    assert_eq!((users.1.events, users.1.values.len()), (40, 40));
    let page = running.telemetry.scrape().unwrap();
    let overflowed = page.lines().find(|line| line.starts_with("drawdown_metering_events_overflowed_total"));
    assert!(overflowed.is_some_and(|line| line.ends_with(" 37")), "{page}");
    running.stop().await;
}

#[tokio::test]
async fn events_ahead_of_their_receipt_are_counted_as_clamped() {
    let rig = rig().await;
    let running = rig.start().await;
    let mut log = Log::new(rig.gate.producer());
    let number = log.number(&key_of("c", "web.byte", &[]));
    let mut builder = drawdown_metering_core::frame::FrameBuilder::new();
    for ahead_ms in [0, 300_000, 300_001, 3_600_000] {
        builder.push(number, 5, now().as_millis() + ahead_ms);
    }
    let lane = log.lane_of("c");
    log.append_built(lane, &mut builder);
    soon("settlement", deliver(&log, running.address, Until::Settled)).await;
    assert_eq!(rig.gate.state().sums.values().next(), Some(&(4, 20)));
    let page = running.telemetry.scrape().unwrap();
    let clamped = page.lines().find(|line| line.starts_with("drawdown_metering_events_clamped_total"));
    assert!(clamped.is_some_and(|line| line.ends_with(" 2")), "{page}");
    running.stop().await;
}
