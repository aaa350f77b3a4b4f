//! What people write first, on the same servers with the same safety: an increment in Redis for each event, and a row
//! in Postgres for each event.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use crate::load::{Bits, LoadSeries, QUANTITY_END, Zipf};

/// Increments of one round trip to Redis.
const PIPELINE: usize = 1000;
/// Pipelines under way at once.
const PIPELINES: usize = 2;
/// Sessions that insert at once.
const CLIENTS: u32 = 64;

/// The settings that decide what an acknowledged write is worth, as the servers say them.
///
/// # Errors
/// Where one of them is not safe: no figure of such a server means anything.
pub async fn durability(redis: &str, postgres: &str) -> Result<String> {
    let mut connection = redis::Client::open(redis)?.get_multiplexed_async_connection().await?;
    let mut told = Vec::new();
    for (name, safe) in [("appendonly", "yes"), ("appendfsync", "always"), ("maxmemory-policy", "noeviction")]
    {
        let (_, value): (String, String) =
            redis::cmd("CONFIG").arg("GET").arg(name).query_async(&mut connection).await?;
        ensure!(value == safe, "Redis has {name} = {value}");
        told.push(format!("{name} {value}"));
    }
    let pool = PgPoolOptions::new().max_connections(1).connect(postgres).await?;
    for name in ["fsync", "synchronous_commit", "full_page_writes"] {
        let value: String =
            sqlx::query_scalar("select current_setting($1)").bind(name).fetch_one(&pool).await?;
        ensure!(value == "on", "Postgres has {name} = {value}");
        told.push(format!("{name} {value}"));
    }
    Ok(told.join(", "))
}

/// Seconds of a processor that Redis has used so far.
///
/// # Errors
/// Where it does not say.
pub async fn redis_cpu_s(redis: &str) -> Result<f64> {
    let mut connection = redis::Client::open(redis)?.get_multiplexed_async_connection().await?;
    let told: String = redis::cmd("INFO").arg("cpu").query_async(&mut connection).await?;
    let of = |name: &str| {
        let line = told.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.with_context(|| format!("no {name}"))?.trim().parse::<f64>().context("no number")
    };
    Ok(of("used_cpu_sys")? + of("used_cpu_user")?)
}

fn per_second(events: u64, took: Duration) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a figure needs no more than 52 bits")]
    let events = events as f64;
    events / took.as_secs_f64()
}

/// One HINCRBY for each event, a thousand in a pipeline; gives events a second, after a look that none is missing.
///
/// # Errors
/// Where Redis refuses, or has counted something else.
pub async fn hincrby(redis: &str, series: &[LoadSeries], length: Duration) -> Result<f64> {
    let client = redis::Client::open(redis)?;
    let fields: Vec<String> =
        series.iter().map(|series| format!("{}:{}", series.client_id, series.meter)).collect();
    let start = Instant::now();
    let pipelines = (0..PIPELINES).map(|number| {
        let (client, fields) = (client.clone(), fields.clone());
        tokio::spawn(async move {
            let mut connection = client.get_multiplexed_async_connection().await?;
            let (zipf, mut bits) = (Zipf::new(fields.len()), Bits(number as u64));
            let (mut events, mut units) = (0_u64, 0_u64);
            while start.elapsed() < length {
                let mut pipeline = redis::pipe();
                for _ in 0..PIPELINE {
                    let quantity = bits.draw() & (QUANTITY_END - 1);
                    let field = &fields[zipf.draw(bits.draw())];
                    pipeline.cmd("HINCRBY").arg("bench:usage").arg(field).arg(quantity).ignore();
                    units += quantity;
                }
                pipeline.query_async::<()>(&mut connection).await?;
                events += PIPELINE as u64;
            }
            Ok::<_, anyhow::Error>((events, units))
        })
    });
    let (mut events, mut units) = (0, 0);
    for pipeline in pipelines.collect::<Vec<_>>() {
        let (counted, added) = pipeline.await??;
        (events, units) = (events + counted, units + added);
    }
    let took = start.elapsed();
    let mut connection = client.get_multiplexed_async_connection().await?;
    let counted: Vec<u64> = redis::cmd("HVALS").arg("bench:usage").query_async(&mut connection).await?;
    ensure!(counted.iter().sum::<u64>() == units, "Redis has counted something else");
    redis::cmd("UNLINK").arg("bench:usage").query_async::<()>(&mut connection).await?;
    Ok(per_second(events, took))
}

/// One INSERT and transaction for each event; gives events a second, after a look that none is missing.
///
/// # Errors
/// Where Postgres refuses, or has another number of rows.
pub async fn insert(postgres: &str, series: &[LoadSeries], length: Duration) -> Result<f64> {
    let options: PgConnectOptions = postgres.parse()?;
    let pool = PgPoolOptions::new().max_connections(CLIENTS).connect_with(options).await?;
    sqlx::raw_sql(
        "create schema bench;
         create table bench.usage (
             id uuid primary key default gen_random_uuid(), client_id text not null, meter text not null,
             quantity bigint not null, at timestamptz not null default now());",
    )
    .execute(&pool)
    .await?;
    let names: Vec<(Arc<str>, Arc<str>)> =
        series.iter().map(|series| (series.client_id.clone(), series.meter.clone())).collect();
    let names = Arc::new(names);
    let start = Instant::now();
    let clients = (0..CLIENTS).map(|number| {
        let (pool, names) = (pool.clone(), Arc::clone(&names));
        tokio::spawn(async move {
            let mut connection = pool.acquire().await?;
            let (zipf, mut bits, mut events) = (Zipf::new(names.len()), Bits(u64::from(number)), 0_u64);
            while start.elapsed() < length {
                let (client_id, meter) = &names[zipf.draw(bits.draw())];
                sqlx::query("insert into bench.usage (client_id, meter, quantity) values ($1, $2, $3)")
                    .bind(&**client_id)
                    .bind(&**meter)
                    .bind(i64::try_from(bits.draw() & (QUANTITY_END - 1))?)
                    .execute(&mut *connection)
                    .await?;
                events += 1;
            }
            Ok::<_, anyhow::Error>(events)
        })
    });
    let mut events = 0;
    for client in clients.collect::<Vec<_>>() {
        events += client.await??;
    }
    let took = start.elapsed();
    let rows: i64 = sqlx::query_scalar("select count(*) from bench.usage").fetch_one(&pool).await?;
    ensure!(u64::try_from(rows)? == events, "{rows} rows, {events} inserts");
    sqlx::raw_sql("drop schema bench cascade").execute(&pool).await?;
    pool.close().await;
    Ok(per_second(events, took))
}
