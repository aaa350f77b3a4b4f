//! One stream of a producer: a reader that offers frames to shards, and a writer that tells what came of them.
//!
//! Shape: two tasks in one. The reader decodes a frame without a lock, then adds it under the lock of its
//! shard; it waits where a shard is full, so a producer that is too fast is slowed by its own connection. The
//! writer sends what the outbox has. Refusals of events go through the same bounded queue as the writer's
//! messages: a producer that reads no answers is not read any more either.
//!
//! Order: definitions of a frame are taken even where the frame itself is a repetition, because frames after
//! it may rely on them.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
};

use drawdown_metering_core::{
    aggregate::Incoming,
    cells::LEADING,
    dictionary::Dictionary,
    fault::FrameFault,
    frame::{Definition, Frame, FrameView, RowBook, RowFrame, read_definitions},
    reason as lane_reason,
    shard::{Lane, Position},
};
use drawdown_proto::metering::v1::{self as wire, ingest_request::Request};
use drawdown_service::{Code, Refusal, refusal};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::{
    codec::{self, Form, LaneFrame, Message},
    decode::{self, Hello},
    encode,
};
use crate::{
    instance::{
        Instance, Offer, Sender, Shard,
        outbox::{News, Outbox, Stop},
    },
    metrics::FrameOutcome,
    peer::{self, LanesOf},
    reason,
};

type Answers = mpsc::Sender<Result<wire::IngestResponse, Status>>;

/// Why a stream ends.
enum End {
    /// Its producer ended it, or the instance stops.
    Done,
    /// It was refused.
    Refused(Status),
    /// Nobody reads its answers.
    Gone,
}

impl From<Refusal> for End {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal.into())
    }
}

impl From<Status> for End {
    fn from(status: Status) -> Self {
        Self::Refused(status)
    }
}

/// Serves a stream until it ends. `permit` is given back then.
pub(super) async fn serve(
    instance: Arc<Instance>,
    mut inbound: Streaming<Message>,
    answers: Answers,
    stop: CancellationToken,
    permit: OwnedSemaphorePermit,
) {
    instance.metrics.stream(1);
    let window = u64::try_from(instance.config.ingest.lane_window_events.get()).unwrap_or(u64::MAX);
    let mut writer = Writer { outbox: Arc::default(), answers, window, backlog: VecDeque::new() };
    let mut reader: Option<Reader> = None;
    let (outbox, answers) = (Arc::clone(&writer.outbox), writer.answers.clone());
    let serving = async {
        let end = read(&instance, &mut inbound, &answers, &outbox, &mut reader).await;
        if let (End::Done, Some(reader)) = (&end, &reader) {
            // The producer has nothing more to say and waits to hear what came of it.
            reader.flushed().await;
        }
        end
    };
    let end = tokio::select! {
        end = serving => end,
        () = writer.tell() => End::Gone,
        () = stop.cancelled() => End::Done,
    };
    if stop.is_cancelled() {
        // What was taken is flushed, and its acknowledgement sent, before the stream ends.
        instance.flushed.cancelled().await;
    }
    writer.finish(end).await;
    if let Some(reader) = reader {
        reader.leave();
    }
    instance.metrics.stream(-1);
    drop(permit);
}

/// Tells a producer what came of its lanes.
struct Writer {
    outbox: Arc<Outbox>,
    answers: Answers,
    window: u64,
    /// Taken from the outbox and not sent yet.
    backlog: VecDeque<News>,
}

impl Writer {
    /// Sends news until nobody reads it.
    async fn tell(&mut self) {
        while self.send().await {
            tokio::select! {
                () = self.outbox.ready() => {}
                () = self.answers.closed() => return,
            }
        }
    }

    /// Sends what there is; says whether somebody reads it. Nothing is lost where it is dropped in between.
    async fn send(&mut self) -> bool {
        self.backlog.extend(self.outbox.take());
        while !self.backlog.is_empty() {
            let Ok(place) = self.answers.reserve().await else { return false };
            if let Some(news) = self.backlog.pop_front() {
                place.send(Ok(encode::news(news, self.window)));
            }
        }
        true
    }

