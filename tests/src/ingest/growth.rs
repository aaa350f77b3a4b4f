//! `cargo xtask bench ingest-growth`: more series, more producers, more instances.
//!
//! Each step is a run of its own on one installation with two instances of metering, with new producers; the ledger's sums
//! are compared once, at the end. Producers look the series of each event up by its texts; the steps that are compared run
//! by handles too. A million series are a thousand apps on ten meters with a hundred values of a
//! dimension.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use futures::future::try_join_all;

use super::{baseline, close, new_producer, open, per_second, servers};
use crate::{
    figures::Figures,
    installation::{Installation, Service, Settings},
    load::{self, By, LoadSeries},
    load_platform::{LoadSize, set_up},
};

/// Series of the steps whose number of series grows.
const SERIES: [usize; 4] = [100, 10_000, 100_000, 1_000_000];
/// Producers of the steps whose number of producers grows, over 10,000 series.
const PRODUCERS: [usize; 4] = [1, 4, 16, 64];
const METERS: usize = 10;

struct Growth {
    installation: Installation,
    base: Vec<LoadSeries>,
    length: Duration,
    producers: usize,
    events: u64,
    quantity: u64,
}

/// Runs all steps, each with load for `length`; `largest` is the largest number of series and `most` of producers.
///
/// # Errors
/// Where something is refused, or the ledger's sums are not those of the generators.
pub async fn run(length: Duration, largest: usize, most: usize) -> Result<Figures> {
    let services = vec![Service::Ledger, Service::Entitlement, Service::Metering, Service::OtherMetering];
    let settings = Settings { services, two_meterings: true, ..Settings::default() };
    let installation = Installation::start(&settings).await?;
    let mut figures = Figures::new("ingest-growth", installation.dir())?;
    let (redis, postgres) = servers(&installation);
    println!("{}", baseline::durability(&redis, &postgres).await?);
    let platform =
        set_up(installation.channels(), LoadSize { teams: 10, apps: 1000, meters: METERS }).await?;
    let base = platform.series;
    let mut growth = Growth { installation, base, length, producers: 0, events: 0, quantity: 0 };
    let steps = growth.steps(&mut figures, largest, most).await;
    steps.with_context(|| growth.installation.logs())?;
    growth.check().await?;
    growth.installation.stop().await?;
    for (name, over, under) in [
        ("growth_1e5_vs_1e4_series_ratio", "applied_100000_series", "applied_10000_series"),
        ("growth_1e6_vs_1e4_series_ratio", "applied_1000000_series", "applied_10000_series"),
        (
            "growth_1e5_vs_1e4_series_by_handle_ratio",
            "applied_100000_series_by_handle",
            "applied_10000_series_by_handle",
        ),
        ("growth_64_vs_4_producers_ratio", "applied_64_producers", "applied_4_producers"),
        (
            "growth_64_vs_4_producers_by_handle_ratio",
            "applied_64_producers_by_handle",
            "applied_4_producers_by_handle",
        ),
        ("growth_two_vs_one_instance_ratio", "applied_two_instances", "applied_4_producers"),
    ] {
        let found = |name: &str| figures.figures.get(&format!("{name}_events_per_s")).copied();
        if let Some((over, under)) = found(over).zip(found(under)) {
            figures.add(name, over / under);
        }
    }
    Ok(figures)
}

