//! `cargo xtask bench check`: may a client id use a meter now, asked as a gateway asks it.
//!
//! Entitlement answers from memory, beside two peers that differ from it in nothing but what is behind the handler: the
//! same server with its layers, by mTLS, with an API key, with the same messages. One answers what it was given (the
//! empty method: what a call costs whatever it does), the other asks Redis once for each question. They take turns, each
//! in a process of its own on the same two cores. Every answer is looked at: a figure is printed where all were right.
//!
//! Then what the directory costs in memory and at a start, how long a batch of resolution takes, and how soon a change
//! is known where it was not made.
#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

mod changes;
mod directory;
mod load;
mod money;
mod peer;
mod speeds;
mod world;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use drawdown_client::{Channel, KeyText, clients::entitlement};
use drawdown_proto::{
    entitlement::v1::{
        self as ent, AccessQuestion, BatchCheckAccessRequest, BatchResolveRequest, CheckAccessRequest,
        CheckAccessResponse, ClientInstant, CreateKeyRequest, CreatePrincipalRequest, WatchAccessRequest,
    },
    scalar::timestamp_to_proto,
};
use drawdown_types::{Clock as _, SystemClock};
use prost::Message as _;

use self::{
    changes::Known,
    directory::{Client, Directory},
    load::{Asked, Side},
    money::METER,
    world::{METERING, OPERATOR, Part, World},
};
use crate::{
    figures::{Figures, cpu_probe_ms},
    ledger::bench::median,
    process::Program,
};

pub use peer::serve as serve_peer;

/// How big a run is.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Load of each side of each form, in turns.
    pub length: Duration,
    /// Client ids.
    pub credentials: usize,
    /// Changes that are waited for.
    pub changes: usize,
}

/// Client ids of a run that counts; what a smaller one finds has other names.
pub const FULL: usize = 1_000_000;
/// Client ids that are asked about under load: those that Redis has answers to.
const ASKED_MAX: usize = 100_000;
/// Questions of a batch, and of a watcher.
const BATCH: usize = 10_000;
/// Questions of one `BatchCheckAccess`.
const MESSAGE: usize = 1_000;
const BATCH_ROUNDS: usize = 15;
const STARTS: usize = 3;
const START_LIMIT: Duration = Duration::from_secs(180);
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Calls before memory is looked at, so that what any call makes resident is there in both cases.
const CALLS_BEFORE: usize = 2_000;

/// Runs the bench.
///
/// # Errors
/// Where something does not start, an answer is wrong, or a change is not heard of.
pub async fn run(size: Size) -> Result<Figures> {
    let mut world = World::start().await?;
    println!("servers of checks: {}", world.settings());
    let mut figures = Figures::new("check", world.dir())?;
    world.run(Part::Ledger).await?;
    world.run(Part::Entitlement).await?;
    let key = make_key(&world.channel(Part::Entitlement, OPERATOR)?).await?;
    let empty = resident(&world, &key, "client_unknown").await?;
    world.stop(Part::Entitlement).await?;

    let directory = Directory::of(size.credentials)?;
    let wrote = directory.write(world.sandbox().postgres_url()).await?;
    world.run(Part::Entitlement).await?;
    let ledger = world.channel(Part::Ledger, OPERATOR)?;
    money::enter_catalog(&ledger, &directory).await?;
    let bought = money::buy_lots(&ledger, &directory).await?;
    let teams = directory.teams.len();
    println!(
        "{} credentials written in {wrote:.0} s, {teams} lots bought in {bought:.0} s",
        size.credentials
    );
    starts(&mut world, &key, &directory, empty, &mut figures).await?;

    let asked = asked(&directory);
    answers_into_redis(&world, &key, &asked).await?;
    world.run(Part::Null).await?;
    world.run(Part::Redis).await?;
    compare(&world, &key, &asked, size.length, &mut figures).await?;
    let channel = world.keyed(Part::Entitlement, &key)?;
    batches(&channel, &directory, &asked, &mut figures).await?;

    world.run(Part::OtherEntitlement).await?;
    invalidate(&world, &key, &directory, size.changes, &mut figures).await?;
    figures.add("cpu_probe_ms", cpu_probe_ms());
    world.stop_all().await?;
    Ok(figures)
}

