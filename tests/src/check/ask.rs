//! Callers: so many at once, each with one call in hand, or streams of many questions a message. Every answer is looked
//! at; the first wrong one ends the bench.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use drawdown_client::{
    channel::{Channel, ChannelOptions, connect},
    clients::entitlement,
};
use drawdown_proto::entitlement::v1::{
    AccessAnswer, AccessQuestion, CheckAccessRequest, StreamCheckAccessRequest,
};
use hdrhistogram::Histogram;
use tokio::task::JoinHandle;

use super::data::{Expected, SOFT, client_id};
use crate::load::Bits;

/// Callers that share a connection, as those of one gateway do.
const CALLERS_PER_CONNECTION: usize = 16;
/// Messages of a stream under way.
const MESSAGES_UNDER_WAY: usize = 4;
/// The longest answer that is told apart.
const LATENCY_MAX_NANOS: u64 = 60_000_000_000;

/// Who is asked, and what has to come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answers {
    /// What the credential is to be told.
    OfCredential,
    /// The same for everybody.
    TheSame,
}

/// Whom callers ask.
#[derive(Debug)]
pub struct Target {
    /// The service.
    endpoint: String,
    /// What has to come back.
    answers: Answers,
    connections: Vec<Channel>,
}

/// Many calls.
#[derive(Debug)]
pub struct Round {
    /// Answers.
    pub answers: u64,
    /// In which time.
    pub took: Duration,
    /// How long each call or message took, in ns.
    pub latency: Histogram<u64>,
}

fn histogram() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, LATENCY_MAX_NANOS, 3)?)
}

// === impl Round ===

impl Round {
    /// Nothing yet.
    ///
    /// # Errors
    /// Never in practice.
    pub fn none() -> Result<Self> {
        Ok(Self { answers: 0, took: Duration::ZERO, latency: histogram()? })
    }

    /// Both together.
    ///
    /// # Errors
    /// Never in practice.
    pub fn add(&mut self, other: &Self) -> Result<()> {
        self.answers += other.answers;
        self.took += other.took;
        Ok(self.latency.add(&other.latency)?)
    }

    /// Answers a second.
    #[must_use]
    pub fn per_second(&self) -> f64 {
        crate::ingest::per_second(self.answers, self.took)
    }

    /// A quantile of the latency, in µs.
    #[must_use]
    pub fn quantile_us(&self, quantile: f64) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a figure needs no more than 52 bits")]
        let nanos = self.latency.value_at_quantile(quantile) as f64;
        nanos / 1_000.0
    }
}

fn question(number: usize) -> AccessQuestion {
    AccessQuestion { client_id: client_id(number), meter: SOFT.to_owned(), quantity: 1 }
}

// === impl Target ===

impl Target {
    /// A service, to be asked by up to `callers` at once.
    ///
    /// # Errors
    /// Where the endpoint is no address.
    pub fn new(endpoint: &str, answers: Answers, callers: usize) -> Result<Self> {
        let connections =
            (0..callers.div_ceil(CALLERS_PER_CONNECTION)).map(|_| connect(&ChannelOptions::to(endpoint)));
        let connections = connections.collect::<Result<_, _>>()?;
        Ok(Self { endpoint: endpoint.to_owned(), answers, connections })
    }

    fn check(&self, number: usize, answer: Option<&AccessAnswer>) -> Result<()> {
        let answer = answer.context("no answer")?;
        let expected = match self.answers {
            Answers::OfCredential => Expected::of(number),
            Answers::TheSame => Expected::of(0),
        };
        ensure!(
            expected.is(answer),
            "{} is to be told {expected:?} by {}, was told {answer:?}",
            client_id(number),
            self.endpoint
        );
        Ok(())
    }

    fn channel(&self, caller: usize) -> Result<&Channel> {
        self.connections.get(caller / CALLERS_PER_CONNECTION).context("more callers than connections")
    }

