//! A producer that keeps its events in memory only, and the one that is started after it with the same id.

use std::time::Duration;

use drawdown_types::ProducerId;
use proptest::{prelude::*, test_runner::TestRunner};

use super::{
    super::{
        AppendError, Appended, Fault as Stop, Keep, Mark, OpenError, Producer, ProducerOptions, WaitError,
        WhenFull,
    },
    clock,
    fake::{Counts, Fake, Fault, nobody},
    fenced, open, until, usage,
};

const CLIENTS: [&str; 5] = ["client_a", "client_b", "client_c", "client_d", "client_e"];

fn memory(id: ProducerId) -> ProducerOptions {
    ProducerOptions {
        linger_ms: 1,
        reconnect_min_ms: 1,
        reconnect_max_ms: 5,
        register_timeout_ms: 60_000,
        adopt_timeout_ms: 60_000,
        ..ProducerOptions::in_memory_only(id, 64 << 20)
    }
}

/// Appends events over all clients, under a meter of their own, until the producer is fenced.
async fn append(producer: &Producer, meter: &str, count: u64) {
    for n in 0..count {
        let client = CLIENTS[usize::try_from(n).unwrap() % CLIENTS.len()];
        let usage = super::Usage { meter, ..usage(client, n) };
        while let Err(error) = producer.append(&usage, None) {
            if matches!(&error, AppendError::Stopped(stop) if matches!(**stop, Stop::Fenced { .. })) {
                return;
            }
            assert!(error.is_transient(), "{error}");
            producer.ready().await.unwrap();
        }
    }
}

/// Settled events of a meter.
fn settled(fake: &Fake, meter: &str) -> u64 {
    let all = fake.settled();
    all.iter().filter(|(series, _)| series.ends_with(meter)).map(|(_, (events, _))| events).sum()
}

#[tokio::test]
async fn events_are_settled_once_and_freed() {
    let id = ProducerId::generate();
    let fake = Fake::start(id).await;
    let producer = open(memory(id), &fake).await;
    assert_eq!(producer.keep(), &Keep::Memory { bytes_max: 64 << 20 });
    append(&producer, "web.call", 5_000).await;
    producer.await_settled().await.unwrap();
    assert_eq!(settled(&fake, "web.call"), 5_000);
    until(|| producer.progress().kept_bytes == 0).await;
    let progress = producer.progress();
    assert_eq!((progress.appended, progress.durable, progress.settled), (5_000, 0, 5_000));
    producer.close().await.unwrap();
    // The next process counts from 0 and goes on in the same lanes.
    let producer = open(memory(id), &fake).await;
    append(&producer, "web.call", 100).await;
    producer.await_settled().await.unwrap();
    assert_eq!((producer.progress().settled, settled(&fake, "web.call")), (100, 5_100));
}

#[tokio::test]
async fn the_next_process_waits_for_what_is_on_its_way() {
    let id = ProducerId::generate();
    let fake = Fake::start(id).await;
    fake.state().settle_by_itself = false;
    let first = open(memory(id), &fake).await;
    append(&first, "web.first", 100).await;
    until(|| first.progress().applied == 100).await;
    drop(first);
    let seen = fake.state().lanes_seen.len();
    let second = open(memory(id), &fake).await;
    append(&second, "web.second", 50).await;
    until(|| fake.state().lanes_seen.len() == seen + 4).await;
    // Every lane is attached and nothing of it was sent: its last events are not settled.
    let progress = second.progress();
    assert_eq!((progress.appended, progress.applied, progress.settled), (50, 0, 0));
    let Err(WaitError::Unsettled { events: 50 }) = second.close().await else { panic!("nothing was lost") };
    let third = open(memory(id), &fake).await;
    append(&third, "web.third", 70).await;
    fake.state().settle_by_itself = true;
    third.await_settled().await.unwrap();
    let by_meter = ["web.first", "web.second", "web.third"].map(|meter| settled(&fake, meter));
    assert_eq!(by_meter, [100, 0, 70]);
}

#[tokio::test]
async fn what_was_not_applied_is_lost_with_its_process() {
    let id = ProducerId::generate();
    let fake = Fake::start(id).await;
    fake.state().faults.extend(std::iter::repeat_n(Fault::Break, 10_000));
    let first = open(memory(id), &fake).await;
    append(&first, "web.first", 100).await;
    first.flush().await.unwrap();
    let Err(WaitError::Unsettled { events: 100 }) = first.close().await else { panic!("nothing was lost") };
    fake.state().faults.clear();
    let second = open(memory(id), &fake).await;
    append(&second, "web.second", 10).await;
    second.await_settled().await.unwrap();
    assert_eq!((settled(&fake, "web.first"), settled(&fake, "web.second")), (0, 10));
}