impl Growth {
    async fn steps(&mut self, figures: &mut Figures, largest: usize, most: usize) -> Result<()> {
        for count in SERIES.into_iter().filter(|count| *count <= largest) {
            let (applied, settled_after) = self.step(By::Names, count, 1, 1).await?;
            println!("{count} series: {applied} events/s, all settled after {settled_after:?}");
            figures.add(&format!("applied_{count}_series_events_per_s"), applied);
            figures.add(&format!("settled_after_{count}_series_s"), settled_after.as_secs_f64());
            if [10_000, 100_000].contains(&count) {
                let (applied, _) = self.step(By::Handles, count, 1, 1).await?;
                println!("{count} series by handles: {applied} events/s");
                figures.add(&format!("applied_{count}_series_by_handle_events_per_s"), applied);
            }
        }
        for count in PRODUCERS.into_iter().filter(|count| *count <= most) {
            let (applied, settled_after) = self.step(By::Names, 10_000, count, 1).await?;
            println!("{count} producers: {applied} events/s, all settled after {settled_after:?}");
            figures.add(&format!("applied_{count}_producers_events_per_s"), applied);
            if [4, 64].contains(&count) {
                let (applied, _) = self.step(By::Handles, 10_000, count, 1).await?;
                println!("{count} producers by handles: {applied} events/s");
                figures.add(&format!("applied_{count}_producers_by_handle_events_per_s"), applied);
            }
        }
        let (applied, settled_after) = self.step(By::Names, 10_000, 4.min(most), 2).await?;
        println!("two instances: {applied} events/s, all settled after {settled_after:?}");
        figures.add("applied_two_instances_events_per_s", applied);
        Ok(())
    }

    /// So many series: of the thousand apps on ten meters as many as are asked for, beyond that each with values of a
    /// dimension.
    fn series(&self, count: usize) -> Vec<LoadSeries> {
        let values = count.div_ceil(self.base.len());
        let of = |series: &LoadSeries, value: Option<Arc<str>>| LoadSeries {
            dimension: value,
            events: 0,
            quantity: 0,
            ..series.clone()
        };
        let all = (0..values).flat_map(|value| {
            let value: Option<Arc<str>> = (values > 1).then(|| format!("part-{value}").into());
            self.base.iter().map(move |series| of(series, value.clone()))
        });
        all.take(count).collect()
    }

    /// Load of `producers` at once, spread over `instances`; gives events a second and when all was settled.
    async fn step(
        &mut self,
        by: By,
        series: usize,
        producers: usize,
        instances: usize,
    ) -> Result<(f64, Duration)> {
        let endpoints = self.installation.endpoints();
        let other = endpoints.other_metering.clone().context("there is one metering")?;
        let endpoints = [endpoints.metering.clone(), other];
        let mut open_producers = Vec::new();
        for number in 0..producers {
            self.producers += 1;
            let name = format!("growth-{}", self.producers);
            let id = new_producer(self.installation.channels(), &name).await?;
            let dir = self.installation.dir().join(name);
            open_producers.push(open(&dir, &endpoints[number % instances], &id, None).await?);
        }
        let length = self.length;
        let runs = open_producers.into_iter().map(|producer| {
            let mut series = self.series(series);
            async move {
                let run = load::run_by(by, &producer, &mut series, length).await?;
                close(producer).await?;
                let quantity: u64 = series.iter().map(|series| series.quantity).sum();
                Ok::<_, anyhow::Error>((run.events, quantity, run.applied_after, run.settled_after))
            }
        });
        let runs = try_join_all(runs).await?;
        let events = runs.iter().map(|run| run.0).sum();
        self.events += events;
        self.quantity += runs.iter().map(|run| run.1).sum::<u64>();
        let applied_after = runs.iter().map(|run| run.2).max().unwrap_or_default();
        let settled_after = runs.iter().map(|run| run.3).max().unwrap_or_default();
        Ok((per_second(events, applied_after), settled_after))
    }

    async fn check(&self) -> Result<()> {
        let pool = sqlx::PgPool::connect(self.installation.sandbox().postgres_url()).await?;
        let (events, quantity): (i64, i64) =
            sqlx::query_as("select sum(events)::bigint, sum(quantity)::bigint from ledger.charge")
                .fetch_one(&pool)
                .await?;
        let appended = (i64::try_from(self.events)?, i64::try_from(self.quantity)?);
        ensure!((events, quantity) == appended, "charged {:?}, appended {appended:?}", (events, quantity));
        println!("the ledger has charged all {events} events, {quantity} units");
        Ok(())
    }
}
