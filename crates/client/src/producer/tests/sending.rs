//! The producer against a metering service that fails in every way it knows.

use drawdown_types::ProducerId;
use proptest::{prelude::*, test_runner::TestRunner};

use super::{
    super::{
        AppendError, Appended, Fault as Stop, LogError, Mark, OpenError, Producer, ProducerOptions,
        WaitError, WhenFull,
    },
    clock, crash_image,
    fake::{Counts, Fake, Fault, nobody},
    fenced, open, options, scratch, until, usage,
};

const CLIENTS: [&str; 5] = ["client_a", "client_b", "client_c", "client_d", "client_e"];

/// Appends `count` events over all clients, waiting where it must; adds them to `sums`.
async fn append(producer: &Producer, count: u64, sums: &mut Counts) {
    for n in 0..count {
        let client = CLIENTS[usize::try_from(n).unwrap() % CLIENTS.len()];
        while let Err(error) = producer.append(&usage(client, n), None) {
            assert!(error.is_transient(), "{error}");
            producer.ready().await.unwrap();
        }
        let sum = sums.entry(format!("{client} web.call")).or_default();
        *sum = (sum.0 + 1, sum.1 + n);
    }
}

#[tokio::test]
async fn every_event_is_settled_once() {
    let (id, dir) = (ProducerId::generate(), scratch());
    let fake = Fake::start(id).await;
    let producer = open(options(dir.path(), id), &fake).await;
    let mut sums = Counts::new();
    append(&producer, 5_000, &mut sums).await;
    producer.await_settled().await.unwrap();
    assert_eq!(fake.settled(), sums);
    let progress = producer.progress();
    assert_eq!((progress.appended, progress.durable, progress.settled), (5_000, 5_000, 5_000));
    assert!(progress.connected && progress.refused.is_empty() && progress.shed == 0);
    producer.close().await.unwrap();
    // Again, from the log: nothing is sent twice, and it goes on.
    let producer = open(options(dir.path(), id), &fake).await;
    append(&producer, 100, &mut sums).await;
    producer.await_settled().await.unwrap();
    assert_eq!(fake.settled(), sums);
}

#[tokio::test]
async fn compressed_messages_are_settled_like_others() {
    for (compress, encoding) in [(true, Some("zstd")), (false, None)] {
        let (id, dir) = (ProducerId::generate(), scratch());
        let fake = Fake::start(id).await;
        let options = ProducerOptions { compress, ..options(dir.path(), id) };
        let producer = open(options, &fake).await;
        let mut sums = Counts::new();
        append(&producer, 1_000, &mut sums).await;
        producer.await_settled().await.unwrap();
        assert_eq!((fake.settled(), fake.state().encoding.as_deref()), (sums, encoding));
    }
}

fn faults() -> impl Strategy<Value = Vec<Fault>> {
    let fault = prop_oneof![
        Just(Fault::Break),
        Just(Fault::Damage),
        Just(Fault::BreakAfter),
        Just(Fault::Forget),
        Just(Fault::ForgetAndBreak),
        Just(Fault::Settle),
        proptest::sample::select(&["LANE_OUT_OF_SEQUENCE", "FRAME_DAMAGED"]).prop_map(Fault::Stop),
        Just(Fault::Refuse("METER_UNKNOWN")),
    ];
    proptest::collection::vec(fault, 0..12)
}

#[test]
fn no_order_of_faults_loses_or_doubles_an_event() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut runner =
        TestRunner::new(ProptestConfig { cases: 48, max_shrink_iters: 64, ..ProptestConfig::default() });
    let plan = (faults(), 1_u64..400, 20_u64..2_000, 1_u32..50, any::<bool>());
    let outcome = runner.run(&plan, |(faults, events, window, frame_events_max, reopen)| {
        runtime.block_on(async {
            let (id, dir) = (ProducerId::generate(), scratch());
            let fake = Fake::start(id).await;
            fake.state().window = window.max(u64::from(frame_events_max));
            fake.state().faults = faults.into();
            let options =
                ProducerOptions { frame_events_max, unsent_bytes_max: 300, ..options(dir.path(), id) };
            let mut sums = Counts::new();
            let mut producer = open(options.clone(), &fake).await;
            append(&producer, events, &mut sums).await;
            if reopen {
                // Whatever was on its way is sent again from the log.
                producer.close().await.unwrap();
                producer = open(options, &fake).await;
            }
            let settled =
                tokio::time::timeout(std::time::Duration::from_secs(60), producer.await_settled()).await;
            assert!(settled.is_ok(), "{:?} {:#?}", producer.progress(), fake.state());
            settled.unwrap().unwrap();
            assert_eq!(fake.settled(), sums);
        });
        Ok(())
    });
    outcome.unwrap();
}

