//! The directory as a whole, or the parts of it that changed, for the memory.
//!
//! Everything is read in one snapshot (repeatable read), and what there may be a million of, as a stream. The tables are
//! read one after the other, as they lie: putting them together in the database would read an index a row, which took
//! four times as long. Parts are arrays of ids; none is everything, by the same statement.

use std::collections::HashMap;

use drawdown_entitlement_core::{Account, Change, ContractKind, Revocation};
use drawdown_types::{AccountId, AppId, TeamId, Timestamp, UserId};
use futures::{Stream, TryStreamExt as _};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    Instant, Owner, Store, Tx,
    accounts::{cell_of, contracts, kind_of, trial_terms},
    credentials::revocation,
};
use crate::Error;

/// Which part; none for everything.
pub(crate) type Part<'a> = Option<&'a [Uuid]>;

/// An account, and whether it is suspended.
#[derive(Clone, Debug)]
pub(crate) struct KnownAccount {
    pub(crate) account: Account,
    pub(crate) suspended: bool,
}

/// A team, and whether it is suspended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KnownTeam {
    pub(crate) team_id: TeamId,
    pub(crate) account_id: AccountId,
    pub(crate) suspended: bool,
}

/// Somebody who may use the tokens of a team, or of all teams of an account (D27).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Holder {
    pub(crate) account_id: AccountId,
    pub(crate) team_id: Option<TeamId>,
    pub(crate) user_id: UserId,
}

/// A link of an app to a team.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KnownLink {
    pub(crate) app_id: AppId,
    pub(crate) from: Timestamp,
    pub(crate) team_id: TeamId,
    pub(crate) account_id: AccountId,
}

/// An app: whose it was when it was registered, and whose hub it is in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KnownApp {
    pub(crate) app_id: AppId,
    pub(crate) first: Owner,
    pub(crate) hub_account: Option<AccountId>,
}

/// A credential.
#[derive(Clone, Debug)]
pub(crate) struct KnownCredential {
    pub(crate) app_id: AppId,
    pub(crate) client_id: Box<str>,
    pub(crate) known_from: Timestamp,
    pub(crate) revocation: Option<Revocation>,
}

/// A line of the audit log that is new.
#[derive(Clone, Debug)]
pub(crate) struct Changed {
    pub(crate) audit_id: i64,
    pub(crate) at: Timestamp,
    pub(crate) method: String,
    pub(crate) subject: String,
    pub(crate) account_id: Option<AccountId>,
}

/// How far the audit log was read.
#[derive(Clone, Debug)]
pub(crate) struct Position {
    /// A snapshot, as Postgres writes one.
    pub(crate) snapshot: String,
    /// Lines up to this number were there at the start, whatever their transactions are called: a database that was
    /// restored from a dump has lines with numbers of transactions of another server.
    pub(crate) known_up_to: i64,
}

/// What is new since a position, at most so many lines, and the snapshot in which that is so.
pub(crate) async fn changed_in_tx(
    tx: &mut PgConnection,
    since: &Position,
    after: i64,
    rows: u32,
) -> Result<(Vec<Changed>, String), Error> {
    let rows = sqlx::query!(
        r#"SELECT s.snapshot AS "snapshot!", l.audit_id AS "audit_id?", l.at AS "at?", l.method AS "method?",
               l.subject AS "subject?", l.account_id AS "account_id?"
         FROM (SELECT pg_current_snapshot()::text AS snapshot) s
         LEFT JOIN LATERAL (
            SELECT audit_id, at, method, subject, account_id FROM entitlement.audit_log
            WHERE xact >= pg_snapshot_xmin($1::text::pg_snapshot)
              AND NOT pg_visible_in_snapshot(xact, $1::text::pg_snapshot) AND audit_id > $2
            ORDER BY audit_id LIMIT $3) l ON true"#,
        since.snapshot,
        after.max(since.known_up_to),
        i64::from(rows),
    )
    .fetch_all(tx)
    .await?;
    let snapshot = rows.first().map(|row| row.snapshot.clone()).unwrap_or_default();
    let changed = rows.into_iter().filter_map(|row| {
        Some(Changed {
            audit_id: row.audit_id?,
            at: row.at?.0,
            method: row.method?,
            subject: row.subject?,
            account_id: row.account_id.map(AccountId::from_uuid),
        })
    });
    Ok((changed.collect(), snapshot))
}

