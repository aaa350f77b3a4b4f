//! `AuditService`.

use std::sync::Arc;

use drawdown_proto::{
    ledger::v1::{AuditLine, ListAuditRequest, ListAuditResponse, audit_service_server::AuditService},
    scalar::timestamp_to_proto,
};
use drawdown_service::{Violations, page};
use drawdown_types::Timestamp;
use tonic::{Request, Response, Status};

use super::{decode::instant, status};
use crate::{
    error::Error,
    reason,
    service::Ledger,
    store::audit::{self, Asked, Read},
};

const PAGE_ROWS_DEFAULT: u32 = 1000;
/// Longest subject that is asked for, in bytes: no line has a longer one.
const SUBJECT_BYTES_MAX: usize = 256;

/// `AuditService` over a ledger.
#[derive(Clone)]
pub struct Audit(Arc<Ledger>);

impl Audit {
    /// Serves this ledger.
    #[must_use]
    pub const fn new(ledger: Arc<Ledger>) -> Self {
        Self(ledger)
    }

    async fn list(&self, request: &ListAuditRequest) -> Result<ListAuditResponse, Error> {
        let mut asked = asked(request)?;
        let list = format!("audit/{}/{:?}/{:?}", asked.subject, asked.from, asked.to);
        asked.after = page::decode(&list, &request.page_token)?.unwrap_or_default();
        let rows: i64 = page::size(request.page_size, PAGE_ROWS_DEFAULT, self.0.limits.page_rows_max).into();
        let lines = audit::read(&mut *self.0.pool.read().await?, &asked, rows).await?;
        let full = i64::try_from(lines.len()).unwrap_or(i64::MAX) >= rows;
        let next = lines.last().filter(|_| full).map(|last| page::encode(&list, &last.entry));
        Ok(ListAuditResponse {
            lines: lines.into_iter().map(line).collect(),
            next_page_token: next.unwrap_or_default(),
        })
    }
}

fn asked(request: &ListAuditRequest) -> Result<Asked, Error> {
    let mut v = Violations::new();
    if request.subject.len() > SUBJECT_BYTES_MAX {
        v.push("subject", format!("has {} bytes, at most {SUBJECT_BYTES_MAX}", request.subject.len()));
    }
    let from = request.from.as_ref().and_then(|at| instant(&mut v, "from", Some(at)));
    let to = request.to.as_ref().and_then(|at| instant(&mut v, "to", Some(at)));
    if from.zip(to).is_some_and(|(from, to)| from >= to) {
        v.push("to", "must be after from");
    }
    let subject = request.subject.clone();
    let (from, to) = (from.unwrap_or(Timestamp::MIN), to.unwrap_or(Timestamp::MAX));
    Ok(v.finish(reason::REQUEST_INVALID, Some(Asked { subject, from, to, after: 0 }))?)
}

fn line(read: Read) -> AuditLine {
    AuditLine {
        at: Some(timestamp_to_proto(read.at)),
        caller: read.caller,
        action: read.action,
        subject: read.subject,
        before_json: read.before.unwrap_or_default(),
        after_json: read.after.unwrap_or_default(),
        detail_json: read.detail,
    }
}

#[tonic::async_trait]
impl AuditService for Audit {
    async fn list_audit(
        &self,
        request: Request<ListAuditRequest>,
    ) -> Result<Response<ListAuditResponse>, Status> {
        let listed = self.list(request.get_ref()).await;
        listed.map(Response::new).map_err(|error| status::of(error, &self.0.metrics))
    }
}
