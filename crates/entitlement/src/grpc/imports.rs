//! Imports on the wire.

use drawdown_proto::entitlement::v1::{
    ImportAccountsRequest, ImportAccountsResponse, import_service_server::ImportService,
};
use tonic::Request;

use super::{
    decode,
    lists::{Answer, act},
};
use crate::{Parts, acts::Acts};

/// Answers for `ImportService`.
#[derive(Clone)]
pub struct Imports {
    acts: Acts,
}

impl Imports {
    /// From the parts of the service.
    #[must_use]
    pub fn new(parts: &Parts) -> Self {
        Self { acts: parts.acts() }
    }
}

#[tonic::async_trait]
impl ImportService for Imports {
    async fn import_accounts(
        &self,
        request: Request<ImportAccountsRequest>,
    ) -> Answer<ImportAccountsResponse> {
        decode::import::check_size(request.get_ref(), &self.acts.limits)?;
        act(&self.acts, request, decode::import::accounts).await
    }
}
