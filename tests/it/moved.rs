//! An app moves to another team while its usage is on its way.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use drawdown_client::{
    channel::{ChannelOptions, connect},
    clients::entitlement,
    producer::{Outcome, Producer, ProducerOptions, Usage},
};
use drawdown_proto::{entitlement::v1 as ent, scalar::timestamp_to_proto};
use drawdown_tests::{
    installation::{Installation, Service, Settings},
    load::LoadSeries,
    load_platform::{self, LoadSize},
    report::charges,
};
use drawdown_types::{Clock as _, SystemClock, Timestamp, WindowSize};

const SIZE: LoadSize = LoadSize { teams: 2, apps: 1, meters: 1 };
/// Ahead of now, and less than clocks may differ (`metering.events.clock_skew_max_ms`).
const AHEAD: Duration = Duration::from_secs(120);
const LIMIT: Duration = Duration::from_secs(60);

fn after(at: Timestamp, by: Duration) -> Result<Timestamp> {
    at.checked_add(by).context("the end of time")
}

/// Events and quantity of a team.
async fn charged(installation: &Installation, team: &str) -> Result<(i64, i64)> {
    let charges = charges(installation.channels(), team).await?;
    Ok(charges.iter().fold((0, 0), |sum, charge| (sum.0 + charge.events, sum.1 + charge.quantity)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_window_is_paid_by_the_team_that_has_the_app_then() -> Result<()> {
    let mut installation = Installation::start(&Settings::default()).await?;
    let platform = load_platform::set_up(installation.channels(), SIZE).await?;
    let [LoadSeries { client_id, meter, .. }] = &platform.series[..] else { anyhow::bail!("one series") };
    let options = ProducerOptions {
        producer_id: Some(platform.producer.parse()?),
        ..ProducerOptions::at(installation.dir().join("log"))
    };
    let metering = connect(&ChannelOptions::to(installation.endpoints().metering.clone()))?;
    let producer = Producer::open(options, metering, Arc::new(SystemClock)).await?;

    // What is used before and after the edge is in the log, and nobody has asked yet whose it is.
    installation.kill_service(Service::Metering)?;
    let now = SystemClock.now();
    let edge = WindowSize::MINUTE.floor(after(now, AHEAD)?);
    let (before, later) = (now, after(edge, Duration::from_secs(1))?);
    for (at, events, quantity) in [(before, 5_u32, 10), (later, 3, 1_000)] {
        for _ in 0..events {
            let outcome = Outcome::Succeeded;
            producer.append(
                &Usage { client_id, meter, quantity, at, outcome, dimensions: &[], hold_id: None },
                None,
            )?;
        }
    }
    producer.flush().await?;
    let mut hierarchy = entitlement::hierarchy(&installation.channels().entitlement);
    let apps = hierarchy.list_apps(ent::ListAppsRequest::default()).await?.into_inner().apps;
    let assignment = ent::AssignAppRequest {
        app_id: apps.first().context("no app")?.app_id.clone(),
        team_id: platform.teams[1].clone(),
        from: Some(timestamp_to_proto(edge)),
        request_id: "moves".to_owned(),
    };
    hierarchy.assign_app(assignment).await?;
    installation.start_service(Service::Metering).await?;
    let settled = tokio::time::timeout(LIMIT, producer.await_settled()).await;
    settled.with_context(|| installation.logs())??;

    let found = [
        charged(&installation, &platform.teams[0]).await?,
        charged(&installation, &platform.teams[1]).await?,
    ];
    ensure!(found == [(5, 50), (3, 3_000)], "{found:?}");
    producer.close().await?;
    installation.stop().await
}