#[tokio::test]
async fn a_crash_loses_nothing_that_was_flushed() {
    let (id, dir) = (ProducerId::generate(), scratch());
    let fake = Fake::start(id).await;
    fake.state().settle_by_itself = false;
    let producer = open(options(dir.path(), id), &fake).await;
    let mut sums = Counts::new();
    append(&producer, 1_000, &mut sums).await;
    producer.mark(Mark { source: b"file", position: b"1000" }).unwrap();
    producer.flush().await.unwrap();
    assert_eq!(producer.mark_of(b"file").as_deref(), Some(&b"1000"[..]));
    let image = crash_image(dir.path());
    drop(producer);
    fake.state().settle_by_itself = true;
    let producer = open(options(image.path(), id), &fake).await;
    assert_eq!(producer.marks(), [(b"file".to_vec(), b"1000".to_vec())]);
    producer.await_settled().await.unwrap();
    assert_eq!(fake.settled(), sums);
}

#[tokio::test]
async fn an_older_process_is_fenced() {
    let (id, dir) = (ProducerId::generate(), scratch());
    let fake = Fake::start(id).await;
    let first = open(options(dir.path(), id), &fake).await;
    let mut sums = Counts::new();
    append(&first, 10, &mut sums).await;
    first.await_settled().await.unwrap();
    let clone = crash_image(dir.path());
    let second = open(options(clone.path(), id), &fake).await;
    append(&second, 10, &mut sums).await;
    second.await_settled().await.unwrap();
    // The first one hears of it when its stream breaks, if it has not heard before.
    fake.state().faults.push_back(Fault::Break);
    let stop = fenced(&first).await;
    assert!(matches!(*stop, Stop::Fenced { mine: 1, .. } | Stop::Diverged { .. }), "{stop}");
    assert!(matches!(first.append(&usage("client_a", 1), None), Err(AppendError::Stopped(_))));
    assert_eq!(fake.settled(), sums);
}

#[tokio::test]
async fn a_restored_log_has_diverged() {
    let (id, dir) = (ProducerId::generate(), scratch());
    let fake = Fake::start(id).await;
    let producer = open(options(dir.path(), id), &fake).await;
    let mut sums = Counts::new();
    append(&producer, 10, &mut sums).await;
    producer.flush().await.unwrap();
    let old = crash_image(dir.path());
    append(&producer, 10, &mut sums).await;
    producer.await_settled().await.unwrap();
    producer.close().await.unwrap();
    // Shorter than what is settled: said at once. With other events in the place: told by the chain.
    for events in [0, 20] {
        let image = crash_image(old.path());
        let restored = Producer::open(options(image.path(), id), nobody(), clock()).await.unwrap();
        append(&restored, events, &mut Counts::new()).await;
        restored.close().await.unwrap();
        let restored = open(options(image.path(), id), &fake).await;
        let Err(WaitError::Stopped(stop)) = wait_for_stop(&restored).await else { panic!("goes on") };
        assert!(matches!(*stop, Stop::Diverged { .. }), "{stop}");
        assert_eq!(fake.settled(), sums);
    }
    // A new log under an old id is the extreme of it.
    let empty = scratch();
    let opened = Producer::open(options(empty.path(), id), fake.channel(), clock()).await;
    assert!(matches!(opened, Err(OpenError::Fault(stop)) if matches!(*stop, Stop::Diverged { .. })));
}

/// An event that cannot be settled shows why.
async fn wait_for_stop(producer: &Producer) -> Result<(), WaitError> {
    let _ = producer.append(&usage("client_a", 1), None);
    producer.await_settled().await
}

