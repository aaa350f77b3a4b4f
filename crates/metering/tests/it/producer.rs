//! A producer as short as it can be: a log in memory, frames resent from wherever the service says it stands.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::SocketAddr,
    num::NonZeroU32,
};

use drawdown_metering_core::{
    chain,
    frame::FrameBuilder,
    series::{Outcome, SeriesKey, SeriesNumber},
    shard::{Lane, Position, shard_of},
};
use drawdown_proto::metering::v1::{
    self as wire, ingest_request::Request, ingest_response::Response,
    ingest_service_client::IngestServiceClient,
};
use drawdown_types::{ClientId, DimensionName, MeterSlug, ProducerId};
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Status, Streaming,
    body::Body,
    client::GrpcService,
    codegen::{Bytes, StdError},
    transport::Channel,
};

use crate::{
    gate::Sums,
    rig::{SHARDS, now},
};

#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) first: u64,
    pub(crate) before: u64,
    pub(crate) end: Position,
    pub(crate) body: Vec<u8>,
    /// The body is a frame of rows.
    pub(crate) rows: bool,
}

impl Frame {
    /// As a log would have it that had this frame from the beginning.
    pub(crate) fn chain_again(&mut self) {
        self.end.chain = chain::next(self.before, &self.body);
    }

    pub(crate) fn to_wire(&self) -> wire::IngestRequest {
        let (chain_before, chain_after) = (self.before, Some(self.end.chain));
        request(if self.rows {
            let frame = wire::RowFrame::decode(self.body.as_slice()).ok();
            Request::Rows(wire::LaneRows { chain_before, frame, chain_after })
        } else {
            Request::Frame(wire::LaneFrame { chain_before, body: self.body.clone().into(), chain_after })
        })
    }
}

/// A log, and what it should come to.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    pub(crate) producer: ProducerId,
    pub(crate) lanes: BTreeMap<Lane, Vec<Frame>>,
    pub(crate) sums: Sums,
    series: HashMap<SeriesKey, u32>,
    definitions: Vec<wire::SeriesDefinition>,
}

pub(crate) fn key(client: &str, meter: &str) -> SeriesKey {
    key_of(client, meter, &[])
}

pub(crate) fn key_of(client: &str, meter: &str, dimensions: &[(&str, &str)]) -> SeriesKey {
    let (client, meter) = (ClientId::new(client).unwrap(), MeterSlug::new(meter).unwrap());
    let dimensions =
        dimensions.iter().map(|(name, value)| (DimensionName::new(name).unwrap(), (*value).to_owned()));
    SeriesKey::new(client, meter, Outcome::Succeeded, dimensions.collect(), None).unwrap()
}

impl Log {
    pub(crate) fn new(producer: ProducerId) -> Self {
        Self {
            producer,
            lanes: BTreeMap::new(),
            sums: Sums::new(),
            series: HashMap::new(),
            definitions: Vec::new(),
        }
    }

    pub(crate) fn lane_of(&self, client: &str) -> Lane {
        let shard = shard_of(client, NonZeroU32::new(SHARDS).unwrap());
        Lane { producer: self.producer, map_version: 1, shard }
    }

    pub(crate) fn number(&mut self, key: &SeriesKey) -> SeriesNumber {
        let next = u32::try_from(self.series.len()).unwrap() + 1;
        let number = *self.series.entry(key.clone()).or_insert(next);
        if number == next {
            self.definitions.push(wire::SeriesDefinition {
                number,
                series: Some(wire::Series {
                    client_id: key.client_id().to_string(),
                    meter: key.meter().to_string(),
                    outcome: i32::from(key.outcome().as_wire()),
                    dimensions: key
                        .dimensions()
                        .iter()
                        .map(|(name, value)| wire::Dimension {
                            name: name.to_string(),
                            value: value.to_string(),
                        })
                        .collect(),
                    ..wire::Series::default()
                }),
            });
        }
        SeriesNumber::new(number).unwrap()
    }

    /// Appends one frame with an event for each quantity.
    pub(crate) fn append(&mut self, client: &str, meter: &str, quantities: &[u64]) {
        let number = self.number(&key(client, meter));
        let mut builder = FrameBuilder::new();
        for quantity in quantities {
            builder.push(number, *quantity, now().as_millis());
        }
        let lane = self.lane_of(client);
        self.append_built(lane, &mut builder);
        self.count(client, meter, quantities);
    }

    /// Appends one frame with these events of these series, all of one client's shard; they are not in `sums`.
    pub(crate) fn append_events(&mut self, client: &str, events: &[(SeriesKey, u64)]) {
        let mut builder = FrameBuilder::new();
        for (key, quantity) in events {
            let number = self.number(key);
            builder.push(number, *quantity, now().as_millis());
        }
        let lane = self.lane_of(client);
        self.append_built(lane, &mut builder);
    }

