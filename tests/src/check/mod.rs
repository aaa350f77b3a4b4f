//! `cargo xtask bench check`: may this be used now?
//!
//! Entitlement and the ledger run as real processes on private servers, with a million credentials. `CheckAccess` is asked
//! beside a method that does nothing and one that asks Redis once a call, both in a third process with the same listener, layers and
//! messages. The three take turns in short rounds, so that whatever else the machine does hits all of them; a ratio is the
//! middle one of those of the rounds. Every answer is compared with what the credential is to be told: the first
//! wrong one ends the bench without a figure.
#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

pub mod ask;
pub mod data;
pub mod invalidation;
pub mod peers;

use std::{
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use drawdown_client::clients::entitlement;
use drawdown_proto::{entitlement::v1 as ent, scalar::timestamp_to_proto};
use drawdown_types::{Clock as _, SystemClock, TeamId};
use sqlx::PgPool;
use uuid::Uuid;

use self::ask::{Answers, Load, Round, Target};
use crate::{
    figures::Figures,
    installation::{Installation, Service, Settings},
    process::{Program, free_ports, wait_until},
};

/// Callers at once, as the figures name them.
const CONCURRENCY: [usize; 3] = [1, 16, 64];
/// Streams, each asking this many questions a message, beside as many callers.
const STREAMS: usize = 16;
const QUESTIONS: usize = 32;
/// How long one turn of one of them takes.
const TURN: Duration = Duration::from_millis(400);
/// Windows of one `BatchResolve`, and how often it is asked.
const WINDOWS: usize = 10_000;
const BATCHES: usize = 9;
/// Credentials of a process whose memory the others' is compared with: they come in groups of 200.
const CREDENTIALS_STEP: usize = 200;
/// How long a start may take until there is no figure.
const START_LIMIT: Duration = Duration::from_secs(120);

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Of the turns of one concurrency, all three together.
    pub length: Duration,
    /// Credentials.
    pub credentials: usize,
    /// Changes whose way into the answers is timed, each of three kinds.
    pub changes: usize,
}

struct Bench {
    installation: Installation,
    operator: PgPool,
    figures: Figures,
    size: Size,
    /// Serves what is compared with.
    peers: Program,
    null: String,
    redis: String,
}

/// Runs all of `bench check`.
///
/// # Errors
/// Where something is refused, or an answer is wrong.
pub async fn run(size: Size) -> Result<Figures> {
    let credentials = size.credentials.div_ceil(CREDENTIALS_STEP) * CREDENTIALS_STEP;
    let size = Size { credentials, ..size };
    let settings = Settings { services: vec![Service::Ledger, Service::Entitlement], ..Settings::default() };
    let installation = Installation::start(&settings).await?;
    println!("without TLS and without credentials of callers, on loopback");
    let figures = Figures::new("check", installation.dir())?;
    let operator = data::operator(installation.sandbox().postgres_url()).await?;
    let [null_port, redis_port] = free_ports::<2>()?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["check-peers", "--ports", &null_port.to_string(), &redis_port.to_string()]);
    command.args(["--redis", installation.sandbox().redis_url()]);
    let peers = Program::start("peers", command, installation.dir())?;
    let http = |port: u16| format!("http://127.0.0.1:{port}");
    let (null, redis) = (http(null_port), http(redis_port));
    let mut bench = Bench { installation, operator, figures, size, peers, null, redis };
    let measured = bench.measure().await;
    measured.with_context(|| format!("{}\n{}", bench.installation.logs(), bench.peers.log_tail()))?;
    bench.peers.kill()?;
    bench.installation.stop().await?;
    Ok(bench.figures)
}

/// Of one concurrency.
#[derive(Debug, Clone, Copy)]
struct Ratios {
    /// Calls a second, beside the null method.
    null: f64,
    /// The slowest of a hundred, beside the null method's.
    tail: f64,
    /// Calls a second, beside the one that asks Redis.
    redis: f64,
}

/// The middle one.
fn median(mut values: Vec<f64>) -> Result<f64> {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().context("no rounds")
}

// === impl Bench ===

