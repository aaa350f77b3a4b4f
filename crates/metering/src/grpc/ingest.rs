//! `IngestService`: opening producers, and streams of frames.

use std::sync::Arc;

use drawdown_metering_core::shard::{Lane, Position};
use drawdown_proto::{
    ledger::v1::{LaneState, NameLostRequest},
    metering::v1 as wire,
};
use drawdown_service::{Code, Refusal, refusal};
use drawdown_types::ProducerId;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Status, Streaming};

use super::{
    codec::Message,
    decode::{self, Claim},
    encode, stream,
};
use crate::{instance::Instance, reason};

/// The service.
#[derive(Clone)]
pub(crate) struct Ingest {
    instance: Arc<Instance>,
    /// Cancelled: streams read no more.
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Ingest {
    pub(crate) const fn new(instance: Arc<Instance>, stop: CancellationToken, tasks: TaskTracker) -> Self {
        Self { instance, stop, tasks }
    }

    fn limits(&self) -> wire::IngestLimits {
        let ingest = &self.instance.config.ingest;
        wire::IngestLimits {
            frame_bytes_max: ingest.frame_bytes_max.get_u32(),
            frame_events_max: ingest.frame_events_max.get_u32(),
            series_max: ingest.series_per_stream_max.get_u32(),
        }
    }
}

fn settled(producer: ProducerId, state: &LaneState) -> (Lane, Position) {
    let lane = Lane { producer, map_version: state.map_version, shard: state.shard };
    (lane, Position { sequence: state.settled_sequence, chain: state.settled_chain })
}

/// What the ledger says to a producer: its own refusals as they are, everything else as unavailable.
fn opening_failed(status: Status) -> Status {
    match status.code() {
        tonic::Code::NotFound => {
            Refusal::new(Code::NotFound, reason::PRODUCER_UNKNOWN, "the ledger does not know this producer")
                .violation("producer_id", "is not registered")
                .into()
        }
        _ if !drawdown_client::is_transient(&status) && drawdown_client::reason_of(&status).is_some() => {
            status
        }
        _ => refusal::unavailable(status),
    }
}

/// What a stream is answered.
pub(super) type Answers = ReceiverStream<Result<wire::IngestResponse, Status>>;

impl Ingest {
    pub(super) async fn open_producer(
        &self,
        request: wire::OpenProducerRequest,
    ) -> Result<wire::OpenProducerResponse, Status> {
        let producer = decode::producer(&request.producer_id)?;
        let opened = self
            .instance
            .ledger()
            .open_producer(producer, request.log_epoch)
            .await
            .map_err(opening_failed)?;
        let settled = opened.lanes.iter().map(|state| settled(producer, state)).collect();
        let settled = self.instance.cells.told(settled).await.map_err(refusal::unavailable)?;
        let map = self.instance.config.current_map();
        Ok(wire::OpenProducerResponse {
            epoch: opened.epoch,
            map_version: map.map_or(0, |map| map.version),
            shard_count: map.map_or(0, |map| map.shard_count.get()),
            settled: settled.iter().map(|(lane, at)| encode::position(lane, *at)).collect(),
            limits: Some(self.limits()),
        })
    }

    /// Hands the claims to the ledger, one after the other: each is a transaction of its own shard.
    pub(super) async fn name_lost(
        &self,
        request: &wire::NameLostRequest,
    ) -> Result<wire::NameLostResponse, Status> {
        let claims = decode::lost(request, &self.instance.config)?;
        let mut lost = Vec::with_capacity(claims.len());
        for Claim { lane, epoch, settled, freed } in claims {
            let claim = NameLostRequest {
                at_settled: Some(LaneState {
                    producer_id: lane.producer.to_string(),
                    map_version: lane.map_version,
                    shard: lane.shard,
                    epoch,
                    settled_sequence: settled.sequence,
                    settled_chain: settled.chain,
                }),
                freed_sequence: freed.sequence,
                freed_chain: freed.chain,
            };
            let named = self.instance.ledger().name_lost(claim).await.map_err(opening_failed)?;
            tracing::error!(
                %lane,
                from = named.from_sequence,
                to = named.to_sequence,
                "a range of events is lost"
            );
            lost.push(wire::LostRange {
                lane: Some(encode::lane(&lane)),
                from_sequence: named.from_sequence,
                to_sequence: named.to_sequence,
            });
        }
        Ok(wire::NameLostResponse { lost })
    }

    pub(super) fn ingest(&self, requests: Streaming<Message>) -> Result<Answers, Status> {
        let unavailable = || {
            let message = "this instance has as many streams as it takes";
            Refusal::new(Code::ResourceExhausted, reason::STREAMS_EXHAUSTED, message)
                .retry_after(refusal::RETRY_AFTER_DEFAULT)
        };
        let permit = Arc::clone(&self.instance.streams).try_acquire_owned().map_err(|_| unavailable())?;
        let (answers, receiver) = mpsc::channel(self.instance.config.ingest.responses_max.get());
        let serving = stream::serve(Arc::clone(&self.instance), requests, answers, self.stop.clone(), permit);
        self.tasks.spawn(serving);
        Ok(ReceiverStream::new(receiver))
    }
}
