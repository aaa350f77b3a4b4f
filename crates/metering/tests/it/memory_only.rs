//! The producer of `drawdown-client` that keeps its events in memory only, restarted with the same id: what the
//! ledger has of each process lies between what that was told to be settled and what it appended, and the newest
//! process is never stopped.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use drawdown_client::{
    ChannelOptions, connect,
    producer::{
        AppendError, Fault, Instruments, Outcome, Producer, ProducerMetrics, ProducerOptions, Usage,
        WaitError,
    },
};
use drawdown_types::ProducerId;

use crate::{
    doubt::{server_of, through},
    gate::Mode,
    producer::clients_of_all_shards,
    proxy::{Line, Proxy},
    rig::{Rig, now, soon},
};

/// Events that were handed to a stream: metering can not have more.
#[derive(Debug, Default)]
struct Sent(AtomicU64);

impl ProducerMetrics for Sent {
    fn sent(&self, events: u64, _: usize) {
        self.0.fetch_add(events, Ordering::SeqCst);
    }
}

async fn start(rig: &Rig, address: SocketAddr, id: ProducerId) -> Producer {
    start_with(rig, address, id, Arc::<Sent>::default()).await
}

async fn start_with(
    rig: &Rig,
    address: SocketAddr,
    id: ProducerId,
    metrics: Arc<dyn ProducerMetrics>,
) -> Producer {
    let options = ProducerOptions {
        linger_ms: 1,
        reconnect_min_ms: 1,
        reconnect_max_ms: 20,
        ..ProducerOptions::in_memory_only(id, 64 << 20)
    };
    let channel = connect(&ChannelOptions::to(format!("http://{address}"))).unwrap();
    Producer::open_with(options, channel, rig.clock.clone(), metrics).await.unwrap()
}

/// Events of one process have clients of their own. A fenced one takes no more.
async fn append(producer: &Producer, process: &str, count: u64) {
    let clients: Vec<String> =
        clients_of_all_shards().iter().map(|client| format!("{process}-{client}")).collect();
    for n in 0..count {
        let client_id = &clients[usize::try_from(n).unwrap() % clients.len()];
        let (meter, at, outcome) = ("web.byte", now(), Outcome::Succeeded);
        let usage = Usage { client_id, meter, quantity: 3, at, outcome, dimensions: &[], hold_id: None };
        while let Err(error) = producer.append(&usage, None) {
            if matches!(error, AppendError::Stopped(_)) {
                return;
            }
            assert!(error.is_transient(), "{error}");
            producer.ready().await.unwrap();
        }
    }
}

/// What the ledger has of a process; quantities are checked on the way.
fn settled(rig: &Rig, process: &str) -> u64 {
    let state = rig.gate.state();
    let own = state.sums.iter().filter(|((client, _, _), _)| client.starts_with(&format!("{process}-")));
    own.map(|(_, (events, quantity))| {
        assert_eq!(i64::try_from(*events * 3).unwrap(), *quantity);
        *events
    })
    .sum()
}

async fn until(what: impl Fn() -> bool) {
    let waiting = async {
        while !what() {
            tokio::task::yield_now().await;
        }
    };
    soon("progress", waiting).await;
}

#[tokio::test]
async fn starts_under_load_lose_what_was_on_its_way_at_most() {
    let rig = Rig::new().await;
    let running = [rig.start().await, rig.start().await];
    let id = rig.gate.producer();
    let mut told = Vec::new();
    for n in 0..12_u64 {
        let address = running[usize::try_from(n / 2 % 2).unwrap()].address;
        let sent = Arc::<Sent>::default();
        let producer = start_with(&rig, address, id, sent.clone()).await;
        let (process, events) = (format!("p{n}"), 300 + n * 50);
        append(&producer, &process, events).await;
        match n % 4 {
            0 => {}
            1 => until(|| producer.progress().applied > 0).await,
            2 => soon("a place", producer.flush()).await.unwrap(),
            _ => soon("settlement", producer.await_settled()).await.unwrap(),
        }
        // It dies here; what metering has of it goes on.
        told.push((process, producer.progress().settled, sent, events));
    }
    let instruments = Instruments::new(&running[0].telemetry.meter());
    let last = start_with(&rig, running[0].address, id, Arc::new(instruments)).await;
    append(&last, "last", 100).await;
    soon("settlement", last.await_settled()).await.unwrap();
    assert_eq!(settled(&rig, "last"), 100);
    for (process, at_least, sent, appended) in told {
        let (events, at_most) = (settled(&rig, &process), sent.0.load(Ordering::SeqCst).min(appended));
        assert!((at_least..=at_most).contains(&events), "{process}: {events} of {at_least} to {at_most}");
    }
    last.close().await.unwrap();
    let scraped = running[0].telemetry.scrape().unwrap();
    let appended = scraped.lines().any(|line| line == "drawdown_producer_events_appended_total 100");
    assert!(appended, "{scraped}");
    assert!(
        scraped.contains("producer_commit_duration_seconds_bucket")
            && scraped.contains("producer_kept_size_bytes")
    );
    for running in running {
        running.stop().await;
    }
}

