//! Principals and their keys, on the wire.

use drawdown_proto::{
    entitlement::v1::{
        AuthenticateKeyRequest, AuthenticateKeyResponse, CreateKeyRequest, CreateKeyResponse,
        CreatePrincipalRequest, CreatePrincipalResponse, EndPrincipalRequest, EndPrincipalResponse,
        ListKeysRequest, ListKeysResponse, ListPrincipalsRequest, ListPrincipalsResponse,
        ResolveOwnersRequest, ResolveOwnersResponse, RevokeKeyRequest, RevokeKeyResponse, RotateKeyRequest,
        RotateKeyResponse, principal_service_server::PrincipalService,
    },
    scalar::timestamp_to_proto,
};
use drawdown_types::{KeyId, PrincipalId};
use tonic::{Request, Response};
use uuid::Uuid;

use super::{
    decode, encode_principal as encode,
    lists::{Answer, Page, act},
};
use crate::{Error, Parts, acts::Acts, error::Refused, identity};

/// Answers for `PrincipalService`.
#[derive(Clone)]
pub struct Principals {
    acts: Acts,
}

impl Principals {
    /// From the parts of the service.
    #[must_use]
    pub fn new(parts: &Parts) -> Self {
        Self { acts: parts.acts() }
    }
}

#[tonic::async_trait]
impl PrincipalService for Principals {
    async fn create_principal(
        &self,
        request: Request<CreatePrincipalRequest>,
    ) -> Answer<CreatePrincipalResponse> {
        act(&self.acts, request, decode::principal::create).await
    }

    async fn list_principals(
        &self,
        request: Request<ListPrincipalsRequest>,
    ) -> Answer<ListPrincipalsResponse> {
        let request = request.get_ref();
        let account_id = decode::account_filter(&request.account_id)?;
        let list = format!("principals of {account_id:?}");
        let page = Page::new(&self.acts, list, request.page_size);
        let after = page.after(&request.page_token, PrincipalId::from_uuid(Uuid::nil()))?;
        let rows = self.acts.store.principals(account_id, after, page.rows()).await?;
        let (rows, next_page_token) = page.cut(rows, |last| last.principal_id);
        let principals = rows.iter().map(encode::principal).collect();
        Ok(Response::new(ListPrincipalsResponse { principals, next_page_token }))
    }

    async fn end_principal(&self, request: Request<EndPrincipalRequest>) -> Answer<EndPrincipalResponse> {
        act(&self.acts, request, decode::principal::end).await
    }

    async fn create_key(&self, request: Request<CreateKeyRequest>) -> Answer<CreateKeyResponse> {
        act(&self.acts, request, decode::principal::create_key).await
    }

    async fn list_keys(&self, request: Request<ListKeysRequest>) -> Answer<ListKeysResponse> {
        let request = request.get_ref();
        let principal_id: PrincipalId = decode::id("principal_id", &request.principal_id)?;
        let page = Page::new(&self.acts, format!("keys of {principal_id}"), request.page_size);
        let after = page.after(&request.page_token, KeyId::from_uuid(Uuid::nil()))?;
        let rows = self.acts.store.keys(principal_id, after, page.rows()).await?;
        let rows = rows.ok_or_else(|| Error::from(Refused::PrincipalNotFound(principal_id)))?;
        let (rows, next_page_token) = page.cut(rows, |last| last.key_id);
        let keys = rows.iter().map(encode::key).collect();
        Ok(Response::new(ListKeysResponse { keys, next_page_token }))
    }

    async fn rotate_key(&self, request: Request<RotateKeyRequest>) -> Answer<RotateKeyResponse> {
        act(&self.acts, request, decode::principal::rotate_key).await
    }

    async fn revoke_key(&self, request: Request<RevokeKeyRequest>) -> Answer<RevokeKeyResponse> {
        act(&self.acts, request, decode::principal::revoke_key).await
    }

    async fn authenticate_key(
        &self,
        request: Request<AuthenticateKeyRequest>,
    ) -> Answer<AuthenticateKeyResponse> {
        let digest = decode::principal::digest(request.get_ref())?;
        let good = identity::good_key(&self.acts, &digest).await?;
        let (principal, ends_at) = match &good {
            None => (None, None),
            Some((principal, ends_at)) => (Some(encode::principal(principal)), *ends_at),
        };
        Ok(Response::new(AuthenticateKeyResponse { principal, ends_at: ends_at.map(timestamp_to_proto) }))
    }

    async fn resolve_owners(&self, request: Request<ResolveOwnersRequest>) -> Answer<ResolveOwnersResponse> {
        let things = decode::principal::things(request.get_ref())?;
        let owners = self.acts.store.owners(&things, self.acts.now()).await?;
        Ok(Response::new(ResolveOwnersResponse { owners: owners.into_iter().map(encode::owners).collect() }))
    }
}
