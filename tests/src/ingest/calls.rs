//! Callers without a log: each waits for its answer, which comes when its events are settled, and then calls again.
//!
//! Time begins when each has had one answer: until then connections are made, and the database plans statements.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use drawdown_client::{
    channel::{ChannelOptions, Transport, connect},
    clients::metering,
};
use drawdown_proto::{
    metering::v1::{
        RecordOutcome, RecordUsageRequest, Series, UsageEvent, record_service_client::RecordServiceClient,
    },
    scalar::timestamp_to_proto,
};
use drawdown_types::{Clock as _, SystemClock};
use tokio::sync::Barrier;

use crate::load::{Bits, LoadSeries, QUANTITY_END, Zipf};

/// What is called.
#[derive(Debug, Clone, Copy)]
pub struct Calls<'a> {
    /// `http://…` of metering.
    pub endpoint: &'a str,
    /// What ids begin with: other ones for each run.
    pub name: &'a str,
    /// Callers at once, each with a connection of its own.
    pub callers: usize,
    /// Events of a call.
    pub events: usize,
}

/// What a run came to.
#[derive(Debug, Clone)]
pub struct CallsRun {
    /// Calls answered in `took`.
    pub calls: u64,
    /// All events, settled; those of each caller's first call too.
    pub events: u64,
    /// From when each caller had its first answer to the last one.
    pub took: Duration,
    /// How long each of those calls took, sorted.
    waits: Vec<Duration>,
}

impl CallsRun {
    /// What this part of the calls did not take longer than, in ms.
    #[must_use]
    pub fn quantile_ms(&self, quantile: f64) -> f64 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a place in a list of calls"
        )]
        let place = (quantile * self.waits.len() as f64) as usize;
        let wait = self.waits.get(place).or_else(|| self.waits.last()).copied().unwrap_or_default();
        wait.as_secs_f64() * 1000.0
    }
}

/// One caller, with what it has sent, by the index of the series.
struct Caller {
    source: String,
    sent: Vec<(usize, u64)>,
    waits: Vec<Duration>,
}

/// Calls for `length`, and counts what was answered beside its series.
///
/// # Errors
/// Where a call is refused, or an event is not recorded as new.
pub async fn run(calls: Calls<'_>, series: &mut [LoadSeries], length: Duration) -> Result<CallsRun> {
    let zipf = Arc::new(Zipf::new(series.len()));
    let shared: Arc<[LoadSeries]> = Arc::from(&*series);
    let ready = Arc::new(Barrier::new(calls.callers + 1));
    let started: Vec<_> = (0..calls.callers)
        .map(|number| {
            let caller =
                Caller { source: format!("{}-{number}", calls.name), sent: Vec::new(), waits: Vec::new() };
            let bits = Bits(u64::try_from(number).unwrap_or_default());
            let (zipf, shared) = (Arc::clone(&zipf), Arc::clone(&shared));
            let (endpoint, events) = (calls.endpoint.to_owned(), calls.events);
            let drawn = Drawn { zipf, bits, series: shared, events };
            tokio::spawn(caller.run(endpoint, drawn, Arc::clone(&ready), length))
        })
        .collect();
    ready.wait().await;
    let start = Instant::now();
    let mut run = CallsRun { calls: 0, events: 0, took: Duration::ZERO, waits: Vec::new() };
    for caller in started {
        let caller = caller.await??;
        run.waits.extend(caller.waits);
        for (index, quantity) in caller.sent {
            let series = series.get_mut(index).context("a series that there is not")?;
            series.events += 1;
            series.quantity += quantity;
            run.events += 1;
        }
    }
    run.took = start.elapsed();
    run.calls = u64::try_from(run.waits.len())?;
    run.waits.sort_unstable();
    Ok(run)
}

/// Events of calls.
struct Drawn {
    zipf: Arc<Zipf>,
    bits: Bits,
    series: Arc<[LoadSeries]>,
    events: usize,
}

impl Caller {
    async fn run(
        mut self,
        endpoint: String,
        mut drawn: Drawn,
        ready: Arc<Barrier>,
        length: Duration,
    ) -> Result<Self> {
        let mut client = metering::record(&connect(&ChannelOptions::to(endpoint))?);
        let first = self.call(&mut client, &mut drawn).await;
        // Also where it failed, or the others would wait for ever.
        ready.wait().await;
        first?;
        let until = Instant::now() + length;
        while Instant::now() < until {
            let asked = Instant::now();
            self.call(&mut client, &mut drawn).await?;
            self.waits.push(asked.elapsed());
        }
        Ok(self)
    }

    async fn call(&mut self, client: &mut RecordServiceClient<Transport>, from: &mut Drawn) -> Result<()> {
        let Drawn { zipf, bits, series, events } = from;
        let time = Some(timestamp_to_proto(SystemClock.now()));
        let drawn: Vec<(usize, u64)> =
            (0..*events).map(|_| (zipf.draw(bits.draw()), bits.draw() & (QUANTITY_END - 1))).collect();
        let sent = self.sent.len();
        let event = |(place, (index, quantity)): (usize, &(usize, u64))| UsageEvent {
            source: self.source.clone(),
            id: (sent + place).to_string(),
            series: series.get(*index).map(|series| Series {
                client_id: series.client_id.to_string(),
                meter: series.meter.to_string(),
                ..Series::default()
            }),
            quantity: *quantity,
            time,
        };
        let request = RecordUsageRequest { events: drawn.iter().enumerate().map(event).collect() };
        let answers = client.record_usage(request).await?.into_inner().answers;
        ensure!(answers.len() == *events, "{} answers to {events} events", answers.len());
        for answer in &answers {
            let new = answer.outcome() == RecordOutcome::Recorded && !answer.already_recorded;
            ensure!(new && !answer.charge_id.is_empty(), "{answer:?}");
        }
        self.sent.extend(drawn);
        Ok(())
    }
}
