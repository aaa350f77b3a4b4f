//! `CatalogService`.

use std::sync::Arc;

use drawdown_ledger_core::CardVersion;
use drawdown_proto::ledger::v1::{
    CreateMeterRequest, CreateMeterResponse, ListMetersRequest, ListMetersResponse, ListRateCardsRequest,
    ListRateCardsResponse, PublishRateCardRequest, PublishRateCardResponse,
    catalog_service_server::CatalogService,
};
use drawdown_service::page;
use prost::Message as _;
use tonic::{Request, Response, Status};

use super::{decode, encode, status};
use crate::{
    error::Error,
    service::{Ledger, Once},
    store::{catalog, idempotency::RequestKey},
};

const PAGE_ROWS_DEFAULT: u32 = 1000;

/// `CatalogService` over a ledger.
#[derive(Clone)]
pub struct Catalog(Arc<Ledger>);

impl Catalog {
    /// Serves this ledger.
    #[must_use]
    pub const fn new(ledger: Arc<Ledger>) -> Self {
        Self(ledger)
    }

    fn failed(&self) -> impl Fn(Error) -> Status {
        |error| status::of(error, &self.0.metrics)
    }

    async fn create(&self, request: CreateMeterRequest) -> Result<CreateMeterResponse, Error> {
        let meter = decode::meter(&request)?;
        let key = RequestKey::new("CreateMeter", &request.request_id, &request.encode_to_vec());
        match self.0.once(key).await? {
            Once::Answered(response) => Ok(response),
            Once::New(key) => {
                let tx = self.0.create_meter(&meter).await?;
                let response = CreateMeterResponse { meter: Some(encode::meter(&meter)) };
                self.0.commit_once(tx, key, response, self.0.clock.now()).await
            }
        }
    }

    async fn publish(&self, request: PublishRateCardRequest) -> Result<PublishRateCardResponse, Error> {
        let publication = decode::publication(&request)?;
        let key = RequestKey::new("PublishRateCard", &request.request_id, &request.encode_to_vec());
        match self.0.once(key).await? {
            Once::Answered(response) => Ok(response),
            Once::New(key) => {
                let (tx, card) = self.0.publish(&publication).await?;
                let response = PublishRateCardResponse { rate_card: Some(encode::card(&card)) };
                self.0.commit_once(tx, key, response, self.0.clock.now()).await
            }
        }
    }

    async fn meters(&self, request: &ListMetersRequest) -> Result<ListMetersResponse, Error> {
        let after: Option<String> = page::decode("meters", &request.page_token)?;
        let rows = page::size(request.page_size, PAGE_ROWS_DEFAULT, self.0.limits.page_rows_max);
        let (_, meters, _) = catalog::load(&self.0.pool).await?;
        let start = after.map_or(0, |after| meters.partition_point(|meter| *meter.slug.as_str() <= *after));
        let (meters, more) = part(&meters, start, rows);
        let next = meters.last().filter(|_| more).map(|meter| page::encode("meters", &meter.slug.as_str()));
        let meters = meters.iter().map(encode::meter).collect();
        Ok(ListMetersResponse { meters, next_page_token: next.unwrap_or_default() })
    }

    async fn cards(&self, request: &ListRateCardsRequest) -> Result<ListRateCardsResponse, Error> {
        let after: Option<(String, String, i64)> = page::decode("rate_cards", &request.page_token)?;
        let rows = page::size(request.page_size, PAGE_ROWS_DEFAULT, self.0.limits.page_rows_max);
        let (_, _, mut cards) = catalog::load(&self.0.pool).await?;
        let place = |card: &CardVersion| {
            let kind = card.contract_kind.as_str().to_owned();
            (card.name.to_string(), kind, card.effective_from.as_micros())
        };
        cards.sort_by_cached_key(place);
        let start = after.map_or(0, |after| cards.partition_point(|card| place(card) <= after));
        let (cards, more) = part(&cards, start, rows);
        let next = cards.last().filter(|_| more).map(|card| page::encode("rate_cards", &place(card)));
        let rate_cards = cards.iter().map(encode::card).collect();
        Ok(ListRateCardsResponse { rate_cards, next_page_token: next.unwrap_or_default() })
    }
}

/// The rows of a page from `start` on, and whether there are more.
fn part<T>(all: &[T], start: usize, rows: u32) -> (&[T], bool) {
    let rest = all.get(start..).unwrap_or_default();
    let len = rest.len().min(usize::try_from(rows).unwrap_or(usize::MAX));
    (rest.get(..len).unwrap_or_default(), len < rest.len())
}

#[tonic::async_trait]
impl CatalogService for Catalog {
    async fn create_meter(
        &self,
        request: Request<CreateMeterRequest>,
    ) -> Result<Response<CreateMeterResponse>, Status> {
        self.create(request.into_inner()).await.map(Response::new).map_err(self.failed())
    }

    async fn list_meters(
        &self,
        request: Request<ListMetersRequest>,
    ) -> Result<Response<ListMetersResponse>, Status> {
        self.meters(request.get_ref()).await.map(Response::new).map_err(self.failed())
    }

    async fn publish_rate_card(
        &self,
        request: Request<PublishRateCardRequest>,
    ) -> Result<Response<PublishRateCardResponse>, Status> {
        self.publish(request.into_inner()).await.map(Response::new).map_err(self.failed())
    }

    async fn list_rate_cards(
        &self,
        request: Request<ListRateCardsRequest>,
    ) -> Result<Response<ListRateCardsResponse>, Status> {
        self.cards(request.get_ref()).await.map(Response::new).map_err(self.failed())
    }
}
