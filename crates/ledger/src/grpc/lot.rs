//! `LotService`.

use std::sync::Arc;

use drawdown_proto::{
    ledger::v1::{
        AdjustLotRequest, AdjustLotResponse, ChargeBackLotRequest, ChargeBackLotResponse, MoveLotRequest,
        MoveLotResponse, RefundLotRequest, RefundLotResponse, lot_service_server::LotService,
    },
    scalar::timestamp_to_proto,
};
use prost::Message as _;
use tonic::{Request, Response, Status};

use super::{decode_lot, encode, status};
use crate::{
    error::Error,
    service::{Ledger, Once},
    store::idempotency::RequestKey,
};

/// `LotService` over a ledger.
#[derive(Clone)]
pub struct Lots(Arc<Ledger>);

impl Lots {
    /// Serves this ledger.
    #[must_use]
    pub const fn new(ledger: Arc<Ledger>) -> Self {
        Self(ledger)
    }

    fn failed(&self) -> impl Fn(Error) -> Status {
        |error| status::of(error, &self.0.metrics)
    }

    async fn move_one(&self, request: MoveLotRequest) -> Result<MoveLotResponse, Error> {
        let (order, from, to) = decode_lot::move_lot(&request)?;
        let key = RequestKey::new("MoveLot", &request.request_id, &request.encode_to_vec());
        let key = match self.0.once(key).await? {
            Once::Answered(response) => return Ok(response),
            Once::New(key) => key,
        };
        let done = self.0.move_lot(&order, from, to).await?;
        let response = MoveLotResponse {
            lot: done.lots.first().map(encode::lot),
            moved_micros: done.amount.as_micros(),
            posted_at: Some(timestamp_to_proto(done.posted_at)),
        };
        self.0.commit_once(done.tx, key, response, self.0.clock.now()).await
    }

    async fn adjust(&self, request: AdjustLotRequest) -> Result<AdjustLotResponse, Error> {
        let (order, team) = decode_lot::adjust(&request)?;
        let key = RequestKey::new("AdjustLot", &request.request_id, &request.encode_to_vec());
        let key = match self.0.once(key).await? {
            Once::Answered(response) => return Ok(response),
            Once::New(key) => key,
        };
        let done = self.0.adjust_lot(&order, team, request.delta_micros).await?;
        let response = AdjustLotResponse { lot: done.lots.first().map(encode::lot) };
        self.0.commit_once(done.tx, key, response, self.0.clock.now()).await
    }

    async fn refund(&self, request: RefundLotRequest) -> Result<RefundLotResponse, Error> {
        let (order, team, amount) = decode_lot::refund(&request)?;
        let key = RequestKey::new("RefundLot", &request.request_id, &request.encode_to_vec());
        let key = match self.0.once(key).await? {
            Once::Answered(response) => return Ok(response),
            Once::New(key) => key,
        };
        let done = self.0.refund_lot(&order, team, amount).await?;
        let response = RefundLotResponse {
            lot: done.lots.first().map(encode::lot),
            refunded_micros: done.amount.as_micros(),
        };
        self.0.commit_once(done.tx, key, response, self.0.clock.now()).await
    }

    async fn charge_back(&self, request: ChargeBackLotRequest) -> Result<ChargeBackLotResponse, Error> {
        let order = decode_lot::charge_back(&request)?;
        let key = RequestKey::new("ChargeBackLot", &request.request_id, &request.encode_to_vec());
        let key = match self.0.once(key).await? {
            Once::Answered(response) => return Ok(response),
            Once::New(key) => key,
        };
        let done = self.0.charge_back_lot(&order).await?;
        let response = ChargeBackLotResponse {
            lots: done.lots.iter().map(encode::lot).collect(),
            owed_again_micros: done.amount.as_micros(),
        };
        self.0.commit_once(done.tx, key, response, self.0.clock.now()).await
    }
}

#[tonic::async_trait]
impl LotService for Lots {
    async fn move_lot(&self, request: Request<MoveLotRequest>) -> Result<Response<MoveLotResponse>, Status> {
        self.move_one(request.into_inner()).await.map(Response::new).map_err(self.failed())
    }

    async fn adjust_lot(
        &self,
        request: Request<AdjustLotRequest>,
    ) -> Result<Response<AdjustLotResponse>, Status> {
        self.adjust(request.into_inner()).await.map(Response::new).map_err(self.failed())
    }

    async fn refund_lot(
        &self,
        request: Request<RefundLotRequest>,
    ) -> Result<Response<RefundLotResponse>, Status> {
        self.refund(request.into_inner()).await.map(Response::new).map_err(self.failed())
    }

    async fn charge_back_lot(
        &self,
        request: Request<ChargeBackLotRequest>,
    ) -> Result<Response<ChargeBackLotResponse>, Status> {
        self.charge_back(request.into_inner()).await.map(Response::new).map_err(self.failed())
    }
}
