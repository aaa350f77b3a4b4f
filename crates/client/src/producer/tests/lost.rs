//! A ledger restored to before what the log has freed: the range is named, with its proof, and nothing else is.

use std::path::Path;

use drawdown_metering_core::shard::shard_of;
use drawdown_types::ProducerId;

use super::{
    super::{Fault as Stop, LostRange, Producer, ProducerOptions, WaitError},
    fake::Fake,
    open, options, scratch, usage,
};

const CLIENTS: [&str; 5] = ["client_a", "client_b", "client_c", "client_d", "client_e"];

/// A small log that keeps nothing longer than it must.
fn forgetful(dir: &Path, id: ProducerId) -> ProducerOptions {
    ProducerOptions {
        segment_bytes: 4 << 10,
        log_bytes_max: 1 << 20,
        retain_after_settled_ms: 0,
        frame_events_max: 20,
        ..options(dir, id)
    }
}

/// Appends events in small frames; answers how many each lane of the fake's map got.
async fn append(producer: &Producer, groups: u64) -> [u64; 4] {
    let mut lanes = [0; 4];
    for n in 0..groups * 50 {
        let client = CLIENTS[usize::try_from(n % 5).unwrap()];
        producer.append(&usage(client, n), None).unwrap();
        lanes[usize::try_from(shard_of(client, 4.try_into().unwrap())).unwrap()] += 1;
        if n % 50 == 49 {
            producer.flush().await.unwrap();
        }
    }
    lanes
}

/// Everything is settled, and what may be deleted is: all segments but the active one.
async fn freed(producer: &Producer, dir: &Path) {
    producer.await_settled().await.unwrap();
    let segments = || {
        let names = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
        names.filter(|name| name.to_string_lossy().ends_with(".segment")).count()
    };
    while segments() > 1 {
        tokio::task::yield_now().await;
    }
}

/// Everything of each lane is settled or lost, once: what is told of both fits the lane without a gap.
fn fits(fake: &Fake, lost: &[LostRange], appended: [u64; 4]) {
    let settled: u64 = fake.settled().values().map(|(events, _)| events).sum();
    let gone: u64 = lost.iter().map(|range| range.to_sequence - range.from_sequence + 1).sum();
    assert_eq!(settled + gone, appended.iter().sum::<u64>(), "{lost:?}");
    let told: Vec<_> = lost
        .iter()
        .map(|range| ((range.lane.map_version, range.lane.shard), range.from_sequence, range.to_sequence))
        .collect();
    assert_eq!(fake.state().lost, told);
}

#[tokio::test]
async fn what_was_freed_and_is_not_in_a_restored_ledger_is_named_and_the_rest_sent_again() {
    // In the running process when its stream breaks, and in the next one.
    for (running, frames) in [(true, 3), (true, 0), (false, 3), (false, 0)] {
        let (id, dir) = (ProducerId::generate(), scratch());
        let fake = Fake::start(id).await;
        let mut producer = open(forgetful(dir.path(), id), &fake).await;
        let mut appended = append(&producer, 40).await;
        freed(&producer, dir.path()).await;
        assert!(fake.state().lost.is_empty());
        if running {
            let mut state = fake.state();
            state.restore(frames);
            state.breaks = true;
        } else {
            producer.close().await.unwrap();
            fake.state().restore(frames);
            producer = open(forgetful(dir.path(), id), &fake).await;
        }
        for (sum, more) in appended.iter_mut().zip(append(&producer, 1).await) {
            *sum += more;
        }
        producer.await_settled().await.unwrap();
        let lost = producer.progress().lost;
        assert!(!lost.is_empty(), "segments were freed");
        fits(&fake, &lost, appended);
        // It goes on, also in the next process, and nothing is named twice.
        producer.close().await.unwrap();
        let producer = open(forgetful(dir.path(), id), &fake).await;
        for (sum, more) in appended.iter_mut().zip(append(&producer, 1).await) {
            *sum += more;
        }
        producer.await_settled().await.unwrap();
        assert!(producer.progress().lost.is_empty());
        fits(&fake, &lost, appended);
    }
}

async fn stops(producer: &Producer) -> std::sync::Arc<Stop> {
    let _ = producer.append(&usage("client_a", 1), None);
    let Err(WaitError::Stopped(stop)) = producer.await_settled().await else { panic!("goes on") };
    stop
}

#[tokio::test]
async fn what_the_log_remembers_no_longer_is_in_doubt_and_not_named() {
    let (id, dir) = (ProducerId::generate(), scratch());
    let fake = Fake::start(id).await;
    let producer = open(ProducerOptions { freed_bytes_max: 0, ..forgetful(dir.path(), id) }, &fake).await;
    append(&producer, 40).await;
    freed(&producer, dir.path()).await;
    producer.close().await.unwrap();
    fake.state().restore(3);
    let producer = open(forgetful(dir.path(), id), &fake).await;
    let stop = stops(&producer).await;
    assert!(matches!(*stop, Stop::Diverged { .. }), "{stop}");
    assert!(fake.state().lost.is_empty());
}

#[tokio::test]
async fn a_service_that_can_not_name_what_is_lost_stops_the_producer() {
    let (id, dir) = (ProducerId::generate(), scratch());
    let fake = Fake::start(id).await;
    let producer = open(forgetful(dir.path(), id), &fake).await;
    append(&producer, 40).await;
    freed(&producer, dir.path()).await;
    producer.close().await.unwrap();
    fake.state().restore(0);
    fake.state().names_lost = false;
    let producer = open(forgetful(dir.path(), id), &fake).await;
    let stop = stops(&producer).await;
    assert!(matches!(*stop, Stop::Freed { settled: 0, .. }), "{stop}");
}