#[tokio::test]
async fn an_older_process_on_another_instance_is_fenced() {
    let rig = Rig::new().await;
    let running = [rig.start().await, rig.start().await];
    let id = rig.gate.producer();
    let first = start(&rig, running[0].address, id).await;
    append(&first, "first", 100).await;
    soon("settlement", first.await_settled()).await.unwrap();
    let second = start(&rig, running[1].address, id).await;
    append(&second, "second", 100).await;
    // Both at once: the older one may still get something in before the lanes are attached by the newer one.
    append(&first, "first", 50).await;
    soon("settlement", second.await_settled()).await.unwrap();
    let Err(WaitError::Stopped(fault)) = soon("the fence", first.await_settled()).await else {
        panic!("the older one goes on");
    };
    assert!(matches!(*fault, Fault::Fenced { .. }), "{fault}");
    append(&second, "second", 100).await;
    soon("settlement", second.await_settled()).await.unwrap();
    let of_first = settled(&rig, "first");
    assert!((100..=150).contains(&of_first), "{of_first}");
    assert!(first.progress().settled <= of_first);
    assert_eq!(settled(&rig, "second"), 200);
    for running in running {
        running.stop().await;
    }
}

#[tokio::test]
async fn redis_that_is_lost_between_two_processes_loses_what_was_not_settled() {
    let mut rig = Rig::new().await;
    let running = rig.start().await;
    let id = rig.gate.producer();
    let first = start(&rig, running.address, id).await;
    append(&first, "first", 100).await;
    soon("settlement", first.await_settled()).await.unwrap();
    rig.gate.set_mode(Mode::Down);
    append(&first, "first", 60).await;
    until(|| first.progress().applied == 160).await;
    drop(first);
    // Its last events are applied and can not be settled, so the lanes of the next process wait.
    let second = start(&rig, running.address, id).await;
    append(&second, "second", 40).await;
    rig.flush_all().await;
    until(|| second.progress().applied == 40).await;
    rig.gate.set_mode(Mode::Open);
    soon("settlement", second.await_settled()).await.unwrap();
    assert_eq!((settled(&rig, "first"), settled(&rig, "second")), (100, 40));
    // And while a process runs: what it has not heard to be settled it sends again.
    rig.gate.set_mode(Mode::Down);
    append(&second, "second", 60).await;
    until(|| second.progress().applied == 100).await;
    rig.flush_all().await;
    rig.gate.set_mode(Mode::Open);
    soon("settlement", second.await_settled()).await.unwrap();
    assert_eq!((settled(&rig, "first"), settled(&rig, "second")), (100, 100));
    running.stop().await;
}

#[tokio::test]
async fn a_start_while_a_write_is_in_doubt_stops_nobody() {
    let rig = Rig::new().await;
    let proxy = Proxy::to(server_of(&rig).await).await;
    let running = rig.start_with(through(&rig, &proxy)).await;
    let id = rig.gate.producer();
    let mut before = start(&rig, running.address, id).await;
    append(&before, "begin", 8).await;
    soon("settlement", before.await_settled()).await.unwrap();
    for n in 0..6_u32 {
        // What the older process sends from here on is written, and nobody hears of it for a while.
        let process = format!("p{n}");
        proxy.set(if n % 2 == 0 { Line::NoReplies(n + 1) } else { Line::Held });
        append(&before, &process, 200).await;
        soon("a place", before.flush()).await.unwrap();
        let next = start(&rig, running.address, id).await;
        append(&before, &process, 200).await;
        drop(std::mem::replace(&mut before, next));
        append(&before, &format!("after{n}"), 50).await;
        proxy.set(Line::Open);
        soon("settlement", before.await_settled()).await.unwrap();
        assert_eq!(settled(&rig, &format!("after{n}")), 50);
        assert!(settled(&rig, &process) <= 400);
    }
    running.stop().await;
}
