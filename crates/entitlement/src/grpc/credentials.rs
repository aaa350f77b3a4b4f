//! The life of credentials, on the wire.

use drawdown_proto::entitlement::v1::{
    ListCredentialsRequest, ListCredentialsResponse, RevokeCredentialRequest, RevokeCredentialResponse,
    RotateCredentialRequest, RotateCredentialResponse, credential_service_server::CredentialService,
};
use drawdown_types::{AppId, CredentialId};
use tonic::{Request, Response};
use uuid::Uuid;

use super::{
    decode, encode,
    lists::{Answer, Page, act},
};
use crate::{Error, Parts, acts::Acts, error::Refused};

/// Answers for `CredentialService`.
#[derive(Clone)]
pub struct Credentials {
    acts: Acts,
}

impl Credentials {
    /// From the parts of the service.
    #[must_use]
    pub fn new(parts: &Parts) -> Self {
        Self { acts: parts.acts() }
    }
}

#[tonic::async_trait]
impl CredentialService for Credentials {
    async fn list_credentials(
        &self,
        request: Request<ListCredentialsRequest>,
    ) -> Answer<ListCredentialsResponse> {
        let request = request.get_ref();
        let app_id: AppId = decode::id("app_id", &request.app_id)?;
        let page = Page::new(&self.acts, format!("credentials of {app_id}"), request.page_size);
        let after = page.after(&request.page_token, CredentialId::from_uuid(Uuid::nil()))?;
        if !self.acts.store.app_exists(app_id).await? {
            return Err(Error::from(Refused::AppNotFound(app_id)).into());
        }
        let rows = self.acts.store.credentials(app_id, after, page.rows()).await?;
        let (rows, next_page_token) = page.cut(rows, |last| last.credential_id);
        let credentials = rows.into_iter().map(encode::credential).collect();
        Ok(Response::new(ListCredentialsResponse { credentials, next_page_token }))
    }

    async fn rotate_credential(
        &self,
        request: Request<RotateCredentialRequest>,
    ) -> Answer<RotateCredentialResponse> {
        act(&self.acts, request, decode::credential::rotate).await
    }

    async fn revoke_credential(
        &self,
        request: Request<RevokeCredentialRequest>,
    ) -> Answer<RevokeCredentialResponse> {
        act(&self.acts, request, decode::credential::revoke).await
    }
}
