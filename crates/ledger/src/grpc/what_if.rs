//! `WhatIfService`.

use std::{collections::HashMap, sync::Arc};

use drawdown_ledger_core::Cycle;
use drawdown_proto::{
    ledger::v1::{
        self, MeterWhatIf, PriceMonthRequest, PriceMonthResponse, WhatIfNote, price_month_request,
        what_if_service_server::WhatIfService,
    },
    scalar::timestamp_to_proto,
};
use drawdown_service::{Refusal, Violations};
use drawdown_types::MicroTokens;
use tonic::{Request, Response, Status};

use super::{decode, status};
use crate::{
    error::Error,
    reason,
    service::Ledger,
    what_if::{By, MeterQuote, MonthQuestion, Scope},
};

/// `WhatIfService` over a ledger.
#[derive(Clone)]
pub struct WhatIf(Arc<Ledger>);

impl WhatIf {
    /// Serves this ledger.
    #[must_use]
    pub const fn new(ledger: Arc<Ledger>) -> Self {
        Self(ledger)
    }

    async fn price(&self, request: &PriceMonthRequest) -> Result<PriceMonthResponse, Error> {
        let question = question(request)?;
        let quotes = self.0.price_month(&question).await?;
        let sum = |sum: i64, part: MicroTokens| sum.saturating_add(part.as_micros());
        let mut parts = quotes.iter().map(|meter| meter.quote.would_cost);
        let would_cost = parts.try_fold(0_i64, |sum, part| sum.checked_add(part?.as_micros()));
        let cycle = Cycle::of(question.month);
        Ok(PriceMonthResponse {
            meters: quotes.iter().map(meter).collect(),
            cost_micros: quotes.iter().map(|meter| meter.quote.cost).fold(0, sum),
            would_cost_micros: would_cost,
            from: Some(timestamp_to_proto(cycle.start())),
            to: Some(timestamp_to_proto(cycle.end())),
        })
    }
}

fn question(request: &PriceMonthRequest) -> Result<MonthQuestion, Refusal> {
    let mut v = Violations::new();
    let scope = match &request.scope {
        Some(price_month_request::Scope::TeamId(team)) => {
            decode::parsed(&mut v, "team_id", team).map(Scope::Team)
        }
        Some(price_month_request::Scope::AccountId(account)) => {
            decode::parsed(&mut v, "account_id", account).map(Scope::Account)
        }
        None => {
            v.push("scope", "must be a team or an account");
            None
        }
    };
    let month = decode::instant(&mut v, "month", request.month.as_ref());
    let by = match &request.by {
        Some(price_month_request::By::RateCardId(card)) => {
            decode::parsed(&mut v, "rate_card_id", card).map(By::Card)
        }
        Some(price_month_request::By::Draft(draft)) => v.within("draft", |v| self::draft(v, draft)),
        Some(price_month_request::By::InForce(kind)) => {
            decode::contract_kind_field(&mut v, "in_force", *kind).map(By::InForce)
        }
        None => {
            v.push("by", "must be a version of a rate card, a draft or a contract kind");
            None
        }
    };
    let question = scope.zip(month).zip(by).map(|((scope, month), by)| MonthQuestion { scope, month, by });
    v.finish(reason::REQUEST_INVALID, question)
}

fn draft(v: &mut Violations, draft: &v1::PriceDraft) -> Option<By> {
    if draft.prices.is_empty() {
        v.push("prices", "are none, at least 1 is needed");
    }
    let mut prices = HashMap::new();
    for (index, (meter, terms)) in decode::prices(v, &draft.prices).into_iter().enumerate() {
        if prices.insert(meter, terms).is_some() {
            v.push(&format!("prices[{index}].meter"), "is there twice");
        }
    }
    v.is_empty().then_some(By::Draft(prices))
}

fn meter(meter: &MeterQuote) -> MeterWhatIf {
    let MeterQuote { team_id, meter, quote, carries } = meter;
    let notes = [
        (quote.unpriced, WhatIfNote::Unpriced),
        (quote.would_cost.is_none(), WhatIfNote::DoesNotFit),
        (*carries, WhatIfNote::CarriedOver),
    ];
    let notes = notes.into_iter().filter(|(applies, _)| *applies);
    let would_cost = quote.would_cost.map(MicroTokens::as_micros);
    MeterWhatIf {
        team_id: team_id.to_string(),
        meter: meter.to_string(),
        quantity: quote.quantity.as_units(),
        cost_micros: quote.cost.as_micros(),
        would_cost_micros: would_cost,
        // Both are at least 0, so the difference fits.
        difference_micros: would_cost.map(|would| would.saturating_sub(quote.cost.as_micros())),
        notes: notes.map(|(_, note)| note.into()).collect(),
    }
}

#[tonic::async_trait]
impl WhatIfService for WhatIf {
    async fn price_month(
        &self,
        request: Request<PriceMonthRequest>,
    ) -> Result<Response<PriceMonthResponse>, Status> {
        let answer = self.price(request.get_ref()).await;
        answer.map(Response::new).map_err(|error| status::of(error, &self.0.metrics))
    }
}
