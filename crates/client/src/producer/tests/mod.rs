mod blocking;
mod fake;
mod handles;
mod lost;
mod memory;
mod metrics;
mod sending;

use std::{path::Path, sync::Arc, time::Duration};

use drawdown_types::{ManualClock, ProducerId, Timestamp};

use super::{AppendError, Fault, Outcome, Producer, ProducerOptions, SeriesHandle, Usage, WaitError};

/// A directory without a disk below it where there is one; the tests are about order, not about fsync.
pub(super) fn scratch() -> tempfile::TempDir {
    let shm = Path::new("/dev/shm");
    if shm.is_dir() { tempfile::tempdir_in(shm).unwrap() } else { tempfile::tempdir().unwrap() }
}

fn options(dir: &Path, id: ProducerId) -> ProducerOptions {
    ProducerOptions {
        producer_id: Some(id),
        linger_ms: 1,
        reconnect_min_ms: 1,
        reconnect_max_ms: 5,
        register_timeout_ms: 60_000,
        ..ProducerOptions::at(dir)
    }
}

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new("2026-01-01T00:00:00Z".parse::<Timestamp>().unwrap()))
}

async fn open(options: ProducerOptions, fake: &fake::Fake) -> Producer {
    Producer::open(options, fake.channel(), clock()).await.unwrap()
}

fn usage(client_id: &str, quantity: u64) -> Usage<'_> {
    let at = "2026-01-01T00:00:00Z".parse().unwrap();
    let outcome = Outcome::Succeeded;
    Usage { client_id, meter: "web.call", quantity, at, outcome, dimensions: &[], hold_id: None }
}

async fn until(what: impl Fn() -> bool) {
    let waiting = async {
        while !what() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting).await.expect("it takes too long");
}

/// A copy as a crash at this moment would leave it.
fn crash_image(dir: &Path) -> tempfile::TempDir {
    let copy = scratch();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
    }
    copy
}

/// Why a producer stops whose id was opened again: at once, or when it has something to send.
async fn fenced(producer: &Producer) -> Arc<Fault> {
    match producer.append(&usage("client_a", 0), None) {
        Err(AppendError::Stopped(fault)) => fault,
        outcome => {
            outcome.unwrap();
            let Err(WaitError::Stopped(fault)) = producer.await_settled().await else { panic!("goes on") };
            fault
        }
    }
}
