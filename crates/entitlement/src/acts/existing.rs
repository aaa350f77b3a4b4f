//! What an act names must exist: it is loaded here, or the act is refused with what there is not.

use drawdown_types::{AccountId, AppId, CredentialId, HubId, KeyId, PrincipalId, TeamId, TransferId, UserId};

use crate::{
    Error,
    error::Refused,
    store::{
        self, AccountRecord, AppRecord, CredentialRecord, KeyRecord, Lock, PrincipalRecord, Scope,
        TeamRecord, TransferRecord, Tx,
    },
};

pub(super) async fn account(tx: &mut Tx, id: AccountId, lock: Lock) -> Result<AccountRecord, Error> {
    Ok(store::account_in_tx(tx, id, lock).await?.ok_or(Refused::AccountNotFound(id))?)
}

pub(super) async fn team(tx: &mut Tx, id: TeamId, lock: Lock) -> Result<TeamRecord, Error> {
    Ok(store::team_in_tx(tx, id, lock).await?.ok_or(Refused::TeamNotFound(id))?)
}

/// Holds a team or an account until the end of the transaction, and says whose it is.
pub(super) async fn held_scope(tx: &mut Tx, scope: Scope) -> Result<AccountId, Error> {
    match scope {
        Scope::Team(id) => Ok(team(tx, id, Lock::Held).await?.account_id),
        Scope::Account(id) => Ok(account(tx, id, Lock::Held).await?.account_id),
    }
}

pub(super) async fn app(tx: &mut Tx, id: AppId, lock: Lock) -> Result<AppRecord, Error> {
    Ok(store::app_in_tx(tx, id, lock).await?.ok_or(Refused::AppNotFound(id))?)
}

/// A person: that somebody registered them.
pub(super) async fn user(tx: &mut Tx, id: UserId) -> Result<(), Error> {
    let found = store::user_exists_in_tx(tx, id).await?;
    Ok(found.then_some(()).ok_or(Refused::UserNotFound(id))?)
}

pub(super) async fn credential(tx: &mut Tx, id: CredentialId) -> Result<CredentialRecord, Error> {
    Ok(store::credential_in_tx(tx, id).await?.ok_or(Refused::CredentialNotFound(id))?)
}

/// The account of a hub.
pub(super) async fn hub_account(tx: &mut Tx, id: HubId) -> Result<AccountId, Error> {
    Ok(store::hub_account_in_tx(tx, id).await?.ok_or(Refused::HubNotFound(id))?)
}

pub(super) async fn transfer(tx: &mut Tx, id: TransferId) -> Result<TransferRecord, Error> {
    Ok(store::transfer_in_tx(tx, id).await?.ok_or(Refused::TransferNotFound(id))?)
}

/// A principal, locked.
pub(super) async fn principal(tx: &mut Tx, id: PrincipalId) -> Result<PrincipalRecord, Error> {
    Ok(store::principal_in_tx(tx, id).await?.ok_or(Refused::PrincipalNotFound(id))?)
}

pub(super) async fn key(tx: &mut Tx, id: KeyId) -> Result<KeyRecord, Error> {
    Ok(store::key_in_tx(tx, id).await?.ok_or(Refused::KeyNotFound(id))?)
}
