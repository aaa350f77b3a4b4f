//! The load of simple callers: frames of rows, a few hundred events a message, through one stream.
//!
//! A sender of its own, because the producer's log holds columns: it keeps no log and sends nothing twice, so a lane that is
//! rewound or stopped ends the run. A row is put together from the bytes of its series, which are encoded once; what is
//! measured is the server, and the same sender loads the null server.

use std::{
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use bytes::{BufMut as _, Bytes, BytesMut};
use drawdown_client::{Channel, clients::metering};
use drawdown_metering_core::{chain, shard::ShardMap};
use drawdown_proto::metering::v1::{self as pb, ingest_response::Response as Answer};
use drawdown_types::{Clock as _, SystemClock};
use prost::{
    Message,
    encoding::{WireType, encode_key, encode_varint, encoded_len_varint},
};
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::http::uri::PathAndQuery;

use crate::load::{Bits, DIMENSION, LoadSeries, QUANTITY_END, Zipf};

/// Messages that may wait for the transport.
const REQUESTS_MAX: usize = 16;
/// Events drawn between two looks at the clock.
const CHUNK: usize = 1024;

/// `IngestRequest` with the frame as bytes, as it travels.
#[derive(Clone, PartialEq, Message)]
struct RawRequest {
    #[prost(oneof = "RawKind", tags = "1, 2, 5")]
    request: Option<RawKind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum RawKind {
    #[prost(message, tag = "1")]
    Hello(pb::Hello),
    #[prost(message, tag = "2")]
    Attach(pb::AttachLane),
    #[prost(message, tag = "5")]
    Rows(RawRows),
}

/// `LaneRows` with the frame as bytes.
#[derive(Clone, PartialEq, Message)]
struct RawRows {
    #[prost(fixed64, tag = "1")]
    chain_before: u64,
    #[prost(bytes = "bytes", tag = "2")]
    frame: Bytes,
    #[prost(fixed64, optional, tag = "3")]
    chain_after: Option<u64>,
}

/// What a run of rows came to.
#[derive(Debug, Clone, Copy)]
pub struct RowRun {
    /// Events sent.
    pub events: u64,
    /// From the first event until all were applied.
    pub applied_after: Duration,
}

/// What the answers say, for all lanes together.
#[derive(Debug, Default)]
struct Heard {
    lanes: Vec<HeardLane>,
    news: Notify,
}

#[derive(Debug, Default)]
struct HeardLane {
    applied: AtomicU64,
    settled: AtomicU64,
    window: AtomicU64,
}

impl Heard {
    fn sum(&self, of: impl Fn(&HeardLane) -> &AtomicU64) -> u64 {
        self.lanes.iter().map(|lane| of(lane).load(Ordering::Acquire)).sum()
    }

    /// Waits until `holds`; each answer wakes it.
    async fn until(&self, holds: impl Fn(&Self) -> bool) {
        loop {
            let news = self.news.notified();
            if holds(self) {
                return;
            }
            news.await;
        }
    }

    fn hear(&self, answer: Answer) -> Result<()> {
        let raise = |position: Option<pb::LanePosition>, of: fn(&HeardLane) -> &AtomicU64| {
            let Some(position) = position else { return };
            let shard = position.lane.map_or(u32::MAX, |lane| lane.shard) as usize;
            if let Some(lane) = self.lanes.get(shard) {
                of(lane).fetch_max(position.sequence, Ordering::AcqRel);
            }
        };
        match answer {
            Answer::Attached(attached) => {
                let start = attached.applied.context("no position")?;
                ensure!(start.sequence == 0, "the lane stands at {} already", start.sequence);
                let window = pb::LanePosition { sequence: attached.send_through_sequence, ..start };
                raise(Some(window), |lane| &lane.window);
            }
            Answer::Watermarks(moved) => {
                for lane in moved.lanes {
                    let place = lane.applied.or(lane.settled).unwrap_or_default();
                    let window = pb::LanePosition { sequence: lane.send_through_sequence, ..place };
                    raise(Some(window), |lane| &lane.window);
                    raise(lane.applied, |lane| &lane.applied);
                    raise(lane.settled, |lane| &lane.settled);
                }
            }
            Answer::Rewound(_) | Answer::Stopped(_) | Answer::Refused(_) => bail!("{answer:?}"),
        }
        self.news.notify_waiters();
        Ok(())
    }
}

/// The frame of one lane that is being filled.
#[derive(Debug, Default)]
struct Filling {
    rows: BytesMut,
    count: usize,
    sent: u64,
    chain: u64,
}

struct Sender {
    map_version: u32,
    rows_per_message: usize,
    /// `UsageRow.series` of each series, with key and length.
    series: Vec<Vec<u8>>,
    shards: Vec<usize>,
    lanes: Vec<Filling>,
    requests: mpsc::Sender<RawRequest>,
    heard: Arc<Heard>,
}

impl Sender {
    fn add(&mut self, index: usize, quantity: u64, at_ms: i64) -> bool {
        let (series, shard) = (&self.series[index], self.shards[index]);
        let lane = &mut self.lanes[shard];
        let time = at_ms.cast_unsigned();
        let len = series.len() + 2 + encoded_len_varint(quantity) + encoded_len_varint(time);
        encode_key(4, WireType::LengthDelimited, &mut lane.rows);
        encode_varint(len as u64, &mut lane.rows);
        lane.rows.put_slice(series);
        encode_key(2, WireType::Varint, &mut lane.rows);
        encode_varint(quantity, &mut lane.rows);
        encode_key(3, WireType::Varint, &mut lane.rows);
        encode_varint(time, &mut lane.rows);
        lane.count += 1;
        lane.count >= self.rows_per_message
    }

    /// Sends what a lane has, once its window allows.
    async fn send(&mut self, shard: usize, now_ms: i64) -> Result<()> {
        let lane = &mut self.lanes[shard];
        if lane.count == 0 {
            return Ok(());
        }
        let name = pb::Lane { map_version: self.map_version, shard: u32::try_from(shard)? };
        let head = pb::RowFrame {
            lane: Some(name),
            first_sequence: lane.sent + 1,
            received_at_unix_ms: now_ms,
            rows: Vec::new(),
        };
        let mut frame = BytesMut::with_capacity(head.encoded_len() + lane.rows.len());
        head.encode(&mut frame)?;
        frame.put_slice(&lane.rows);
        let frame = frame.freeze();
        let (before, after) = (lane.chain, chain::next(lane.chain, &frame));
        (lane.chain, lane.sent) = (after, lane.sent + lane.count as u64);
        (lane.count, lane.rows) = (0, BytesMut::with_capacity(lane.rows.len()));
        let through = lane.sent;
        self.heard.until(|heard| heard.lanes[shard].window.load(Ordering::Acquire) >= through).await;
        let rows = RawRows { chain_before: before, frame, chain_after: Some(after) };
        let request = RawRequest { request: Some(RawKind::Rows(rows)) };
        self.requests.send(request).await.context("the stream is closed")
    }
}

/// Appends drawn events to a new producer for `length`, so many rows a message, and waits until all are settled.
///
/// # Errors
/// Where the server refuses anything.
pub async fn run(
    channel: &Channel,
    producer: &str,
    series: &mut [LoadSeries],
    rows_per_message: usize,
    length: Duration,
) -> Result<RowRun> {
    let request = pb::OpenProducerRequest { producer_id: producer.to_owned(), log_epoch: 0 };
    let opened = metering::producers(channel).open_producer(request).await?.into_inner();
    let shard_count = NonZeroU32::new(opened.shard_count).context("no shards")?;
    let map = ShardMap { version: opened.map_version, shard_count };
    let (requests, outgoing) = mpsc::channel(REQUESTS_MAX);
    let hello = pb::Hello { producer_id: producer.to_owned(), epoch: opened.epoch };
    requests.send(RawRequest { request: Some(RawKind::Hello(hello)) }).await?;
    let mut answers = stream(channel, outgoing).await?;
    let lanes = 0..shard_count.get();
    let heard =
        Arc::new(Heard { lanes: lanes.clone().map(|_| HeardLane::default()).collect(), ..Heard::default() });
    let listening = {
        let heard = Arc::clone(&heard);
        tokio::spawn(async move {
            while let Some(answer) = answers.message().await? {
                heard.hear(answer.response.context("an empty answer")?)?;
            }
            Ok::<_, anyhow::Error>(())
        })
    };
    for shard in lanes {
        let lane = Some(pb::Lane { map_version: map.version, shard });
        let freed = Some(pb::LanePosition { lane, sequence: 0, chain: chain::START });
        let attach = pb::AttachLane { lane, end_sequence: 0, freed };
        requests.send(RawRequest { request: Some(RawKind::Attach(attach)) }).await?;
    }
    let sender = Sender {
        map_version: map.version,
        rows_per_message,
        series: series.iter().map(series_field).collect(),
        shards: series.iter().map(|series| map.shard_of(&series.client_id) as usize).collect(),
        lanes: heard.lanes.iter().map(|_| Filling::default()).collect(),
        requests,
        heard: Arc::clone(&heard),
    };
    tokio::select! {
        run = send_for(sender, series, length) => run,
        end = listening => match end? {
            Ok(()) => bail!("the stream ended"),
            Err(error) => Err(error),
        },
    }
}

async fn send_for(mut sender: Sender, series: &mut [LoadSeries], length: Duration) -> Result<RowRun> {
    let zipf = Zipf::new(series.len());
    let (mut bits, mut events, start) = (Bits(43), 0_u64, Instant::now());
    while start.elapsed() < length {
        let at_ms = SystemClock.now().as_millis();
        for _ in 0..CHUNK {
            let (index, quantity) = (zipf.draw(bits.draw()), bits.draw() & (QUANTITY_END - 1));
            if sender.add(index, quantity, at_ms) {
                sender.send(sender.shards[index], at_ms).await?;
            }
            series[index].events += 1;
            series[index].quantity += quantity;
        }
        events += CHUNK as u64;
        tokio::task::yield_now().await;
    }
    for shard in 0..sender.lanes.len() {
        sender.send(shard, SystemClock.now().as_millis()).await?;
    }
    sender.heard.until(|heard| heard.sum(|lane| &lane.applied) >= events).await;
    let applied_after = start.elapsed();
    sender.heard.until(|heard| heard.sum(|lane| &lane.settled) >= events).await;
    Ok(RowRun { events, applied_after })
}

/// `UsageRow.series`, encoded.
fn series_field(series: &LoadSeries) -> Vec<u8> {
    let dimension = |value: &Arc<str>| pb::Dimension { name: DIMENSION.to_owned(), value: value.to_string() };
    let message = pb::Series {
        client_id: series.client_id.to_string(),
        meter: series.meter.to_string(),
        outcome: pb::Outcome::Succeeded.into(),
        dimensions: series.dimension.iter().map(dimension).collect(),
        hold_id: String::new(),
    };
    let mut bytes = Vec::with_capacity(message.encoded_len() + 4);
    prost::encoding::message::encode(1, &message, &mut bytes);
    bytes
}

async fn stream(
    channel: &Channel,
    outgoing: mpsc::Receiver<RawRequest>,
) -> Result<tonic::Streaming<pb::IngestResponse>> {
    let mut grpc = tonic::client::Grpc::new(channel.streaming());
    grpc.ready().await.map_err(|error| anyhow::anyhow!("not ready: {error}"))?;
    let codec = tonic_prost::ProstCodec::<RawRequest, pb::IngestResponse>::default();
    let path = PathAndQuery::from_static("/drawdown.metering.v1.IngestService/Ingest");
    let request = tonic::Request::new(ReceiverStream::new(outgoing));
    Ok(grpc.streaming(request, path, codec).await?.into_inner())
}