    /// The last news, and the end.
    async fn finish(&mut self, end: End) {
        if self.send().await
            && let End::Refused(status) = end
        {
            // The producer may have gone; then nobody is told.
            let _ = self.answers.send(Err(status)).await;
        }
    }
}

async fn read(
    instance: &Arc<Instance>,
    inbound: &mut Streaming<Message>,
    answers: &Answers,
    outbox: &Arc<Outbox>,
    place: &mut Option<Reader>,
) -> End {
    let message_bytes_max = instance.config.server.message_bytes_max;
    let refused = |status| codec::refused(status, message_bytes_max);
    let result = async {
        let Some(first) = inbound.message().await.map_err(refused)? else { return Ok(()) };
        let Message::Request(Request::Hello(hello)) = first else {
            let message = "the first message of a stream is a hello";
            return Err(Refusal::new(Code::InvalidArgument, reason::HELLO_MISSING, message)
                .violation("hello", "must be the first message")
                .into());
        };
        let hello = decode::hello(&hello)?;
        admit(instance, hello).await?;
        let reader = place.insert(Reader::new(Arc::clone(instance), hello, Arc::clone(outbox)));
        while let Some(message) = inbound.message().await.map_err(refused)? {
            reader.take(message, answers).await?;
        }
        Ok::<(), End>(())
    };
    result.await.err().unwrap_or(End::Done)
}

/// Only a producer that the ledger knows, in its newest epoch, may send.
async fn admit(instance: &Instance, hello: Hello) -> Result<(), Status> {
    let answer = instance.ledger().shards(&[0], &LanesOf::producers([hello.producer]), LEADING).await;
    let answer = answer.map_err(unavailable)?;
    match answer.producers.get(&hello.producer) {
        None => {
            let message = "the ledger does not know this producer";
            Err(Refusal::new(Code::NotFound, reason::PRODUCER_UNKNOWN, message)
                .violation("producer_id", "is not registered")
                .into())
        }
        Some(registered) if *registered > hello.epoch => {
            let message = "a newer epoch of this producer is registered";
            Err(Refusal::new(Code::FailedPrecondition, reason::FENCED, message)
                .violation("epoch", format!("is {}, {registered} is registered", hello.epoch))
                .metadata("registered_epoch", registered)
                .into())
        }
        Some(_) => Ok(()),
    }
}

fn unavailable(error: peer::Error) -> Status {
    if error.is_transient() { refusal::unavailable(error) } else { refusal::internal(error) }
}

/// What a stream has said so far.
struct Reader {
    instance: Arc<Instance>,
    hello: Hello,
    sender: Sender,
    dictionary: Dictionary,
    /// Series of row frames, which have numbers of their own.
    rows: RowBook,
    /// Lanes that it asked for; those that stopped stay in here, so that their late frames are no fault.
    asked: HashSet<Lane>,
}

impl Reader {
    fn new(instance: Arc<Instance>, hello: Hello, outbox: Arc<Outbox>) -> Self {
        let sender = Sender { stream: instance.next_stream(), epoch: hello.epoch, outbox };
        let series_max = instance.config.ingest.series_per_stream_max.get_u32();
        let (dictionary, rows) = (Dictionary::new(series_max), RowBook::new(series_max));
        Self { instance, hello, sender, dictionary, rows, asked: HashSet::new() }
    }

    /// Waits until everything that was taken from this stream is acknowledged.
    async fn flushed(&self) {
        for lane in &self.asked {
            if let Some(shard) = self.instance.shard(lane.shard) {
                shard.wait_until_quiet(lane, self.sender.stream).await;
            }
        }
    }

    fn leave(&self) {
        for lane in &self.asked {
            if let Some(shard) = self.instance.shard(lane.shard) {
                shard.leave(lane, self.sender.stream);
            }
        }
    }

