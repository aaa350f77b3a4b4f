//! What tests ask of a ledger, as its callers do: through the services.

use drawdown_ledger::verify::{Scope, Verdict, Verification};
use drawdown_proto::ledger::v1::{
    budget_service_server::BudgetService, catalog_service_server::CatalogService,
    correction_service_server::CorrectionService, event_service_server::EventService,
    notice_service_server::NoticeService, settlement_service_server::SettlementService,
    token_service_server::TokenService, *,
};
use drawdown_types::{AppId, EVENT_SLOTS, ProducerId};
use tonic::{Request, Status};

use super::{Buyer, SHARD, World, at, batch, proto, request_id, slot_of};

pub(crate) fn price(meter: &str, micros: i64, per_units: i64) -> Price {
    Price { meter: meter.to_owned(), micros, per_units, failed_is_free: true, ..Price::default() }
}

impl World {
    /// The meters `call` (count, 0.5 tokens) and `byte` (sum, 1 token per 1000), priced for ever.
    pub(crate) async fn priced(&self) {
        for (slug, aggregation) in [("call", Aggregation::Count), ("byte", Aggregation::Sum)] {
            self.meter(slug, aggregation).await.unwrap();
        }
        let prices = vec![price("call", 500_000, 1), price("byte", 1_000_000, 1000)];
        self.publish("web", "2020-01-01T00:00:00Z", prices, true).await.unwrap();
    }

    pub(crate) async fn meter(&self, slug: &str, aggregation: Aggregation) -> Result<Meter, Status> {
        self.meter_by(slug, aggregation, AggregationPeriod::Unspecified, "").await
    }

    pub(crate) async fn meter_by(
        &self,
        slug: &str,
        aggregation: Aggregation,
        period: AggregationPeriod,
        unique_dimension: &str,
    ) -> Result<Meter, Status> {
        let meter = Meter {
            slug: slug.to_owned(),
            unit: slug.to_owned(),
            aggregation: aggregation.into(),
            dimensions: vec!["region".to_owned(), "user".to_owned()],
            limit: LimitKind::Soft.into(),
            period: period.into(),
            unique_dimension: unique_dimension.to_owned(),
        };
        let request = CreateMeterRequest { meter: Some(meter), request_id: request_id() };
        let answer = self.catalog.create_meter(Request::new(request)).await?;
        Ok(answer.into_inner().meter.unwrap())
    }

    pub(crate) async fn publish(
        &self,
        name: &str,
        from: &str,
        prices: Vec<Price>,
        set_up: bool,
    ) -> Result<RateCard, Status> {
        let rate_card = RateCard {
            rate_card_id: String::new(),
            name: name.to_owned(),
            contract_kind: ContractKind::Flex.into(),
            effective_from: proto(at(from)),
            prices,
        };
        self.publish_as(rate_card, set_up).await
    }

    /// A card of any kind, set up.
    pub(crate) async fn publish_card(&self, rate_card: RateCard) -> Result<RateCard, Status> {
        self.publish_as(rate_card, true).await
    }

    async fn publish_as(&self, rate_card: RateCard, set_up: bool) -> Result<RateCard, Status> {
        let request = PublishRateCardRequest { rate_card: Some(rate_card), set_up, request_id: request_id() };
        let answer = self.catalog.publish_rate_card(Request::new(request)).await?;
        Ok(answer.into_inner().rate_card.unwrap())
    }

    pub(crate) async fn purchase(
        &self,
        buyer: Buyer,
        tokens: i64,
        purchased_at: Option<&str>,
    ) -> Result<Lot, Status> {
        let request = PurchaseTokensRequest {
            account_id: buyer.account.to_string(),
            team_id: buyer.team.to_string(),
            tokens,
            purchased_at: purchased_at.and_then(|text| proto(at(text))),
            request_id: request_id(),
            note: String::new(),
        };
        let answer = self.tokens.purchase_tokens(Request::new(request)).await?;
        Ok(answer.into_inner().lot.unwrap())
    }

    pub(crate) async fn grant(
        &self,
        buyer: Buyer,
        micros: i64,
        starts_at: Option<&str>,
        expires_at: &str,
    ) -> Result<Lot, Status> {
        let request = GrantTokensRequest {
            account_id: buyer.account.to_string(),
            team_id: buyer.team.to_string(),
            micros,
            pool_kind: PoolKind::Promotional.into(),
            starts_at: starts_at.and_then(|text| proto(at(text))),
            expires_at: proto(at(expires_at)),
            note: "test".to_owned(),
            leaves_older_debts: false,
            request_id: request_id(),
        };
        let answer = self.tokens.grant_tokens(Request::new(request)).await?;
        Ok(answer.into_inner().lot.unwrap())
    }

    /// Takes a charge back, all that stands where the quantity is 0, and charges something instead.
    pub(crate) async fn correct(
        &self,
        buyer: Buyer,
        charge_id: &str,
        quantity: i64,
        instead: Option<InsteadUsage>,
    ) -> Result<CorrectChargeResponse, Status> {
        let request = CorrectChargeRequest {
            account_id: buyer.account.to_string(),
            team_id: buyer.team.to_string(),
            charge_id: charge_id.to_owned(),
            quantity,
            instead,
            reason: "the gateway counted twice".to_owned(),
            request_id: request_id(),
            validate_only: false,
        };
        Ok(self.corrections.correct_charge(Request::new(request)).await?.into_inner())
    }