/// The position of what the transaction sees.
pub(crate) async fn position_in_tx(tx: &mut PgConnection) -> Result<Position, Error> {
    let row = sqlx::query!(
        r#"SELECT pg_current_snapshot()::text AS "snapshot!",
            coalesce((SELECT max(audit_id) FROM entitlement.audit_log
                WHERE xact >= pg_snapshot_xmin(pg_current_snapshot())
                  AND NOT pg_visible_in_snapshot(xact, pg_current_snapshot())), 0) AS "known_up_to!""#
    )
    .fetch_one(tx)
    .await?;
    Ok(Position { snapshot: row.snapshot, known_up_to: row.known_up_to })
}

pub(crate) async fn known_accounts_in_tx(
    tx: &mut PgConnection,
    accounts: Part<'_>,
) -> Result<Vec<KnownAccount>, Error> {
    let rows = sqlx::query!(
        r#"SELECT a.account_id, a.commercial_from, a.trial_started_at, a.trial_ends_at, a.cell, c.valid_from, c.kind,
               s.account_id IS NOT NULL AS "suspended!"
         FROM entitlement.account a
         JOIN entitlement.account_contract c ON c.account_id = a.account_id AND c.voided_at IS NULL
         LEFT JOIN entitlement.suspension s ON s.account_id = a.account_id AND s.team_id IS NULL AND s.to_at IS NULL
         WHERE $1::uuid[] IS NULL OR a.account_id = ANY($1)"#,
        accounts,
    )
    .fetch_all(tx)
    .await?;
    let mut found: HashMap<AccountId, (_, bool, Vec<Change<ContractKind>>)> = HashMap::new();
    for row in rows {
        let terms = trial_terms(row.commercial_from, row.trial_started_at, row.trial_ends_at);
        let facts = (terms, cell_of(row.cell)?);
        let of_account = found.entry(AccountId::from_uuid(row.account_id));
        let (_, _, changes) = of_account.or_insert_with(|| (facts, row.suspended, Vec::new()));
        changes.push(Change { from: row.valid_from.0, value: kind_of(&row.kind)? });
    }
    let known = found.into_iter().map(|(account_id, ((trial, cell), suspended, changes))| {
        let (opened_as, contract) = contracts(changes)?;
        Ok(KnownAccount { account: Account { account_id, opened_as, contract, trial, cell }, suspended })
    });
    known.collect()
}

/// Teams of some accounts.
pub(crate) async fn known_teams_in_tx(
    tx: &mut PgConnection,
    accounts: Part<'_>,
) -> Result<Vec<KnownTeam>, Error> {
    let rows = sqlx::query!(
        r#"SELECT t.team_id, t.account_id, s.team_id IS NOT NULL AS "suspended!"
         FROM entitlement.team t
         LEFT JOIN entitlement.suspension s ON s.team_id = t.team_id AND s.to_at IS NULL
         WHERE $1::uuid[] IS NULL OR t.account_id = ANY($1)"#,
        accounts,
    )
    .fetch_all(tx)
    .await?;
    let team = |team_id, account_id, suspended| KnownTeam {
        team_id: TeamId::from_uuid(team_id),
        account_id: AccountId::from_uuid(account_id),
        suspended,
    };
    Ok(rows.into_iter().map(|row| team(row.team_id, row.account_id, row.suspended)).collect())
}

