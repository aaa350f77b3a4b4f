//! The hook for metrics: every event is in exactly one sum.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use drawdown_types::ProducerId;

use super::{
    super::{
        GroupCommit, Keep, LaneStop, Producer, ProducerMetrics, ProducerOptions, Reached, WaitError, WhenFull,
    },
    clock,
    fake::{Fake, Fault},
    options, scratch, usage,
};

#[derive(Clone, Debug, Default)]
struct Sums {
    groups: Vec<GroupCommit>,
    shed: u64,
    not_taken: BTreeMap<&'static str, u64>,
    sent: (u64, u64),
    reached: Reached,
    refused: BTreeMap<String, u64>,
    freed_to: Option<u64>,
    connected: u64,
    disconnected: u64,
    stopped: Vec<String>,
}

#[derive(Debug, Default)]
struct Recorder(Mutex<Sums>);

impl Recorder {
    fn sums(&self) -> Sums {
        self.0.lock().unwrap().clone()
    }
}

impl ProducerMetrics for Recorder {
    fn committed(&self, group: &GroupCommit) {
        self.0.lock().unwrap().groups.push(*group);
    }

    fn shed(&self, events: u64) {
        self.0.lock().unwrap().shed += events;
    }

    fn not_taken(&self, reason: &'static str, events: u64) {
        *self.0.lock().unwrap().not_taken.entry(reason).or_default() += events;
    }

    fn sent(&self, events: u64, bytes: usize) {
        let mut sums = self.0.lock().unwrap();
        sums.sent = (sums.sent.0 + events, sums.sent.1 + u64::try_from(bytes).unwrap());
    }

    fn reached(&self, reached: &Reached) {
        self.0.lock().unwrap().reached = *reached;
    }

    fn refused(&self, reason: &str, events: u64) {
        *self.0.lock().unwrap().refused.entry(reason.to_owned()).or_default() += events;
    }

    fn freed(&self, kept_bytes: u64) {
        self.0.lock().unwrap().freed_to = Some(kept_bytes);
    }

    fn connected(&self) {
        self.0.lock().unwrap().connected += 1;
    }

    fn disconnected(&self, _: &str) {
        self.0.lock().unwrap().disconnected += 1;
    }

    fn lane_stopped(&self, stop: &LaneStop) {
        self.0.lock().unwrap().stopped.push(stop.reason.clone());
    }
}

async fn open(options: ProducerOptions, fake: &Fake) -> (Producer, Arc<Recorder>) {
    let recorder = Arc::new(Recorder::default());
    let hook: Arc<dyn ProducerMetrics> = recorder.clone();
    (Producer::open_with(options, fake.channel(), clock(), hook).await.unwrap(), recorder)
}

#[tokio::test]
async fn groups_frames_answers_and_streams_are_told() {
    let (id, dir) = (ProducerId::generate(), scratch());
    let fake = Fake::start(id).await;
    fake.state().faults.extend([Fault::Break, Fault::Refuse("METER_UNKNOWN")]);
    let (producer, recorder) = open(options(dir.path(), id), &fake).await;
    for _ in 0..10 {
        for _ in 0..50 {
            producer.append(&usage("client_a", 1), None).unwrap();
        }
        assert!(producer.append(&usage("not a client", 1), None).is_err());
        producer.flush().await.unwrap();
    }
    producer.await_settled().await.unwrap();
    producer.close().await.unwrap();
    let sums = recorder.sums();
    assert_eq!(sums.groups.iter().map(|group| group.events).sum::<u64>(), 500);
    assert!(sums.groups.len() >= 10 && sums.groups.iter().all(|group| group.frames == 1));
    assert!(sums.groups.windows(2).all(|two| two[0].kept_bytes < two[1].kept_bytes), "a log only grows here");
    assert!(sums.groups.iter().all(|group| !group.took.is_zero()));
    assert_eq!(sums.not_taken, [("invalid", 10)].into());
    // Sent again after the break.
    assert!(sums.sent.0 > 500 && sums.sent.1 > 500, "{:?}", sums.sent);
    assert_eq!(sums.reached, Reached { kept: 500, applied: 500, settled: 500 });
    assert!(sums.refused.get("METER_UNKNOWN").is_some_and(|events| *events >= 50 && *events < 500));
    assert_eq!((sums.connected, sums.disconnected, sums.shed), (2, 1, 0));
    assert!(sums.stopped.is_empty());
}

#[tokio::test]
async fn what_is_shed_freed_and_stopped_is_told() {
    let id = ProducerId::generate();
    let fake = Fake::start(id).await;
    fake.state().settle_by_itself = false;
    let keep = Keep::Memory { bytes_max: 16 << 10 };
    let small = ProducerOptions {
        keep,
        when_full: WhenFull::Shed,
        linger_ms: 1,
        ..ProducerOptions::in_memory_only(id, 0)
    };
    let (producer, recorder) = open(small.clone(), &fake).await;
    while producer.progress().shed < 30 {
        producer.append(&usage("client_a", 1 << 40), None).unwrap();
    }
    producer.flush().await.unwrap();
    let taken = producer.progress().appended;
    fake.state().settle_by_itself = true;
    producer.await_settled().await.unwrap();
    fake.state().settle_by_itself = false;
    fake.state().faults.push_back(Fault::Stop("FRAME_MALFORMED"));
    producer.append(&usage("client_a", 1), None).unwrap();
    let Err(WaitError::LaneStopped(_)) = producer.await_settled().await else { panic!("not stopped") };
    let Err(WaitError::Unsettled { events: 1 }) = producer.close().await else { panic!("nothing was lost") };
    let sums = recorder.sums();
    assert_eq!(sums.groups.iter().map(|group| group.events).sum::<u64>(), taken + 1);
    assert_eq!((sums.shed, sums.stopped), (30, vec!["FRAME_MALFORMED".to_owned()]));
    assert!(sums.freed_to.is_some());
}
