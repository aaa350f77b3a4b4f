//! The history on the wire: why an answer is so, what is to come, what was done, corrections.

use drawdown_proto::entitlement::v1::{
    CancelScheduledChangeRequest, CancelScheduledChangeResponse, CorrectAssignmentRequest,
    CorrectAssignmentResponse, ExplainResolutionRequest, ExplainResolutionResponse, ListAuditRequest,
    ListAuditResponse, ListScheduledChangesRequest, ListScheduledChangesResponse,
    history_service_server::HistoryService,
};
use drawdown_types::{AccountId, Timestamp};
use tonic::{Request, Response};

use super::{
    decode, encode, encode_history,
    lists::{Answer, Page, act},
};
use crate::{Error, Parts, acts::Acts, error::Refused, explain, store::ScheduledCursor};

/// Answers for `HistoryService`.
#[derive(Clone)]
pub struct Histories {
    acts: Acts,
}

impl Histories {
    /// From the parts of the service.
    #[must_use]
    pub fn new(parts: &Parts) -> Self {
        Self { acts: parts.acts() }
    }
}

#[tonic::async_trait]
impl HistoryService for Histories {
    async fn explain_resolution(
        &self,
        request: Request<ExplainResolutionRequest>,
    ) -> Answer<ExplainResolutionResponse> {
        let (client_id, at) = decode::history::question(request.get_ref())?;
        let window = self.acts.rules.window.window_of(at.unwrap_or_else(|| self.acts.now()));
        let explanation = explain::explain(&self.acts, &client_id, window).await?;
        Ok(Response::new(ExplainResolutionResponse {
            resolution: Some(encode::resolution(client_id.to_string(), &explanation.resolution)),
            links: explanation.links.into_iter().map(encode_history::explained).collect(),
            voided: explanation.voided.into_iter().map(encode_history::explained).collect(),
        }))
    }

    async fn list_scheduled_changes(
        &self,
        request: Request<ListScheduledChangesRequest>,
    ) -> Answer<ListScheduledChangesResponse> {
        let request = request.get_ref();
        let account_id: AccountId = decode::id("account_id", &request.account_id)?;
        let page = Page::new(&self.acts, format!("scheduled changes of {account_id}"), request.page_size);
        let first = ScheduledCursor { from: Timestamp::MIN, kind: String::new(), number: 0 };
        let after = page.after(&request.page_token, first)?;
        if self.acts.store.account(account_id).await?.is_none() {
            return Err(Error::from(Refused::AccountNotFound(account_id)).into());
        }
        let rows = self.acts.store.scheduled(account_id, self.acts.now(), &after, page.rows()).await?;
        let (rows, next_page_token) = page.cut(rows, |last| ScheduledCursor {
            from: last.from,
            kind: last.kind.text().to_owned(),
            number: last.number,
        });
        let changes = rows.iter().map(encode_history::scheduled).collect();
        Ok(Response::new(ListScheduledChangesResponse { changes, next_page_token }))
    }

    async fn cancel_scheduled_change(
        &self,
        request: Request<CancelScheduledChangeRequest>,
    ) -> Answer<CancelScheduledChangeResponse> {
        act(&self.acts, request, decode::history::cancel).await
    }

    async fn correct_assignment(
        &self,
        request: Request<CorrectAssignmentRequest>,
    ) -> Answer<CorrectAssignmentResponse> {
        act(&self.acts, request, decode::history::correct).await
    }

    async fn list_audit(&self, request: Request<ListAuditRequest>) -> Answer<ListAuditResponse> {
        let request = request.get_ref();
        let (account_id, subject) = decode::history::audit_of(request)?;
        let list = format!("audit of {account_id:?} {subject}");
        let page = Page::new(&self.acts, list, request.page_size);
        let after = page.after(&request.page_token, 0)?;
        let rows = self.acts.store.audit(account_id, &subject, after, page.rows()).await?;
        let (rows, next_page_token) = page.cut(rows, |last| last.audit_id);
        let records = rows.into_iter().map(encode_history::audit).collect();
        Ok(Response::new(ListAuditResponse { records, next_page_token }))
    }
}