    async fn take(&mut self, message: Message, answers: &Answers) -> Result<(), End> {
        match message {
            Message::Frame(frame) => {
                let Some(chain_after) = frame.intact_chain() else {
                    let text = "is not the one that was sent: the chain after it is another one";
                    let fault = FrameFault::one(lane_reason::FRAME_DAMAGED, "chain_after", text);
                    return self.unreadable(&frame.body, fault);
                };
                match frame.form {
                    Form::Columns => self.columns(frame, chain_after, answers).await,
                    Form::Rows => self.rows(frame, chain_after, answers).await,
                }
            }
            Message::Request(Request::Attach(ask)) => self.attach(&ask),
            Message::Define(define) => {
                let definitions = read_definitions(&define).map_err(encode::refusal)?;
                self.learn(&definitions).await?;
                Ok(self.dictionary.define(&definitions).map_err(encode::refusal)?)
            }
            Message::Request(Request::Hello(_)) => {
                let message = "a stream says hello once";
                Err(Refusal::new(Code::InvalidArgument, reason::HELLO_REPEATED, message).into())
            }
            Message::Request(Request::Define(_) | Request::Frame(_) | Request::Rows(_)) | Message::Empty => {
                let message = "a message carries nothing that this version knows";
                Err(Refusal::new(Code::InvalidArgument, reason::REQUEST_INVALID, message)
                    .violation("request", "must be set")
                    .into())
            }
        }
    }

    fn attach(&mut self, ask: &wire::AttachLane) -> Result<(), End> {
        let asked = decode::attach(ask, self.hello.producer, &self.instance.config)?;
        let lane = asked.lane;
        let full = self.asked.len() >= self.instance.config.ingest.lanes_per_stream_max.get();
        if full && !self.asked.contains(&lane) {
            let message = "the stream has as many lanes as it may";
            return Err(Refusal::new(Code::ResourceExhausted, reason::LANES_EXHAUSTED, message).into());
        }
        self.asked.insert(lane);
        let Some(shard) = self.instance.shard(lane.shard) else { return Ok(()) };
        match shard.seat(lane, self.sender.clone(), asked.freed) {
            Ok(()) => self.instance.wake_attacher(),
            Err(stop) => self.stop(lane, stop),
        }
        Ok(())
    }

    fn stop(&self, lane: Lane, stop: Stop) {
        self.instance.metrics.lane_stopped(stop.reason);
        tracing::info!(%lane, reason = stop.reason, detail = stop.detail, "a lane was stopped");
        self.sender.outbox.stopped(lane, stop);
    }

    /// Meters that nobody has heard of are asked for before any event is judged by them.
    async fn learn(&self, definitions: &[Definition]) -> Result<(), End> {
        let meters = definitions.iter().map(|definition| definition.key.meter());
        self.instance.learn_meters(meters).await.map_err(|error| {
            self.instance.metrics.peer_error(error.peer());
            End::from(unavailable(error))
        })
    }

    async fn columns(&mut self, frame: LaneFrame, chain_after: u64, answers: &Answers) -> Result<(), End> {
        let view = match FrameView::parse(&frame.body, &self.instance.config.ingest.frames()) {
            Ok(view) => view,
            Err(fault) => return self.unreadable(&frame.body, fault),
        };
        let mut dictionary = std::mem::replace(&mut self.dictionary, Dictionary::new(0));
        let taken = self.frame([frame.chain_before, chain_after], &view, &mut dictionary, answers).await;
        self.dictionary = dictionary;
        taken
    }

    async fn rows(&mut self, frame: LaneFrame, chain_after: u64, answers: &Answers) -> Result<(), End> {
        let mut book = std::mem::replace(&mut self.rows, RowBook::new(0));
        let taken = match book.read(&frame.body, &self.instance.config.ingest.frames()) {
            Ok(RowFrame { view, series }) => {
                self.frame([frame.chain_before, chain_after], &view, series, answers).await
            }
            Err(fault) => self.unreadable(&frame.body, fault),
        };
        self.rows = book;
        taken
    }

