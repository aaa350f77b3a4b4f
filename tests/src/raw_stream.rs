//! A stream to metering without a producer: frames as generated code encodes them, faults and all.

use anyhow::{Context, Result, bail};
use drawdown_client::{Channel, clients::metering};
use drawdown_metering_core::chain;
use drawdown_proto::metering::v1::{
    self as pb, ingest_request::Request as Outgoing, ingest_response::Response as Incoming,
};
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

/// Messages that may wait for the transport.
const REQUESTS_MAX: usize = 16;

/// One open stream.
#[derive(Debug)]
pub struct RawStream {
    requests: mpsc::Sender<pb::IngestRequest>,
    answers: Streaming<pb::IngestResponse>,
}

/// What a lane came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LaneEnd {
    /// All of it is settled; refused events by reason, each with its first fault.
    Settled(Vec<(String, u32, String)>),
    /// It was stopped.
    Stopped {
        /// Why.
        reason: String,
        /// The fields named.
        fields: Vec<String>,
    },
}

impl RawStream {
    /// Opens the producer and a stream of its new epoch.
    ///
    /// # Errors
    /// The refusal.
    pub async fn open(channel: &Channel, producer_id: &str, log_epoch: u64) -> Result<(Self, u64), Status> {
        let request = pb::OpenProducerRequest { producer_id: producer_id.to_owned(), log_epoch };
        let opened = metering::producers(channel).open_producer(request).await?.into_inner();
        let stream = Self::with_epoch(channel, producer_id, opened.epoch).await?;
        Ok((stream, opened.epoch))
    }

    /// A stream that says it is of `epoch`.
    ///
    /// # Errors
    /// The refusal.
    pub async fn with_epoch(channel: &Channel, producer_id: &str, epoch: u64) -> Result<Self, Status> {
        let (requests, outgoing) = mpsc::channel(REQUESTS_MAX);
        let hello = pb::Hello { producer_id: producer_id.to_owned(), epoch };
        let first = pb::IngestRequest { request: Some(Outgoing::Hello(hello)) };
        requests.try_send(first).map_err(|_| Status::internal("the queue is new"))?;
        let answers = metering::ingest(channel).ingest(ReceiverStream::new(outgoing)).await?;
        Ok(Self { requests, answers: answers.into_inner() })
    }

    /// Sends one message.
    ///
    /// # Errors
    /// Where the stream is closed.
    pub async fn send(&self, request: Outgoing) -> Result<()> {
        let request = pb::IngestRequest { request: Some(request) };
        self.requests.send(request).await.context("the stream is closed")
    }

    /// Attaches a lane and waits for the answer.
    ///
    /// # Errors
    /// Where the lane is not attached.
    pub async fn attach(&mut self, lane: pb::Lane, end_sequence: u64) -> Result<pb::LaneAttached> {
        let freed = Some(pb::LanePosition { lane: Some(lane), sequence: 0, chain: chain::START });
        self.send(Outgoing::Attach(pb::AttachLane { lane: Some(lane), end_sequence, freed })).await?;
        loop {
            match self.next().await? {
                Incoming::Attached(attached) => return Ok(attached),
                Incoming::Watermarks(_) | Incoming::Refused(_) | Incoming::Rewound(_) => {}
                Incoming::Stopped(stopped) => bail!("stopped: {stopped:?}"),
            }
        }
    }

    /// Sends a frame; answers the chain after it.
    ///
    /// # Errors
    /// Where the stream is closed.
    pub async fn frame(&self, frame: &pb::ColumnFrame, chain_before: u64) -> Result<u64> {
        self.frame_bytes(frame.encode_to_vec(), chain_before).await
    }

    /// Sends a frame's bytes, whatever they are; answers the chain after them.
    ///
    /// # Errors
    /// Where the stream is closed.
    pub async fn frame_bytes(&self, body: Vec<u8>, chain_before: u64) -> Result<u64> {
        let after = chain::next(chain_before, &body);
        let frame = pb::LaneFrame { chain_before, body: body.into(), chain_after: Some(after) };
        self.send(Outgoing::Frame(frame)).await?;
        Ok(after)
    }

    /// The next answer.
    ///
    /// # Errors
    /// The stream's end.
    pub async fn next(&mut self) -> Result<Incoming> {
        let answer = self.answers.message().await?.context("the stream ended")?;
        answer.response.context("an empty answer")
    }

    /// Waits until the lane has settled through `sequence` or was stopped.
    ///
    /// # Errors
    /// The stream's end.
    pub async fn lane_end(&mut self, lane: pb::Lane, sequence: u64) -> Result<LaneEnd> {
        let mut refused = Vec::new();
        loop {
            match self.next().await? {
                Incoming::Refused(events) if events.lane == Some(lane) => {
                    let field = events.fault.map(|fault| fault.field).unwrap_or_default();
                    refused.push((events.reason, events.count, field));
                }
                Incoming::Stopped(stopped) if stopped.lane == Some(lane) => {
                    let fields = stopped.faults.into_iter().map(|fault| fault.field).collect();
                    return Ok(LaneEnd::Stopped { reason: stopped.reason, fields });
                }
                Incoming::Watermarks(moved) => {
                    let settled = moved.lanes.iter().filter_map(|lane| lane.settled);
                    let mut of_lane = settled.filter(|position| position.lane == Some(lane));
                    if of_lane.any(|position| position.sequence >= sequence) {
                        refused.sort();
                        return Ok(LaneEnd::Settled(refused));
                    }
                }
                Incoming::Refused(_)
                | Incoming::Stopped(_)
                | Incoming::Attached(_)
                | Incoming::Rewound(_) => {}
            }
        }
    }
}
