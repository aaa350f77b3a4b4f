//! Accounts with their contracts and trials, and teams.

use drawdown_entitlement_core::{
    Change, ContractKind, History, Trial, TrialTerms,
    plan::{NewAccount, NewTeam},
};
use drawdown_types::{AccountId, TeamId, Timestamp};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Instant, Lock, Made, Store, records::behalf};
use crate::Error;

/// An account as stored.
#[derive(Clone, Debug)]
pub(crate) struct AccountRecord {
    pub(crate) account_id: AccountId,
    pub(crate) name: String,
    pub(crate) created_at: Timestamp,
    pub(crate) opened_as: ContractKind,
    pub(crate) contract: History<ContractKind>,
    pub(crate) trial: TrialTerms,
    pub(crate) cell: u8,
    pub(crate) suspended_since: Option<Timestamp>,
}

/// A team as stored.
#[derive(Clone, Debug)]
pub(crate) struct TeamRecord {
    pub(crate) team_id: TeamId,
    pub(crate) account_id: AccountId,
    pub(crate) name: String,
    pub(crate) created_at: Timestamp,
    pub(crate) suspended_since: Option<Timestamp>,
}

struct AccountRow {
    name: String,
    created_at: Instant,
    commercial_from: Option<Instant>,
    trial_started_at: Option<Instant>,
    trial_ends_at: Option<Instant>,
    cell: i16,
    suspended_since: Option<Instant>,
}

struct TeamRow {
    team_id: Uuid,
    account_id: Uuid,
    name: String,
    created_at: Instant,
    suspended_since: Option<Instant>,
}

pub(crate) const fn kind_text(kind: ContractKind) -> &'static str {
    match kind {
        ContractKind::Flex => "flex",
        ContractKind::Enterprise => "enterprise",
    }
}

pub(super) fn kind_of(text: &str) -> Result<ContractKind, Error> {
    match text {
        "flex" => Ok(ContractKind::Flex),
        "enterprise" => Ok(ContractKind::Enterprise),
        _ => Err(Error::stored("contract kind", format!("{text:?} is none"))),
    }
}

pub(super) fn cell_of(cell: i16) -> Result<u8, Error> {
    u8::try_from(cell).map_err(|error| Error::stored("cell", error))
}

pub(super) fn trial_terms(
    commercial_from: Option<Instant>,
    started_at: Option<Instant>,
    ends_at: Option<Instant>,
) -> TrialTerms {
    let trial =
        started_at.zip(ends_at).map(|(Instant(started_at), Instant(ends_at))| Trial { started_at, ends_at });
    TrialTerms { trial, commercial_from: commercial_from.map(|at| at.0) }
}

/// The kinds of contract of one account; there is always the one it was opened with.
pub(super) fn contracts(
    changes: Vec<Change<ContractKind>>,
) -> Result<(ContractKind, History<ContractKind>), Error> {
    let history = History::from_changes(changes).map_err(|conflict| Error::stored("contract", conflict))?;
    let opened_as = history.links().next().map(|link| *link.value);
    let opened_as = opened_as.ok_or_else(|| Error::stored("contract", "the account has none"))?;
    Ok((opened_as, history))
}

impl From<TeamRow> for TeamRecord {
    fn from(row: TeamRow) -> Self {
        Self {
            team_id: TeamId::from_uuid(row.team_id),
            account_id: AccountId::from_uuid(row.account_id),
            name: row.name,
            created_at: row.created_at.0,
            suspended_since: row.suspended_since.map(|since| since.0),
        }
    }
}

/// A trial that ends early, and who ended it when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TrialEndRecord {
    pub(crate) from: Timestamp,
    pub(crate) made_at: Timestamp,
    pub(crate) made_by: String,
}

impl TrialEndRecord {
    pub(crate) fn new(from: Timestamp, made: Made) -> Self {
        Self { from, made_at: made.at, made_by: behalf(made.by) }
    }
}

