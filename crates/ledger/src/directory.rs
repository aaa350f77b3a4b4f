//! Which account a team belongs to, asked of entitlement on cold paths only: when tokens are bought or
//! granted, and when someone reads a team that nothing was ever posted to. Never while a batch is posted.

use drawdown_client::Channel;
pub use drawdown_ledger_core::ContractKind;
use drawdown_proto::{
    entitlement::v1::{self, GetTeamRequest},
    scalar::timestamp_from_proto,
};
use drawdown_types::{AccountId, TeamId, Timestamp};
use futures::{FutureExt as _, future::BoxFuture};
use tonic::Code;

use crate::error::Error;

/// What is asked about a team.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TeamFacts {
    /// Its account.
    pub account_id: AccountId,
    /// When the account's trial began, if it did.
    pub trial_from: Option<Timestamp>,
    /// When it ends or ended.
    pub trial_to: Option<Timestamp>,
    /// The account's kind of contract, which picks the price (D57).
    pub contract_kind: ContractKind,
    /// The cell that the account lives in.
    pub cell: u8,
}

impl TeamFacts {
    /// The account is in its trial at `at` (D20, D50).
    #[must_use]
    pub fn in_trial(&self, at: Timestamp) -> bool {
        self.trial_from.is_some_and(|from| from <= at) && self.trial_to.is_none_or(|to| at < to)
    }
}

/// Someone who knows the teams.
pub trait Directory: Send + Sync + 'static {
    /// What is known of a team; `None` where there is no such team.
    fn team(&self, team: TeamId) -> BoxFuture<'_, Result<Option<TeamFacts>, Error>>;
}

/// Entitlement, over gRPC.
#[derive(Clone, Debug)]
pub struct Entitlement(Channel);

const PEER: &str = "entitlement";

impl Entitlement {
    /// Asks over this channel.
    #[must_use]
    pub const fn new(channel: Channel) -> Self {
        Self(channel)
    }
}

impl Directory for Entitlement {
    fn team(&self, team: TeamId) -> BoxFuture<'_, Result<Option<TeamFacts>, Error>> {
        async move {
            let mut client = drawdown_client::clients::entitlement::hierarchy(&self.0);
            let answer = match client.get_team(GetTeamRequest { team_id: team.to_string() }).await {
                Ok(answer) => answer.into_inner(),
                Err(status) if status.code() == Code::NotFound => return Ok(None),
                Err(status) => return Err(Error::Peer { peer: PEER, source: Box::new(status) }),
            };
            let account = answer.account.unwrap_or_default();
            let account_id = account
                .account_id
                .parse()
                .map_err(|e: drawdown_types::IdError| Error::stored("account id")(e.into()))?;
            let instant = |at: Option<prost_types::Timestamp>| {
                at.map(|at| timestamp_from_proto(&at))
                    .transpose()
                    .map_err(|e| Error::stored("instant")(e.into()))
            };
            Ok(Some(TeamFacts {
                cell: u8::try_from(account.cell).map_err(|e| Error::stored("cell")(e.into()))?,
                account_id,
                trial_from: instant(account.trial_started_at)?,
                trial_to: instant(account.trial_ends_at)?,
                contract_kind: match v1::ContractKind::try_from(account.contract_kind) {
                    Ok(v1::ContractKind::Enterprise) => ContractKind::Enterprise,
                    Ok(v1::ContractKind::Flex | v1::ContractKind::Unspecified) | Err(_) => ContractKind::Flex,
                },
            }))
        }
        .boxed()
    }
}
