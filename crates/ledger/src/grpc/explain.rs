//! `ExplainService`.

use std::sync::Arc;

use drawdown_ledger_core::{Considered, LotView, OwedPart, TakenBack, TierPart, Verdict};
use drawdown_proto::{
    ledger::v1::{
        self, ChargeRating, ChargedTier, ConsideredLot, ExplainChargeRequest, ExplainChargeResponse,
        LotVerdict, NettedPart, explain_service_server::ExplainService,
    },
    scalar::timestamp_to_proto,
};
use drawdown_types::{MicroTokens, TeamId, Timestamp};
use tonic::{Request, Response, Status};

use super::{decode, encode, encode_report, status};
use crate::{
    error::Error,
    explain::{Explained, Rated},
    service::Ledger,
    tokens::NotedLot,
};

/// `ExplainService` over a ledger.
#[derive(Clone)]
pub struct Explain(Arc<Ledger>);

impl Explain {
    /// Serves this ledger.
    #[must_use]
    pub const fn new(ledger: Arc<Ledger>) -> Self {
        Self(ledger)
    }

    async fn charge(&self, request: &ExplainChargeRequest) -> Result<ExplainChargeResponse, Error> {
        let (of, charge_id) = decode::of_charge(&request.account_id, &request.team_id, &request.charge_id)?;
        response(of.team, self.0.explain(of, charge_id).await?)
    }
}

#[tonic::async_trait]
impl ExplainService for Explain {
    async fn explain_charge(
        &self,
        request: Request<ExplainChargeRequest>,
    ) -> Result<Response<ExplainChargeResponse>, Status> {
        let answer = self.charge(request.get_ref()).await;
        answer.map(Response::new).map_err(|error| status::of(error, &self.0.metrics))
    }
}

fn response(team: TeamId, explained: Explained) -> Result<ExplainChargeResponse, Error> {
    let Explained { charge, rating, payment, taken_back, at } = explained;
    let charge = encode_report::charge(team, charge)?;
    let rating = rating.map(|rating| self::rating(charge.price_id.clone(), &rating));
    let mut answer = ExplainChargeResponse {
        charge: Some(charge),
        rating,
        taken_back: taken_back.iter().map(self::taken_back).collect(),
        at: Some(timestamp_to_proto(at)),
        ..ExplainChargeResponse::default()
    };
    if let Some(paid) = payment {
        (answer.first_seq, answer.last_seq) = paid.rows;
        answer.hold_id = paid.hold_id.map(|hold| hold.to_string()).unwrap_or_default();
        answer.lots = paid.lots.into_iter().map(|lot| considered(lot, paid.posted_at)).collect();
        answer.charged_again = paid.charged_again;
        answer.taken_back = paid.taken_back.iter().map(self::taken_back).collect();
        answer.debts = paid.debts.iter().map(owed).collect();
    }
    Ok(answer)
}

fn rating(price_id: String, rated: &Rated) -> ChargeRating {
    let Rated { meter, aggregation, terms, cycle, story, period } = rated;
    let (aggregation, period_kind) = encode::aggregation(*aggregation);
    let tier = |part: &TierPart| ChargedTier { above: part.above, micros: part.micros, units: part.units };
    ChargeRating {
        price_id,
        price: Some(encode::price(meter, terms)),
        aggregation: aggregation.into(),
        period: period_kind.into(),
        month_start: Some(timestamp_to_proto(cycle.start())),
        month_before: story.month_before.as_units(),
        month_after: story.month_after.as_units(),
        priced_before: story.priced_before.as_units(),
        priced_after: story.priced_after.as_units(),
        cost_before_micros: story.cost_before.as_micros(),
        cost_after_micros: story.cost_after.as_micros(),
        tiers: story.tiers.iter().map(tier).collect(),
        period_start: period.map(|period| timestamp_to_proto(period.start)),
        period_before: period.map_or(0, |period| period.before),
        period_after: period.map_or(0, |period| period.after),
    }
}

fn considered(considered: Considered, posted_at: Timestamp) -> ConsideredLot {
    let Considered { lot, verdict } = considered;
    let nothing = (MicroTokens::ZERO, MicroTokens::ZERO);
    let (verdict, (paid, held)) = match verdict {
        Verdict::Paid { amount, held } => (LotVerdict::Paid, (amount, held)),
        Verdict::Closed => (LotVerdict::Closed, nothing),
        Verdict::Moved => (LotVerdict::Moved, nothing),
        Verdict::Scheduled => (LotVerdict::Scheduled, nothing),
        Verdict::StartsLater => (LotVerdict::StartsLater, nothing),
        Verdict::CameLater => (LotVerdict::CameLater, nothing),
        Verdict::Expired => (LotVerdict::Expired, nothing),
        Verdict::Empty => (LotVerdict::Empty, nothing),
        Verdict::NotNeeded => (LotVerdict::NotNeeded, nothing),
    };
    let state = lot.state_at(posted_at);
    let lot = NotedLot { view: LotView { lot, state }, at: posted_at, note: String::new() };
    ConsideredLot {
        lot: Some(encode::lot(&lot)),
        verdict: verdict.into(),
        paid_micros: paid.as_micros(),
        paid_of_hold_micros: held.as_micros(),
    }
}

fn taken_back(part: &TakenBack) -> v1::TakenBack {
    v1::TakenBack {
        seq: part.seq,
        posted_at: Some(timestamp_to_proto(part.posted_at)),
        correction_id: part.correction_id.map(|id| id.to_string()).unwrap_or_default(),
        lot_id: part.lot_id.map(|id| id.to_string()).unwrap_or_default(),
        amount_micros: part.amount.as_micros(),
    }
}

fn owed(part: &OwedPart) -> v1::OwedPart {
    let netted = part.netted.iter().map(|part| NettedPart {
        seq: part.seq,
        posted_at: Some(timestamp_to_proto(part.posted_at)),
        lot_id: part.lot_id.map(|id| id.to_string()).unwrap_or_default(),
        amount_micros: part.amount.as_micros(),
    });
    v1::OwedPart {
        seq: part.seq,
        posted_at: Some(timestamp_to_proto(part.posted_at)),
        taken_back_lot_id: part.taken_back.map(|id| id.to_string()).unwrap_or_default(),
        debt_from_micros: part.debt.from.as_micros(),
        debt_to_micros: part.debt.to.as_micros(),
        netted: netted.collect(),
        open_micros: part.open.as_micros(),
    }
}