impl Bench {
    async fn measure(&mut self) -> Result<()> {
        data::set_up_meters(self.installation.channels()).await?;
        let empty = self.resident_bytes()?;
        self.installation.kill_service(Service::Entitlement)?;
        println!("writing {} credentials …", self.size.credentials);
        data::write(&self.operator, self.size.credentials).await?;
        self.start(empty).await?;
        self.batch_resolve().await?;
        self.fill_redis().await?;
        let mut ratios = Vec::with_capacity(CONCURRENCY.len());
        for callers in CONCURRENCY {
            ratios.push(self.turns(callers).await?);
        }
        // The worst of all concurrencies is what counts.
        let worst =
            |part: fn(&Ratios) -> f64| ratios.iter().map(part).min_by(f64::total_cmp).unwrap_or_default();
        self.figures.add("check_vs_null_ratio", worst(|ratios| ratios.null));
        self.figures.add("check_p99_vs_null_ratio", -worst(|ratios| -ratios.tail));
        self.figures.add("check_vs_redis_ratio", worst(|ratios| ratios.redis));
        self.streams().await?;
        self.invalidation().await
    }

    fn resident_bytes(&mut self) -> Result<u64> {
        Program::resident_bytes(self.installation.pid(Service::Entitlement)?)
    }

    fn target(&self, callers: usize) -> Result<Arc<Target>> {
        let endpoint = &self.installation.endpoints().entitlement;
        Ok(Arc::new(Target::new(endpoint, Answers::OfCredential, callers)?))
    }

    const fn load(&self, length: Duration, seed: u64) -> Load {
        Load { credentials: self.size.credentials, length, seed }
    }

    /// From the start of the process to the first right answers.
    async fn start(&mut self, empty: u64) -> Result<()> {
        println!("starting entitlement …");
        let begin = Instant::now();
        self.installation.start_service(Service::Entitlement).await?;
        let target = self.target(1)?;
        let load = self.load(Duration::from_millis(1), 1);
        wait_until("right answers", START_LIMIT, || async {
            target.call(load, 1).await?;
            Ok(true)
        })
        .await?;
        self.figures.add("cold_start_s", begin.elapsed().as_secs_f64());
        // Every part of the memory was looked at once, in no order.
        target.call(self.load(TURN, 2), 1).await?;
        let (full, credentials) = (self.resident_bytes()?, u64::try_from(self.size.credentials)?);
        self.figures.add("credentials", self.size.credentials as f64);
        self.figures.add("bytes_per_credential", (full.saturating_sub(empty) / credentials) as f64);
        self.figures.add("entitlement_resident_mib", (full >> 20) as f64);
        Ok(())
    }

    async fn batch_resolve(&mut self) -> Result<()> {
        println!("{WINDOWS} windows in one call …");
        let credentials = self.size.credentials;
        let numbers: Vec<usize> = (0..WINDOWS).map(|place| place * 7919 % credentials).collect();
        let client_ids: Vec<String> = numbers.iter().copied().map(data::client_id).collect();
        let teams = self.teams_of(&client_ids).await?;
        let mut service = entitlement::resolution(&self.installation.channels().entitlement);
        let mut took = Vec::with_capacity(BATCHES);
        for _ in 0..BATCHES {
            let instant = Some(timestamp_to_proto(SystemClock.now()));
            let query = |client_id: &String| ent::ClientInstant { client_id: client_id.clone(), instant };
            let request = ent::BatchResolveRequest { queries: client_ids.iter().map(query).collect() };
            let asked = Instant::now();
            let answer = service.batch_resolve(request).await?.into_inner();
            took.push(asked.elapsed().as_secs_f64() * 1_000.0);
            ensure!(answer.resolutions.len() == teams.len(), "an answer for each window");
            for (resolution, team) in answer.resolutions.iter().zip(&teams) {
                let told = match &resolution.answer {
                    Some(ent::resolution::Answer::BilledTo(billed)) => Some(&billed.team_id),
                    Some(ent::resolution::Answer::Unresolved(_)) | None => None,
                };
                ensure!(told == Some(team), "{resolution:?} names another team than {team}");
            }
        }
        self.figures.add("batch_resolve_10k_ms", median(took)?);
        Ok(())
    }

    /// Whose each client id is, by the database.
    async fn teams_of(&self, client_ids: &[String]) -> Result<Vec<String>> {
        let teams: Vec<Uuid> = sqlx::query_scalar(
            "select l.team_id from unnest($1::text[]) with ordinality as c (client_id, place)
             join entitlement.credential k on k.client_id = c.client_id
             join entitlement.app_team l on l.app_id = k.app_id order by c.place",
        )
        .bind(client_ids)
        .fetch_all(&self.operator)
        .await?;
        Ok(teams.into_iter().map(|team| TeamId::from_uuid(team).to_string()).collect())
    }

