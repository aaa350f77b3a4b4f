//! A directory of a million client ids, written into entitlement's tables as its acts leave them.
//!
//! By COPY, since a million acts take an hour. An account has ten teams, a team a hundred apps, an app one credential; a
//! person owns the apps of a team and is its primary admin, so that a check has to find that (D27). Left out are the
//! audit log and the request ids of the acts: nothing that is measured reads of them more than what is new. Foreign keys
//! are not checked again while this writes.

use std::{fmt::Write as _, time::Instant};

use anyhow::{Context as _, Result, ensure};
use drawdown_types::{
    AccountId, AppId, Clock as _, CredentialId, SystemClock, TeamId, Timestamp, UserId, WindowSize,
};
use sqlx::{Connection as _, PgConnection};

/// Apps of a team, each with one credential.
const APPS_PER_TEAM: usize = 100;
const TEAMS_PER_ACCOUNT: usize = 10;
/// How long before now everything was made.
const FOUNDED_BEFORE_SECS: i64 = 86_400;
/// Bytes that are sent at a time.
const CHUNK_BYTES: usize = 1 << 20;
/// The team with the number n has so many whole tokens and n more, so an answer tells whose it is.
const TOKENS: i64 = 1_000_000;

/// A team.
#[derive(Debug, Clone, Copy)]
pub(super) struct Team {
    pub(super) account_id: AccountId,
    pub(super) team_id: TeamId,
    admin: UserId,
    /// What is bought for it, in whole tokens.
    pub(super) tokens: i64,
}

/// A client id and what it leads to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Client {
    pub(super) credential_id: CredentialId,
    pub(super) app_id: AppId,
    /// The number of its team.
    pub(super) team: usize,
    text: CredentialId,
}

/// Everything that was written.
pub(super) struct Directory {
    accounts: Vec<AccountId>,
    pub(super) teams: Vec<Team>,
    pub(super) clients: Vec<Client>,
    /// Since when all of it is there: an edge.
    pub(super) founded: Timestamp,
}

// === impl Client ===

impl Client {
    /// As entitlement makes client ids.
    pub(super) fn client_id(&self) -> String {
        format!("client_{}", self.text.to_string().trim_start_matches("cred_"))
    }
}

// === impl Directory ===

impl Directory {
    /// Draws the ids of everything.
    pub(super) fn of(credentials: usize) -> Result<Self> {
        let teams = credentials.div_ceil(APPS_PER_TEAM);
        let accounts: Vec<_> =
            (0..teams.div_ceil(TEAMS_PER_ACCOUNT)).map(|_| AccountId::generate()).collect();
        let team = |number: usize| Team {
            account_id: accounts[number / TEAMS_PER_ACCOUNT],
            team_id: TeamId::generate(),
            admin: UserId::generate(),
            tokens: TOKENS + i64::try_from(number).unwrap_or_default(),
        };
        let teams: Vec<_> = (0..teams).map(team).collect();
        let client = |number: usize| Client {
            credential_id: CredentialId::generate(),
            app_id: AppId::generate(),
            team: number % teams.len(),
            text: CredentialId::generate(),
        };
        let clients = (0..credentials).map(client).collect();
        let founded = SystemClock.now().as_micros() - FOUNDED_BEFORE_SECS * 1_000_000;
        let founded = WindowSize::MINUTE.floor(Timestamp::from_micros(founded)?);
        Ok(Self { accounts, teams, clients, founded })
    }

    /// What a team has, in micro-tokens.
    pub(super) fn balance(&self, team: usize) -> i64 {
        self.teams[team].tokens * drawdown_types::MICROS_PER_TOKEN
    }

    /// Writes all rows; gives how long that took, in seconds.
    pub(super) async fn write(&self, url: &str) -> Result<f64> {
        let began = Instant::now();
        let mut database = PgConnection::connect(url).await?;
        sqlx::raw_sql("set session_replication_role = replica").execute(&mut database).await?;
        self.write_owners(&mut database).await?;
        self.write_apps(&mut database).await?;
        sqlx::raw_sql("set session_replication_role = origin").execute(&mut database).await?;
        sqlx::raw_sql("vacuum analyze").execute(&mut database).await?;
        let written: i64 = sqlx::query_scalar("select count(*) from entitlement.credential")
            .fetch_one(&mut database)
            .await?;
        ensure!(usize::try_from(written)? == self.clients.len(), "{written} credentials were written");
        database.close().await?;
        Ok(began.elapsed().as_secs_f64())
    }