    /// The same as a frame of rows.
    pub(crate) fn append_rows(&mut self, client: &str, meter: &str, quantities: &[u64]) {
        let row = |quantity: &u64| wire::UsageRow {
            series: Some(wire::Series {
                client_id: client.to_owned(),
                meter: meter.to_owned(),
                ..wire::Series::default()
            }),
            quantity: *quantity,
            time_unix_ms: now().as_millis(),
        };
        let lane = self.lane_of(client);
        let frame = wire::RowFrame {
            lane: Some(lane_to_wire(lane)),
            first_sequence: self.end(&lane).sequence + 1,
            received_at_unix_ms: now().as_millis(),
            rows: quantities.iter().map(row).collect(),
        };
        self.append_body(lane, quantities.len(), frame.encode_to_vec(), true);
        self.count(client, meter, quantities);
    }

    fn count(&mut self, client: &str, meter: &str, quantities: &[u64]) {
        let sum = self.sums.entry((client.to_owned(), meter.to_owned(), false)).or_default();
        sum.0 += u64::try_from(quantities.len()).unwrap();
        sum.1 += if meter == "web.call" {
            i64::try_from(quantities.len()).unwrap()
        } else {
            i64::try_from(quantities.iter().sum::<u64>()).unwrap()
        };
    }

    pub(crate) fn append_built(&mut self, lane: Lane, builder: &mut FrameBuilder) {
        let events = usize::try_from(builder.events()).unwrap();
        let body = builder.finish(lane, self.end(&lane).sequence + 1, now().as_millis());
        self.append_body(lane, events, body, false);
    }

    fn append_body(&mut self, lane: Lane, events: usize, body: Vec<u8>, rows: bool) {
        let frames = self.lanes.entry(lane).or_default();
        let before = frames.last().map_or(Position::START, |frame| frame.end);
        let sequence = before.sequence + u64::try_from(events).unwrap();
        let end = Position { sequence, chain: chain::next(before.chain, &body) };
        frames.push(Frame { first: before.sequence + 1, before: before.chain, end, body, rows });
    }

    /// Many clients and frames; the same for the same seed.
    pub(crate) fn fill(&mut self, seed: u64, frames: u64) {
        for frame in 0..frames {
            let client = format!("client-{}-{}", seed, frame % 7);
            let meter = if frame % 3 == 0 { "web.byte" } else { "web.call" };
            let quantities: Vec<u64> = (0..=frame % 5).map(|event| frame * 31 + event * 7 + seed).collect();
            self.append(&client, meter, &quantities);
        }
    }

    /// All definitions, as a stream repeats them.
    pub(crate) fn define(&self) -> wire::IngestRequest {
        request(Request::Define(wire::DefineSeries { definitions: self.definitions.clone() }))
    }

    pub(crate) fn end(&self, lane: &Lane) -> Position {
        self.lanes.get(lane).and_then(|frames| frames.last()).map_or(Position::START, |frame| frame.end)
    }

    pub(crate) fn ends(&self) -> BTreeMap<Lane, Position> {
        self.lanes.keys().map(|lane| (*lane, self.end(lane))).collect()
    }
}

/// What a stream came to.
#[derive(Debug)]
pub(crate) enum Ended {
    /// All lanes got as far as was waited for.
    Reached,
    /// The service ended the stream.
    Closed(Option<Status>),
    /// A lane was stopped.
    Stopped(wire::LaneStopped),
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Until {
    Applied,
    Settled,
}

/// One stream of a log.
pub(crate) struct Session<'a> {
    pub(crate) log: &'a Log,
    pub(crate) requests: mpsc::Sender<wire::IngestRequest>,
    pub(crate) inbound: Streaming<wire::IngestResponse>,
    pub(crate) applied: BTreeMap<Lane, Position>,
    /// How far each lane may be sent.
    pub(crate) granted: BTreeMap<Lane, u64>,
    pub(crate) settled: BTreeMap<Lane, Position>,
    pub(crate) rewound: u64,
    pub(crate) refused: Vec<wire::EventsRefused>,
}

pub(crate) async fn connect(address: SocketAddr) -> IngestServiceClient<Channel> {
    IngestServiceClient::connect(format!("http://{address}")).await.unwrap()
}

pub(crate) async fn open(address: SocketAddr, producer: ProducerId) -> Result<u64, Status> {
    let request = wire::OpenProducerRequest { producer_id: producer.to_string(), log_epoch: 0 };
    Ok(connect(address).await.open_producer(request).await?.into_inner().epoch)
}

pub(crate) fn request(request: Request) -> wire::IngestRequest {
    wire::IngestRequest { request: Some(request) }
}

pub(crate) fn lane_to_wire(lane: Lane) -> wire::Lane {
    wire::Lane { map_version: lane.map_version, shard: lane.shard }
}

fn position(log: &Log, at: Option<wire::LanePosition>) -> (Lane, Position) {
    let at = at.unwrap();
    let lane = at.lane.unwrap();
    let lane = Lane { producer: log.producer, map_version: lane.map_version, shard: lane.shard };
    (lane, Position { sequence: at.sequence, chain: at.chain })
}