    /// `callers` at once, each with one call in hand, for a while.
    ///
    /// # Errors
    /// The first refusal or wrong answer.
    pub async fn call(self: &Arc<Self>, load: Load, callers: usize) -> Result<Round> {
        let begin = Instant::now();
        let callers = (0..callers).map(|caller| {
            let target = Arc::clone(self);
            tokio::spawn(async move { target.calls(load, caller, begin).await })
        });
        gather(begin, callers.collect()).await
    }

    async fn calls(&self, load: Load, caller: usize, begin: Instant) -> Result<(u64, Histogram<u64>)> {
        let mut service = entitlement::access(self.channel(caller)?);
        let mut draw = load.draw(caller)?;
        let (mut answers, mut latency) = (0, histogram()?);
        while begin.elapsed() < load.length {
            let number = load.pick(&mut draw)?;
            let request = CheckAccessRequest { question: Some(question(number)), with_billed_to: false };
            let asked = Instant::now();
            let answer = service.check_access(request).await?.into_inner().answer;
            latency.record(u64::try_from(asked.elapsed().as_nanos())?)?;
            self.check(number, answer.as_ref())?;
            answers += 1;
        }
        Ok((answers, latency))
    }

    /// `streams` at once, `questions` in each message, for a while.
    ///
    /// # Errors
    /// The first refusal or wrong answer.
    pub async fn stream(self: &Arc<Self>, load: Load, streams: usize, questions: usize) -> Result<Round> {
        let begin = Instant::now();
        let streams = (0..streams).map(|caller| {
            let target = Arc::clone(self);
            tokio::spawn(async move { target.messages(load, caller, begin, questions).await })
        });
        gather(begin, streams.collect()).await
    }

    async fn messages(
        &self,
        load: Load,
        caller: usize,
        begin: Instant,
        questions: usize,
    ) -> Result<(u64, Histogram<u64>)> {
        let mut draw = load.draw(caller)?;
        let (sender, receiver) = tokio::sync::mpsc::channel(MESSAGES_UNDER_WAY);
        let requests = tokio_stream::wrappers::ReceiverStream::new(receiver);
        let mut service = entitlement::access_streams(self.channel(caller)?);
        let mut incoming = service.stream_check_access(requests).await?.into_inner();
        let mut under_way = VecDeque::new();
        let (mut answers, mut latency) = (0, histogram()?);
        loop {
            while under_way.len() < MESSAGES_UNDER_WAY && begin.elapsed() < load.length {
                let numbers = (0..questions).map(|_| load.pick(&mut draw)).collect::<Result<Vec<_>>>()?;
                let questions = numbers.iter().copied().map(question).collect();
                let request = StreamCheckAccessRequest { questions, with_billed_to: false };
                sender.send(request).await.ok().context("the stream is gone")?;
                under_way.push_back((numbers, Instant::now()));
            }
            let Some((numbers, asked)) = under_way.pop_front() else { return Ok((answers, latency)) };
            let message = incoming.message().await?.context("the stream ended")?;
            latency.record(u64::try_from(asked.elapsed().as_nanos())?)?;
            ensure!(message.answers.len() == numbers.len(), "answers to all questions");
            for (number, answer) in numbers.iter().zip(&message.answers) {
                self.check(*number, Some(answer))?;
            }
            answers += u64::try_from(numbers.len())?;
        }
    }
}

/// What is asked, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// About so many credentials.
    pub credentials: usize,
    /// For so long.
    pub length: Duration,
    /// Another one asks about others.
    pub seed: u64,
}

// === impl Load ===

impl Load {
    fn draw(&self, caller: usize) -> Result<Bits> {
        Ok(Bits(self.seed.wrapping_mul(1_000).wrapping_add(u64::try_from(caller)?)))
    }

    fn pick(&self, draw: &mut Bits) -> Result<usize> {
        Ok(usize::try_from(draw.draw() % u64::try_from(self.credentials)?)?)
    }
}

async fn gather(begin: Instant, tasks: Vec<JoinHandle<Result<(u64, Histogram<u64>)>>>) -> Result<Round> {
    let mut round = Round::none()?;
    for task in tasks {
        let (answers, latency) = task.await??;
        round.answers += answers;
        round.latency.add(latency)?;
    }
    round.took = begin.elapsed();
    Ok(round)
}
