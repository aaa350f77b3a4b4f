//! A program without a runtime that meters its work: `cargo run --example blocking -- http://127.0.0.1:7401 prod_… client_…`.
//! It keeps its log in `drawdown-log`; a second run goes on with it.

use std::{io::Write as _, sync::Arc, time::Duration};

use drawdown_client::{
    ChannelOptions,
    producer::{Outcome, ProducerOptions, Usage, blocking::Producer},
};
use drawdown_types::{Clock, SystemClock};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [endpoint, producer_id, client_id] = arguments.as_slice() else {
        return Err("arguments: metering's endpoint, a producer id, a client id".into());
    };
    let clock = Arc::new(SystemClock);
    let options =
        ProducerOptions { producer_id: Some(producer_id.parse()?), ..ProducerOptions::at("drawdown-log") };
    let producer = Producer::open(options, &ChannelOptions::to(endpoint), clock.clone())?;
    for _ in 0..1_000 {
        let usage = Usage {
            client_id,
            meter: "web.call",
            quantity: 1,
            at: clock.now(),
            outcome: Outcome::Succeeded,
            dimensions: &[],
            hold_id: None,
        };
        // Waits where the disk is behind or the log is full; what it meters should wait as well.
        producer.append_wait(&usage, None, Duration::from_secs(10))?;
    }
    producer.await_settled(Duration::from_secs(60))?;
    let progress = producer.progress();
    let refused: u64 = progress.refused.values().sum();
    writeln!(std::io::stdout(), "{} events are settled, {refused} of them were refused", progress.settled)?;
    producer.close(Duration::from_secs(10))?;
    Ok(())
}