    async fn write_owners(&self, database: &mut PgConnection) -> Result<()> {
        let since = self.founded;
        let accounts = self.accounts.iter().enumerate();
        let rows = accounts.map(|(n, id)| format!("{}\taccount {n}\t{since}\t{since}\n", id.as_uuid()));
        copy(database, "account (account_id, name, created_at, commercial_from)", rows).await?;
        let rows = (self.accounts.iter())
            .map(|id| format!("{}\t{since}\tflex\t{since}\toperator\tCreateAccount\n", id.as_uuid()));
        let into = "account_contract (account_id, valid_from, kind, made_at, made_by, made_through)";
        copy(database, into, rows).await?;
        let rows = self.teams.iter().enumerate().map(|(n, team)| {
            format!("{}\t{}\tteam {n}\t{since}\n", team.team_id.as_uuid(), team.account_id.as_uuid())
        });
        copy(database, "team (team_id, account_id, name, created_at)", rows).await?;
        let rows = self.teams.iter().enumerate();
        let rows = rows.map(|(n, team)| format!("{}\tp{n}@example.com\tperson {n}\n", team.admin.as_uuid()));
        copy(database, "app_user (user_id, email, name)", rows).await?;
        let rows = self.teams.iter().map(|team| {
            format!("{}\t{}\tprimary_admin\t{since}\n", team.admin.as_uuid(), team.team_id.as_uuid())
        });
        copy(database, "role_history (user_id, team_id, role, from_at)", rows).await
    }

    async fn write_apps(&self, database: &mut PgConnection) -> Result<()> {
        let since = self.founded;
        let rows = self.clients.iter().enumerate().map(|(n, client)| {
            let team = &self.teams[client.team];
            let (account, owner) = (team.account_id.as_uuid(), team.admin.as_uuid());
            format!("{}\t{account}\t{owner}\tapp {n}\n", client.app_id.as_uuid())
        });
        copy(database, "app (app_id, account_id, owner_user_id, name)", rows).await?;
        let rows = self.clients.iter().map(|client| {
            let team = self.teams[client.team].team_id.as_uuid();
            format!("{}\t{since}\t{team}\tt\t{since}\toperator\tAssignApp\n", client.app_id.as_uuid())
        });
        let into = "app_team (app_id, valid_from, team_id, set_up, made_at, made_by, made_through)";
        copy(database, into, rows).await?;
        let hash = "5a".repeat(32);
        let rows = self.clients.iter().map(|client| {
            let (id, app, text) =
                (client.credential_id.as_uuid(), client.app_id.as_uuid(), client.client_id());
            format!(
                "{id}\t{app}\t{text}\t\\\\x{hash}\t{since}\t{since}\t{since}\toperator\tCreateCredential\n"
            )
        });
        let into = "credential (credential_id, app_id, client_id, secret_hmac, created_at, known_from, made_at, \
                    made_by, made_through)";
        copy(database, into, rows).await
    }
}

/// Rows in the text form of COPY into a table of entitlement.
async fn copy(database: &mut PgConnection, into: &str, rows: impl Iterator<Item = String>) -> Result<()> {
    let statement = format!("copy entitlement.{into} from stdin");
    let mut copying = database.copy_in_raw(&statement).await.with_context(|| into.to_owned())?;
    let mut chunk = String::with_capacity(CHUNK_BYTES + 1024);
    for row in rows {
        chunk.write_str(&row)?;
        if chunk.len() >= CHUNK_BYTES {
            copying.send(chunk.as_bytes()).await?;
            chunk.clear();
        }
    }
    copying.send(chunk.as_bytes()).await?;
    copying.finish().await.with_context(|| into.to_owned())?;
    Ok(())
}