/// Who may use the tokens of some accounts.
pub(crate) async fn holders_in_tx(tx: &mut PgConnection, accounts: Part<'_>) -> Result<Vec<Holder>, Error> {
    let rows = sqlx::query!(
        r#"SELECT r.account_id AS "account_id!", NULL::uuid AS "team_id?", r.user_id AS "user_id!"
         FROM entitlement.role_history r
         WHERE r.role = 'contract_manager' AND r.to_at IS NULL AND ($1::uuid[] IS NULL OR r.account_id = ANY($1))
         UNION ALL
         SELECT t.account_id, r.team_id, r.user_id
         FROM entitlement.role_history r JOIN entitlement.team t ON t.team_id = r.team_id
         WHERE r.role IN ('primary_admin', 'secondary_admin') AND r.to_at IS NULL
           AND ($1::uuid[] IS NULL OR t.account_id = ANY($1))
         UNION ALL
         SELECT t.account_id, p.team_id, p.user_id
         FROM entitlement.product_assignment p JOIN entitlement.team t ON t.team_id = p.team_id
         WHERE p.to_at IS NULL AND ($1::uuid[] IS NULL OR t.account_id = ANY($1))"#,
        accounts,
    )
    .fetch_all(tx)
    .await?;
    let holder = |account_id, team_id: Option<Uuid>, user_id| Holder {
        account_id: AccountId::from_uuid(account_id),
        team_id: team_id.map(TeamId::from_uuid),
        user_id: UserId::from_uuid(user_id),
    };
    Ok(rows.into_iter().map(|row| holder(row.account_id, row.team_id, row.user_id)).collect())
}

/// Owners that transfers brought.
pub(crate) async fn later_owners_in_tx(
    tx: &mut PgConnection,
    apps: Part<'_>,
) -> Result<HashMap<AppId, Vec<Change<Owner>>>, Error> {
    let rows = sqlx::query!(
        "SELECT app_id, valid_from, account_id, owner_user_id FROM entitlement.app_owner
         WHERE $1::uuid[] IS NULL OR app_id = ANY($1)",
        apps,
    )
    .fetch_all(tx)
    .await?;
    let mut owners: HashMap<AppId, Vec<Change<Owner>>> = HashMap::new();
    for row in rows {
        let owner = Owner {
            account_id: AccountId::from_uuid(row.account_id),
            user_id: Some(UserId::from_uuid(row.owner_user_id)),
        };
        let of_app = owners.entry(AppId::from_uuid(row.app_id)).or_default();
        of_app.push(Change { from: row.valid_from.0, value: owner });
    }
    Ok(owners)
}

struct LinkRow {
    app_id: Uuid,
    valid_from: Instant,
    team_id: Uuid,
    account_id: Uuid,
}

/// Links of apps.
pub(crate) fn known_links_in_tx<'a>(
    tx: &'a mut PgConnection,
    apps: Part<'a>,
) -> impl Stream<Item = Result<KnownLink, Error>> + Send + 'a {
    sqlx::query_as!(
        LinkRow,
        r#"SELECT l.app_id AS "app_id!", l.valid_from AS "valid_from!", l.team_id AS "team_id!",
               t.account_id AS "account_id!"
         FROM entitlement.app_team l JOIN entitlement.team t ON t.team_id = l.team_id
         WHERE l.voided_at IS NULL AND ($1::uuid[] IS NULL OR l.app_id = ANY($1))"#,
        apps,
    )
    .fetch(tx)
    .map_ok(|row| KnownLink {
        app_id: AppId::from_uuid(row.app_id),
        from: row.valid_from.0,
        team_id: TeamId::from_uuid(row.team_id),
        account_id: AccountId::from_uuid(row.account_id),
    })
    .map_err(Error::from)
}

struct KnownAppRow {
    app_id: Uuid,
    account_id: Uuid,
    owner_user_id: Option<Uuid>,
    hub_account_id: Option<Uuid>,
}