#[tokio::test]
async fn a_store_that_goes_back_while_a_lane_waits_loses_what_was_not_settled() {
    let id = ProducerId::generate();
    let fake = Fake::start(id).await;
    fake.state().settle_by_itself = false;
    let first = open(memory(id), &fake).await;
    append(&first, "web.first", 100).await;
    until(|| first.progress().applied == 100).await;
    fake.state().settle_all();
    append(&first, "web.first", 60).await;
    until(|| first.progress().applied == 160).await;
    drop(first);
    let seen = fake.state().lanes_seen.len();
    let second = open(memory(id), &fake).await;
    append(&second, "web.second", 50).await;
    until(|| fake.state().lanes_seen.len() == seen + 4).await;
    fake.state().forget();
    until(|| second.progress().applied == 50).await;
    fake.state().settle_by_itself = true;
    second.await_settled().await.unwrap();
    assert_eq!((settled(&fake, "web.first"), settled(&fake, "web.second")), (100, 50));
}

#[tokio::test]
async fn the_older_of_two_processes_is_fenced() {
    let id = ProducerId::generate();
    let fake = Fake::start(id).await;
    let first = open(memory(id), &fake).await;
    append(&first, "web.first", 10).await;
    first.await_settled().await.unwrap();
    let second = open(memory(id), &fake).await;
    append(&second, "web.second", 10).await;
    second.await_settled().await.unwrap();
    let stop = fenced(&first).await;
    assert!(matches!(*stop, Stop::Fenced { mine: 1, .. }), "{stop}");
    assert!(matches!(first.append(&usage("client_a", 1), None), Err(AppendError::Stopped(_))));
    append(&second, "web.second", 10).await;
    second.await_settled().await.unwrap();
    assert_eq!((settled(&fake, "web.first"), settled(&fake, "web.second")), (10, 20));
}

#[tokio::test]
async fn a_lane_that_is_not_adopted_in_time_is_named_until_it_is() {
    let id = ProducerId::generate();
    let fake = Fake::start(id).await;
    fake.state().settle_by_itself = false;
    let first = open(memory(id), &fake).await;
    append(&first, "web.first", 100).await;
    until(|| first.progress().applied == 100).await;
    drop(first);
    let second = open(ProducerOptions { adopt_timeout_ms: 50, ..memory(id) }, &fake).await;
    append(&second, "web.second", 50).await;
    let Err(WaitError::LaneStopped(stop)) = second.flush().await else { panic!("it has its place") };
    assert_eq!(stop.reason, "LANE_NOT_ADOPTED");
    assert!(stop.detail.contains("settled through 0"), "{}", stop.detail);
    assert!(matches!(second.await_settled().await, Err(WaitError::LaneStopped(_))));
    fake.state().settle_by_itself = true;
    until(|| second.progress().stopped_lanes.is_empty()).await;
    second.await_settled().await.unwrap();
    assert_eq!((settled(&fake, "web.first"), settled(&fake, "web.second")), (100, 50));
}

#[tokio::test]
async fn memory_is_bounded_and_sheds_by_exact_count() {
    for when_full in [WhenFull::Refuse, WhenFull::Shed] {
        let id = ProducerId::generate();
        let fake = Fake::start(id).await;
        fake.state().settle_by_itself = false;
        let bytes_max = 16 << 10;
        let keep = Keep::Memory { bytes_max };
        let producer = open(ProducerOptions { keep, when_full, ..memory(id) }, &fake).await;
        let (mut taken, mut not_taken) = (0_u64, 0_u64);
        while not_taken < 20 {
            match producer.append(&usage("client_a", 1 << 40), None) {
                Ok(Appended::Taken) => taken += 1,
                Ok(Appended::Shed) => not_taken += 1,
                Err(AppendError::Full { kept_bytes, kept_bytes_max }) => {
                    assert!(kept_bytes_max == bytes_max && kept_bytes >= bytes_max);
                    not_taken += 1;
                }
                Err(error) => panic!("{error}"),
            }
        }
        assert!(taken > 500, "{taken}");
        let shed = if when_full == WhenFull::Shed { not_taken } else { 0 };
        assert_eq!((producer.progress().appended, producer.progress().shed), (taken, shed));
        fake.state().settle_by_itself = true;
        producer.ready().await.unwrap();
        assert!(matches!(producer.append(&usage("client_a", 1), None), Ok(Appended::Taken)));
        producer.await_settled().await.unwrap();
        assert_eq!(settled(&fake, "web.call"), taken + 1);
    }
}

