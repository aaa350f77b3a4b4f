//! Events by id: the same one again is answered and not counted, whatever happened in between.

use std::sync::Arc;

use drawdown_proto::ledger::v1::{
    EventAnswer, EventOutcome, Line, NamedUsage, RecordEventsRequest, event_service_server::EventService,
};
use drawdown_service::config::Count;
use tonic::{Code, Request};

use crate::world::{
    Buyer, DAY, World, at, calls, calls_at, distinct, event, id_in, largest, nobody, proto, refusal, slot_of,
    sum, usage_at,
};

async fn priced() -> (World, Buyer) {
    let world = World::new().await;
    world.priced().await;
    let buyer = world.buyer();
    world.purchase(buyer, 100, None).await.unwrap();
    (world, buyer)
}

pub(crate) fn outcomes(answers: &[EventAnswer]) -> Vec<(EventOutcome, bool)> {
    answers.iter().map(|answer| (answer.outcome(), answer.already_recorded)).collect()
}

pub(crate) const NEW: (EventOutcome, bool) = (EventOutcome::Recorded, false);
pub(crate) const AGAIN: (EventOutcome, bool) = (EventOutcome::Recorded, true);
pub(crate) const CONFLICT: (EventOutcome, bool) = (EventOutcome::Conflict, false);
pub(crate) const REFUSED: (EventOutcome, bool) = (EventOutcome::Refused, false);

pub(crate) async fn one(world: &World, sql: &str) -> i64 {
    sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(world.database.pool()).await.unwrap()
}

async fn deadlocks(world: &World) -> i64 {
    one(world, "select deadlocks from pg_stat_database where datname = current_database()").await
}

#[tokio::test]
async fn the_same_event_again_gets_the_same_answer_and_one_charge() {
    let (world, buyer) = priced().await;
    let sent = [event("a", 1, calls(buyer, 1))];
    let first = world.record(&sent).await.unwrap().remove(0);
    assert_eq!(outcomes(std::slice::from_ref(&first)), [NEW]);
    assert!(first.charge_id.starts_with("chg_") && first.recorded_at.is_some(), "{first:?}");
    // Later, from another process, resolved and received in another way: the first answer stays.
    world.clock.advance(DAY);
    let other = world.beside(|_| {});
    other.clock.set(at("2026-03-11T13:00:00Z"));
    let usage = Line {
        received_window_start: proto(at("2026-03-11T12:00:00Z")),
        ..nobody(calls(buyer, 1), "no_team")
    };
    for again in [world.record(&sent).await.unwrap(), other.record(&[event("a", 1, usage)]).await.unwrap()] {
        assert_eq!(again, [EventAnswer { already_recorded: true, ..first.clone() }]);
    }
    assert_eq!(world.charges(buyer).await.len(), 1);
    assert_eq!(world.balance(buyer).await.used_micros, 500_000);
    world.assert_clean().await;
}

#[tokio::test]
async fn another_content_under_the_same_id_is_a_conflict_and_changes_nothing() {
    let (world, buyer) = priced().await;
    let first = world.record(&[event("a", 1, calls(buyer, 1))]).await.unwrap().remove(0);
    let told = world.record(&[event("a", 2, calls(buyer, 1))]).await.unwrap();
    assert_eq!(outcomes(&told), [CONFLICT]);
    // That it is there is told, and nothing of what it is.
    let conflict = EventAnswer {
        outcome: EventOutcome::Conflict.into(),
        recorded_at: first.recorded_at,
        ..EventAnswer::default()
    };
    assert_eq!(told, [conflict]);
    // The same id of another source is another event.
    let elsewhere = NamedUsage { source: "/other".to_owned(), ..event("a", 2, calls(buyer, 1)) };
    assert_eq!(outcomes(&world.record(&[elsewhere]).await.unwrap()), [NEW]);
    assert_eq!(world.balance(buyer).await.used_micros, 1_000_000);
    world.assert_clean().await;
}

