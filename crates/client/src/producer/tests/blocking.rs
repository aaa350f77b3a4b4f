//! The blocking producer, outside of a runtime and inside of one.

use std::time::Duration;

use drawdown_types::ProducerId;
use tokio::runtime::{Builder, Runtime};

use super::{
    super::{AppendError, Keep, Mark, OpenError, ProducerOptions, WaitError, blocking::Producer},
    clock,
    fake::Fake,
    options, scratch, usage,
};

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(20);

/// A metering service on threads of its own.
fn serve(id: ProducerId) -> (Runtime, Fake) {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let fake = runtime.block_on(Fake::start(id));
    (runtime, fake)
}

fn settled(fake: &Fake) -> u64 {
    fake.settled().values().map(|(events, _)| events).sum()
}

#[test]
fn a_program_without_a_runtime_appends_waits_and_closes() {
    let (id, dir) = (ProducerId::generate(), scratch());
    let (_runtime, fake) = serve(id);
    let producer = Producer::open(options(dir.path(), id), fake.channel_options(), clock()).unwrap();
    for n in 0..100 {
        producer.append_wait(&usage("client_a", n), None, LONG).unwrap();
    }
    let batch = [usage("client_b", 1), usage("client_c", 1)];
    assert!(matches!(producer.append_many(&batch), (2, None)));
    producer.mark(Mark { source: b"file", position: b"102" }).unwrap();
    producer.flush(LONG).unwrap();
    assert_eq!(producer.mark_of(b"file").as_deref(), Some(&b"102"[..]));
    producer.await_settled(LONG).unwrap();
    assert_eq!((settled(&fake), producer.progress().settled, producer.id()), (102, 102, id));
    producer.close(LONG).unwrap();
    // The log was released, and another one goes on with it; dropped without a word it releases it too.
    let again = Producer::open(options(dir.path(), id), fake.channel_options(), clock()).unwrap();
    again.append(&usage("client_a", 1), None).unwrap();
    let clone = again.clone();
    drop(again);
    clone.await_settled(LONG).unwrap();
    assert_eq!(settled(&fake), 103);
}

#[test]
fn what_does_not_come_in_time_is_said() {
    let id = ProducerId::generate();
    let (_runtime, fake) = serve(id);
    fake.state().settle_by_itself = false;
    let keep = Keep::Memory { bytes_max: 16 << 10 };
    let options = ProducerOptions { keep, linger_ms: 1, ..ProducerOptions::in_memory_only(id, 0) };
    let producer = Producer::open(options, fake.channel_options(), clock()).unwrap();
    let large = usage("client_a", 1 << 40);
    // Full is what stays so when nothing waits for its place: a group that has it needs less room.
    while producer.append(&large, None).is_ok() || {
        producer.flush(LONG).unwrap();
        producer.append(&large, None).is_ok()
    } {}
    let full = producer.append_wait(&large, None, SHORT).unwrap_err();
    assert!(matches!(full, AppendError::Full { .. }), "{full}");
    assert!(matches!(producer.ready(SHORT), Err(WaitError::TimedOut)));
    assert!(matches!(producer.await_settled(SHORT), Err(WaitError::TimedOut)));
    fake.state().settle_by_itself = true;
    producer.append_wait(&usage("client_a", 1), None, LONG).unwrap();
    producer.await_settled(LONG).unwrap();
    producer.close(LONG).unwrap();
}

#[test]
fn inside_a_runtime_it_blocks_and_neither_panics_nor_waits_for_ever() {
    let id = ProducerId::generate();
    let (_runtime, fake) = serve(id);
    let dir = scratch();
    let here = Builder::new_current_thread().enable_all().build().unwrap();
    here.block_on(async {
        let producer = Producer::open(options(dir.path(), id), fake.channel_options(), clock()).unwrap();
        producer.append_wait(&usage("client_a", 1), None, LONG).unwrap();
        producer.await_settled(LONG).unwrap();
        producer.clone().close(LONG).unwrap();
        drop(producer);
    });
    assert_eq!(settled(&fake), 1);
    // The service is on the very thread that is blocked, so nothing can be answered.
    here.block_on(async {
        let deaf = Fake::start(id).await;
        let empty = scratch();
        let options = ProducerOptions { register_timeout_ms: 20, ..options(empty.path(), id) };
        let opened = Producer::open(options, deaf.channel_options(), clock());
        assert!(matches!(opened, Err(OpenError::NotRegistered(_))), "{opened:?}");
    });
}

#[test]
fn what_can_not_be_opened_says_why() {
    let (id, dir) = (ProducerId::generate(), scratch());
    let (_runtime, fake) = serve(id);
    let nameless = ProducerOptions { producer_id: None, ..options(dir.path(), id) };
    let opened = Producer::open(nameless, fake.channel_options(), clock());
    assert!(matches!(opened, Err(OpenError::ProducerIdMissing)));
    let nowhere = crate::channel::ChannelOptions::to("not an endpoint");
    let opened = Producer::open(options(dir.path(), id), &nowhere, clock());
    assert!(matches!(opened, Err(OpenError::Channel(_))));
}