#[tokio::test]
async fn an_unknown_producer_is_refused_new_or_old() {
    let (id, dir) = (ProducerId::generate(), scratch());
    let fake = Fake::start(id).await;
    open(options(dir.path(), id), &fake).await.close().await.unwrap();
    fake.state().known = None;
    let producer = open(options(dir.path(), id), &fake).await;
    let Err(WaitError::Stopped(stop)) = wait_for_stop(&producer).await else { panic!("goes on") };
    assert!(matches!(*stop, Stop::Unknown(unknown) if unknown == id));
    let opened = Producer::open(options(scratch().path(), id), fake.channel(), clock()).await;
    assert!(matches!(opened, Err(OpenError::Fault(stop)) if matches!(*stop, Stop::Unknown(_))));
}

#[tokio::test]
async fn a_new_log_needs_an_id_and_an_answer() {
    let dir = scratch();
    let nameless = ProducerOptions::at(dir.path());
    let opened = Producer::open(nameless, nobody(), clock()).await;
    assert!(matches!(opened, Err(OpenError::ProducerIdMissing)));
    let options = ProducerOptions { register_timeout_ms: 20, ..options(dir.path(), ProducerId::generate()) };
    let opened = Producer::open(options, nobody(), clock()).await;
    assert!(matches!(opened, Err(OpenError::NotRegistered(Some(_)))));
    assert_eq!(Producer::id_in(dir.path()).unwrap(), None);
    let opened = Producer::open(ProducerOptions::default(), nobody(), clock()).await;
    assert!(matches!(opened, Err(OpenError::Options(problems)) if problems.len() == 1));
}

fn small(dir: &std::path::Path, id: ProducerId) -> ProducerOptions {
    ProducerOptions {
        segment_bytes: 4 << 10,
        log_bytes_max: 16 << 10,
        pending_events_max: 100,
        ..options(dir, id)
    }
}

#[tokio::test]
async fn a_full_log_refuses_until_it_is_settled() {
    let (id, dir) = (ProducerId::generate(), scratch());
    let fake = Fake::start(id).await;
    fake.state().settle_by_itself = false;
    let producer = open(small(dir.path(), id), &fake).await;
    let mut sums = Counts::new();
    loop {
        match producer.append(&usage("client_a", 1), None) {
            Ok(_) => {
                let sum = sums.entry("client_a web.call".to_owned()).or_default();
                *sum = (sum.0 + 1, sum.1 + 1);
                producer.flush().await.unwrap();
            }
            Err(AppendError::Full { kept_bytes, kept_bytes_max }) => {
                assert!(kept_bytes >= kept_bytes_max && kept_bytes < kept_bytes_max + 1_024);
                break;
            }
            Err(error) => panic!("{error}"),
        }
    }
    fake.state().settle_by_itself = true;
    producer.ready().await.unwrap();
    append(&producer, 500, &mut sums).await;
    producer.await_settled().await.unwrap();
    assert_eq!(fake.settled(), sums);
}

#[tokio::test]
async fn one_group_that_fills_the_log_does_not_jam_it() {
    let (id, dir) = (ProducerId::generate(), scratch());
    let fake = Fake::start(id).await;
    let options = ProducerOptions { pending_events_max: 1 << 20, linger_ms: 10_000, ..small(dir.path(), id) };
    let producer = open(options, &fake).await;
    for _ in 0..3 {
        let mut events = 0;
        while producer.append(&usage("client_a", 1 << 40), None).is_ok() {
            events += 1;
        }
        assert!(events > 100);
        producer.await_settled().await.unwrap();
        producer.ready().await.unwrap();
    }
}

#[tokio::test]
async fn what_is_shed_is_counted_and_remembered() {
    let (id, dir) = (ProducerId::generate(), scratch());
    let fake = Fake::start(id).await;
    let options = ProducerOptions { when_full: WhenFull::Shed, ..small(dir.path(), id) };
    open(options.clone(), &fake).await.close().await.unwrap();
    let producer = Producer::open(options.clone(), nobody(), clock()).await.unwrap();
    let (mut taken, mut shed) = (0_u64, 0_u64);
    while shed < 20 {
        match producer.append(&usage("client_a", 1), None) {
            Ok(Appended::Taken) => taken += 1,
            Ok(Appended::Shed) => shed += 1,
            Err(error) => panic!("{error}"),
        }
        producer.flush().await.unwrap();
    }
    let wrong = producer.append(&usage("not a client", 1), None);
    assert!(matches!(wrong, Err(AppendError::Invalid(_))), "a wrong event is not shed");
    assert_eq!((producer.progress().appended, producer.progress().shed), (taken, shed));
    producer.close().await.unwrap();
    let producer = open(options, &fake).await;
    assert_eq!(producer.progress().shed, shed);
    producer.await_settled().await.unwrap();
    assert_eq!(fake.settled(), Counts::from([("client_a web.call".to_owned(), (taken, taken))]));
}

