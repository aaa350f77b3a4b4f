//! `HoldService`.

use std::sync::Arc;

use drawdown_ledger_core::{Hold, HoldEnd};
use drawdown_proto::{
    ledger::v1::{
        self, CaptureHoldRequest, CaptureHoldResponse, ExtendHoldRequest, ExtendHoldResponse, GetHoldRequest,
        GetHoldResponse, HoldState, ListHoldsRequest, ListHoldsResponse, ReleaseHoldRequest,
        ReleaseHoldResponse, ReserveTokensRequest, ReserveTokensResponse, hold_service_server::HoldService,
    },
    scalar::timestamp_to_proto,
};
use drawdown_service::page;
use drawdown_types::{HoldId, Timestamp};
use prost::Message as _;
use tonic::{Request, Response, Status};

use super::{decode_hold, status};
use crate::{
    error::Error,
    holds::end_at,
    posting::Captured,
    service::{Ledger, Once},
    store::idempotency::RequestKey,
};

const PAGE_ROWS_DEFAULT: u32 = 1000;

/// `HoldService` over a ledger.
#[derive(Clone)]
pub struct Holds(Arc<Ledger>);

impl Holds {
    /// Serves this ledger.
    #[must_use]
    pub const fn new(ledger: Arc<Ledger>) -> Self {
        Self(ledger)
    }

    fn failed(&self) -> impl Fn(Error) -> Status {
        |error| status::of(error, &self.0.metrics)
    }

    fn encode(&self, hold: &Hold) -> Option<v1::Hold> {
        Some(encode(hold, self.0.clock.now()))
    }

    async fn reserve(&self, request: ReserveTokensRequest) -> Result<ReserveTokensResponse, Error> {
        let order = decode_hold::reserve(&request)?;
        let key = RequestKey::new("ReserveTokens", &request.request_id, &request.encode_to_vec());
        let key = match self.0.once(key).await? {
            Once::Answered(response) => return Ok(response),
            Once::New(key) => key,
        };
        let held = self.0.reserve(&order).await?;
        let response = ReserveTokensResponse { hold: self.encode(&held.hold) };
        self.0.commit_once(held.tx, key, response, self.0.clock.now()).await
    }

    async fn extend(&self, request: ExtendHoldRequest) -> Result<ExtendHoldResponse, Error> {
        let wish = decode_hold::extend(&request)?;
        let key = RequestKey::new("ExtendHold", &request.request_id, &request.encode_to_vec());
        let key = match self.0.once(key).await? {
            Once::Answered(response) => return Ok(response),
            Once::New(key) => key,
        };
        let held = self.0.extend(wish.team, wish.hold_id, wish.lasts, wish.more).await?;
        let response = ExtendHoldResponse { hold: self.encode(&held.hold) };
        self.0.commit_once(held.tx, key, response, self.0.clock.now()).await
    }

    async fn capture(&self, request: CaptureHoldRequest) -> Result<CaptureHoldResponse, Error> {
        let order = decode_hold::capture(&request)?;
        let key = RequestKey::new("CaptureHold", &request.request_id, &request.encode_to_vec());
        let key = match self.0.once(key).await? {
            Once::Answered(response) => return Ok(response),
            Once::New(key) => key,
        };
        let (hold, captured) = self.0.capture(&order).await?;
        let Captured::Charged { tx, charge_id, amount, from_hold, uncharged, at, .. } = captured else {
            return Err(Error::Broken("a capture was neither charged nor refused".to_owned()));
        };
        let response = CaptureHoldResponse {
            hold: Some(encode(&hold, at)),
            charge_id: charge_id.to_string(),
            amount_micros: amount,
            from_hold_micros: from_hold,
            uncharged_micros: uncharged,
        };
        self.0.commit_once(tx, key, response, self.0.clock.now()).await
    }

    async fn release(&self, request: ReleaseHoldRequest) -> Result<ReleaseHoldResponse, Error> {
        let (team, hold_id) = decode_hold::release(&request)?;
        let key = RequestKey::new("ReleaseHold", &request.request_id, &request.encode_to_vec());
        let key = match self.0.once(key).await? {
            Once::Answered(response) => return Ok(response),
            Once::New(key) => key,
        };
        let held = self.0.release(team, hold_id).await?;
        let released_micros = held.amount.as_micros();
        let response = ReleaseHoldResponse { hold: self.encode(&held.hold), released_micros };
        self.0.commit_once(held.tx, key, response, self.0.clock.now()).await
    }

