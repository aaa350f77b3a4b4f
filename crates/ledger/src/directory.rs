//! Which account a team belongs to, asked of entitlement on cold paths only: when tokens are bought or
//! granted, and when someone reads a team that nothing was ever posted to. Never while a batch is posted.

use drawdown_client::Channel;
pub use drawdown_ledger_core::ContractKind;
use drawdown_ledger_core::Payer;
use drawdown_proto::{
    entitlement::v1::{self, GetTeamRequest},
    scalar::timestamp_from_proto,
};
use drawdown_types::{AccountId, AppId, TeamId, Timestamp};
use futures::{FutureExt as _, future::BoxFuture};
use tonic::Code;

use crate::error::Error;

/// The kinds of contract of an account, as far as they are known, those to come too. What is over never changes (D57), so
/// what is known of a window that is over is right, whenever it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contracts {
    opened_as: ContractKind,
    /// In order of time.
    changes: Vec<(Timestamp, ContractKind)>,
}

/// What is asked about a team.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TeamFacts {
    /// Its account.
    pub account_id: AccountId,
    /// When the account's trial began, if it did.
    pub trial_from: Option<Timestamp>,
    /// When it ends or ended.
    pub trial_to: Option<Timestamp>,
    /// The account's kinds of contract, which pick the price (D57).
    pub contracts: Contracts,
    /// The cell that the account lives in.
    pub cell: u8,
}

impl Contracts {
    /// Opened as this kind, and changed at these instants.
    #[must_use]
    pub fn new(
        opened_as: ContractKind,
        changes: impl IntoIterator<Item = (Timestamp, ContractKind)>,
    ) -> Self {
        let mut changes: Vec<_> = changes.into_iter().collect();
        changes.sort_by_key(|(from, _)| *from);
        Self { opened_as, changes }
    }

    /// The kind at a window.
    #[must_use]
    pub fn at(&self, window: Timestamp) -> ContractKind {
        let begun = self.changes.partition_point(|(from, _)| *from <= window);
        let last = begun.checked_sub(1).and_then(|last| self.changes.get(last));
        last.map_or(self.opened_as, |(_, kind)| *kind)
    }
}

impl TeamFacts {
    /// Who pays for usage of this window: price and trial are those of the window (D9, D50, D57).
    #[must_use]
    pub fn payer(&self, team_id: TeamId, app_id: AppId, window: Timestamp) -> Payer {
        Payer {
            account_id: self.account_id,
            team_id,
            app_id,
            contract_kind: self.contracts.at(window),
            in_trial: self.in_trial(window),
        }
    }

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
                contracts: contracts(&account)?,
            }))
        }
        .boxed()
    }
}

fn contracts(account: &v1::Account) -> Result<Contracts, Error> {
    let kind = |kind: i32| match v1::ContractKind::try_from(kind) {
        Ok(v1::ContractKind::Enterprise) => ContractKind::Enterprise,
        Ok(v1::ContractKind::Flex | v1::ContractKind::Unspecified) | Err(_) => ContractKind::Flex,
    };
    let opened = account.contracts.iter().find(|term| term.from.is_none());
    let mut changes = Vec::new();
    for term in &account.contracts {
        if let Some(from) = &term.from {
            let from = timestamp_from_proto(from).map_err(|e| Error::stored("instant")(e.into()))?;
            changes.push((from, kind(term.contract_kind)));
        }
    }
    // An entitlement of the version before tells the present kind only.
    let opened_as = kind(opened.map_or(account.contract_kind, |term| term.contract_kind));
    Ok(Contracts::new(opened_as, changes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn the_kind_at_a_window_is_the_last_that_had_begun() {
        let term = |from: Option<&str>, kind: v1::ContractKind| v1::ContractTerm {
            from: from.map(|from| drawdown_proto::scalar::timestamp_to_proto(at(from))),
            contract_kind: kind.into(),
        };
        let account = v1::Account {
            contract_kind: v1::ContractKind::Flex.into(),
            contracts: vec![
                term(None, v1::ContractKind::Flex),
                term(Some("2026-02-01T00:00:00Z"), v1::ContractKind::Enterprise),
                term(Some("2026-03-01T00:00:00Z"), v1::ContractKind::Flex),
            ],
            ..v1::Account::default()
        };
        let known = contracts(&account).unwrap();
        let kinds =
            ["2026-01-31T23:59:00Z", "2026-02-01T00:00:00Z", "2026-02-28T23:59:00Z", "2026-03-01T00:00:00Z"]
                .map(|window| known.at(at(window)));
        let (flex, enterprise) = (ContractKind::Flex, ContractKind::Enterprise);
        assert_eq!(kinds, [flex, enterprise, enterprise, flex]);
        // What told the present kind only.
        let before =
            v1::Account { contract_kind: v1::ContractKind::Enterprise.into(), ..v1::Account::default() };
        assert_eq!(contracts(&before).unwrap().at(at("2026-01-01T00:00:00Z")), enterprise);
    }
}
