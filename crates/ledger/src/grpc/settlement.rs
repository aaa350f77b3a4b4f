//! `SettlementService`.

use std::sync::Arc;

use drawdown_proto::{
    ledger::v1::{
        BeginResetRequest, BeginResetResponse, CreateProducerRequest, CreateProducerResponse,
        GetCellPartRequest, GetCellPartResponse, GetShardsRequest, GetShardsResponse, HasSettledUsageRequest,
        HasSettledUsageResponse, NameLostRequest, NameLostResponse, OpenProducerRequest,
        OpenProducerResponse, PostBatchRequest, PostBatchResponse, ProducerState, ResetAllShardsRequest,
        ResetAllShardsResponse, settlement_service_server::SettlementService,
    },
    scalar::timestamp_to_proto,
};
use drawdown_service::{Code, Refusal, Violations};
use drawdown_types::ProducerId;
use prost::Message as _;
use tonic::{Request, Response, Status};

use super::{decode, decode_batch, decode_cells, encode, encode_cells, status};
use crate::{
    error::Error,
    posting::Posted,
    reason,
    service::{Ledger, Once},
    store::{idempotency::RequestKey, parts, settlement, shards::LanesOf},
};

/// `SettlementService` over a ledger.
#[derive(Clone)]
pub struct Settlement(Arc<Ledger>);

impl Settlement {
    /// Serves this ledger.
    #[must_use]
    pub const fn new(ledger: Arc<Ledger>) -> Self {
        Self(ledger)
    }

    fn failed(&self) -> impl Fn(Error) -> Status {
        |error| status::of(error, &self.0.metrics)
    }

    async fn shards(&self, request: &GetShardsRequest) -> Result<GetShardsResponse, Error> {
        let (wanted, producers) = decode::shards(request)?;
        let lanes = if request.only_their_lanes { LanesOf::ThoseProducers } else { LanesOf::Everybody };
        let (states, producers) = self.0.shards(&wanted, &producers, lanes).await?;
        let producer = |(id, epoch): (ProducerId, i64)| ProducerState {
            producer_id: id.to_string(),
            epoch: encode::unsigned(epoch),
        };
        Ok(GetShardsResponse {
            shards: states.iter().map(encode::shard).collect(),
            window_secs: self.0.settings.window_size.as_secs(),
            producers: producers.into_iter().map(producer).collect(),
            cell: self.0.cells.number.into(),
        })
    }

    /// Producers and what they lost are the leading cell's: the others hear of both with a batch.
    fn leads(&self) -> Result<(), Error> {
        if self.0.cells.leads() {
            return Ok(());
        }
        let why =
            format!("this is cell {}: producers are registered in the leading one", self.0.cells.number);
        Err(Refusal::new(Code::FailedPrecondition, reason::CELL_MISMATCH, why).into())
    }

    async fn create(&self, request: CreateProducerRequest) -> Result<CreateProducerResponse, Error> {
        self.leads()?;
        let name = decode::new_producer(&request)?;
        let key = RequestKey::new("CreateProducer", &request.request_id, &request.encode_to_vec());
        match self.0.once(key).await? {
            Once::Answered(response) => Ok(response),
            Once::New(key) => {
                let (tx, id) = self.0.create_producer(&name).await?;
                let response = CreateProducerResponse { producer_id: id.to_string() };
                self.0.commit_once(tx, key, response, self.0.clock.now()).await
            }
        }
    }

    async fn open(&self, request: &OpenProducerRequest) -> Result<OpenProducerResponse, Error> {
        self.leads()?;
        let (id, log_epoch) = decode::opening(request)?;
        let (epoch, lanes) = self.0.open_producer(id, log_epoch).await?;
        let lanes = lanes.iter().map(encode::lane).collect();
        Ok(OpenProducerResponse { epoch: encode::unsigned(epoch), lanes })
    }

    async fn reset(&self, request: &BeginResetRequest) -> Result<BeginResetResponse, Error> {
        let (shard, expected, cause) = decode::reset(request)?;
        let state = self.0.begin_reset(shard, expected, &cause).await?;
        Ok(BeginResetResponse { cursor: Some(encode::shard(&state)) })
    }

    async fn reset_all(&self, request: &ResetAllShardsRequest) -> Result<ResetAllShardsResponse, Error> {
        let mut v = Violations::new();
        let cause = decode::cause(&mut v, &request.cause);
        let cause = v.finish(reason::REQUEST_INVALID, cause)?;
        let shards = self.0.reset_all(&cause).await?;
        Ok(ResetAllShardsResponse { shards: u32::try_from(shards).unwrap_or(u32::MAX) })
    }

    async fn lost(&self, request: &NameLostRequest) -> Result<NameLostResponse, Error> {
        self.leads()?;
        let claim = decode::lost_claim(request)?;
        let (from, to) = self.0.name_lost(&claim).await?;
        Ok(NameLostResponse { from_sequence: encode::unsigned(from), to_sequence: encode::unsigned(to) })
    }

