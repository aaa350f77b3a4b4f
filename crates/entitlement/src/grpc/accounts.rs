//! What becomes of accounts, on the wire.

use drawdown_proto::entitlement::v1::{
    ChangeContractRequest, ChangeContractResponse, EndTrialRequest, EndTrialResponse, LiftSuspensionRequest,
    LiftSuspensionResponse, ListSuspensionsRequest, ListSuspensionsResponse, PreparePurchaseRequest,
    PreparePurchaseResponse, SuspendRequest, SuspendResponse, account_service_server::AccountService,
};
use drawdown_types::AccountId;
use tonic::{Request, Response};

use super::{
    decode, encode,
    lists::{Answer, Page, act},
};
use crate::{Error, Parts, acts::Acts, error::Refused};

/// Answers for `AccountService`.
#[derive(Clone)]
pub struct Accounts {
    acts: Acts,
}

impl Accounts {
    /// From the parts of the service.
    #[must_use]
    pub fn new(parts: &Parts) -> Self {
        Self { acts: parts.acts() }
    }
}

#[tonic::async_trait]
impl AccountService for Accounts {
    async fn suspend(&self, request: Request<SuspendRequest>) -> Answer<SuspendResponse> {
        act(&self.acts, request, decode::account::suspend).await
    }

    async fn lift_suspension(
        &self,
        request: Request<LiftSuspensionRequest>,
    ) -> Answer<LiftSuspensionResponse> {
        act(&self.acts, request, decode::account::lift_suspension).await
    }

    async fn list_suspensions(
        &self,
        request: Request<ListSuspensionsRequest>,
    ) -> Answer<ListSuspensionsResponse> {
        let request = request.get_ref();
        let account_id: AccountId = decode::id("account_id", &request.account_id)?;
        let page = Page::new(&self.acts, format!("suspensions of {account_id}"), request.page_size);
        let after = page.after(&request.page_token, 0)?;
        if self.acts.store.account(account_id).await?.is_none() {
            return Err(Error::from(Refused::AccountNotFound(account_id)).into());
        }
        let rows = self.acts.store.suspensions(account_id, after, page.rows()).await?;
        let (rows, next_page_token) = page.cut(rows, |last| last.suspension_id);
        let suspensions = rows.into_iter().map(encode::suspension).collect();
        Ok(Response::new(ListSuspensionsResponse { suspensions, next_page_token }))
    }

    async fn end_trial(&self, request: Request<EndTrialRequest>) -> Answer<EndTrialResponse> {
        act(&self.acts, request, decode::account::end_trial).await
    }

    async fn change_contract(
        &self,
        request: Request<ChangeContractRequest>,
    ) -> Answer<ChangeContractResponse> {
        act(&self.acts, request, decode::account::change_contract).await
    }

    async fn prepare_purchase(
        &self,
        request: Request<PreparePurchaseRequest>,
    ) -> Answer<PreparePurchaseResponse> {
        act(&self.acts, request, decode::account::prepare_purchase).await
    }
}
