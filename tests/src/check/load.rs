//! The load: callers that ask again as soon as they are answered, on one connection each side, and look at every answer.
//!
//! The sides take turns, all of them in each round and in another order each time, so that what else the machine does
//! falls on all. A ratio is made inside of a round; of the rounds the median counts.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use drawdown_client::{Channel, clients::entitlement};
use drawdown_proto::entitlement::v1::{
    AccessAnswer, AccessLevel, AccessQuestion, AccessReason, CheckAccessRequest, StreamCheckAccessRequest,
};
use futures::future::try_join_all;
use hdrhistogram::Histogram;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::load::Bits;

/// Questions of a message of a stream.
pub(super) const QUESTIONS: usize = 32;
pub(super) const CONCURRENCY: [usize; 3] = [1, 16, 64];
pub(super) const ROUNDS: u32 = 5;
/// What Linux counts the time of processes in.
const TICK: Duration = Duration::from_millis(10);

/// Somebody who asks.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) client_id: Arc<str>,
    /// What the answer has to tell, in micro-tokens.
    pub(super) balance: i64,
}

/// Who is asked.
pub(super) struct Side {
    pub(super) name: &'static str,
    pub(super) channel: Channel,
    pub(super) pid: u32,
    /// The balance that it always tells; `None` where it is that of who is asked for.
    pub(super) always: Option<i64>,
}

/// One question a call, or [`QUESTIONS`] a message of a stream, by so many callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Unary(usize),
    Streamed(usize),
}

/// What a turn brought.
#[derive(Debug, Clone)]
pub(super) struct Turn {
    answers: u64,
    took: Duration,
    /// Time that the process of the side worked.
    worked: Duration,
    /// Of calls, or of messages, in nanoseconds.
    times: Histogram<u64>,
}

/// All turns of a form, by side, then by round.
pub(super) type Turns = Vec<Vec<Turn>>;

/// What callers ask, and until when.
#[derive(Clone)]
struct Plan {
    asked: Arc<[Asked]>,
    meter: &'static str,
    always: Option<i64>,
    until: Instant,
    /// What is drawn; the same for all sides, and another row in each round.
    seed: u64,
}

/// Whether an answer is the one that somebody with this balance has to get.
pub(super) fn check(answer: Option<&AccessAnswer>, balance: i64) -> Result<()> {
    let answer = answer.context("no answer")?;
    let right = answer.allowed
        && !answer.stale
        && answer.level() == AccessLevel::Full
        && answer.reason() == AccessReason::InFull
        && answer.balance_micros == Some(balance);
    ensure!(right, "{balance} micro-tokens are there, and the answer is {answer:?}");
    Ok(())
}

// === impl Form ===

impl Form {
    pub(super) fn all() -> impl Iterator<Item = Self> {
        CONCURRENCY.into_iter().flat_map(|callers| [Self::Unary(callers), Self::Streamed(callers)])
    }