impl<'a> Session<'a> {
    /// Says hello, repeats all definitions and attaches all lanes.
    pub(crate) async fn begin(log: &'a Log, address: SocketAddr, epoch: u64) -> Result<Self, Status> {
        Self::begin_with(log, connect(address).await, epoch).await
    }

    /// The same over a client that does something to the messages.
    pub(crate) async fn begin_with<T>(
        log: &'a Log,
        mut client: IngestServiceClient<T>,
        epoch: u64,
    ) -> Result<Self, Status>
    where
        T: GrpcService<Body>,
        T::Error: Into<StdError>,
        T::ResponseBody: http_body::Body<Data = Bytes> + Send + 'static,
        <T::ResponseBody as http_body::Body>::Error: Into<StdError> + Send,
    {
        let (requests, receiver) = mpsc::channel(100_000);
        let session_requests = requests.clone();
        let hello = wire::Hello { producer_id: log.producer.to_string(), epoch };
        for first in [request(Request::Hello(hello)), log.define()] {
            requests.send(first).await.unwrap();
        }
        for lane in log.lanes.keys() {
            let attach = wire::AttachLane {
                lane: Some(lane_to_wire(*lane)),
                end_sequence: log.end(lane).sequence,
                freed: None,
            };
            requests.send(request(Request::Attach(attach))).await.unwrap();
        }
        let inbound = client.ingest(ReceiverStream::new(receiver)).await?.into_inner();
        Ok(Self {
            log,
            requests: session_requests,
            inbound,
            applied: BTreeMap::new(),
            granted: BTreeMap::new(),
            settled: BTreeMap::new(),
            rewound: 0,
            refused: Vec::new(),
        })
    }

    pub(crate) async fn send(&self, frame: &Frame) {
        let _ = self.requests.send(frame.to_wire()).await;
    }

    async fn send_from(&self, lane: Lane, applied: Position) {
        for frame in self.log.lanes.get(&lane).into_iter().flatten() {
            if frame.first > applied.sequence {
                self.send(frame).await;
            }
        }
    }

    /// Sends and listens until everything in the log has got that far.
    pub(crate) async fn run(&mut self, until: Until) -> Ended {
        loop {
            let reached = match until {
                Until::Applied => &self.applied,
                Until::Settled => &self.settled,
            };
            if self.log.ends().iter().all(|(lane, end)| reached.get(lane) == Some(end)) {
                return Ended::Reached;
            }
            if let Some(ended) = self.next().await {
                return ended;
            }
        }
    }

    /// Takes one message.
    pub(crate) async fn next(&mut self) -> Option<Ended> {
        let message = match self.inbound.message().await {
            Ok(Some(message)) => message,
            Ok(None) => return Some(Ended::Closed(None)),
            Err(status) => return Some(Ended::Closed(Some(status))),
        };
        match message.response.unwrap() {
            Response::Attached(attached) => {
                let (lane, applied) = position(self.log, attached.applied);
                self.granted.insert(lane, attached.send_through_sequence);
                self.settled.insert(lane, position(self.log, attached.settled).1);
                self.applied.insert(lane, applied);
                self.send_from(lane, applied).await;
            }
            Response::Rewound(rewound) => {
                self.rewound += 1;
                let (lane, applied) = position(self.log, rewound.applied);
                self.applied.insert(lane, applied);
                self.send_from(lane, applied).await;
            }
            Response::Watermarks(marks) => {
                for mark in marks.lanes {
                    let (lane, applied) = position(self.log, mark.applied);
                    self.granted.insert(lane, mark.send_through_sequence);
                    self.applied.insert(lane, applied);
                    if mark.settled.is_some() {
                        self.settled.insert(lane, position(self.log, mark.settled).1);
                    }
                }
            }
            Response::Refused(refused) => self.refused.push(refused),
            Response::Stopped(stopped) => return Some(Ended::Stopped(stopped)),
        }
        None
    }
}

/// Opens the producer and sends its whole log, again on another instance's word if a stream ends.
pub(crate) async fn deliver(log: &Log, address: SocketAddr, until: Until) {
    let epoch = open(address, log.producer).await.unwrap();
    let mut session = Session::begin(log, address, epoch).await.unwrap();
    let ended = session.run(until).await;
    assert!(matches!(ended, Ended::Reached), "{ended:?}");
}

/// The sums of several logs.
pub(crate) fn sums_of<'a>(logs: impl IntoIterator<Item = &'a Log>) -> Sums {
    let mut all = Sums::new();
    for (series, (events, quantity)) in logs.into_iter().flat_map(|log| &log.sums) {
        let sum = all.entry(series.clone()).or_default();
        *sum = (sum.0 + events, sum.1 + quantity);
    }
    all
}

/// Clients whose lanes are of different shards.
pub(crate) fn clients_of_all_shards() -> Vec<String> {
    let mut seen = BTreeSet::new();
    let count = NonZeroU32::new(SHARDS).unwrap();
    let clients = (0..).map(|n| format!("c{n}")).filter(|client| seen.insert(shard_of(client, count)));
    clients.take(usize::try_from(SHARDS).unwrap()).collect()
}
