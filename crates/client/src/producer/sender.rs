//! The sender: one task that keeps a stream open and moves frames and watermarks over it.
//!
//! Memory: at most `OUTGOING_MAX` messages wait for the transport and one frame with its definitions
//! waits here; everything else waits in the log. Sending and receiving never wait for each other, so a
//! service that answers slowly cannot lock the stream up. A broken stream costs a pause with jitter;
//! nothing is lost with it, because a session's state is thrown away and asked for again.

use std::{
    collections::{BTreeMap, VecDeque},
    convert::Infallible,
    path::Path,
    sync::Arc,
    time::Duration,
};

use backon::{BackoffBuilder as _, ExponentialBuilder};
use bytes::Bytes;
use drawdown_metering_core::{reason, shard::Lane};
use drawdown_proto::metering::v1 as wire;
use drawdown_types::ProducerId;
use tokio::{sync::mpsc, time::Instant};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Status, codec::CompressionEncoding};

use super::{
    adoption::NOT_ADOPTED,
    error::{Fault, LaneStop},
    log::{FrameReader, FrameRef, LogError, Meta, find_freed},
    pending::Limits,
    progress::LostRange,
    registration::{CallError, Claim, Registration, judge_status, name_lost, register},
    session::{Halt, Outgoing, Session},
    shared::Shared,
};
use crate::{channel::Channel, clients::metering};

/// Messages that wait for the transport.
const OUTGOING_MAX: usize = 16;
/// Definitions in one message.
const DEFINITIONS_MAX: usize = 1_000;
/// How long a lane may wait for the service's store to agree with the log before the stream is opened
/// anew, so that the service looks again.
const DISAGREEMENT_MAX: Duration = Duration::from_secs(5);
/// Streams in a row on which the same lane, at the same settled position, is stopped for a reason that
/// can pass, before it is left alone.
const LANE_ATTEMPTS_MAX: u32 = 5;
/// Reasons that speak of the service's store, its clock, this stream or the way there, and not of the frame.
const PASSING: [&str; 6] = [
    reason::DIVERGED,
    reason::FRAME_DAMAGED,
    reason::LANE_OUT_OF_SEQUENCE,
    reason::LANE_UNKNOWN,
    reason::RECEIPT_IN_FUTURE,
    reason::SERIES_UNKNOWN,
];

/// Reasons that pass, and not by another stream at once: of the service's room, an older stream of this producer that has
/// not ended there, and what an operator looks at.
const LATER: [&str; 3] = ["LANES_EXHAUSTED", "LANE_SET_ASIDE", "LANE_TAKEN"];

pub(super) struct Sender {
    pub(super) shared: Arc<Shared>,
    pub(super) channel: Channel,
    pub(super) producer: ProducerId,
    pub(super) meta: Meta,
    pub(super) registered: bool,
    pub(super) closing: CancellationToken,
    attempts: BTreeMap<Lane, (u32, u64)>,
    /// When a stopped lane is tried again.
    later: BTreeMap<Lane, Instant>,
    reader: Option<FrameReader>,
}

/// Why a stream ended.
enum End {
    Fault(Fault),
    Lost(String),
}

impl From<Halt> for End {
    fn from(halt: Halt) -> Self {
        match halt {
            Halt::Fault(fault) => Self::Fault(fault),
            Halt::Reconnect(why) => Self::Lost(why.to_owned()),
        }
    }
}

impl From<LogError> for End {
    fn from(error: LogError) -> Self {
        Self::Fault(Fault::Log(error))
    }
}

impl From<CallError> for End {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Transient(status) => Self::Lost(status.to_string()),
            CallError::Fault(fault) => Self::Fault(fault),
        }
    }
}

impl Sender {
    pub(super) fn new(
        shared: Arc<Shared>,
        channel: Channel,
        producer: ProducerId,
        meta: Meta,
        registered: bool,
        closing: CancellationToken,
    ) -> Self {
        let (attempts, later) = (BTreeMap::new(), BTreeMap::new());
        Self { shared, channel, producer, meta, registered, closing, attempts, later, reader: None }
    }