#[tokio::test]
async fn ids_that_meet_inside_one_call_count_once_in_its_order() {
    let (world, buyer) = priced().await;
    let sent = [
        event("a", 1, calls(buyer, 1)),
        event("a", 2, calls(buyer, 1)),
        event("b", 1, calls(buyer, 1)),
        event("a", 1, calls(buyer, 1)),
        event("b", 1, calls(buyer, 1)),
    ];
    let answers = world.record(&sent).await.unwrap();
    assert_eq!(outcomes(&answers), [NEW, CONFLICT, NEW, AGAIN, AGAIN]);
    assert_eq!(
        (&answers[3].charge_id, answers[3].recorded_at),
        (&answers[0].charge_id, answers[0].recorded_at)
    );
    assert_eq!(world.balance(buyer).await.used_micros, 1_000_000);
    // Turned around the other content would have been first.
    let mut turned = [event("c", 1, calls(buyer, 1)), event("c", 2, calls(buyer, 1))];
    turned.reverse();
    assert_eq!(outcomes(&world.record(&turned).await.unwrap()), [NEW, CONFLICT]);
    assert_eq!(outcomes(&world.record(&[event("c", 1, calls(buyer, 1))]).await.unwrap()), [CONFLICT]);
    world.assert_clean().await;
}

#[tokio::test]
async fn what_is_new_beside_known_wrong_and_old_events_is_recorded() {
    let (world, buyer) = priced().await;
    world.record(&[event("known", 1, calls(buyer, 1)), event("other", 1, calls(buyer, 1))]).await.unwrap();
    let timed = |id: &str, text: &str| NamedUsage { time: proto(at(text)), ..event(id, 1, calls(buyer, 1)) };
    let sent = [
        event("known", 1, calls(buyer, 1)),
        event("other", 9, calls(buyer, 1)),
        timed("old", "2026-01-29T12:00:29Z"),
        timed("oldest kept", "2026-01-29T12:00:30Z"),
        timed("ahead", "2026-03-11T12:00:31Z"),
        event("new", 1, calls(buyer, 1)),
        NamedUsage { time: None, ..event("no time", 1, calls(buyer, 1)) },
    ];
    let answers = world.record(&sent).await.unwrap();
    assert_eq!(outcomes(&answers), [AGAIN, CONFLICT, REFUSED, NEW, REFUSED, NEW, NEW]);
    assert_eq!(answers[2].refused_reason, "EVENT_TIME_TOO_OLD");
    assert_eq!(answers[2].time_bound, proto(at("2026-01-29T12:00:30Z")));
    assert_eq!(answers[4].refused_reason, "EVENT_TIME_IN_FUTURE");
    assert_eq!(answers[4].time_bound, proto(at("2026-03-11T12:00:30Z")));
    // A refused id stays new: tomorrow the event is no longer ahead.
    world.clock.advance(DAY);
    assert_eq!(outcomes(&world.record(&[timed("ahead", "2026-03-11T12:00:31Z")]).await.unwrap()), [NEW]);
    assert_eq!(one(&world, "select count(*) from ledger.event").await, 6);
    world.assert_clean().await;
}

#[tokio::test]
async fn usage_that_nobody_pays_for_is_recorded_with_its_reason() {
    let (world, buyer) = priced().await;
    let late = Line {
        received_window_start: proto(at("2026-03-11T12:02:00Z")),
        ..calls_at(buyer, 1, "2026-03-10T12:00:00Z")
    };
    let sent = [
        event("a", 1, nobody(calls(buyer, 1), "unknown_client")),
        event("b", 1, nobody(calls(buyer, 1), "no_team")),
        event("c", 1, late),
        event("d", 1, calls(buyer, 1)),
    ];
    let answers = world.record(&sent).await.unwrap();
    let reasons: Vec<_> = answers.iter().map(|answer| answer.unattributed_reason.as_str()).collect();
    assert_eq!(reasons, ["unknown_client", "no_team", "late", ""]);
    assert_eq!(world.unattributed().await.iter().map(|usage| usage.events).sum::<i64>(), 3);
    let again = world.record(&sent).await.unwrap();
    assert_eq!(outcomes(&again), [AGAIN; 4]);
    assert!(
        again
            .iter()
            .zip(&answers)
            .all(|(again, first)| again.unattributed_reason == first.unattributed_reason)
    );
    world.assert_clean().await;
}