#[tokio::test]
async fn a_crash_keeps_the_exact_count_of_what_was_shed() {
    let (id, dir) = (ProducerId::generate(), scratch());
    let fake = Fake::start(id).await;
    let options = ProducerOptions { when_full: WhenFull::Shed, linger_ms: 10_000, ..small(dir.path(), id) };
    open(options.clone(), &fake).await.close().await.unwrap();
    let producer = Producer::open(options.clone(), nobody(), clock()).await.unwrap();
    let (mut taken, mut shed) = (0_u64, 0_u64);
    for round in 1..=3 {
        while shed < round * 7 {
            match producer.append(&usage("client_a", 1 << 40), None).unwrap() {
                Appended::Taken => taken += 1,
                Appended::Shed => shed += 1,
            }
            if shed == 0 && taken % 50 == 0 {
                producer.flush().await.unwrap();
            }
        }
        // Also where nothing but the count is new.
        producer.flush().await.unwrap();
        let image = crash_image(dir.path());
        let killed = Producer::open(ProducerOptions::at(image.path()), nobody(), clock()).await.unwrap();
        assert_eq!((killed.progress().appended, killed.progress().shed), (taken, shed));
    }
}

#[tokio::test]
async fn a_torn_log_is_reported_and_a_corrupt_one_is_not_opened() {
    let (id, dir) = (ProducerId::generate(), scratch());
    let fake = Fake::start(id).await;
    let producer = open(options(dir.path(), id), &fake).await;
    for _ in 0..3 {
        append(&producer, 10, &mut Counts::new()).await;
        producer.flush().await.unwrap();
    }
    assert_eq!(producer.torn_bytes(), 0);
    let image = crash_image(dir.path());
    let segment = image.path().join("000000000001.segment");
    let sound = std::fs::read(&segment).unwrap();
    std::fs::write(&segment, &sound[..sound.len() - 1]).unwrap();
    let torn = Producer::open(options(image.path(), id), nobody(), clock()).await.unwrap();
    assert!(torn.torn_bytes() > 0 && torn.progress().appended == 20);
    torn.close().await.unwrap();
    let mut flipped = sound.clone();
    flipped[sound.len() / 2] ^= 1;
    std::fs::write(&segment, &flipped).unwrap();
    let opened = Producer::open(options(image.path(), id), nobody(), clock()).await;
    assert!(matches!(opened, Err(OpenError::Log(LogError::Corrupt { .. }))));
    assert_eq!(std::fs::read(&segment).unwrap(), flipped, "nothing was cut");
}

#[tokio::test]
async fn refused_events_are_counted_once_and_keep_nobody_waiting() {
    let (id, dir) = (ProducerId::generate(), scratch());
    let fake = Fake::start(id).await;
    fake.state().settle_by_itself = false;
    let refuse = || Fault::Refuse("METER_UNKNOWN");
    fake.state().faults.extend([refuse(), Fault::Forget, refuse(), refuse()]);
    let producer = open(options(dir.path(), id), &fake).await;
    producer.append(&usage("client_a", 1), None).unwrap();
    producer.flush().await.unwrap();
    producer.append(&usage("client_a", 2), None).unwrap();
    producer.flush().await.unwrap();
    fake.state().settle_by_itself = true;
    producer.await_settled().await.unwrap();
    assert_eq!(producer.progress().refused.get("METER_UNKNOWN"), Some(&2));
}