    /// Until the producer closes or stops for good.
    pub(super) async fn run(self) {
        let shared = Arc::clone(&self.shared);
        tokio::select! {
            () = self.work() => {}
            never = watch_adoption(&shared) => match never {},
        }
    }

    async fn work(mut self) {
        let closing = self.closing.clone();
        let mut pauses = backoff(&self.shared).build();
        loop {
            let mut progress = false;
            let end = tokio::select! {
                () = closing.cancelled() => return,
                end = self.attempt(&mut progress) => end,
            };
            self.shared.status.send_modify(|status| status.connected = false);
            match end {
                End::Fault(fault) => return self.shared.fail(fault),
                End::Lost(why) => {
                    tracing::debug!(why, "stream to metering lost");
                    self.shared.measure(|metrics| metrics.disconnected(&why));
                }
            }
            if progress {
                pauses = backoff(&self.shared).build();
            }
            let longest = Duration::from_millis(self.shared.options.reconnect_max_ms);
            let pause = pauses.next().unwrap_or(longest);
            tokio::select! {
                () = closing.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn attempt(&mut self, progress: &mut bool) -> End {
        match self.register_and_stream(progress).await {
            Ok(never) => match never {},
            Err(end) => end,
        }
    }

    async fn register_and_stream(&mut self, progress: &mut bool) -> Result<Infallible, End> {
        if !self.registered {
            let registration = register(&self.channel, self.producer, self.meta.epoch).await?;
            self.note(registration).await?;
            self.registered = true;
        }
        self.stream(progress).await
    }

    /// Compares the log with the ledger's word and notes the epoch in it. What a restored ledger lacks and the log has
    /// freed is named as lost, after the epoch is noted and before anything is sent.
    async fn note(&mut self, registration: Registration) -> Result<(), End> {
        let behind = self.shared.with_index(|index| registration.behind(index));
        if let Some(dir) = self.shared.options.keep.dir().map(Path::to_owned).filter(|_| !behind.is_empty()) {
            let producer = self.producer;
            let found = blocking(move || find_freed(&dir, producer, &behind)).await?;
            self.shared.with_index(|index| index.remember(&found));
        }
        let claims = self.shared.with_index(|index| registration.check(index)).map_err(End::Fault)?;
        let (map, stream_limits) = (registration.map, registration.limits);
        let meta = registration.meta(self.producer);
        if let Some(dir) = self.shared.options.keep.dir().map(Path::to_owned) {
            let meta = meta.clone();
            blocking(move || meta.write(&dir)).await?;
        }
        self.meta = meta;
        let limits = Limits::new(&self.shared.options, stream_limits);
        self.shared.with_pending(|pending| pending.set_map(map, limits));
        if !claims.is_empty() {
            self.give_up(&claims).await?;
        }
        self.shared.settled_moved();
        Ok(())
    }

    async fn give_up(&self, claims: &[Claim]) -> Result<(), End> {
        let lost = name_lost(&self.channel, self.producer, self.meta.epoch, claims).await?;
        for LostRange { lane, from_sequence, to_sequence } in &lost {
            tracing::error!(%lane, from_sequence, to_sequence, "events are lost: the ledger was restored");
        }
        lost.iter().for_each(|range| self.shared.measure(|metrics| metrics.lost(range)));
        self.shared.with_index(|index| index.give_up(claims.iter().map(|claim| claim.lane)));
        self.shared.status.send_modify(|status| status.lost.extend(lost));
        Ok(())
    }

    async fn stream(&mut self, progress: &mut bool) -> Result<Infallible, End> {
        let (outgoing, receiver) = mpsc::channel(OUTGOING_MAX);
        let hello = wire::Hello { producer_id: self.producer.to_string(), epoch: self.meta.epoch };
        let lost = |status| judge_status(status, self.producer, self.meta.epoch);
        outgoing
            .try_send(request(wire::ingest_request::Request::Hello(hello)))
            .map_err(|_| End::Lost("the stream ended before it began".to_owned()))?;
        let mut client = metering::ingest(&self.channel);
        if self.shared.options.compress {
            client = client.send_compressed(CompressionEncoding::Zstd);
        }
        let opening = client.ingest(ReceiverStream::new(receiver));
        let mut incoming = tokio::time::timeout(self.channel.deadline(), opening)
            .await
            .map_err(|_| End::Lost("the stream was not answered in time".to_owned()))?
            .map_err(lost)?
            .into_inner();
        self.shared.status.send_modify(|status| status.connected = true);
        self.shared.measure(|metrics| metrics.connected());
        let series = self.shared.with_index(|index| index.series_count());
        let Meta { epoch, series_max, map_version, .. } = self.meta;
        let mut session = Session::new(self.producer, epoch, series_max, map_version, series);
        self.take_up_again(Instant::now());
        for stop in &self.shared.status.borrow().stopped_lanes {
            if stop.reason != NOT_ADOPTED {
                session.leave_out(stop.lane);
            }
        }
        let mut news = self.shared.status.subscribe();
        let mut outbox = VecDeque::new();
        let mut disagreement: Option<Instant> = None;
        loop {
            news.mark_unchanged();
            if outbox.is_empty() {
                self.fill(&mut outbox, &mut session).await?;
            }
            disagreement = session.is_waiting().then(|| disagreement.unwrap_or_else(Instant::now));
            let look_again = disagreement.map_or_else(Instant::now, |since| since + DISAGREEMENT_MAX);
            let take_up = self.later.values().min().copied();
            tokio::select! {
                answer = incoming.message() => {
                    let answer = answer.map_err(|status| judge_status(status, self.producer, self.meta.epoch))?;
                    let answer = answer.ok_or_else(|| End::Lost("metering ended the stream".to_owned()))?;
                    *progress |= self.take(answer, &mut session)?;
                }
                permit = outgoing.reserve(), if !outbox.is_empty() && !outgoing.is_closed() => {
                    if let (Ok(permit), Some(message)) = (permit, outbox.pop_front()) {
                        permit.send(message);
                    }
                }
                changed = news.changed(), if outbox.is_empty() => {
                    changed.map_err(|_| End::Lost("the producer is gone".to_owned()))?;
                }
                () = tokio::time::sleep_until(look_again), if disagreement.is_some() => {
                    return Err(End::Lost("metering and the log do not agree on a lane".to_owned()));
                }
                () = tokio::time::sleep_until(take_up.unwrap_or(look_again)), if take_up.is_some() => {
                    return Err(End::Lost("a lane that was stopped is tried again".to_owned()));
                }
            }
        }
    }

    /// Puts the next message, or the next frame with its definitions, into the outbox.
    async fn fill(
        &mut self,
        outbox: &mut VecDeque<wire::IngestRequest>,
        session: &mut Session,
    ) -> Result<(), End> {
        use wire::ingest_request::Request;
        let (frame, chain_before, body) = match self.shared.with_index(|index| session.next(index)) {
            None => return Ok(()),
            Some(Outgoing::Attach(attach)) => {
                outbox.push_back(request(Request::Attach(attach)));
                return Ok(());
            }
            Some(Outgoing::Frame { frame, chain_before, body }) => (frame, chain_before, body),
        };
        let (lane, chain_after) = (frame.lane, Some(frame.end.chain));
        let events = frame.end.sequence.saturating_add(1).saturating_sub(frame.first_sequence);
        let body = match body {
            Some(body) => body,
            None => self.read_back(frame, chain_before).await?,
        };
        let definitions = self.shared.with_index(|index| session.definitions_for(lane, &body, index))?;
        for definitions in definitions.chunks(DEFINITIONS_MAX) {
            let define = wire::DefineSeries { definitions: definitions.to_vec() };
            outbox.push_back(request(Request::Define(define)));
        }
        self.shared.measure(|metrics| metrics.sent(events, body.len()));
        outbox.push_back(request(Request::Frame(wire::LaneFrame { chain_before, body, chain_after })));
        Ok(())
    }

    async fn read_back(&mut self, frame: FrameRef, chain_before: u64) -> Result<Bytes, End> {
        let dir = self.shared.options.keep.dir().unwrap_or_else(|| Path::new(""));
        let mut reader = self.reader.take().unwrap_or_else(|| FrameReader::new(dir));
        let (reader, body) = blocking(move || {
            let body = reader.read(&frame, chain_before)?;
            Ok((reader, body))
        })
        .await?;
        self.reader = Some(reader);
        Ok(body)
    }

    /// Takes an answer; says whether it shows that the stream is of use.
    fn take(&mut self, answer: wire::IngestResponse, session: &mut Session) -> Result<bool, End> {
        let news = self.shared.with_index(|index| session.take(answer, index))?;
        if news.behind && self.shared.options.keep.is_durable() {
            self.registered = false;
            return Err(End::Lost("the ledger stands before what the log has freed".to_owned()));
        }
        if news.settled_moved {
            self.shared.forget_adopted();
            self.shared.settled_moved();
        }
        if news.settled_moved || news.watermark {
            self.shared.measure_reached();
        }
        if let Some((reason, events)) = &news.refused {
            self.shared.measure(|metrics| metrics.refused(reason, u64::from(*events)));
        }
        match news.stopped {
            Some(stop) => self.lane_stopped(stop, session).map(|()| false),
            None => Ok(news.watermark),
        }
    }

    /// Stopped lanes whose time has come are sent like the others, and not named any more until they are stopped again.
    fn take_up_again(&mut self, now: Instant) {
        let due: Vec<Lane> = self.later.iter().filter(|(_, at)| **at <= now).map(|(lane, _)| *lane).collect();
        if due.is_empty() {
            return;
        }
        self.later.retain(|_, at| *at > now);
        self.shared
            .status
            .send_modify(|status| status.stopped_lanes.retain(|stop| !due.contains(&stop.lane)));
    }

    fn lane_stopped(&mut self, stop: LaneStop, session: &mut Session) -> Result<(), End> {
        let lane = stop.lane;
        let settled =
            self.shared.with_index(|index| index.lane(lane).map_or(0, |log| log.settled().sequence));
        let (attempts, at) = self.attempts.get(&lane).copied().unwrap_or_default();
        let attempts = if at == settled { attempts } else { 0 };
        if PASSING.contains(&stop.reason.as_str()) && attempts < LANE_ATTEMPTS_MAX {
            self.attempts.insert(lane, (attempts.saturating_add(1), settled));
            return Err(End::Lost(stop.to_string()));
        }
        tracing::error!(lane = %lane, reason = stop.reason, detail = stop.detail, "lane stopped");
        if LATER.contains(&stop.reason.as_str()) {
            let pause = Duration::from_millis(self.shared.options.lane_retry_ms);
            self.later.insert(lane, Instant::now() + pause);
        }
        self.shared.measure(|metrics| metrics.lane_stopped(&stop));
        session.leave_out(lane);
        self.shared.status.send_modify(|status| status.stopped_lanes.push(stop));
        Ok(())
    }
}

/// Says once which lanes were not adopted in time.
async fn watch_adoption(shared: &Shared) -> Infallible {
    tokio::time::sleep(Duration::from_millis(shared.options.adopt_timeout_ms)).await;
    shared.name_unadopted();
    std::future::pending().await
}

fn request(request: wire::ingest_request::Request) -> wire::IngestRequest {
    wire::IngestRequest { request: Some(request) }
}

fn backoff(shared: &Shared) -> ExponentialBuilder {
    ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(shared.options.reconnect_min_ms))
        .with_max_delay(Duration::from_millis(shared.options.reconnect_max_ms))
        .without_max_times()
        .with_jitter()
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LogError> + Send + 'static,
) -> Result<T, End> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome.map_err(End::from),
        Err(error) => Err(End::Lost(format!("reading the log was interrupted: {error}"))),
    }
}

/// A status that a caller sees as the cause of a failed registration.
pub(super) fn status_of(error: CallError) -> Result<Status, Fault> {
    match error {
        CallError::Transient(status) => Ok(status),
        CallError::Fault(fault) => Err(fault),
    }
}