    async fn one(&self, request: &GetHoldRequest) -> Result<GetHoldResponse, Error> {
        let (team, hold_id) = decode_hold::one(request)?;
        let hold = self.0.hold(team, hold_id).await?;
        Ok(GetHoldResponse { hold: self.encode(&hold) })
    }

    async fn list(&self, request: &ListHoldsRequest) -> Result<ListHoldsResponse, Error> {
        let team = decode_hold::team(&request.team_id)?;
        let list = format!("holds/{team}");
        let after: Option<String> = page::decode(&list, &request.page_token)?;
        let after: Option<HoldId> = after.and_then(|text| text.parse().ok());
        let rows = page::size(request.page_size, PAGE_ROWS_DEFAULT, self.0.limits.page_rows_max);
        let holds = self.0.holds(team, after, rows.into()).await?;
        let full = u32::try_from(holds.len()).unwrap_or(u32::MAX) >= rows;
        let last = holds.last().filter(|_| full).map(|hold| page::encode(&list, &hold.hold_id.to_string()));
        let now = self.0.clock.now();
        // A hold that timed out is over for every reader, whether or not a job has ended it (D40).
        let open = holds.iter().filter(|hold| end_at(hold, now).is_none());
        Ok(ListHoldsResponse {
            holds: open.map(|hold| encode(hold, now)).collect(),
            next_page_token: last.unwrap_or_default(),
        })
    }
}

fn encode(hold: &Hold, now: Timestamp) -> v1::Hold {
    let ended = end_at(hold, now);
    let state = match ended.map(|(_, end)| end) {
        None => HoldState::Open,
        Some(HoldEnd::Released) => HoldState::Released,
        Some(HoldEnd::Captured) => HoldState::Captured,
        Some(HoldEnd::TimedOut) => HoldState::TimedOut,
    };
    // What timed out holds nothing, even before a job has given it back.
    let left = |micros: i64| if ended.is_some() { 0 } else { micros };
    let part = |part: &drawdown_ledger_core::HoldPart| v1::HoldPart {
        lot_id: part.lot_id.to_string(),
        taken_micros: part.taken.as_micros(),
        remaining_micros: left(part.remaining.as_micros()),
    };
    v1::Hold {
        hold_id: hold.hold_id.to_string(),
        team_id: hold.team_id.to_string(),
        app_id: hold.app_id.map(|app| app.to_string()).unwrap_or_default(),
        window_start: Some(timestamp_to_proto(hold.window)),
        made_at: Some(timestamp_to_proto(hold.made_at)),
        expires_at: Some(timestamp_to_proto(hold.expires_at)),
        state: state.into(),
        ended_at: ended.map(|(at, _)| timestamp_to_proto(at)),
        taken_micros: hold.taken().as_micros(),
        remaining_micros: left(hold.remaining().as_micros()),
        parts: hold.parts.iter().map(part).collect(),
    }
}

#[tonic::async_trait]
impl HoldService for Holds {
    async fn reserve_tokens(
        &self,
        request: Request<ReserveTokensRequest>,
    ) -> Result<Response<ReserveTokensResponse>, Status> {
        self.reserve(request.into_inner()).await.map(Response::new).map_err(self.failed())
    }

    async fn extend_hold(
        &self,
        request: Request<ExtendHoldRequest>,
    ) -> Result<Response<ExtendHoldResponse>, Status> {
        self.extend(request.into_inner()).await.map(Response::new).map_err(self.failed())
    }

    async fn capture_hold(
        &self,
        request: Request<CaptureHoldRequest>,
    ) -> Result<Response<CaptureHoldResponse>, Status> {
        self.capture(request.into_inner()).await.map(Response::new).map_err(self.failed())
    }

    async fn release_hold(
        &self,
        request: Request<ReleaseHoldRequest>,
    ) -> Result<Response<ReleaseHoldResponse>, Status> {
        self.release(request.into_inner()).await.map(Response::new).map_err(self.failed())
    }

    async fn get_hold(&self, request: Request<GetHoldRequest>) -> Result<Response<GetHoldResponse>, Status> {
        self.one(request.get_ref()).await.map(Response::new).map_err(self.failed())
    }

    async fn list_holds(
        &self,
        request: Request<ListHoldsRequest>,
    ) -> Result<Response<ListHoldsResponse>, Status> {
        self.list(request.get_ref()).await.map(Response::new).map_err(self.failed())
    }
}