/// `1.23 0.98 0.76` and more: whoever else worked meanwhile.
fn load_average() -> String {
    std::fs::read_to_string("/proc/loadavg").unwrap_or_default().trim().to_owned()
}

/// The key of a gateway.
async fn make_key(channel: &Channel) -> Result<KeyText> {
    let mut principals = entitlement::principals(channel);
    let request = CreatePrincipalRequest {
        name: "gateway".to_owned(),
        roles: vec![ent::PrincipalRole::Gateway.into()],
        ..CreatePrincipalRequest::default()
    };
    let made = principals.create_principal(request).await.context("a principal")?.into_inner();
    let principal_id = made.principal.context("no principal")?.principal_id;
    let request = CreateKeyRequest { principal_id, ..CreateKeyRequest::default() };
    let made = principals.create_key(request).await.context("a key")?.into_inner();
    Ok(KeyText::new(&made.text)?)
}

fn question(client_id: &str) -> AccessQuestion {
    AccessQuestion { client_id: client_id.to_owned(), meter: METER.to_owned(), quantity: 1 }
}

async fn ask(channel: &Channel, client_id: &str) -> Result<CheckAccessResponse> {
    let request = CheckAccessRequest { question: Some(question(client_id)), with_billed_to: false };
    Ok(entitlement::access(channel).check_access(request).await?.into_inner())
}

/// What entitlement occupies after some calls, in bytes.
async fn resident(world: &World, key: &KeyText, client_id: &str) -> Result<u64> {
    let channel = world.keyed(Part::Entitlement, key)?;
    for _ in 0..CALLS_BEFORE {
        ask(&channel, client_id).await?;
    }
    Program::resident_bytes(world.pid(Part::Entitlement)?)
}

/// What entitlement costs with the directory: its memory, and the time from its start to the first answer that allows.
async fn starts(
    world: &mut World,
    key: &KeyText,
    directory: &Directory,
    empty: u64,
    figures: &mut Figures,
) -> Result<()> {
    let client = directory.clients.last().context("no client ids")?;
    let (client_id, balance) = (client.client_id(), directory.balance(client.team));
    let mut took = Vec::new();
    for _ in 0..STARTS {
        world.stop(Part::Entitlement).await?;
        let began = Instant::now();
        world.spawn(Part::Entitlement)?;
        until_right(world, Part::Entitlement, key, (&client_id, balance)).await?;
        took.push(began.elapsed().as_secs_f64());
    }
    println!("starts in s: {took:.2?} (load average {})", load_average());
    let pid = world.pid(Part::Entitlement)?;
    let (full, peak) = (resident(world, key, &client_id).await?, Program::peak_bytes(pid)?);
    let each = |bytes: u64| count(bytes.saturating_sub(empty)) / count(directory.clients.len());
    let names = match directory.clients.len() {
        FULL => ["cold_start_s", "bytes_per_credential", "peak_bytes_per_credential"],
        _ => ["cold_start_small_s", "bytes_per_credential_small", "peak_bytes_per_credential_small"],
    };
    for (name, figure) in names.into_iter().zip([median(took), each(full), each(peak)]) {
        figures.add(name, figure);
    }
    figures.add("resident_empty_mb", count(empty) / 1e6);
    figures.add("resident_mb", count(full) / 1e6);
    Ok(())
}