#[tokio::test]
async fn what_needs_a_log_is_refused() {
    let id = ProducerId::generate();
    let fake = Fake::start(id).await;
    let producer = open(memory(id), &fake).await;
    let mark = Mark { source: b"file", position: b"1" };
    assert!(matches!(producer.mark(mark), Err(AppendError::MarksNeedLog)));
    let marked = producer.append(&usage("client_a", 1), Some(mark));
    assert!(matches!(marked, Err(AppendError::MarksNeedLog)));
    assert_eq!(producer.progress().appended, 0);
    let nameless = ProducerOptions { producer_id: None, ..memory(id) };
    let opened = Producer::open(nameless, nobody(), clock()).await;
    assert!(matches!(opened, Err(OpenError::Options(problems)) if problems.len() == 1));
    let alone = ProducerOptions { register_timeout_ms: 20, ..memory(id) };
    let opened = Producer::open(alone, nobody(), clock()).await;
    assert!(matches!(opened, Err(OpenError::NotRegistered(Some(_)))));
    let opened = Producer::open(memory(ProducerId::generate()), fake.channel(), clock()).await;
    assert!(matches!(opened, Err(OpenError::Fault(stop)) if matches!(*stop, Stop::Unknown(_))));
}

/// How one process ends.
#[derive(Clone, Copy, Debug)]
enum End {
    AtOnce,
    Flushed,
    Settled,
    /// It goes on beside the next one.
    Never,
}

fn plan() -> impl Strategy<Value = Vec<(u64, End, Vec<Fault>)>> {
    let end = proptest::sample::select(&[End::AtOnce, End::Flushed, End::Settled, End::Never]);
    let fault = prop_oneof![
        Just(Fault::Break),
        Just(Fault::BreakAfter),
        Just(Fault::Forget),
        Just(Fault::ForgetAndBreak),
        Just(Fault::Settle),
        Just(Fault::Stop("LANE_OUT_OF_SEQUENCE")),
    ];
    proptest::collection::vec((1_u64..200, end, proptest::collection::vec(fault, 0..6)), 1..6)
}

#[test]
fn no_order_of_starts_and_faults_doubles_an_event_or_stops_the_newest_process() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut runner =
        TestRunner::new(ProptestConfig { cases: 32, max_shrink_iters: 64, ..ProptestConfig::default() });
    let outcome = runner.run(&(plan(), any::<bool>()), |(processes, slow)| {
        runtime.block_on(async {
            let id = ProducerId::generate();
            let fake = Fake::start(id).await;
            fake.state().settle_by_itself = !slow;
            let mut bounds = Vec::new();
            let mut older = Vec::new();
            for (n, (events, end, faults)) in processes.into_iter().enumerate() {
                fake.state().faults = faults.into();
                let producer = open(memory(id), &fake).await;
                let meter = format!("web.process{n}");
                append(&producer, &meter, events).await;
                match end {
                    End::AtOnce => {}
                    End::Flushed | End::Never if slow => {}
                    End::Flushed | End::Never => producer.flush().await.unwrap(),
                    End::Settled => {
                        fake.state().settle_by_itself = true;
                        producer.await_settled().await.unwrap();
                        fake.state().settle_by_itself = !slow;
                    }
                }
                bounds.push((meter, producer.progress().settled, events));
                if matches!(end, End::Never) {
                    older.push(producer);
                }
            }
            fake.state().settle_by_itself = true;
            let last = open(memory(id), &fake).await;
            append(&last, "web.last", 20).await;
            let settling = tokio::time::timeout(Duration::from_secs(60), last.await_settled()).await;
            assert!(settling.is_ok(), "{:?} {:#?}", last.progress(), fake.state());
            settling.unwrap().unwrap();
            assert_eq!(settled(&fake, "web.last"), 20);
            for (meter, told, appended) in bounds {
                let events = settled(&fake, &meter);
                assert!((told..=appended).contains(&events), "{meter}: {events} of {told} to {appended}");
            }
            let total: Counts = fake.settled();
            assert!(total.values().all(|(events, _)| *events > 0));
        });
        Ok(())
    });
    outcome.unwrap();
}
