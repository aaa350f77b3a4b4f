//! The calls that metering makes of the ledger, its catalogue and entitlement.

use drawdown_proto::{
    entitlement::v1::{
        self as entitlement, BatchResolveRequest, BatchResolveResponse, BilledTo, Resolution, ResolveRequest,
        ResolveResponse, UnresolvedReason, resolution::Answer, resolution_service_server::ResolutionService,
    },
    ledger::v1::{
        self as ledger, PostBatchRequest, PostBatchResponse, catalog_service_server::CatalogService,
        settlement_service_server::SettlementService,
    },
};
use tonic::{Request, Response, Status};

use super::{Gate, Mode, state::refuse};

#[tonic::async_trait]
impl SettlementService for Gate {
    async fn post_batch(
        &self,
        request: Request<PostBatchRequest>,
    ) -> Result<Response<PostBatchResponse>, Status> {
        *self.0.posts.lock().unwrap() += 1;
        self.0.posted.notify_waiters();
        let mode = *self.0.mode.lock().unwrap();
        if matches!(mode, Mode::Down | Mode::Gone) {
            return Err(Status::unavailable("the test says so"));
        }
        let batch = request.into_inner();
        {
            let poison = self.0.poison.lock().unwrap();
            if batch.lanes.iter().any(|range| poison.contains(&range.producer_id)) {
                return Err(refuse("REQUEST_INVALID", "poison"));
            }
        }
        let already_settled = self.0.state.lock().unwrap().post(&batch)?;
        if mode == Mode::ReplyLost {
            return Err(Status::unavailable("the reply is lost"));
        }
        Ok(Response::new(PostBatchResponse { already_settled, ..PostBatchResponse::default() }))
    }

    async fn get_cell_part(
        &self,
        request: Request<ledger::GetCellPartRequest>,
    ) -> Result<Response<ledger::GetCellPartResponse>, Status> {
        let ledger::GetCellPartRequest { shard, number, cell } = request.into_inner();
        let post = self.0.state.lock().unwrap().part(shard, number, cell)?;
        Ok(Response::new(ledger::GetCellPartResponse { post: Some(post) }))
    }

    async fn get_shards(
        &self,
        request: Request<ledger::GetShardsRequest>,
    ) -> Result<Response<ledger::GetShardsResponse>, Status> {
        let request = request.into_inner();
        if *self.0.mode.lock().unwrap() == Mode::Gone {
            return Err(Status::unavailable("the test says so"));
        }
        let mut state = self.0.state.lock().unwrap();
        let mut shards: Vec<_> = request.shards.iter().map(|shard| state.cursor(*shard)).collect();
        if request.only_their_lanes {
            let is_asked = |lane: &ledger::LaneState| request.producer_ids.contains(&lane.producer_id);
            shards.iter_mut().for_each(|cursor| cursor.lanes.retain(is_asked));
        }
        *self.0.lanes_told.lock().unwrap() = shards.iter().map(|cursor| cursor.lanes.len()).sum();
        let known = request.producer_ids.iter().filter_map(|id| state.producers.get_key_value(id));
        let producers = known
            .map(|(id, epoch)| ledger::ProducerState { producer_id: id.clone(), epoch: *epoch })
            .collect();
        Ok(Response::new(ledger::GetShardsResponse { shards, window_secs: 60, producers, cell: state.cell }))
    }

    async fn begin_reset(
        &self,
        request: Request<ledger::BeginResetRequest>,
    ) -> Result<Response<ledger::BeginResetResponse>, Status> {
        let request = request.into_inner();
        let cursor = Some(self.0.state.lock().unwrap().reset(request.shard, request.expected_generation)?);
        *self.0.resets.lock().unwrap() += 1;
        Ok(Response::new(ledger::BeginResetResponse { cursor }))
    }

