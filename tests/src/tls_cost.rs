//! `cargo xtask bench tls`: the same calls to the same null server, without TLS and by mTLS.
//!
//! Both servers run at once and take turns, so that what else the machine does falls on both. The first call of a new
//! connection has the handshake in it.
#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use drawdown_client::{Channel, ChannelOptions, TlsOptions, connect};
use drawdown_proto::metering::v1::{OpenProducerRequest, ingest_service_client::IngestServiceClient};
use drawdown_tls::issue::{Authority, Profile};
use futures::future::try_join_all;
use hdrhistogram::Histogram;
use tempfile::TempDir;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::{figures::Figures, null_server::NullServer};

/// Turns that each side takes.
const TURNS: u32 = 5;
/// Connections that are made for one handshake figure.
const HANDSHAKES: usize = 50;
/// Bytes of one message where bytes are what is measured.
const MESSAGE_BYTES: usize = 512 << 10;
const CONCURRENCY: [usize; 2] = [1, 16];

/// One of the two ways.
struct Way {
    name: &'static str,
    options: ChannelOptions,
    server: NullServer,
    calls: [(Histogram<u64>, Duration); 2],
    bytes: (u64, Duration),
    first: Histogram<u64>,
}

/// Runs for about `length` for each figure of each way.
///
/// # Errors
/// Where a server does not start or a call fails.
pub async fn run(length: Duration) -> Result<Figures> {
    let dir = TempDir::with_prefix("drawdown-tls-")?;
    let tls = certificates(dir.path())?;
    let mut ways = [
        Way::to("plain", NullServer::start().await?, TlsOptions::default())?,
        Way::to("tls", NullServer::start_secured(&tls).await?, tls)?,
    ];
    let turn = length / TURNS;
    for at in 1..=TURNS {
        println!("turn {at} of {TURNS} …");
        for way in &mut ways {
            way.take(turn).await?;
        }
    }
    let mut figures = Figures::new("tls", dir.path())?;
    let ratios = |name: &str, [plain, tls]: [f64; 2], figures: &mut Figures| {
        figures.add(&format!("plain_{name}"), plain);
        figures.add(&format!("tls_{name}"), tls);
        let short = name.rsplit_once('_').map_or(name, |(short, _)| short);
        figures.add(&format!("{short}_tls_vs_plain_ratio"), tls / plain);
    };
    for (index, concurrency) in CONCURRENCY.iter().enumerate() {
        let p50 = ways.each_ref().map(|way| micros(way.calls[index].0.value_at_quantile(0.5)));
        ratios(&format!("call_at_{concurrency}_p50_us"), p50, &mut figures);
        let rates = ways.each_ref().map(|way| per_second(way.calls[index].0.len(), way.calls[index].1));
        ratios(&format!("calls_at_{concurrency}_per_s"), rates, &mut figures);
    }
    let rates = ways.each_ref().map(|way| per_second(way.bytes.0, way.bytes.1) / 1e6);
    ratios("upload_mb_per_s", rates, &mut figures);
    let first = ways.each_ref().map(|way| micros(way.first.value_at_quantile(0.5)));
    ratios("first_call_p50_us", first, &mut figures);
    for way in ways {
        way.server.stop().await?;
    }
    Ok(figures)
}

#[expect(clippy::cast_precision_loss, reason = "figures are read by people")]
fn per_second(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

#[expect(clippy::cast_precision_loss, reason = "figures are read by people")]
fn micros(nanos: u64) -> f64 {
    nanos as f64 / 1e3
}

fn certificates(dir: &Path) -> Result<TlsOptions> {
    let authority = Authority::new("bench")?;
    let issued = authority.issue(&Profile::service("null"))?;
    let file = |name: &str, text: &str| {
        let path = dir.join(name);
        std::fs::write(&path, text).map(|()| path)
    };
    Ok(TlsOptions {
        trust_bundle: file("bundle.pem", authority.certificate_pem())?,
        certificate: file("null.pem", &issued.certificate_pem())?,
        key: file("null.key", issued.key_pem())?,
        peer: "null".to_owned(),
    })
}

async fn call(channel: &Channel) -> Result<()> {
    let request = OpenProducerRequest::default();
    let answer = IngestServiceClient::new(channel.unary()).open_producer(request).await?;
    ensure!(answer.into_inner().epoch == 1, "another answer");
    Ok(())
}

async fn timed(channel: &Channel, times: &mut Histogram<u64>) -> Result<()> {
    let began = Instant::now();
    call(channel).await?;
    times.record(u64::try_from(began.elapsed().as_nanos())?).context("a call took too long")
}

impl Way {
    fn to(name: &'static str, server: NullServer, tls: TlsOptions) -> Result<Self> {
        let options = ChannelOptions { tls, ..ChannelOptions::to(server.endpoint()) };
        let calls = [(Histogram::new(3)?, Duration::ZERO), (Histogram::new(3)?, Duration::ZERO)];
        let (bytes, first) = ((0, Duration::ZERO), Histogram::new(3)?);
        Ok(Self { name, options, server, calls, bytes, first })
    }

    async fn take(&mut self, turn: Duration) -> Result<()> {
        let channel = connect(&self.options)?;
        call(&channel).await.context(self.name)?;
        for ((times, spent), concurrency) in self.calls.iter_mut().zip(CONCURRENCY) {
            let began = Instant::now();
            let callers = (0..concurrency).map(|_| async {
                let mut times = Histogram::new(3)?;
                while began.elapsed() < turn {
                    timed(&channel, &mut times).await?;
                }
                anyhow::Ok(times)
            });
            for of_caller in try_join_all(callers).await? {
                times.add(of_caller)?;
            }
            *spent += began.elapsed();
        }
        let mut health = HealthClient::new(channel.unary());
        let request = HealthCheckRequest { service: "x".repeat(MESSAGE_BYTES) };
        let began = Instant::now();
        while began.elapsed() < turn {
            // such a service is unknown: the answer is short
            drop(health.check(request.clone()).await);
            self.bytes.0 += u64::try_from(MESSAGE_BYTES)?;
        }
        self.bytes.1 += began.elapsed();
        for _ in 0..HANDSHAKES {
            timed(&connect(&self.options)?, &mut self.first).await?;
        }
        Ok(())
    }
}