    async fn turn(
        self,
        side: &Side,
        (asked, meter): (&Arc<[Asked]>, &'static str),
        (round, length): (usize, Duration),
    ) -> Result<Turn> {
        let plan = |caller: usize, until| {
            let seed = u64::try_from(round << 32 | caller).unwrap_or_default();
            Plan { asked: Arc::clone(asked), meter, always: side.always, until, seed }
        };
        // a key that was not used for a while is looked up again
        unary(side.channel.clone(), plan(0, Instant::now())).await?;
        let worked = worked(side.pid)?;
        let began = Instant::now();
        let (Self::Unary(callers) | Self::Streamed(callers)) = self;
        let tasks = (0..callers).map(|caller| {
            let (channel, plan) = (side.channel.clone(), plan(caller, began + length));
            let task = async move {
                match self {
                    Self::Unary(_) => unary(channel, plan).await,
                    Self::Streamed(_) => streamed(channel, plan).await,
                }
            };
            async { tokio::spawn(task).await? }
        });
        let mut times = Histogram::new(3)?;
        for of_caller in try_join_all(tasks).await.with_context(|| format!("{self:?} of {}", side.name))? {
            times.add(of_caller)?;
        }
        let questions = if matches!(self, Self::Unary(_)) { 1 } else { QUESTIONS };
        Ok(Turn {
            answers: times.len() * u64::try_from(questions)?,
            took: began.elapsed(),
            worked: self::worked(side.pid)?.saturating_sub(worked),
            times,
        })
    }
}

/// All sides in turns: `length` in all for each side of each form.
pub(super) async fn compare(
    sides: &[Side],
    (asked, meter): (&Arc<[Asked]>, &'static str),
    length: Duration,
) -> Result<Vec<(Form, Turns)>> {
    let mut all: Vec<(Form, Turns)> = Form::all().map(|form| (form, vec![Vec::new(); sides.len()])).collect();
    for round in 0..usize::try_from(ROUNDS)? {
        for (form, turns) in &mut all {
            for place in 0..sides.len() {
                let place = (place + round) % sides.len();
                let turn = form.turn(&sides[place], (asked, meter), (round, length / ROUNDS)).await?;
                turns[place].push(turn);
            }
        }
    }
    Ok(all)
}

// === impl Turn ===

#[expect(clippy::cast_precision_loss, reason = "figures are read by people")]
impl Turn {
    /// Answers a second.
    pub(super) fn rate(&self) -> f64 {
        self.answers as f64 / self.took.as_secs_f64()
    }

    /// In microseconds.
    pub(super) fn quantile_us(&self, quantile: f64) -> f64 {
        self.times.value_at_quantile(quantile) as f64 / 1e3
    }

    /// Time that the process worked for an answer, in microseconds.
    pub(super) fn worked_us(&self) -> f64 {
        self.worked.as_secs_f64() * 1e6 / self.answers as f64
    }
}

/// Time that a process has worked so far.
fn worked(pid: u32) -> Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // behind the name, which may have spaces in it
    let (_, rest) = stat.rsplit_once(')').context("no name")?;
    let ticks = rest.split_whitespace().skip(11).take(2).map(str::parse::<u32>);
    let ticks: u32 = ticks.sum::<Result<u32, _>>()?;
    Ok(TICK * ticks)
}

impl Plan {
    fn draw(&self, bits: &mut Bits) -> &Asked {
        let draw = usize::try_from(bits.draw() >> 33).unwrap_or_default();
        &self.asked[draw % self.asked.len()]
    }

    fn question(&self, asked: &Asked) -> AccessQuestion {
        AccessQuestion {
            client_id: String::from(&*asked.client_id),
            meter: self.meter.to_owned(),
            quantity: 1,
        }
    }
}

fn note(times: &mut Histogram<u64>, began: Instant) -> Result<()> {
    times.record(u64::try_from(began.elapsed().as_nanos())?).context("an answer took too long")
}

/// One call after the other, at least one.
async fn unary(channel: Channel, plan: Plan) -> Result<Histogram<u64>> {
    let (mut client, mut bits) = (entitlement::access(&channel), Bits(plan.seed));
    let mut times = Histogram::new(3)?;
    loop {
        let asked = plan.draw(&mut bits);
        let began = Instant::now();
        let request = CheckAccessRequest { question: Some(plan.question(asked)), with_billed_to: false };
        let response = client.check_access(request).await?.into_inner();
        note(&mut times, began)?;
        check(response.answer.as_ref(), plan.always.unwrap_or(asked.balance))?;
        if Instant::now() >= plan.until {
            return Ok(times);
        }
    }
}

/// One message of a stream after the other, at least one.
async fn streamed(channel: Channel, plan: Plan) -> Result<Histogram<u64>> {
    let mut bits = Bits(plan.seed);
    let (requests, outgoing) = mpsc::channel(1);
    let mut client = entitlement::access_streams(&channel);
    let mut answers = client.stream_check_access(ReceiverStream::new(outgoing)).await?.into_inner();
    let mut times = Histogram::new(3)?;
    loop {
        let asked: Vec<&Asked> = (0..QUESTIONS).map(|_| plan.draw(&mut bits)).collect();
        let began = Instant::now();
        let questions = asked.iter().map(|asked| plan.question(asked)).collect();
        requests.send(StreamCheckAccessRequest { questions, with_billed_to: false }).await?;
        let response = answers.message().await?.context("the stream ended")?;
        note(&mut times, began)?;
        ensure!(response.answers.len() == QUESTIONS, "{} answers", response.answers.len());
        for (asked, answer) in asked.iter().zip(&response.answers) {
            check(Some(answer), plan.always.unwrap_or(asked.balance))?;
        }
        if Instant::now() >= plan.until {
            return Ok(times);
        }
    }
}