    async fn open_producer(
        &self,
        request: Request<ledger::OpenProducerRequest>,
    ) -> Result<Response<ledger::OpenProducerResponse>, Status> {
        let request = request.into_inner();
        let (epoch, lanes) = self.0.state.lock().unwrap().open(&request.producer_id, request.log_epoch)?;
        Ok(Response::new(ledger::OpenProducerResponse { epoch, lanes }))
    }

    async fn reset_all_shards(
        &self,
        _: Request<ledger::ResetAllShardsRequest>,
    ) -> Result<Response<ledger::ResetAllShardsResponse>, Status> {
        Err(Status::unimplemented("not needed"))
    }

    async fn create_producer(
        &self,
        _: Request<ledger::CreateProducerRequest>,
    ) -> Result<Response<ledger::CreateProducerResponse>, Status> {
        Err(Status::unimplemented("not needed"))
    }

    async fn name_lost(
        &self,
        request: Request<ledger::NameLostRequest>,
    ) -> Result<Response<ledger::NameLostResponse>, Status> {
        let (from_sequence, to_sequence) = self.0.state.lock().unwrap().name_lost(&request.into_inner())?;
        Ok(Response::new(ledger::NameLostResponse { from_sequence, to_sequence }))
    }

    async fn has_settled_usage(
        &self,
        _: Request<ledger::HasSettledUsageRequest>,
    ) -> Result<Response<ledger::HasSettledUsageResponse>, Status> {
        Err(Status::unimplemented("not needed"))
    }
}

#[tonic::async_trait]
impl CatalogService for Gate {
    async fn list_meters(
        &self,
        _: Request<ledger::ListMetersRequest>,
    ) -> Result<Response<ledger::ListMetersResponse>, Status> {
        *self.0.readings.lock().unwrap() += 1;
        let meters = self.0.state.lock().unwrap().meters.values().cloned().collect();
        Ok(Response::new(ledger::ListMetersResponse { meters, next_page_token: String::new() }))
    }

    async fn create_meter(
        &self,
        _: Request<ledger::CreateMeterRequest>,
    ) -> Result<Response<ledger::CreateMeterResponse>, Status> {
        Err(Status::unimplemented("not needed"))
    }

    async fn publish_rate_card(
        &self,
        _: Request<ledger::PublishRateCardRequest>,
    ) -> Result<Response<ledger::PublishRateCardResponse>, Status> {
        Err(Status::unimplemented("not needed"))
    }

    async fn list_rate_cards(
        &self,
        _: Request<ledger::ListRateCardsRequest>,
    ) -> Result<Response<ledger::ListRateCardsResponse>, Status> {
        Err(Status::unimplemented("not needed"))
    }
}

#[tonic::async_trait]
impl ResolutionService for Gate {
    async fn resolve(&self, _: Request<ResolveRequest>) -> Result<Response<ResolveResponse>, Status> {
        Err(Status::unimplemented("not needed"))
    }

    async fn batch_resolve(
        &self,
        request: Request<BatchResolveRequest>,
    ) -> Result<Response<BatchResolveResponse>, Status> {
        let state = self.0.state.lock().unwrap();
        let resolutions = request.into_inner().queries.into_iter().map(|query| {
            let answer = if state.strangers.contains(&query.client_id) {
                Answer::Unresolved(UnresolvedReason::UnknownClient.into())
            } else {
                Answer::BilledTo(BilledTo {
                    app_id: state.apps.get(&query.client_id).cloned().unwrap_or_else(|| "app".to_owned()),
                    team_id: "team".to_owned(),
                    account_id: "acct".to_owned(),
                    contract_kind: entitlement::ContractKind::Flex.into(),
                    in_trial: false,
                    cell: state.elsewhere.get(&query.client_id).copied().unwrap_or_default(),
                })
            };
            Resolution { client_id: query.client_id, answer: Some(answer) }
        });
        Ok(Response::new(BatchResolveResponse { resolutions: resolutions.collect() }))
    }
}
