//! What entitlement asks and tells the ledgers. Cold: acts that enter a past ask whether usage is settled (D61), the
//! confirmation of a transfer asks for balances (D26); a job tells it of apps that got their first team (D49).

use std::collections::BTreeMap;

use drawdown_client::Channel;
use drawdown_proto::{
    ledger::v1::{AdoptUsageRequest, GetBalanceRequest, HasSettledUsageRequest},
    scalar::timestamp_to_proto,
};
use drawdown_types::{AccountId, AppId, TeamId, Timestamp};
use futures::future::BoxFuture;
use tonic::Status;

/// The most client ids that the ledger takes in one call.
pub(crate) const CLIENT_IDS_MAX: usize = 1_000;

/// Somebody who knows what the ledger knows.
pub trait LedgerFacts: Send + Sync + 'static {
    /// Whether usage of one of these client ids (at most 1000) is settled in a window that starts at or
    /// after `from`.
    fn has_settled(&self, client_ids: Vec<String>, from: Timestamp) -> BoxFuture<'_, Result<bool, Status>>;

    /// The balance of a team now, in micro-tokens, from the ledger of the cell of its account.
    fn balance(&self, cell: u8, team_id: TeamId) -> BoxFuture<'_, Result<i64, Status>>;
}

/// An app that got its first team, or more client ids of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirstTeam {
    /// The account of both.
    pub account_id: AccountId,
    /// Since when there is that account.
    pub account_since: Timestamp,
    /// The team.
    pub team_id: TeamId,
    /// The app.
    pub app_id: AppId,
    /// Its client ids, at most 1000.
    pub client_ids: Vec<String>,
    /// The edge from which it has the team.
    pub assigned_from: Timestamp,
    /// The same for the same content.
    pub request_id: String,
}

/// Somebody who charges what an app used before its first team to that team.
pub trait Adopts: Send + Sync + 'static {
    /// Has the usage charged; the same call again changes nothing.
    fn adopt(&self, first_team: FirstTeam) -> BoxFuture<'_, Result<(), Status>>;
}

/// The ledgers of all cells.
#[derive(Clone, Debug)]
pub struct CellLedgers {
    /// The only one, or the leading one: it knows for all of them what is settled.
    pub leading: Ledger,
    /// The others, by the number of their cell.
    pub others: BTreeMap<u8, Ledger>,
}

impl CellLedgers {
    /// The ledger of a cell; none where it is not known.
    #[must_use]
    pub fn of(&self, cell: u8) -> Option<&Ledger> {
        if cell == 0 { Some(&self.leading) } else { self.others.get(&cell) }
    }

    /// All of them, each with its cell.
    pub fn all(&self) -> impl Iterator<Item = (u8, &Ledger)> {
        [(0, &self.leading)].into_iter().chain(self.others.iter().map(|(cell, ledger)| (*cell, ledger)))
    }
}

/// A ledger over its channel.
#[derive(Clone, Debug)]
pub struct Ledger(Channel);

impl Ledger {
    /// Over `channel`, which connects when it is first asked.
    #[must_use]
    pub const fn new(channel: Channel) -> Self {
        Self(channel)
    }

    pub(crate) const fn channel(&self) -> &Channel {
        &self.0
    }
}

impl LedgerFacts for CellLedgers {
    fn has_settled(&self, client_ids: Vec<String>, from: Timestamp) -> BoxFuture<'_, Result<bool, Status>> {
        let mut client = drawdown_client::ledger::settlement(&self.leading.0);
        let from = Some(timestamp_to_proto(from));
        Box::pin(async move {
            let request = HasSettledUsageRequest { client_ids, team_id: String::new(), from };
            Ok(client.has_settled_usage(request).await?.into_inner().settled)
        })
    }

    fn balance(&self, cell: u8, team_id: TeamId) -> BoxFuture<'_, Result<i64, Status>> {
        Box::pin(async move {
            let unknown = || Status::unavailable(format!("the ledger of cell {cell} is not known"));
            let mut client = drawdown_client::ledger::token(&self.of(cell).ok_or_else(unknown)?.0);
            let request = GetBalanceRequest { team_id: team_id.to_string(), ..GetBalanceRequest::default() };
            let balance = client.get_balance(request).await?.into_inner().balance;
            let balance = balance.ok_or_else(|| Status::internal("a balance without its amounts"))?;
            Ok(balance.balance_micros)
        })
    }
}

impl Adopts for Ledger {
    fn adopt(&self, first_team: FirstTeam) -> BoxFuture<'_, Result<(), Status>> {
        let mut client = drawdown_client::ledger::review(&self.0);
        Box::pin(async move {
            let request = AdoptUsageRequest {
                account_id: first_team.account_id.to_string(),
                team_id: first_team.team_id.to_string(),
                app_id: first_team.app_id.to_string(),
                client_ids: first_team.client_ids,
                account_since: Some(timestamp_to_proto(first_team.account_since)),
                assigned_from: Some(timestamp_to_proto(first_team.assigned_from)),
                request_id: first_team.request_id,
            };
            client.adopt_usage(request).await.map(|_| ())
        })
    }
}