    async fn part(&self, request: &GetCellPartRequest) -> Result<GetCellPartResponse, Error> {
        let (shard, number, cell) = decode_cells::wanted(request)?;
        let refuse = |code, reason, why: String| Error::from(Refusal::new(code, reason, why));
        if !self.0.cells.others.contains(&cell) {
            let why = format!("cell {cell} is none of {:?}", self.0.cells.others);
            return Err(refuse(Code::FailedPrecondition, reason::CELL_MISMATCH, why));
        }
        let Some(stored) = parts::part(&self.0.pool, shard, number, cell).await? else {
            let why = format!("shard {shard} has settled no batch {number}");
            return Err(refuse(Code::NotFound, reason::BATCH_UNKNOWN, why));
        };
        let Some(post) = encode_cells::part(shard, number, cell, &stored)? else {
            let why = format!("what batch {number} of shard {shard} had for cell {cell} is no longer kept");
            return Err(refuse(Code::FailedPrecondition, reason::PART_GONE, why));
        };
        Ok(GetCellPartResponse { post: Some(post) })
    }

    async fn settled(&self, request: &HasSettledUsageRequest) -> Result<HasSettledUsageResponse, Error> {
        let (team, from) = decode::usage_question(request)?;
        let settled =
            settlement::has_settled_usage(&mut *self.0.pool.read().await?, &request.client_ids, team, from)
                .await?;
        Ok(HasSettledUsageResponse { settled })
    }
}

fn answer(posted: Posted) -> PostBatchResponse {
    match posted {
        Posted::Settled(summary) => PostBatchResponse {
            already_settled: false,
            posted_at: Some(timestamp_to_proto(summary.posted_at)),
            charges: encode::unsigned(summary.charges),
            unattributed: encode::unsigned(summary.unattributed),
            amount_micros: summary.amount_micros,
        },
        Posted::Already(receipt) => PostBatchResponse {
            already_settled: true,
            posted_at: Some(timestamp_to_proto(receipt.posted_at)),
            charges: encode::unsigned(receipt.charges),
            unattributed: encode::unsigned(receipt.unattributed),
            amount_micros: receipt.amount_micros,
        },
    }
}

#[tonic::async_trait]
impl SettlementService for Settlement {
    async fn post_batch(
        &self,
        request: Request<PostBatchRequest>,
    ) -> Result<Response<PostBatchResponse>, Status> {
        let lines_max = self.0.limits.batch_lines_max;
        let batch = decode_batch::batch(request.get_ref(), self.0.settings.window_size, lines_max)?;
        drop(request);
        let posted = self.0.post(&batch).await.map_err(|error| status::of_post(error, &self.0.metrics))?;
        Ok(Response::new(answer(posted)))
    }

    async fn get_cell_part(
        &self,
        request: Request<GetCellPartRequest>,
    ) -> Result<Response<GetCellPartResponse>, Status> {
        self.part(request.get_ref()).await.map(Response::new).map_err(self.failed())
    }

    async fn get_shards(
        &self,
        request: Request<GetShardsRequest>,
    ) -> Result<Response<GetShardsResponse>, Status> {
        self.shards(request.get_ref()).await.map(Response::new).map_err(self.failed())
    }

    async fn begin_reset(
        &self,
        request: Request<BeginResetRequest>,
    ) -> Result<Response<BeginResetResponse>, Status> {
        self.reset(request.get_ref()).await.map(Response::new).map_err(self.failed())
    }

    async fn reset_all_shards(
        &self,
        request: Request<ResetAllShardsRequest>,
    ) -> Result<Response<ResetAllShardsResponse>, Status> {
        self.reset_all(request.get_ref()).await.map(Response::new).map_err(self.failed())
    }

    async fn create_producer(
        &self,
        request: Request<CreateProducerRequest>,
    ) -> Result<Response<CreateProducerResponse>, Status> {
        self.create(request.into_inner()).await.map(Response::new).map_err(self.failed())
    }

    async fn open_producer(
        &self,
        request: Request<OpenProducerRequest>,
    ) -> Result<Response<OpenProducerResponse>, Status> {
        self.open(request.get_ref()).await.map(Response::new).map_err(self.failed())
    }

    async fn name_lost(
        &self,
        request: Request<NameLostRequest>,
    ) -> Result<Response<NameLostResponse>, Status> {
        self.lost(request.get_ref()).await.map(Response::new).map_err(self.failed())
    }

    async fn has_settled_usage(
        &self,
        request: Request<HasSettledUsageRequest>,
    ) -> Result<Response<HasSettledUsageResponse>, Status> {
        self.settled(request.get_ref()).await.map(Response::new).map_err(self.failed())
    }
}
