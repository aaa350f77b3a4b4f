//! The one question that entitlement has for the ledger (D61). Cold: only acts that enter a past ask it.

use drawdown_client::Channel;
use drawdown_proto::{ledger::v1::HasSettledUsageRequest, scalar::timestamp_to_proto};
use drawdown_types::Timestamp;
use futures::future::BoxFuture;
use tonic::Status;

/// The most client ids that the ledger takes in one question.
pub(crate) const CLIENT_IDS_MAX: usize = 1_000;

/// Somebody who knows which usage is settled.
pub trait SettledUsage: Send + Sync + 'static {
    /// Whether usage of one of these client ids (at most 1000) is settled in a window that starts at or
    /// after `from`.
    fn has_settled(&self, client_ids: Vec<String>, from: Timestamp) -> BoxFuture<'_, Result<bool, Status>>;
}

/// The ledger over its channel.
#[derive(Clone, Debug)]
pub struct Ledger(Channel);

impl Ledger {
    /// Over `channel`, which connects when it is first asked.
    #[must_use]
    pub const fn new(channel: Channel) -> Self {
        Self(channel)
    }
}

impl SettledUsage for Ledger {
    fn has_settled(&self, client_ids: Vec<String>, from: Timestamp) -> BoxFuture<'_, Result<bool, Status>> {
        let mut client = drawdown_client::ledger::settlement(&self.0);
        let from = Some(timestamp_to_proto(from));
        Box::pin(async move {
            let request = HasSettledUsageRequest { client_ids, team_id: String::new(), from };
            Ok(client.has_settled_usage(request).await?.into_inner().settled)
        })
    }
}