#[tokio::test]
async fn a_stopped_lane_is_named_and_the_others_go_on() {
    let (id, dir) = (ProducerId::generate(), scratch());
    let fake = Fake::start(id).await;
    fake.state().faults.push_back(Fault::Stop("FRAME_MALFORMED"));
    let producer = open(options(dir.path(), id), &fake).await;
    producer.append(&usage("client_a", 1), None).unwrap();
    let Err(WaitError::LaneStopped(stop)) = producer.await_settled().await else { panic!("not stopped") };
    assert_eq!(stop.reason, "FRAME_MALFORMED");
    let stopped = stop.lane.shard;
    let other = CLIENTS
        .iter()
        .find(|client| drawdown_metering_core::shard::shard_of(client, 4.try_into().unwrap()) != stopped);
    producer.append(&usage(other.unwrap(), 5), None).unwrap();
    assert!(matches!(producer.await_settled().await, Err(WaitError::LaneStopped(_))));
    // Opened again (with whatever was wrong mended) the lane goes on.
    producer.close().await.unwrap();
    let producer = open(options(dir.path(), id), &fake).await;
    producer.await_settled().await.unwrap();
    assert_eq!(fake.settled().values().map(|(events, _)| events).sum::<u64>(), 2);
}

#[tokio::test]
async fn a_lane_that_was_stopped_for_want_of_room_is_tried_again() {
    for reason in ["LANES_EXHAUSTED", "LANE_TAKEN", "LANE_SET_ASIDE"] {
        let (id, dir) = (ProducerId::generate(), scratch());
        let fake = Fake::start(id).await;
        fake.state().faults.extend([Fault::Stop(reason), Fault::Stop(reason)]);
        let options = ProducerOptions { lane_retry_ms: 20, ..options(dir.path(), id) };
        let producer = open(options, &fake).await;
        producer.append(&usage("client_a", 1), None).unwrap();
        // Whoever waits is told each time; nobody has to open the producer again.
        let mut stops = 0;
        while let Err(error) = producer.await_settled().await {
            let WaitError::LaneStopped(stop) = error else { panic!("{error:?}") };
            assert_eq!(stop.reason, reason);
            stops += 1;
            until(|| producer.progress().stopped_lanes.is_empty()).await;
        }
        assert!((1..=2).contains(&stops), "{stops}");
        assert_eq!(fake.settled().values().map(|(events, _)| events).sum::<u64>(), 1);
    }
}

#[tokio::test]
async fn lanes_of_an_old_map_drain_beside_the_new_ones() {
    let (id, dir) = (ProducerId::generate(), scratch());
    let fake = Fake::start(id).await;
    let producer = open(options(dir.path(), id), &fake).await;
    let mut sums = Counts::new();
    append(&producer, 50, &mut sums).await;
    producer.await_settled().await.unwrap();
    producer.close().await.unwrap();
    let producer = Producer::open(options(dir.path(), id), nobody(), clock()).await.unwrap();
    append(&producer, 50, &mut sums).await;
    producer.close().await.unwrap();
    (fake.state().map_version, fake.state().shard_count) = (2, 7);
    let producer = open(options(dir.path(), id), &fake).await;
    producer.await_settled().await.unwrap();
    append(&producer, 50, &mut sums).await;
    producer.await_settled().await.unwrap();
    assert_eq!(fake.settled(), sums);
    let seen = fake.state().lanes_seen.clone();
    assert!(seen.iter().any(|(version, _)| *version == 1) && seen.iter().any(|(version, _)| *version == 2));
}

#[tokio::test]
async fn a_restored_ledger_is_sent_what_the_log_retains() {
    let (id, dir) = (ProducerId::generate(), scratch());
    let fake = Fake::start(id).await;
    let producer = open(options(dir.path(), id), &fake).await;
    let mut sums = Counts::new();
    for _ in 0..4 {
        append(&producer, 100, &mut sums).await;
        producer.await_settled().await.unwrap();
    }
    // The ledger goes back while the stream is down; the next event brings it up again.
    fake.state().restore(1);
    fake.state().faults.push_back(Fault::Break);
    append(&producer, 5, &mut sums).await;
    producer.await_settled().await.unwrap();
    assert_eq!(fake.settled(), sums);
}

#[tokio::test]
async fn many_are_taken_in_order_until_one_is_not() {
    let (id, dir) = (ProducerId::generate(), scratch());
    let fake = Fake::start(id).await;
    let producer = open(options(dir.path(), id), &fake).await;
    let batch = [usage("client_a", 1), usage("client_b", 1 << 49), usage("client_c", 1)];
    let (taken, why) = producer.append_many(&batch);
    assert!(taken == 1 && matches!(why, Some(AppendError::Invalid(_))));
    producer.await_settled().await.unwrap();
    assert_eq!(fake.settled().len(), 1);
}