/// Apps, each with its hub.
pub(crate) fn known_apps_in_tx<'a>(
    tx: &'a mut PgConnection,
    apps: Part<'a>,
) -> impl Stream<Item = Result<KnownApp, Error>> + Send + 'a {
    sqlx::query_as!(
        KnownAppRow,
        r#"SELECT a.app_id AS "app_id!", a.account_id AS "account_id!", a.owner_user_id AS "owner_user_id?",
               h.account_id AS "hub_account_id?"
         FROM entitlement.app a
         LEFT JOIN entitlement.app_hub p ON p.app_id = a.app_id AND p.to_at IS NULL
         LEFT JOIN entitlement.hub h ON h.hub_id = p.hub_id
         WHERE $1::uuid[] IS NULL OR a.app_id = ANY($1)"#,
        apps,
    )
    .fetch(tx)
    .map_ok(|row| KnownApp {
        app_id: AppId::from_uuid(row.app_id),
        first: Owner {
            account_id: AccountId::from_uuid(row.account_id),
            user_id: row.owner_user_id.map(UserId::from_uuid),
        },
        hub_account: row.hub_account_id.map(AccountId::from_uuid),
    })
    .map_err(Error::from)
}

struct KnownCredentialRow {
    app_id: Uuid,
    client_id: String,
    known_from: Instant,
    revoked_at: Option<Instant>,
    unknown_from: Option<Instant>,
}

/// Credentials of apps.
pub(crate) fn known_credentials_in_tx<'a>(
    tx: &'a mut PgConnection,
    apps: Part<'a>,
) -> impl Stream<Item = Result<KnownCredential, Error>> + Send + 'a {
    sqlx::query_as!(
        KnownCredentialRow,
        r#"SELECT c.app_id AS "app_id!", c.client_id AS "client_id!", c.known_from AS "known_from!",
               r.revoked_at AS "revoked_at?", r.unknown_from AS "unknown_from?"
         FROM entitlement.credential c
         LEFT JOIN entitlement.credential_revocation r
             ON r.credential_id = c.credential_id AND r.voided_at IS NULL
         WHERE $1::uuid[] IS NULL OR c.app_id = ANY($1)"#,
        apps,
    )
    .fetch(tx)
    .map_ok(|row| KnownCredential {
        app_id: AppId::from_uuid(row.app_id),
        client_id: row.client_id.into_boxed_str(),
        known_from: row.known_from.0,
        revocation: revocation(row.revoked_at, row.unknown_from),
    })
    .map_err(Error::from)
}

/// The apps of some credentials, of some transfers, and all of some accounts.
pub(crate) async fn apps_of_in_tx(
    tx: &mut PgConnection,
    credentials: &[Uuid],
    transfers: &[Uuid],
    accounts: &[Uuid],
) -> Result<Vec<Uuid>, Error> {
    let apps = sqlx::query_scalar!(
        r#"SELECT app_id AS "app_id!" FROM entitlement.credential WHERE credential_id = ANY($1)
         UNION SELECT app_id FROM entitlement.app_transfer WHERE transfer_id = ANY($2)
         UNION SELECT app_id FROM entitlement.app WHERE account_id = ANY($3)
         UNION SELECT app_id FROM entitlement.app_owner WHERE account_id = ANY($3)"#,
        credentials,
        transfers,
        accounts,
    )
    .fetch_all(tx)
    .await?;
    Ok(apps)
}

impl Store {
    /// What is new since a position, at most so many lines, and the snapshot in which that is so.
    pub(crate) async fn changed(&self, since: &Position, rows: u32) -> Result<(Vec<Changed>, String), Error> {
        let mut connection = self.pool.acquire().await?;
        changed_in_tx(&mut connection, since, 0, rows).await
    }

    /// Begins to read in one snapshot, each statement for at most so long.
    pub(crate) async fn begin_snapshot(&self, statement_timeout_ms: u64) -> Result<Tx, Error> {
        let mut tx = self.begin().await?;
        sqlx::query!("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY").execute(&mut *tx).await?;
        sqlx::query_scalar!(
            "SELECT set_config('statement_timeout', $1, true)",
            statement_timeout_ms.to_string()
        )
        .fetch_one(&mut *tx)
        .await?;
        Ok(tx)
    }
}
