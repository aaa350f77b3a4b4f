//! A metering service in memory: lanes with applied and settled positions, a dictionary per stream,
//! and faults on demand. It checks what the real one relies on and panics where a producer breaks it.

use std::{
    collections::{BTreeMap, VecDeque},
    num::NonZeroU32,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use drawdown_metering_core::{
    dictionary::Dictionary,
    frame::{FrameLimits, FrameView},
    shard::shard_of,
};
use drawdown_proto::metering::v1::{
    self as wire,
    ingest_request::Request as Ask,
    ingest_response::Response as Reply,
    ingest_service_server::{IngestService, IngestServiceServer},
};
use drawdown_types::ProducerId;
use tokio::{net::TcpListener, sync::mpsc};
use tokio_stream::{
    Stream,
    wrappers::{ReceiverStream, TcpListenerStream},
};
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::channel::{Channel, ChannelOptions, connect};

type LaneKey = (u32, u32);

/// How often the fake worker settles.
const TICK: Duration = Duration::from_millis(5);

/// What happens when a frame comes.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    /// The stream breaks before the frame is looked at.
    Break,
    /// The message was damaged on its way, so that nothing in it can be read.
    Damage,
    /// The stream breaks after the frame was applied, before anybody hears of it.
    BreakAfter,
    /// The store forgets everything that is not settled; every lane is told to go back.
    Forget,
    /// The store forgets, and the stream breaks.
    ForgetAndBreak,
    /// Everything applied is settled.
    Settle,
    /// The frame's lane is stopped.
    Stop(&'static str),
    /// The frame's events are refused for this reason, and applied all the same.
    Refuse(&'static str),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct At {
    pub(super) sequence: u64,
    pub(super) chain: u64,
}

#[derive(Debug, Default)]
struct Lane {
    /// The highest epoch that attached it; frames of older ones are refused.
    epoch: u64,
    applied: At,
    settled: At,
    /// Frames above `settled`: where each ends, and events by series.
    unsettled: VecDeque<(At, Counts)>,
    history: Vec<(At, Counts)>,
}

/// Events and quantity by "client meter".
pub(super) type Counts = BTreeMap<String, (u64, u64)>;

#[derive(Debug)]
pub(super) struct State {
    pub(super) known: Option<ProducerId>,
    pub(super) epoch: u64,
    pub(super) map_version: u32,
    pub(super) shard_count: u32,
    /// The window: sequences beyond `applied` that may be sent.
    pub(super) window: u64,
    /// What happens with the next frames, in order; then `Settle` for each.
    pub(super) faults: VecDeque<Fault>,
    pub(super) settle_by_itself: bool,
    pub(super) frames_received: u64,
    pub(super) lanes_seen: Vec<LaneKey>,
    /// One stream breaks the next time that anything happens on it.
    pub(super) breaks: bool,
    /// Ranges named as lost, each with its lane.
    pub(super) lost: Vec<(LaneKey, u64, u64)>,
    /// Older services know nothing of lost ranges.
    pub(super) names_lost: bool,
    /// How the messages of the last stream were compressed.
    pub(super) encoding: Option<String>,
    lanes: BTreeMap<LaneKey, Lane>,
}

/// The service; clones share its state.
#[derive(Clone, Debug)]
pub(super) struct Fake {
    state: Arc<Mutex<State>>,
    options: ChannelOptions,
    channel: Channel,
}

#[derive(Clone, Debug)]
struct Service(Arc<Mutex<State>>);

fn add(into: &mut Counts, from: &Counts) {
    for (series, (events, quantity)) in from {
        let sum = into.entry(series.clone()).or_default();
        *sum = (sum.0 + events, sum.1 + quantity);
    }
}

impl Fake {
    /// Serves on a free port.
    pub(super) async fn start(known: ProducerId) -> Self {
        let state = State {
            known: Some(known),
            epoch: 0,
            map_version: 1,
            shard_count: 4,
            window: 1 << 20,
            faults: VecDeque::new(),
            settle_by_itself: true,
            frames_received: 0,
            lanes_seen: Vec::new(),
            breaks: false,
            lost: Vec::new(),
            names_lost: true,
            encoding: None,
            lanes: BTreeMap::new(),
        };
        let state = Arc::new(Mutex::new(state));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let server = tonic::transport::Server::builder()
            .add_service(
                IngestServiceServer::new(Service(Arc::clone(&state)))
                    .accept_compressed(tonic::codec::CompressionEncoding::Zstd),
            )
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(server);
        let options = ChannelOptions::to(endpoint);
        Self { state, channel: connect(&options).unwrap(), options }
    }

    pub(super) fn channel_options(&self) -> &ChannelOptions {
        &self.options
    }

    pub(super) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Everything that was ever settled and not taken back.
    pub(super) fn settled(&self) -> Counts {
        let mut all = Counts::new();
        for lane in self.state().lanes.values() {
            lane.history.iter().for_each(|(_, counts)| add(&mut all, counts));
        }
        all
    }
}

impl State {
    /// The ledger is restored to where each lane had settled `frames` frames only.
    pub(super) fn restore(&mut self, frames: usize) {
        for lane in self.lanes.values_mut() {
            lane.history.truncate(frames);
            lane.settled = lane.history.last().map(|(at, _)| *at).unwrap_or_default();
            lane.applied = lane.settled;
            lane.unsettled.clear();
        }
    }

    fn give_up(&mut self, claim: &wire::LostClaim) -> wire::LostRange {
        let (settled, freed) = (claim.settled.unwrap(), claim.freed.unwrap());
        let lane = settled.lane.unwrap();
        let (key, freed) =
            ((lane.map_version, lane.shard), At { sequence: freed.sequence, chain: freed.chain });
        let at = self.lanes.get_mut(&key).unwrap();
        assert_eq!(At { sequence: settled.sequence, chain: settled.chain }, at.settled, "no proof");
        assert!(freed.sequence > settled.sequence, "nothing is lost");
        (at.settled, at.applied) = (freed, freed);
        at.unsettled.clear();
        self.lost.push((key, settled.sequence + 1, freed.sequence));
        wire::LostRange { lane: Some(lane), from_sequence: settled.sequence + 1, to_sequence: freed.sequence }
    }

    pub(super) fn settle_all(&mut self) {
        for lane in self.lanes.values_mut() {
            lane.history.extend(lane.unsettled.drain(..));
            lane.settled = lane.applied;
        }
    }

    /// The store forgets everything that is not settled.
    pub(super) fn forget(&mut self) {
        for lane in self.lanes.values_mut() {
            lane.unsettled.clear();
            lane.applied = lane.settled;
        }
    }

    fn position(key: LaneKey, at: At) -> wire::LanePosition {
        let lane = Some(wire::Lane { map_version: key.0, shard: key.1 });
        wire::LanePosition { lane, sequence: at.sequence, chain: at.chain }
    }

    fn watermark(&self, key: LaneKey) -> wire::LaneWatermark {
        let lane = self.lanes.get(&key).unwrap();
        wire::LaneWatermark {
            applied: Some(Self::position(key, lane.applied)),
            settled: Some(Self::position(key, lane.settled)),
            send_through_sequence: lane.applied.sequence + self.window,
        }
    }
}

/// What one stream is told, in order; `Err` ends it.
type Told = Vec<Result<Reply, Status>>;

struct Conversation {
    state: Arc<Mutex<State>>,
    dictionary: Dictionary,
    attached: Vec<LaneKey>,
    /// Up to where each of them was told to be applied.
    told: BTreeMap<LaneKey, u64>,
    stopped: Vec<LaneKey>,
    greeted: bool,
    epoch: u64,
}

impl Conversation {
    fn hear(&mut self, ask: Ask) -> Told {
        let state = Arc::clone(&self.state);
        let mut state = state.lock().unwrap();
        match ask {
            Ask::Hello(hello) => {
                assert!(!std::mem::replace(&mut self.greeted, true), "a second hello");
                self.epoch = hello.epoch;
                if hello.epoch < state.epoch {
                    vec![Err(refusal(Code::Aborted, "FENCED"))]
                } else {
                    Told::new()
                }
            }
            Ask::Attach(attach) => vec![Ok(self.attach(&attach, &mut state))],
            Ask::Define(define) => {
                for definition in define.definitions {
                    self.define(&definition);
                }
                Told::new()
            }
            Ask::Frame(frame) => self.frame(&frame, &mut state),
            Ask::Rows(rows) => panic!("this producer sends columns: {rows:?}"),
        }
    }

    /// The worker settles now and then.
    fn tick(&mut self) -> Told {
        let state = Arc::clone(&self.state);
        let mut state = state.lock().unwrap();
        if std::mem::take(&mut state.breaks) {
            return vec![Err(Status::unavailable("broken"))];
        }
        let mut told = Told::new();
        let overtaken =
            self.attached.iter().copied().filter(|key| state.lanes.get(key).unwrap().epoch > self.epoch);
        for key in overtaken.collect::<Vec<_>>() {
            told.extend(self.stop(key, "FENCED", &state));
        }
        for key in &self.mine(&state) {
            let applied = state.lanes.get(key).unwrap().applied;
            if self.told.insert(*key, applied.sequence).is_some_and(|before| before > applied.sequence) {
                let applied = Some(State::position(*key, applied));
                told.push(Ok(Reply::Rewound(wire::LaneRewound { applied })));
            }
        }
        if state.settle_by_itself && !self.attached.is_empty() {
            state.settle_all();
            let lanes = self.mine(&state).into_iter().map(|key| state.watermark(key)).collect();
            told.push(Ok(Reply::Watermarks(wire::Watermarks { lanes })));
        }
        told
    }

    /// Lanes that no newer stream of the producer has attached.
    fn mine(&self, state: &State) -> Vec<LaneKey> {
        let lanes = self.attached.iter().copied();
        lanes.filter(|key| state.lanes.get(key).unwrap().epoch <= self.epoch).collect()
    }

    fn attach(&mut self, attach: &wire::AttachLane, state: &mut State) -> Reply {
        assert!(self.greeted, "attach before hello");
        let lane = attach.lane.unwrap();
        let key = (lane.map_version, lane.shard);
        assert!(!self.attached.contains(&key), "attached twice");
        self.attached.push(key);
        state.lanes_seen.push(key);
        let at = state.lanes.entry(key).or_default();
        at.epoch = at.epoch.max(self.epoch);
        let (applied, settled) = (at.applied, at.settled);
        self.told.insert(key, applied.sequence);
        Reply::Attached(wire::LaneAttached {
            applied: Some(State::position(key, applied)),
            settled: Some(State::position(key, settled)),
            registered_epoch: state.epoch,
            send_through_sequence: applied.sequence + state.window,
        })
    }

    fn define(&mut self, definition: &wire::SeriesDefinition) {
        let series = definition.series.as_ref().unwrap();
        let dimensions = series.dimensions.iter();
        let parts = drawdown_metering_core::series::SeriesParts {
            client_id: series.client_id.as_bytes(),
            meter: series.meter.as_bytes(),
            outcome: u64::try_from(series.outcome).unwrap(),
            dimensions: dimensions.map(|d| (d.name.as_bytes(), d.value.as_bytes())).collect(),
            hold_id: series.hold_id.as_bytes(),
        };
        let key = drawdown_metering_core::series::SeriesKey::from_parts(&parts, "series").unwrap();
        let number = drawdown_metering_core::series::SeriesNumber::new(definition.number).unwrap();
        self.dictionary.define_one(number, key).unwrap();
    }

    fn frame(&mut self, frame: &wire::LaneFrame, state: &mut State) -> Told {
        state.frames_received += 1;
        let fault = state.faults.pop_front();
        if matches!(fault, Some(Fault::Break)) {
            return vec![Err(Status::unavailable("broken"))];
        }
        if matches!(fault, Some(Fault::Damage)) {
            return vec![Err(refusal(Code::InvalidArgument, "MESSAGE_MALFORMED"))];
        }
        let view = FrameView::parse(&frame.body, &FrameLimits::default()).unwrap();
        let key = (view.map_version(), view.shard());
        assert!(self.attached.contains(&key), "a frame before its lane was attached");
        if self.stopped.contains(&key) {
            // Sent before the producer could hear of it.
            return Told::new();
        }
        if state.lanes.get(&key).unwrap().epoch > self.epoch {
            return self.stop(key, "FENCED", state);
        }
        if let Some(Fault::Stop(reason)) = fault {
            return self.stop(key, reason, state);
        }
        self.dictionary.define(view.definitions()).unwrap();
        let counts = self.count(&view, state);
        let lane = state.lanes.get_mut(&key).unwrap();
        let (first, last) = view.sequences().into_inner();
        if last <= lane.applied.sequence {
            return vec![Ok(Reply::Watermarks(wire::Watermarks { lanes: vec![state.watermark(key)] }))];
        }
        if first != lane.applied.sequence + 1 || frame.chain_before != lane.applied.chain {
            let applied = Some(State::position(key, lane.applied));
            return vec![Ok(Reply::Rewound(wire::LaneRewound { applied }))];
        }
        assert!(last <= lane.applied.sequence + state.window, "beyond the window");
        lane.applied = At { sequence: last, chain: view.chain_after(frame.chain_before) };
        lane.unsettled.push_back((lane.applied, counts));
        self.after(fault, key, &view, state)
    }

    fn stop(&mut self, key: LaneKey, reason: &str, state: &State) -> Told {
        self.stopped.push(key);
        let lane = Some(wire::Lane { map_version: key.0, shard: key.1 });
        let settled = Some(State::position(key, state.lanes.get(&key).unwrap().settled));
        let (reason, detail, faults) = (reason.to_owned(), "as told".to_owned(), Vec::new());
        vec![Ok(Reply::Stopped(wire::LaneStopped { lane, reason, detail, faults, settled }))]
    }

    fn count(&self, view: &FrameView<'_>, state: &State) -> Counts {
        let mut counts = Counts::new();
        let shards = NonZeroU32::new(state.shard_count).unwrap();
        view.for_each(|number, quantity, _| {
            let key = self.dictionary.get(number).expect("a series that the stream has not defined");
            if view.map_version() == state.map_version {
                assert_eq!(shard_of(key.client_id().as_str(), shards), view.shard());
            }
            let sum = counts.entry(format!("{} {}", key.client_id(), key.meter())).or_default();
            *sum = (sum.0 + 1, sum.1 + quantity);
        });
        counts
    }

    fn after(&self, fault: Option<Fault>, key: LaneKey, view: &FrameView<'_>, state: &mut State) -> Told {
        match fault {
            Some(Fault::BreakAfter) => return vec![Err(Status::unavailable("broken"))],
            Some(Fault::ForgetAndBreak) => {
                state.forget();
                return vec![Err(Status::unavailable("broken"))];
            }
            Some(Fault::Forget) => {
                state.forget();
                let rewound = |key: &LaneKey| {
                    let applied = Some(State::position(*key, state.lanes.get(key).unwrap().applied));
                    Ok(Reply::Rewound(wire::LaneRewound { applied }))
                };
                return self.mine(state).iter().map(rewound).collect();
            }
            Some(Fault::Refuse(reason)) => {
                let lane = Some(wire::Lane { map_version: key.0, shard: key.1 });
                let refused = wire::EventsRefused {
                    lane,
                    reason: reason.to_owned(),
                    count: view.events(),
                    first_sequence: *view.sequences().start(),
                    fault: None,
                };
                return vec![
                    Ok(Reply::Refused(refused)),
                    Ok(Reply::Watermarks(wire::Watermarks { lanes: vec![state.watermark(key)] })),
                ];
            }
            Some(Fault::Settle) => state.settle_all(),
            None if state.settle_by_itself => state.settle_all(),
            None | Some(Fault::Break | Fault::Damage | Fault::Stop(_)) => {}
        }
        let lanes = self.mine(state).into_iter().map(|key| state.watermark(key)).collect();
        vec![Ok(Reply::Watermarks(wire::Watermarks { lanes }))]
    }
}

fn refusal(code: Code, reason: &str) -> Status {
    let details = ErrorDetails::with_error_info(reason, "drawdown", std::collections::HashMap::new());
    Status::with_error_details(code, "refused", details)
}

#[tonic::async_trait]
impl IngestService for Service {
    async fn open_producer(
        &self,
        request: Request<wire::OpenProducerRequest>,
    ) -> Result<Response<wire::OpenProducerResponse>, Status> {
        let request = request.into_inner();
        let mut state = self.0.lock().unwrap();
        if state.known.map(|id| id.to_string()) != Some(request.producer_id) {
            return Err(refusal(Code::NotFound, "PRODUCER_UNKNOWN"));
        }
        state.epoch = state.epoch.max(request.log_epoch) + 1;
        let settled = state.lanes.iter().map(|(key, lane)| State::position(*key, lane.settled)).collect();
        Ok(Response::new(wire::OpenProducerResponse {
            epoch: state.epoch,
            map_version: state.map_version,
            shard_count: state.shard_count,
            settled,
            limits: Some(wire::IngestLimits {
                frame_bytes_max: 1 << 20,
                frame_events_max: 1_000,
                series_max: 1_000,
            }),
        }))
    }

    async fn name_lost(
        &self,
        request: Request<wire::NameLostRequest>,
    ) -> Result<Response<wire::NameLostResponse>, Status> {
        let request = request.into_inner();
        let mut state = self.0.lock().unwrap();
        if !state.names_lost {
            return Err(Status::unimplemented("there is no such method"));
        }
        assert_eq!(request.epoch, state.epoch, "asked for under another epoch");
        let lost = request.claims.into_iter().map(|claim| state.give_up(&claim)).collect();
        Ok(Response::new(wire::NameLostResponse { lost }))
    }

    type IngestStream = Pin<Box<dyn Stream<Item = Result<wire::IngestResponse, Status>> + Send>>;

    async fn ingest(
        &self,
        request: Request<Streaming<wire::IngestRequest>>,
    ) -> Result<Response<Self::IngestStream>, Status> {
        let encoding = request.metadata().get("grpc-encoding");
        self.0.lock().unwrap().encoding = encoding.map(|name| name.to_str().unwrap().to_owned());
        let mut asks = request.into_inner();
        let (tell, told) = mpsc::channel(4);
        let mut conversation = Conversation {
            state: Arc::clone(&self.0),
            dictionary: Dictionary::new(1_000),
            attached: Vec::new(),
            told: BTreeMap::new(),
            stopped: Vec::new(),
            greeted: false,
            epoch: 0,
        };
        tokio::spawn(async move {
            let mut tick = tokio::time::interval(TICK);
            loop {
                let told = tokio::select! {
                    ask = asks.message() => match ask {
                        Ok(Some(ask)) => conversation.hear(ask.request.unwrap()),
                        Ok(None) | Err(_) => return,
                    },
                    _ = tick.tick() => conversation.tick(),
                };
                for reply in told {
                    let end = reply.is_err();
                    let reply = reply.map(|reply| wire::IngestResponse { response: Some(reply) });
                    if tell.send(reply).await.is_err() || end {
                        return;
                    }
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(told))))
    }
}

/// A channel that nobody answers.
pub(super) fn nobody() -> Channel {
    let transport = tonic::transport::Endpoint::from_static("http://127.0.0.1:1").connect_lazy();
    Channel::from_transport(transport, Duration::from_secs(1))
}
