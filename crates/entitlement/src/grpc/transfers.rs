//! Handing apps to other owners, on the wire.

use drawdown_proto::entitlement::v1::{
    AcceptTransferRequest, AcceptTransferResponse, ChooseTransferTeamRequest, ChooseTransferTeamResponse,
    ConfirmTransferRequest, ConfirmTransferResponse, DeclineTransferRequest, DeclineTransferResponse,
    GetTransferRequest, GetTransferResponse, InviteTransferRequest, InviteTransferResponse,
    ListTransfersRequest, ListTransfersResponse, RemoveEditorRequest, RemoveEditorResponse,
    WithdrawTransferRequest, WithdrawTransferResponse, transfer_service_server::TransferService,
};
use drawdown_types::TransferId;
use tonic::{Request, Response};
use uuid::Uuid;

use super::{
    decode, encode,
    lists::{Answer, Page, act},
};
use crate::{Error, Parts, acts::Acts, error::Refused};

/// Answers for `TransferService`.
#[derive(Clone)]
pub struct Transfers {
    acts: Acts,
}

impl Transfers {
    /// From the parts of the service.
    #[must_use]
    pub fn new(parts: &Parts) -> Self {
        Self { acts: parts.acts() }
    }
}

#[tonic::async_trait]
impl TransferService for Transfers {
    async fn invite_transfer(
        &self,
        request: Request<InviteTransferRequest>,
    ) -> Answer<InviteTransferResponse> {
        act(&self.acts, request, decode::transfer::invite).await
    }

    async fn accept_transfer(
        &self,
        request: Request<AcceptTransferRequest>,
    ) -> Answer<AcceptTransferResponse> {
        act(&self.acts, request, decode::transfer::accept).await
    }

    async fn choose_transfer_team(
        &self,
        request: Request<ChooseTransferTeamRequest>,
    ) -> Answer<ChooseTransferTeamResponse> {
        act(&self.acts, request, decode::transfer::choose_team).await
    }

    async fn confirm_transfer(
        &self,
        request: Request<ConfirmTransferRequest>,
    ) -> Answer<ConfirmTransferResponse> {
        act(&self.acts, request, decode::transfer::confirm).await
    }

    async fn withdraw_transfer(
        &self,
        request: Request<WithdrawTransferRequest>,
    ) -> Answer<WithdrawTransferResponse> {
        act(&self.acts, request, decode::transfer::withdraw).await
    }

    async fn decline_transfer(
        &self,
        request: Request<DeclineTransferRequest>,
    ) -> Answer<DeclineTransferResponse> {
        act(&self.acts, request, decode::transfer::decline).await
    }

    async fn get_transfer(&self, request: Request<GetTransferRequest>) -> Answer<GetTransferResponse> {
        let transfer_id = decode::id("transfer_id", &request.get_ref().transfer_id)?;
        let transfer = self.acts.store.transfer(transfer_id).await?;
        let transfer = transfer.ok_or_else(|| Error::from(Refused::TransferNotFound(transfer_id)))?;
        let transfer = Some(encode::transfer(&transfer, self.acts.now()));
        Ok(Response::new(GetTransferResponse { transfer }))
    }

    async fn list_transfers(&self, request: Request<ListTransfersRequest>) -> Answer<ListTransfersResponse> {
        let request = request.get_ref();
        let of = decode::transfer::transfers_of(request)?;
        let page = Page::new(&self.acts, format!("transfers of {of:?}"), request.page_size);
        let after = page.after(&request.page_token, TransferId::from_uuid(Uuid::nil()))?;
        let rows = self.acts.store.transfers(of, after, page.rows()).await?;
        let (rows, next_page_token) = page.cut(rows, |last| last.transfer_id);
        let now = self.acts.now();
        let transfers = rows.iter().map(|transfer| encode::transfer(transfer, now)).collect();
        Ok(Response::new(ListTransfersResponse { transfers, next_page_token }))
    }

    async fn remove_editor(&self, request: Request<RemoveEditorRequest>) -> Answer<RemoveEditorResponse> {
        act(&self.acts, request, decode::transfer::remove_editor).await
    }
}