#[tokio::test]
async fn d19_events_add_up_as_a_stream_of_them_would() {
    let (world, buyer) = priced().await;
    world.shapes().await;
    let streamed = world.buyer();
    let window = "2026-03-10T12:00:00Z";
    let states = |n: i64| {
        let user = if n % 2 == 0 { "bob" } else { "ann" };
        [("automation", sum(700 * n)), ("peak", largest(n % 3)), ("seat", distinct(&[user]))]
    };
    let mut sent = Vec::new();
    for n in 1..=5 {
        for (meter, state) in states(n) {
            sent.push(event(&format!("{meter}-{n}"), 1, usage_at(buyer, meter, state, window)));
        }
    }
    world.record(&sent).await.unwrap();
    // What metering would have merged of the same events.
    let producer = world.producer().await;
    let merged = [("automation", sum(700 * 15)), ("peak", largest(2)), ("seat", distinct(&["ann", "bob"]))];
    let merged = merged.map(|(meter, state)| Line { events: 5, ..usage_at(streamed, meter, state, window) });
    world.settle(producer, merged.to_vec()).await;
    let priced = |buyer| {
        let world = &world;
        async move {
            let mut sums: std::collections::BTreeMap<_, (i64, i64)> = std::collections::BTreeMap::new();
            for charge in world.charges(buyer).await {
                let (events, amount) = sums.entry(charge.meter).or_default();
                (*events, *amount) = (*events + charge.events, *amount + charge.amount_micros);
            }
            sums
        }
    };
    assert_eq!(priced(buyer).await, priced(streamed).await);
    world.assert_clean().await;
}

#[tokio::test]
async fn events_of_one_series_and_window_are_one_charge() {
    let (world, buyer) = priced().await;
    let ids: Vec<_> = (0..50).map(|n| id_in(1, n * 1000)).collect();
    let sent: Vec<_> = ids.iter().map(|id| event(id, 1, calls(buyer, 1))).collect();
    let answers = world.record(&sent).await.unwrap();
    let charges = world.charges(buyer).await;
    assert_eq!(charges.iter().map(|charge| charge.events).collect::<Vec<_>>(), [50]);
    assert!(answers.iter().all(|answer| answer.charge_id == charges[0].charge_id));
    world.assert_clean().await;
}

