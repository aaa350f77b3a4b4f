//! Loads what the resolution of many client ids needs.
//!
//! Cost: two statements, whatever the number of client ids and windows: the links of the client ids,
//! then the accounts they lead to. Histories are loaded whole, so the number of windows asked about
//! costs nothing here; the rule that picks a link is in `drawdown-entitlement-core`.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use drawdown_entitlement_core::{
    Account, App, Change, Client, ContractKind, Directory, History, Revocation, TeamLink,
};
use drawdown_types::{AccountId, AppId, ClientId, TeamId, Timestamp};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    Instant, Store,
    accounts::{cell_of, contracts, kind_of, trial_terms},
    credentials::revocation,
};
use crate::Error;

/// One link of one client id; a client id without links has one row without a team.
struct LinkRow {
    client_id: String,
    app_id: Uuid,
    known_from: Instant,
    revoked_at: Option<Instant>,
    unknown_from: Option<Instant>,
    valid_from: Option<Instant>,
    team_id: Option<Uuid>,
    account_id: Option<Uuid>,
}

#[derive(Default)]
struct AppLinks {
    known: HashMap<ClientId, (Timestamp, Option<Revocation>)>,
    links: HashMap<Timestamp, (TeamId, AccountId)>,
}

impl Store {
    /// All that is known about some client ids.
    pub(crate) async fn directory(&self, client_ids: &[String]) -> Result<Directory, Error> {
        let mut connection = self.pool.acquire().await?;
        directory_in_tx(&mut connection, client_ids).await
    }
}

/// All that is known about some client ids, as the transaction sees it.
pub(crate) async fn directory_in_tx(
    tx: &mut PgConnection,
    client_ids: &[String],
) -> Result<Directory, Error> {
    let rows = sqlx::query_as!(
        LinkRow,
        r#"SELECT c.client_id AS "client_id!", c.app_id AS "app_id!", c.known_from AS "known_from!",
                    r.revoked_at AS "revoked_at?", r.unknown_from AS "unknown_from?",
                    l.valid_from AS "valid_from?", l.team_id AS "team_id?", t.account_id AS "account_id?"
             FROM unnest($1::text[]) AS asked (client_id)
             JOIN entitlement.credential c ON c.client_id = asked.client_id
             LEFT JOIN entitlement.credential_revocation r
                 ON r.credential_id = c.credential_id AND r.voided_at IS NULL
             LEFT JOIN entitlement.app_team l ON l.app_id = c.app_id AND l.voided_at IS NULL
             LEFT JOIN entitlement.team t ON t.team_id = l.team_id"#,
        client_ids,
    )
    .fetch_all(&mut *tx)
    .await?;
    let billed: HashSet<Uuid> = rows.iter().filter_map(|row| row.account_id).collect();
    let accounts = billed_accounts(tx, billed.into_iter().collect()).await?;
    let mut apps: HashMap<AppId, AppLinks> = HashMap::new();
    for row in rows {
        add(&mut apps, row)?;
    }
    let clients = apps.into_iter().map(|(app_id, links)| clients_of(app_id, links, &accounts));
    Ok(clients.collect::<Result<Vec<_>, Error>>()?.into_iter().flatten().collect())
}

async fn billed_accounts(
    tx: &mut PgConnection,
    account_ids: Vec<Uuid>,
) -> Result<HashMap<AccountId, Arc<Account>>, Error> {
    if account_ids.is_empty() {
        return Ok(HashMap::new());
    }
    let rows = sqlx::query!(
            "SELECT a.account_id, a.commercial_from, a.trial_started_at, a.trial_ends_at, a.cell, c.valid_from, c.kind
             FROM unnest($1::uuid[]) AS asked (account_id)
             JOIN entitlement.account a ON a.account_id = asked.account_id
             JOIN entitlement.account_contract c ON c.account_id = a.account_id AND c.voided_at IS NULL",
            &account_ids,
        )
        .fetch_all(&mut *tx)
        .await?;
    let mut found: HashMap<AccountId, (_, Vec<Change<ContractKind>>)> = HashMap::new();
    for row in rows {
        let terms = trial_terms(row.commercial_from, row.trial_started_at, row.trial_ends_at);
        let facts = (terms, cell_of(row.cell)?);
        let (_, changes) =
            found.entry(AccountId::from_uuid(row.account_id)).or_insert_with(|| (facts, Vec::new()));
        changes.push(Change { from: row.valid_from.0, value: kind_of(&row.kind)? });
    }
    found
        .into_iter()
        .map(|(account_id, ((trial, cell), changes))| {
            let (opened_as, contract) = contracts(changes)?;
            Ok((account_id, Arc::new(Account { account_id, opened_as, contract, trial, cell })))
        })
        .collect()
}

fn add(apps: &mut HashMap<AppId, AppLinks>, row: LinkRow) -> Result<(), Error> {
    let client_id = ClientId::new(&row.client_id).map_err(|error| Error::stored("client id", error))?;
    let app = apps.entry(AppId::from_uuid(row.app_id)).or_default();
    // a client id has a row for each link of its app, and the credentials of one app repeat its links
    app.known.insert(client_id, (row.known_from.0, revocation(row.revoked_at, row.unknown_from)));
    if let (Some(from), Some(team_id), Some(account_id)) = (row.valid_from, row.team_id, row.account_id) {
        app.links.insert(from.0, (TeamId::from_uuid(team_id), AccountId::from_uuid(account_id)));
    }
    Ok(())
}

fn clients_of(
    app_id: AppId,
    app: AppLinks,
    accounts: &HashMap<AccountId, Arc<Account>>,
) -> Result<Vec<(ClientId, Client)>, Error> {
    let links = app
        .links
        .into_iter()
        .map(|(from, (team_id, account_id))| {
            let account = accounts.get(&account_id);
            let account = account.ok_or_else(|| Error::stored("team", "its account has no contract"))?;
            Ok(Change { from, value: TeamLink { team_id, account: Arc::clone(account) } })
        })
        .collect::<Result<Vec<_>, Error>>()?;
    let teams = History::from_changes(links).map_err(|conflict| Error::stored("assignments", conflict))?;
    let app_facts = Arc::new(App { app_id, teams });
    let client = |(known_from, revocation)| Client { known_from, revocation, app: Arc::clone(&app_facts) };
    Ok(app.known.into_iter().map(|(client_id, known)| (client_id, client(known))).collect())
}