pub(crate) async fn insert_account_in_tx(
    tx: &mut PgConnection,
    account_id: AccountId,
    name: &str,
    (kind, cell): (ContractKind, u8),
    new: &NewAccount,
    made: Made,
) -> Result<(), Error> {
    sqlx::query!(
        "INSERT INTO entitlement.account (account_id, name, created_at, commercial_from, cell) VALUES ($1, $2, $3, $4, $5)",
        account_id.as_uuid(),
        name,
        Instant(new.created_at),
        new.commercial_from.map(Instant) as _,
        i16::from(cell),
    )
    .execute(&mut *tx)
    .await?;
    append_contract_in_tx(tx, account_id, kind, new.contract_from, made).await
}

/// The caller holds the lock of the account, or has just made it.
pub(crate) async fn append_contract_in_tx(
    tx: &mut PgConnection,
    account_id: AccountId,
    kind: ContractKind,
    from: Timestamp,
    made: Made,
) -> Result<(), Error> {
    sqlx::query!(
        "INSERT INTO entitlement.account_contract (account_id, valid_from, kind, made_at, made_by, made_through)
         VALUES ($1, $2, $3, $4, $5, $6)",
        account_id.as_uuid(),
        Instant(from),
        kind_text(kind),
        Instant(made.at),
        behalf(made.by),
        made.through,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// The edge from which on an account is commercial, and who says so when; none where a scheduled one was taken back. The
/// caller holds its lock.
pub(crate) async fn set_commercial_in_tx(
    tx: &mut PgConnection,
    account_id: AccountId,
    from: Option<TrialEndRecord>,
) -> Result<(), Error> {
    let from = from.as_ref();
    sqlx::query!(
        "UPDATE entitlement.account SET commercial_from = $2, commercial_made_at = $3, commercial_made_by = $4
         WHERE account_id = $1",
        account_id.as_uuid(),
        from.map(|end| Instant(end.from)) as _,
        from.map(|end| Instant(end.made_at)) as _,
        from.map(|end| end.made_by.as_str()),
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// An account with its contracts; held until the end of the transaction if asked for.
pub(crate) async fn account_in_tx(
    tx: &mut PgConnection,
    account_id: AccountId,
    lock: Lock,
) -> Result<Option<AccountRecord>, Error> {
    if lock == Lock::Held {
        sqlx::query!(
            "SELECT account_id FROM entitlement.account WHERE account_id = $1 FOR NO KEY UPDATE",
            account_id.as_uuid(),
        )
        .fetch_optional(&mut *tx)
        .await?;
    }
    let row = sqlx::query_as!(
        AccountRow,
        r#"SELECT name, created_at, commercial_from, trial_started_at, trial_ends_at, cell,
                (SELECT from_at FROM entitlement.suspension s
                 WHERE s.account_id = a.account_id AND s.team_id IS NULL AND s.to_at IS NULL) AS "suspended_since"
         FROM entitlement.account a WHERE account_id = $1"#,
        account_id.as_uuid(),
    )
    .fetch_optional(&mut *tx)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let changes = sqlx::query!(
        "SELECT valid_from, kind FROM entitlement.account_contract WHERE account_id = $1 AND voided_at IS NULL",
        account_id.as_uuid(),
    )
    .fetch_all(tx)
    .await?;
    let changes = changes
        .into_iter()
        .map(|change| Ok(Change { from: change.valid_from.0, value: kind_of(&change.kind)? }))
        .collect::<Result<Vec<_>, Error>>()?;
    let (opened_as, contract) = contracts(changes)?;
    Ok(Some(AccountRecord {
        account_id,
        name: row.name,
        created_at: row.created_at.0,
        opened_as,
        contract,
        trial: trial_terms(row.commercial_from, row.trial_started_at, row.trial_ends_at),
        cell: cell_of(row.cell)?,
        suspended_since: row.suspended_since.map(|since| since.0),
    }))
}

pub(crate) async fn set_trial_in_tx(
    tx: &mut PgConnection,
    account_id: AccountId,
    trial: Trial,
) -> Result<(), Error> {
    sqlx::query!(
        "UPDATE entitlement.account SET trial_started_at = $2, trial_ends_at = $3 WHERE account_id = $1",
        account_id.as_uuid(),
        Instant(trial.started_at),
        Instant(trial.ends_at),
    )
    .execute(tx)
    .await?;
    Ok(())
}

pub(crate) async fn insert_team_in_tx(
    tx: &mut PgConnection,
    team_id: TeamId,
    account_id: AccountId,
    name: &str,
    new: &NewTeam,
) -> Result<(), Error> {
    sqlx::query!(
        "INSERT INTO entitlement.team (team_id, account_id, name, created_at) VALUES ($1, $2, $3, $4)",
        team_id.as_uuid(),
        account_id.as_uuid(),
        name,
        Instant(new.created_at),
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// A team; held until the end of the transaction if asked for.
pub(crate) async fn team_in_tx(
    tx: &mut PgConnection,
    team_id: TeamId,
    lock: Lock,
) -> Result<Option<TeamRecord>, Error> {
    if lock == Lock::Held {
        sqlx::query!(
            "SELECT team_id FROM entitlement.team WHERE team_id = $1 FOR NO KEY UPDATE",
            team_id.as_uuid(),
        )
        .fetch_optional(&mut *tx)
        .await?;
    }
    let row = sqlx::query_as!(
        TeamRow,
        r#"SELECT team_id, account_id, name, created_at,
                (SELECT from_at FROM entitlement.suspension s
                 WHERE s.team_id = t.team_id AND s.to_at IS NULL) AS "suspended_since"
         FROM entitlement.team t WHERE team_id = $1"#,
        team_id.as_uuid(),
    )
    .fetch_optional(tx)
    .await?;
    Ok(row.map(TeamRecord::from))
}

impl Store {
    /// One account.
    pub(crate) async fn account(&self, account_id: AccountId) -> Result<Option<AccountRecord>, Error> {
        let mut connection = self.reader().await?;
        account_in_tx(&mut connection, account_id, Lock::No).await
    }

    /// One team.
    pub(crate) async fn team(&self, team_id: TeamId) -> Result<Option<TeamRecord>, Error> {
        let mut connection = self.reader().await?;
        team_in_tx(&mut connection, team_id, Lock::No).await
    }

    /// Up to `rows` teams after `after`, in the order of their ids.
    pub(crate) async fn teams(
        &self,
        account_id: Option<AccountId>,
        after: TeamId,
        rows: i64,
    ) -> Result<Vec<TeamRecord>, Error> {
        if let Some(account_id) = account_id {
            let mut connection = self.reader().await?;
            return teams_of_account_in_tx(&mut connection, account_id, after, rows).await;
        }
        let rows = sqlx::query_as!(
            TeamRow,
            r#"SELECT team_id, account_id, name, created_at,
                    (SELECT from_at FROM entitlement.suspension s
                     WHERE s.team_id = t.team_id AND s.to_at IS NULL) AS "suspended_since"
             FROM entitlement.team t WHERE team_id > $1 ORDER BY team_id LIMIT $2"#,
            after.as_uuid(),
            rows,
        )
        .fetch_all(&mut *self.reader().await?)
        .await?;
        Ok(rows.into_iter().map(TeamRecord::from).collect())
    }
}

/// Up to `rows` teams of an account after `after`, in the order of their ids. A statement of its own: one for these and
/// for all teams would have one plan for both.
pub(crate) async fn teams_of_account_in_tx(
    tx: &mut PgConnection,
    account_id: AccountId,
    after: TeamId,
    rows: i64,
) -> Result<Vec<TeamRecord>, Error> {
    let rows = sqlx::query_as!(
        TeamRow,
        r#"SELECT team_id, account_id, name, created_at,
                (SELECT from_at FROM entitlement.suspension s
                 WHERE s.team_id = t.team_id AND s.to_at IS NULL) AS "suspended_since"
         FROM entitlement.team t WHERE account_id = $1 AND team_id > $2 ORDER BY team_id LIMIT $3"#,
        account_id.as_uuid(),
        after.as_uuid(),
        rows,
    )
    .fetch_all(tx)
    .await?;
    Ok(rows.into_iter().map(TeamRecord::from).collect())
}