/// Waits for the first answer that allows and tells the right balance: a process serves before the ledger told it all.
async fn until_right(
    world: &World,
    part: Part,
    key: &KeyText,
    (client_id, balance): (&str, i64),
) -> Result<()> {
    let (channel, began) = (world.keyed(part, key)?, Instant::now());
    loop {
        let answer = ask(&channel, client_id).await;
        let right = answer.and_then(|answer| load::check(answer.answer.as_ref(), balance));
        let Err(error) = right else { return Ok(()) };
        ensure!(began.elapsed() < START_LIMIT, "{error:#}; {}", world.log_tail(part));
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

#[expect(clippy::cast_precision_loss, reason = "figures are read by people")]
fn count(count: impl TryInto<u64>) -> f64 {
    count.try_into().unwrap_or(u64::MAX) as f64
}

/// Client ids from all over the directory.
fn asked(directory: &Directory) -> Arc<[Asked]> {
    let step = directory.clients.len().div_ceil(ASKED_MAX);
    let of = |client: &Client| Asked {
        client_id: client.client_id().into(),
        balance: directory.balance(client.team),
    };
    directory.clients.iter().step_by(step).map(of).collect()
}

/// Puts what entitlement answers where the peers find it, so that all three give the same bytes.
async fn answers_into_redis(world: &World, key: &KeyText, asked: &[Asked]) -> Result<()> {
    let channel = world.keyed(Part::Entitlement, key)?;
    let mut client = entitlement::access(&channel);
    let redis = redis::Client::open(world.sandbox().redis_url())?;
    let mut redis = redis.get_multiplexed_async_connection().await?;
    let mut sizes = Vec::new();
    for part in asked.chunks(MESSAGE) {
        let questions = part.iter().map(|asked| question(&asked.client_id)).collect();
        let request = BatchCheckAccessRequest { questions, with_billed_to: false };
        let answers = client.batch_check_access(request).await?.into_inner().answers;
        ensure!(answers.len() == part.len(), "{} answers to {} questions", answers.len(), part.len());
        let mut pipe = redis::pipe();
        for (asked, answer) in part.iter().zip(answers) {
            load::check(Some(&answer), asked.balance)?;
            let bytes = CheckAccessResponse { answer: Some(answer) }.encode_to_vec();
            if sizes.is_empty() {
                std::fs::write(world.answer_file(), &bytes)?;
            }
            sizes.push(bytes.len());
            pipe.set(peer::redis_key(&asked.client_id, METER), bytes).ignore();
        }
        pipe.query_async::<()>(&mut redis).await?;
    }
    let (least, most) =
        (sizes.iter().min().context("no answers")?, sizes.iter().max().context("no answers")?);
    println!("{} answers of {least} to {most} bytes, all as expected", sizes.len());
    Ok(())
}

async fn compare(
    world: &World,
    key: &KeyText,
    asked: &Arc<[Asked]>,
    length: Duration,
    figures: &mut Figures,
) -> Result<()> {
    let first = asked.first().context("no client ids")?.balance;
    let side = |part: Part, name, always| {
        Ok::<_, anyhow::Error>(Side { name, channel: world.keyed(part, key)?, pid: world.pid(part)?, always })
    };
    let sides = [
        side(Part::Null, "null", Some(first))?,
        side(Part::Entitlement, "check", None)?,
        side(Part::Redis, "redis", None)?,
    ];
    println!("load average before the load: {}", load_average());
    let forms = load::compare(&sides, (asked, METER), length).await?;
    println!("load average after the load: {}", load_average());
    speeds::add(&sides, &forms, figures);
    Ok(())
}

/// Batches of resolution, and a watcher with as many questions until it has all answers.
async fn batches(
    channel: &Channel,
    directory: &Directory,
    asked: &[Asked],
    figures: &mut Figures,
) -> Result<()> {
    let part: Vec<&Client> = directory.clients.iter().rev().take(BATCH).collect();
    let (mut took, mut watched) = (Vec::new(), Vec::new());
    for _ in 0..BATCH_ROUNDS {
        let at = Some(timestamp_to_proto(SystemClock.now()));
        let query = |client: &&Client| ClientInstant { client_id: client.client_id(), at };
        let request = BatchResolveRequest { queries: part.iter().map(query).collect() };
        let mut client = entitlement::resolution(channel);
        let began = Instant::now();
        let resolutions = client.batch_resolve(request).await?.into_inner().resolutions;
        took.push(began.elapsed().as_secs_f64() * 1e3);
        ensure!(resolutions.len() == part.len(), "{} resolutions", resolutions.len());
        for (client, resolution) in part.iter().zip(resolutions) {
            let team_id = directory.teams[client.team].team_id.to_string();
            let right = matches!(&resolution.answer, Some(ent::resolution::Answer::BilledTo(billed))
                if billed.team_id == team_id && billed.app_id == client.app_id.to_string());
            ensure!(right, "{} is of {team_id}: {resolution:?}", client.client_id());
        }
        watched.push(watch(channel, asked.get(..BATCH).unwrap_or(asked)).await?);
    }
    let names = match part.len() {
        BATCH => ["batch_resolve_10k_ms", "watch_10k_ms"],
        _ => ["batch_resolve_ms", "watch_ms"],
    };
    figures.add(names[0], median(took));
    figures.add(names[1], median(watched));
    Ok(())
}

/// How long it takes until a watcher has all its answers, in ms.
async fn watch(channel: &Channel, asked: &[Asked]) -> Result<f64> {
    let questions = asked.iter().map(|asked| question(&asked.client_id)).collect();
    let request = WatchAccessRequest { questions, ..WatchAccessRequest::default() };
    let began = Instant::now();
    let mut messages = entitlement::access_streams(channel).watch_access(request).await?.into_inner();
    let mut answered = 0;
    loop {
        let message = messages.message().await?.context("the watch ended")?;
        let complete = message.complete;
        let took = began.elapsed().as_secs_f64() * 1e3;
        for answer in message.answers {
            let asked = asked.get(usize::try_from(answer.index)?).context("an answer to nothing")?;
            load::check(answer.answer.as_ref(), asked.balance)?;
            answered += 1;
        }
        if complete {
            ensure!(answered == asked.len(), "{answered} answers to {} questions", asked.len());
            return Ok(took);
        }
    }
}

async fn invalidate(
    world: &World,
    key: &KeyText,
    directory: &Directory,
    count: usize,
    figures: &mut Figures,
) -> Result<()> {
    let channels = changes::Channels {
        acts: world.channel(Part::Entitlement, OPERATOR)?,
        asks: world.keyed(Part::OtherEntitlement, key)?,
        ledger: world.channel(Part::Ledger, OPERATOR)?,
        posts: world.channel(Part::Ledger, METERING)?,
    };
    // what it learns at its start is no change
    let client = directory.clients.last().context("no client ids")?;
    let right = (client.client_id(), directory.balance(client.team));
    until_right(world, Part::OtherEntitlement, key, (&right.0, right.1)).await?;
    println!("load average before the changes: {}", load_average());
    let Known { directory, ledger } = changes::run(&channels, directory, count).await?;
    let all = [directory.as_slice(), &ledger].concat();
    for (name, times) in [("", all), ("directory_", directory), ("ledger_", ledger)] {
        for (what, quantile) in [("p50", 0.5), ("p99", 0.99), ("max", 1.0)] {
            if let Some(time) = of_sorted(times.clone(), quantile) {
                figures.add(&format!("invalidation_{name}{what}_ms"), time);
            }
        }
    }
    Ok(())
}

/// The smallest that so large a part of all does not exceed; `None` of none.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rank among some hundreds"
)]
fn of_sorted(mut times: Vec<f64>, quantile: f64) -> Option<f64> {
    times.sort_unstable_by(f64::total_cmp);
    let rank = (times.len() as f64 * quantile).ceil() as usize;
    times.get(rank.saturating_sub(1)).copied()
}