    pub(crate) async fn balance(&self, buyer: Buyer) -> Balance {
        let request = GetBalanceRequest { team_id: buyer.team.to_string(), ..GetBalanceRequest::default() };
        let answer = self.tokens.get_balance(Request::new(request)).await.unwrap();
        answer.into_inner().balance.unwrap()
    }

    pub(crate) async fn lots(&self, buyer: Buyer) -> Vec<Lot> {
        let request = ListLotsRequest { team_id: buyer.team.to_string(), ..ListLotsRequest::default() };
        self.tokens.list_lots(Request::new(request)).await.unwrap().into_inner().lots
    }

    pub(crate) async fn charges(&self, buyer: Buyer) -> Vec<Charge> {
        let request = ListChargesRequest { team_id: buyer.team.to_string(), ..ListChargesRequest::default() };
        self.tokens.list_charges(Request::new(request)).await.unwrap().into_inner().charges
    }

    pub(crate) async fn journal(&self, buyer: Buyer) -> Vec<JournalRow> {
        let request = ListJournalRequest { team_id: buyer.team.to_string(), ..ListJournalRequest::default() };
        self.tokens.list_journal(Request::new(request)).await.unwrap().into_inner().rows
    }

    pub(crate) async fn unattributed(&self) -> Vec<UnattributedUsage> {
        let request = ListUnattributedRequest::default();
        self.tokens.list_unattributed(Request::new(request)).await.unwrap().into_inner().usage
    }

    pub(crate) async fn budget(
        &self,
        buyer: Buyer,
        app: Option<AppId>,
        cap_micros: i64,
        soft_percent: &[u32],
    ) -> Result<Budget, Status> {
        let request = SetBudgetRequest {
            account_id: buyer.account.to_string(),
            team_id: buyer.team.to_string(),
            app_id: app.map(|app| app.to_string()).unwrap_or_default(),
            cap_micros: Some(cap_micros),
            soft_percent: soft_percent.to_vec(),
            hard: true,
            request_id: request_id(),
        };
        Ok(self.budgets.set_budget(Request::new(request)).await?.into_inner().budget.unwrap())
    }

    /// Everything that is told, relayed just now, in order.
    pub(crate) async fn told(&self, filter: Option<NoticeFilter>) -> Vec<Notice> {
        self.relay.look().await.unwrap();
        let request = ListNoticesRequest { filter, page_size: 0, page_token: String::new() };
        self.notices.list_notices(Request::new(request)).await.unwrap().into_inner().notices
    }

    pub(crate) async fn producer(&self) -> ProducerId {
        let request = CreateProducerRequest { name: "gateway".to_owned(), request_id: request_id() };
        let answer = self.settlement.create_producer(Request::new(request)).await.unwrap();
        answer.into_inner().producer_id.parse().unwrap()
    }

    pub(crate) async fn shard(&self, shard: u32) -> ShardCursor {
        let request =
            GetShardsRequest { shards: vec![shard], producer_ids: Vec::new(), only_their_lanes: false };
        self.settlement.get_shards(Request::new(request)).await.unwrap().into_inner().shards.remove(0)
    }

    /// The batch that a worker would post next: one lane, all of `lines`.
    pub(crate) async fn batch(&self, shard: u32, producer: ProducerId, lines: Vec<Line>) -> PostBatchRequest {
        let cursor = self.shard(shard).await;
        batch(&cursor, producer, lines)
    }

    pub(crate) async fn post(&self, batch: &PostBatchRequest) -> Result<PostBatchResponse, Status> {
        Ok(self.settlement.post_batch(Request::new(batch.clone())).await?.into_inner())
    }

    /// Posts lines as the next batch of the usual shard.
    pub(crate) async fn settle(&self, producer: ProducerId, lines: Vec<Line>) -> PostBatchResponse {
        let batch = self.batch(SHARD, producer, lines).await;
        self.post(&batch).await.unwrap()
    }

    /// Records events as metering would: those of each slot in one call, answered in their order.
    pub(crate) async fn record(&self, events: &[NamedUsage]) -> Result<Vec<EventAnswer>, Status> {
        let mut answers = vec![EventAnswer::default(); events.len()];
        for slot in 0..EVENT_SLOTS {
            let of_slot = || (0..).zip(events).filter(|(_, event)| slot_of(event) == slot);
            let request =
                RecordEventsRequest { slot, events: of_slot().map(|(_, event)| event.clone()).collect() };
            if request.events.is_empty() {
                continue;
            }
            let told = self.events.record_events(Request::new(request)).await?.into_inner().answers;
            assert_eq!(told.len(), of_slot().count());
            for ((at, _), answer) in of_slot().zip(told) {
                let at: usize = at;
                answers[at] = answer;
            }
        }
        Ok(answers)
    }

    pub(crate) async fn verify(&self, scope: Scope) -> Verification {
        self.ledger.verify(scope).await.unwrap()
    }

    /// Every verdict of a full verification that is not clean.
    pub(crate) async fn violated(&self) -> Vec<Verdict> {
        self.verify(Scope::Full).await.verdicts.into_iter().filter(|verdict| verdict.violations > 0).collect()
    }

    pub(crate) async fn assert_clean(&self) {
        assert_eq!(self.violated().await, Vec::new());
    }
}