    async fn fill_redis(&self) -> Result<()> {
        println!("the answers into Redis …");
        let answers = (0..self.size.credentials).map(|number| {
            let expected = data::Expected::of(number);
            let answer = ent::AccessAnswer {
                allowed: expected.allowed,
                level: expected.level.into(),
                reason: expected.reason.into(),
                ..peers::answer(expected.balance_micros)
            };
            (data::client_id(number), answer)
        });
        peers::fill(self.installation.sandbox().redis_url(), answers).await
    }

    /// All three in turns; the first round of each is not counted.
    async fn turns(&mut self, callers: usize) -> Result<Ratios> {
        println!("{callers} callers …");
        let null = Arc::new(Target::new(&self.null, Answers::TheSame, callers)?);
        let redis = Arc::new(Target::new(&self.redis, Answers::OfCredential, callers)?);
        let targets = [null, self.target(callers)?, redis];
        let mut sums = [Round::none()?, Round::none()?, Round::none()?];
        let (mut rates, mut tails, mut redis_rates) = (Vec::new(), Vec::new(), Vec::new());
        let begin = Instant::now();
        let mut round = 0;
        while round < 2 || begin.elapsed() < self.size.length {
            let mut turn = Vec::with_capacity(targets.len());
            for (target, sum) in targets.iter().zip(&mut sums) {
                let done = target.call(self.load(TURN, round), callers).await?;
                if round > 0 {
                    sum.add(&done)?;
                }
                turn.push((done.per_second(), done.quantile_us(0.99)));
            }
            if let ([null, check, redis], true) = (&turn[..], round > 0) {
                rates.push(check.0 / null.0);
                tails.push(check.1 / null.1);
                redis_rates.push(check.0 / redis.0);
            }
            round += 1;
        }
        for (name, sum) in ["null", "check", "redis"].into_iter().zip(&sums) {
            self.figures.add(&format!("{name}_per_s_{callers}"), sum.per_second());
            self.figures.add(&format!("{name}_p50_us_{callers}"), sum.quantile_us(0.5));
            self.figures.add(&format!("{name}_p99_us_{callers}"), sum.quantile_us(0.99));
        }
        let ratios = Ratios { null: median(rates)?, tail: median(tails)?, redis: median(redis_rates)? };
        self.figures.add(&format!("check_vs_null_ratio_{callers}"), ratios.null);
        self.figures.add(&format!("check_p99_vs_null_ratio_{callers}"), ratios.tail);
        self.figures.add(&format!("check_vs_redis_ratio_{callers}"), ratios.redis);
        Ok(ratios)
    }

    /// Many questions a message, in turns with as many callers of one each, and with those that ask Redis.
    async fn streams(&mut self) -> Result<()> {
        println!("{STREAMS} streams of {QUESTIONS} questions a message …");
        let (target, redis) =
            (self.target(STREAMS)?, Target::new(&self.redis, Answers::OfCredential, STREAMS)?);
        let redis = Arc::new(redis);
        let mut sum = Round::none()?;
        let (mut ratios, mut redis_ratios) = (Vec::new(), Vec::new());
        let begin = Instant::now();
        let mut round = 0;
        while round < 2 || begin.elapsed() < self.size.length {
            let unary = target.call(self.load(TURN, round), STREAMS).await?.per_second();
            let asked = redis.call(self.load(TURN, round), STREAMS).await?.per_second();
            let streamed = target.stream(self.load(TURN, round), STREAMS, QUESTIONS).await?;
            if round > 0 {
                ratios.push(streamed.per_second() / unary);
                redis_ratios.push(streamed.per_second() / asked);
                sum.add(&streamed)?;
            }
            round += 1;
        }
        self.figures.add("batched_answers_per_s", sum.per_second());
        self.figures.add("batched_p99_us", sum.quantile_us(0.99));
        self.figures.add("batched_vs_unary_ratio", median(ratios)?);
        self.figures.add("batched_vs_redis_ratio", median(redis_ratios)?);
        Ok(())
    }

    async fn invalidation(&mut self) -> Result<()> {
        println!("{} changes of each kind …", self.size.changes);
        let latencies = invalidation::measure(self.installation.channels(), self.size.changes).await?;
        let (ledger, entitlement) =
            (invalidation::p99_ms(&latencies.ledger)?, invalidation::p99_ms(&latencies.entitlement)?);
        self.figures.add("invalidation_ledger_p99_ms", ledger);
        self.figures.add("invalidation_entitlement_p99_ms", entitlement);
        self.figures.add("invalidation_p99_ms", ledger.max(entitlement));
        Ok(())
    }
}