    async fn frame<F: Frame + Sync>(
        &mut self,
        [chain_before, chain_after]: [u64; 2],
        view: &F,
        dictionary: &mut Dictionary,
        answers: &Answers,
    ) -> Result<(), End> {
        let instance = Arc::clone(&self.instance);
        let map = decode::map_of(view.map_version(), view.shard(), &instance.config)?;
        let lane =
            Lane { producer: self.hello.producer, map_version: view.map_version(), shard: view.shard() };
        let Some(shard) = instance.shard(lane.shard) else { return Ok(()) };
        self.learn(view.definitions()).await?;
        let incoming = Incoming {
            producer: self.hello.producer,
            epoch: self.hello.epoch,
            map,
            chain_before,
            chain_after,
            frame: view,
            now: instance.clock.now(),
        };
        let refused = match self.offer(shard, &incoming, dictionary).await {
            Offer::Counted(refused) => {
                instance.metrics.frame(FrameOutcome::Counted);
                instance.wake_flusher();
                refused
            }
            Offer::Duplicate => {
                instance.metrics.frame(FrameOutcome::Duplicate);
                return self.keep_definitions(lane, view, dictionary);
            }
            Offer::NotSeated if !self.asked.contains(&lane) => {
                let fault =
                    FrameFault::one(lane_reason::LANE_UNKNOWN, "lane", "was not attached on this stream");
                self.asked.insert(lane);
                self.fault(lane, fault, Position::START);
                return Ok(());
            }
            Offer::Overtaken | Offer::NotSeated | Offer::Full => {
                instance.metrics.frame(FrameOutcome::Overtaken);
                return self.keep_definitions(lane, view, dictionary);
            }
            Offer::Fault(fault, settled) => {
                self.fault(lane, fault, settled);
                return Ok(());
            }
        };
        for events in refused {
            answers.send(Ok(encode::refused(&lane, events))).await.map_err(|_| End::Gone)?;
        }
        Ok(())
    }

    /// Offers a frame until its shard has room for it.
    async fn offer<F: Frame>(
        &self,
        shard: &Shard,
        incoming: &Incoming<'_, F>,
        dictionary: &mut Dictionary,
    ) -> Offer {
        loop {
            match shard.offer(self.sender.stream, incoming, dictionary) {
                Offer::Full => self.instance.wait_for_room(shard).await,
                offer => return offer,
            }
        }
    }

    fn keep_definitions(
        &self,
        lane: Lane,
        view: &impl Frame,
        dictionary: &mut Dictionary,
    ) -> Result<(), End> {
        if let Err(fault) = dictionary.define(view.definitions()) {
            let settled = self.unseat(&lane);
            self.fault(lane, fault, settled);
        }
        Ok(())
    }

    fn fault(&self, lane: Lane, fault: FrameFault, settled: Position) {
        self.instance.metrics.frame(FrameOutcome::Refused);
        let stop = Stop { reason: fault.reason, detail: fault.to_string(), faults: fault.fields, settled };
        self.stop(lane, stop);
    }

    /// A frame that can not be read stops the lane that it says it is of; where it does not even say that,
    /// nothing of the stream can be trusted.
    fn unreadable(&mut self, body: &[u8], fault: FrameFault) -> Result<(), End> {
        let lane = decode::lane_named(body, self.hello.producer);
        match lane.filter(|lane| self.asked.contains(lane)) {
            Some(lane) => {
                let settled = self.unseat(&lane);
                self.fault(lane, fault, settled);
                Ok(())
            }
            None => Err(encode::refusal(fault).into()),
        }
    }

    fn unseat(&self, lane: &Lane) -> Position {
        self.instance.shard(lane.shard).map_or(Position::START, |shard| {
            let settled = shard.settled(lane, self.sender.stream);
            shard.leave(lane, self.sender.stream);
            settled
        })
    }
}