/// Everybody sends the same events, each in an order of their own; each counts once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_at_once_with_the_same_ids_and_teams_count_each_once_without_a_deadlock() {
    let world = Arc::new(World::new().await);
    world.priced().await;
    let other = Arc::new(world.beside(|_| {}));
    let buyers: Vec<Buyer> = (0..5).map(|_| world.buyer()).collect();
    let sent: Vec<NamedUsage> =
        (0..60).map(|n| event(&format!("e-{n}"), 1, calls(buyers[n % buyers.len()], 1))).collect();
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..16 {
        let world = Arc::clone(if caller % 2 == 0 { &world } else { &other });
        let mut mine = sent.clone();
        mine.rotate_left(caller * 7 % sent.len());
        callers.spawn(async move {
            let mut new = 0;
            for some in mine.chunks(15) {
                let told = outcomes(&world.record(some).await.unwrap());
                assert!(told.iter().all(|(outcome, _)| *outcome == EventOutcome::Recorded), "{told:?}");
                new += told.iter().filter(|told| **told == NEW).count();
            }
            new
        });
    }
    let mut new = 0;
    while let Some(of_caller) = callers.join_next().await {
        new += of_caller.unwrap();
    }
    assert_eq!(new, sent.len());
    for buyer in buyers {
        assert_eq!(world.balance(buyer).await.balance_micros, -12 * 500_000);
    }
    assert_eq!(deadlocks(&world).await, 0);
    world.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_dies_before_its_commit_leaves_nothing_and_is_harmless_to_repeat() {
    let (world, buyer) = priced().await;
    let world = Arc::new(world);
    // The slot's cursor is there, so the call gets as far as the team.
    let (slot, sent) = (1, [event(&id_in(1, 100), 1, calls(buyer, 1))]);
    world.record(&[event(&id_in(slot, 0), 1, calls(buyer, 1))]).await.unwrap();
    let mut blocker = world.database.pool().begin().await.unwrap();
    sqlx::query("select from ledger.balance for update").fetch_all(&mut *blocker).await.unwrap();
    let call = tokio::spawn({
        let (world, sent) = (Arc::clone(&world), sent.clone());
        async move { world.record(&sent).await }
    });
    let waiting = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
    while one(&world, waiting).await == 0 {
        tokio::task::yield_now().await;
    }
    let kill = "select count(pg_terminate_backend(pid)) from pg_stat_activity
                where datname = current_database() and wait_event_type = 'Lock'";
    assert_eq!(one(&world, kill).await, 1);
    assert_eq!(call.await.unwrap().unwrap_err().code(), Code::Unavailable);
    blocker.rollback().await.unwrap();
    assert_eq!(one(&world, "select count(*) from ledger.event").await, 1);
    assert_eq!(outcomes(&world.record(&sent).await.unwrap()), [NEW]);
    assert_eq!(outcomes(&world.record(&sent).await.unwrap()), [AGAIN]);
    assert_eq!(world.balance(buyer).await.used_micros, 1_000_000);
    world.assert_clean().await;
}

#[tokio::test]
async fn an_id_that_was_forgotten_is_refused_and_never_counted_twice() {
    let (world, buyer) = priced().await;
    let sent = [event("a", 1, calls(buyer, 1)), event("b", 1, calls_at(buyer, 1, "2026-03-01T00:00:00Z"))];
    world.record(&sent).await.unwrap();
    let rows = "select count(*) from ledger.event";
    // The month is over for 40 days and the day that an event may be ahead: not before.
    world.clock.set(at("2026-05-11T23:59:59Z"));
    world.months.look().await.unwrap();
    assert_eq!(one(&world, rows).await, 2);
    world.clock.set(at("2026-05-12T00:00:00Z"));
    world.months.look().await.unwrap();
    assert_eq!(one(&world, rows).await, 0);
    let told = world.record(&sent).await.unwrap();
    assert_eq!(outcomes(&told), [REFUSED; 2]);
    assert!(told.iter().all(|answer| answer.refused_reason == "EVENT_TIME_TOO_OLD"), "{told:?}");
    // Whoever keeps ids for longer from now on does not bring back what is forgotten.
    let longer = world.beside(|options| options.growth.event_keep_days = Count::of(366));
    longer.clock.set(at("2026-05-12T00:00:00Z"));
    let told = longer.record(&sent).await.unwrap();
    assert_eq!(outcomes(&told), [REFUSED; 2]);
    assert_eq!(told[0].time_bound, proto(at("2026-04-02T00:00:00Z")));
    assert_eq!(world.balance(buyer).await.used_micros, 1_000_000);
    world.assert_clean().await;
}

