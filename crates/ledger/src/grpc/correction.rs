//! `CorrectionService`.

use std::sync::Arc;

use drawdown_proto::{
    ledger::v1::{
        self, CorrectChargeRequest, CorrectChargeResponse, correction_service_server::CorrectionService,
    },
    scalar::timestamp_to_proto,
};
use drawdown_service::{Refusal, Violations};
use drawdown_types::Quantity;
use prost::Message as _;
use tonic::{Request, Response, Status};

use super::{
    decode::{NOTE_BYTES_MAX, optional_instant, parsed, request_id, text},
    encode_report, status,
};
use crate::{
    corrections::{CorrectionOrder, Instead},
    error::Error,
    reason,
    service::{Ledger, Once},
    store::idempotency::RequestKey,
};

/// `CorrectionService` over a ledger.
#[derive(Clone)]
pub struct Corrections(Arc<Ledger>);

impl Corrections {
    /// Serves this ledger.
    #[must_use]
    pub const fn new(ledger: Arc<Ledger>) -> Self {
        Self(ledger)
    }

    async fn correct(&self, request: CorrectChargeRequest) -> Result<CorrectChargeResponse, Error> {
        let order = order(&request)?;
        let key = RequestKey::new("CorrectCharge", &request.request_id, &request.encode_to_vec());
        let key = match self.0.once(key).await? {
            Once::Answered(response) => return Ok(response),
            Once::New(key) => key,
        };
        let done = self.0.correct(&order).await?;
        let instead = done.instead.map(|(team, charge)| encode_report::charge(team, charge)).transpose()?;
        let response = CorrectChargeResponse {
            taken_back: Some(encode_report::charge(order.team_id, done.taken_back)?),
            instead,
            cancelled_micros: done.cancelled,
            posted_at: Some(timestamp_to_proto(done.posted_at)),
        };
        if request.validate_only {
            done.tx.rollback().await?;
            return Ok(response);
        }
        self.0.commit_once(done.tx, key, response, self.0.clock.now()).await
    }
}

#[tonic::async_trait]
impl CorrectionService for Corrections {
    async fn correct_charge(
        &self,
        request: Request<CorrectChargeRequest>,
    ) -> Result<Response<CorrectChargeResponse>, Status> {
        let failed = |error| status::of(error, &self.0.metrics);
        self.correct(request.into_inner()).await.map(Response::new).map_err(failed)
    }
}

fn order(request: &CorrectChargeRequest) -> Result<CorrectionOrder, Refusal> {
    let mut v = Violations::new();
    request_id(&mut v, &request.request_id);
    let account_id = parsed(&mut v, "account_id", &request.account_id);
    let team_id = parsed(&mut v, "team_id", &request.team_id);
    let charge_id = parsed(&mut v, "charge_id", &request.charge_id);
    let quantity = units(&mut v, "quantity", request.quantity);
    let instead = match &request.instead {
        Some(usage) => self::instead(&mut v, usage).map(Some),
        None => Some(None),
    };
    let reason = text(&mut v, "reason", &request.reason, 1, NOTE_BYTES_MAX);
    let order = account_id.zip(team_id).zip(charge_id).zip(quantity).zip(instead).zip(reason);
    let order =
        order.map(|(((((account_id, team_id), charge_id), quantity), instead), reason)| CorrectionOrder {
            account_id,
            team_id,
            charge_id,
            quantity: (quantity > Quantity::ZERO).then_some(quantity),
            instead,
            reason,
        });
    v.finish(reason::REQUEST_INVALID, order)
}

fn instead(v: &mut Violations, usage: &v1::InsteadUsage) -> Option<Instead> {
    let team_id = optional(v, "instead.team_id", &usage.team_id);
    let app_id = optional(v, "instead.app_id", &usage.app_id);
    let client_id = optional(v, "instead.client_id", &usage.client_id);
    let meter = optional(v, "instead.meter", &usage.meter);
    let window = optional_instant(v, "instead.window_start", usage.window_start.as_ref());
    let quantity = units(v, "instead.quantity", usage.quantity);
    Some(Instead {
        team_id: team_id?,
        app_id: app_id?,
        client_id: client_id?,
        meter: meter?,
        window: window?,
        quantity: quantity?,
        failed: usage.failed,
    })
}

fn optional<T>(v: &mut Violations, field: &str, text: &str) -> Option<Option<T>>
where
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    if text.is_empty() { Some(None) } else { parsed(v, field, text).map(Some) }
}

fn units(v: &mut Violations, field: &str, units: i64) -> Option<Quantity> {
    v.field(field, || Quantity::new(units).map_err(|_| format!("is {units}, must be at least 0")))
}
