//! Hubs on the wire.

use drawdown_proto::entitlement::v1::{
    CreateHubRequest, CreateHubResponse, ListHubsRequest, ListHubsResponse, MoveAppRequest, MoveAppResponse,
    hub_service_server::HubService,
};
use drawdown_types::{AccountId, HubId};
use tonic::{Request, Response};
use uuid::Uuid;

use super::{
    decode, encode,
    lists::{Answer, Page, act},
};
use crate::{Error, Parts, acts::Acts, error::Refused};

/// Answers for `HubService`.
#[derive(Clone)]
pub struct Hubs {
    acts: Acts,
}

impl Hubs {
    /// From the parts of the service.
    #[must_use]
    pub fn new(parts: &Parts) -> Self {
        Self { acts: parts.acts() }
    }
}

#[tonic::async_trait]
impl HubService for Hubs {
    async fn create_hub(&self, request: Request<CreateHubRequest>) -> Answer<CreateHubResponse> {
        act(&self.acts, request, decode::hub::create).await
    }

    async fn list_hubs(&self, request: Request<ListHubsRequest>) -> Answer<ListHubsResponse> {
        let request = request.get_ref();
        let account_id: AccountId = decode::id("account_id", &request.account_id)?;
        let page = Page::new(&self.acts, format!("hubs of {account_id}"), request.page_size);
        let after = page.after(&request.page_token, HubId::from_uuid(Uuid::nil()))?;
        if self.acts.store.account(account_id).await?.is_none() {
            return Err(Error::from(Refused::AccountNotFound(account_id)).into());
        }
        let rows = self.acts.store.hubs(account_id, after, page.rows()).await?;
        let (rows, next_page_token) = page.cut(rows, |last| last.hub_id);
        let hubs = rows.into_iter().map(encode::hub).collect();
        Ok(Response::new(ListHubsResponse { hubs, next_page_token }))
    }

    async fn move_app(&self, request: Request<MoveAppRequest>) -> Answer<MoveAppResponse> {
        act(&self.acts, request, decode::hub::move_app).await
    }
}