#[tokio::test]
async fn an_id_is_known_in_all_months_that_are_kept() {
    let (world, buyer) = priced().await;
    world.clock.set(at("2026-03-31T23:59:59Z"));
    let sent = [NamedUsage {
        time: proto(at("2026-03-31T23:59:58Z")),
        ..event("a", 1, calls_at(buyer, 1, "2026-03-31T23:59:00Z"))
    }];
    world.record(&sent).await.unwrap();
    for (now, again) in [("2026-04-01T00:00:01Z", AGAIN), ("2026-05-10T23:59:58Z", AGAIN)] {
        world.clock.set(at(now));
        world.months.look().await.unwrap();
        assert_eq!(outcomes(&world.record(&sent).await.unwrap()), [again], "{now}");
    }
    let tables = "select count(distinct tableoid) from ledger.event";
    world
        .record(&[NamedUsage { time: None, ..event("b", 1, calls_at(buyer, 1, "2026-05-10T23:59:00Z")) }])
        .await
        .unwrap();
    assert_eq!(one(&world, tables).await, 2);
    world.assert_clean().await;
}

#[tokio::test]
async fn a_team_that_can_not_be_posted_to_costs_nobody_else_an_answer() {
    let (world, buyer) = priced().await;
    let broken = world.buyer();
    let slot = 1;
    world.record(&[event(&id_in(slot, 0), 1, calls(broken, 1))]).await.unwrap();
    let team = broken.team.as_uuid();
    let sick = format!(
        "alter table ledger.balance add constraint sick check (team_id <> '{team}' or consumed_micros < 600000)"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(sick)).execute(world.database.pool()).await.unwrap();
    let sent =
        [event(&id_in(slot, 1000), 1, calls(buyer, 1)), event(&id_in(slot, 2000), 1, calls(broken, 1))];
    let answers = world.record(&sent).await.unwrap();
    assert_eq!(outcomes(&answers), [NEW; 2]);
    let reasons: Vec<_> = answers.iter().map(|answer| answer.unattributed_reason.as_str()).collect();
    assert_eq!(reasons, ["", "poison"]);
    assert_eq!(outcomes(&world.record(&sent).await.unwrap()), [AGAIN; 2]);
    world.assert_clean().await;
}

#[tokio::test]
async fn every_fault_of_a_call_is_named_and_nothing_is_recorded() {
    let (world, buyer) = priced().await;
    let good = event("a", 1, calls(buyer, 1));
    let slot = slot_of(&good);
    let call = |slot, events| world.events.record_events(Request::new(RecordEventsRequest { slot, events }));
    let refused = |status: &tonic::Status| {
        let (code, reason, fields) = refusal(status);
        assert_eq!((code, reason.as_str()), (Code::InvalidArgument, "REQUEST_INVALID"));
        fields
    };
    assert_eq!(refused(&call(slot, Vec::new()).await.unwrap_err()), ["events"]);
    assert_eq!(refused(&call(2, vec![good.clone()]).await.unwrap_err()), ["slot"]);
    assert_eq!(refused(&call(1 - slot, vec![good.clone()]).await.unwrap_err()), ["events[0].id"]);
    let wrong = NamedUsage {
        source: String::new(),
        content_digest: vec![1; 31],
        usage: Some(Line { client_id: "no client".to_owned(), ..calls(buyer, 2) }),
        ..good.clone()
    };
    let fields = [
        "events[1].source",
        "events[1].content_digest",
        "events[1].usage.client_id",
        "events[1].usage.events",
    ];
    assert_eq!(refused(&call(slot, vec![good.clone(), wrong]).await.unwrap_err()), fields);
    let huge = Line { state: Some(sum((1 << 48) + 1)), meter: "byte".to_owned(), ..calls(buyer, 1) };
    assert_eq!(refused(&call(slot, vec![event("a", 1, huge)]).await.unwrap_err()), ["events[0].usage.state"]);
    let bare = NamedUsage { usage: None, ..good };
    assert_eq!(refused(&call(slot, vec![bare]).await.unwrap_err()), ["events[0].usage"]);
    assert_eq!(one(&world, "select count(*) from ledger.event").await, 0);
}
