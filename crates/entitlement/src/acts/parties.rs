//! The two sides of a transfer, held and read: accounts in the order of their ids, then the app.

use drawdown_entitlement_core::{
    History,
    plan::{Acting, Actor, Party},
};
use drawdown_types::{AccountId, AppId, TeamId, Timestamp, TransferId};

use super::{Acts, existing};
use crate::{
    Error,
    store::{self, AccountRecord, Lock, Owner, TransferRecord, Tx},
};

/// An app that is held, with its account, at one instant.
pub(super) struct AppSide {
    /// The instant, read after the locks.
    pub(super) now: Timestamp,
    /// Whose it is.
    pub(super) owner: Owner,
    /// Its teams.
    pub(super) teams: History<TeamId>,
    /// What a transfer needs to know of this side.
    pub(super) party: Party,
}

/// A transfer that is held.
pub(super) struct Held {
    /// Where the app is.
    pub(super) app: AppSide,
    pub(super) transfer: TransferRecord,
    /// Where it goes, once a team is known.
    pub(super) receiving: Option<Party>,
}

fn party(acts: &Acts, account: &AccountRecord, team_id: Option<TeamId>, team_suspended: bool) -> Party {
    Party {
        account_id: account.account_id,
        team_id,
        suspended: account.suspended_since.is_some() || team_suspended,
        trial: account.trial,
        cell: account.cell,
        ledger_known: acts.memory.hears(account.cell),
    }
}

/// Holds the accounts in the order of their ids: another transfer may go the other way.
async fn hold_accounts(tx: &mut Tx, mut ids: Vec<AccountId>) -> Result<Vec<AccountRecord>, Error> {
    ids.sort_unstable();
    ids.dedup();
    let mut held = Vec::with_capacity(ids.len());
    for account_id in ids {
        held.push(existing::account(tx, account_id, Lock::Held).await?);
    }
    Ok(held)
}

async fn team_party(
    tx: &mut Tx,
    acts: &Acts,
    accounts: &[AccountRecord],
    team_id: TeamId,
) -> Result<Option<Party>, Error> {
    let team = existing::team(tx, team_id, Lock::Held).await?;
    let account = accounts.iter().find(|account| account.account_id == team.account_id);
    Ok(account.map(|account| party(acts, account, Some(team_id), team.suspended_since.is_some())))
}

/// Holds an app and its account, and the account of `beside` with them; none where the app changed its owner in
/// between.
async fn hold(
    tx: &mut Tx,
    acts: &Acts,
    app_id: AppId,
    beside: Option<AccountId>,
) -> Result<Option<(AppSide, Vec<AccountRecord>)>, Error> {
    let app = existing::app(tx, app_id, Lock::No).await?;
    let account_id = app.owner_at(acts.now()).account_id;
    let accounts = hold_accounts(tx, [account_id].into_iter().chain(beside).collect()).await?;
    let app = existing::app(tx, app_id, Lock::Held).await?;
    let now = acts.now();
    let owner = app.owner_at(now);
    let Some(account) = accounts.iter().find(|account| account.account_id == owner.account_id) else {
        return Ok(None);
    };
    let teams = store::assignments_in_tx(tx, app_id).await?;
    let party = match teams.at(now).copied() {
        None => party(acts, account, None, false),
        Some(team_id) => match team_party(tx, acts, &accounts, team_id).await? {
            Some(party) => party,
            None => return Ok(None),
        },
    };
    Ok(Some((AppSide { now, owner, teams, party }, accounts)))
}

/// Holds an app; none where the act has to begin again.
pub(super) async fn hold_app(
    tx: &mut Tx,
    acts: &Acts,
    app_id: AppId,
    beside: Option<AccountId>,
) -> Result<Option<AppSide>, Error> {
    Ok(hold(tx, acts, app_id, beside).await?.map(|(app, _)| app))
}

/// Holds a transfer with both its sides; `team_id` is the team that is being chosen, else the chosen one counts. None
/// where the act has to begin again.
pub(super) async fn hold_transfer(
    tx: &mut Tx,
    acts: &Acts,
    transfer_id: TransferId,
    team_id: Option<TeamId>,
) -> Result<Option<Held>, Error> {
    let before = existing::transfer(tx, transfer_id).await?;
    let team_id = team_id.or(before.state.team_id);
    let beside = match team_id {
        Some(team_id) => Some(existing::team(tx, team_id, Lock::No).await?.account_id),
        None => None,
    };
    let Some((app, accounts)) = hold(tx, acts, before.app_id, beside).await? else { return Ok(None) };
    let transfer = existing::transfer(tx, transfer_id).await?;
    if transfer.state.team_id != before.state.team_id {
        return Ok(None);
    }
    let receiving = match team_id {
        Some(team_id) => team_party(tx, acts, &accounts, team_id).await?,
        None => None,
    };
    Ok(Some(Held { app, transfer, receiving }))
}

impl AppSide {
    /// Who acts, and whether they have a say for the giving side.
    pub(super) async fn acting(&self, tx: &mut Tx, actor: Actor) -> Result<Acting, Error> {
        let Actor::User(user_id) = actor else { return Ok(Acting { actor, for_giving_side: false }) };
        existing::user(tx, user_id).await?;
        let for_giving_side = if self.owner.user_id == Some(user_id) {
            true
        } else if let Some(team_id) = self.party.team_id {
            let standing = store::standing_in_tx(tx, user_id, team_id, self.owner.account_id).await?;
            standing.is_admin() || standing.contract_manager
        } else {
            let scope = store::Scope::Account(self.owner.account_id);
            store::held_in_tx(tx, user_id, scope).await?.is_some()
        };
        Ok(Acting { actor, for_giving_side })
    }
}
