//! A database per test.
//!
//! Cost: an empty database is one statement (tens of milliseconds); a migrated one costs its migrations, or one
//! clone where templates are in use. Templates are made under an advisory lock, because nextest runs every test in
//! a process of its own; a template gets its name only when it is whole.

use std::str::FromStr;

use anyhow::Context as _;
use sqlx::{
    AssertSqlSafe, Connection as _, PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use uuid::Uuid;

use crate::{TEMPLATE_VARIABLE, servers::postgres_url};

/// Sessions of one test.
const CONNECTIONS_MAX: u32 = 8;
/// The advisory lock under which templates are made.
const TEMPLATE_LOCK: i64 = 0x6472_6177_646f_776e;

/// A database that exists as long as this value.
#[derive(Debug)]
pub struct Database {
    name: String,
    server: PgConnectOptions,
    url: String,
    pool: PgPool,
}

impl Database {
    /// An empty database.
    ///
    /// # Errors
    /// Where there is no server, or it refuses.
    pub async fn create() -> anyhow::Result<Self> {
        Self::from_template("template0").await
    }

    /// A database that `migrate` has prepared; `key` names what it does (such as `ledger`), so that databases of the
    /// same key may be cloned from one template.
    ///
    /// # Errors
    /// Where there is no server, or it refuses, or `migrate` fails.
    pub async fn create_with<E>(
        key: &str,
        migrate: impl AsyncFnOnce(&PgPool) -> Result<(), E>,
    ) -> anyhow::Result<Self>
    where
        E: Into<anyhow::Error>,
    {
        let Some(prefix) = std::env::var(TEMPLATE_VARIABLE).ok().filter(|value| !value.is_empty()) else {
            let database = Self::create().await?;
            migrate(&database.pool).await.map_err(Into::into).context("migrate")?;
            return Ok(database);
        };
        let template = format!("{prefix}_{key}");
        let server = server().await?;
        let mut session = PgConnection::connect_with(&server).await.context("connect")?;
        // the lock goes with the session, also where the migration fails
        sqlx::query("select pg_advisory_lock($1)").bind(TEMPLATE_LOCK).execute(&mut session).await?;
        let known: bool = sqlx::query_scalar("select exists (select from pg_database where datname = $1)")
            .bind(&template)
            .fetch_one(&mut session)
            .await?;
        if !known {
            let fresh = Self::create().await?;
            migrate(&fresh.pool).await.map_err(Into::into).context("migrate the template")?;
            fresh.pool.close().await;
            execute(&mut session, format!("alter database \"{}\" rename to \"{template}\"", fresh.name))
                .await?;
        }
        session.close().await?;
        Self::from_template(&template).await
    }

    async fn from_template(template: &str) -> anyhow::Result<Self> {
        let server = server().await?;
        let name = format!("t{}", Uuid::now_v7().simple());
        let mut session = PgConnection::connect_with(&server).await.context("connect")?;
        execute(&mut session, format!("create database \"{name}\" template \"{template}\"")).await?;
        session.close().await?;
        let url = with_database(&postgres_url().await?, &name);
        let options = server.clone().database(&name);
        let pool = PgPoolOptions::new().max_connections(CONNECTIONS_MAX).connect_lazy_with(options);
        Ok(Self { name, server, url, pool })
    }

    /// Sessions of this database.
    #[must_use]
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// `postgres://…` of this database.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its name on the server.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Database {
    /// Drops the database with whoever is signed in to it. A thread of its own: the runtime of the test may be
    /// unable to block, or be going down itself. The caller's thread stands still meanwhile, and the server waits for every
    /// session that is being made, whatever its database: one that the same thread makes would hold both up for a minute.
    fn drop(&mut self) {
        let (server, name) = (self.server.clone(), self.name.clone());
        let dropping = std::thread::spawn(move || -> anyhow::Result<()> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let mut session = PgConnection::connect_with(&server).await?;
                // a template was renamed: then there is nothing of this name
                execute(&mut session, format!("drop database if exists \"{name}\" with (force)")).await
            })
        });
        // a test that kills its server leaves nothing to drop
        let _gone = dropping.join();
    }
}

async fn server() -> anyhow::Result<PgConnectOptions> {
    PgConnectOptions::from_str(&postgres_url().await?).context("url of the test server")
}

/// Names come from this file and from constants of tests, never from input.
async fn execute(session: &mut PgConnection, statement: String) -> anyhow::Result<()> {
    let what = statement.clone();
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(session).await.context(what)?;
    Ok(())
}

/// The same url with another database.
fn with_database(url: &str, database: &str) -> String {
    let (address, query) = url.split_once('?').map_or((url, None), |(address, query)| (address, Some(query)));
    let start = address.find("://").map_or(0, |at| at + 3);
    let end = address[start..].find('/').map_or(address.len(), |at| start + at);
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    format!("{}/{database}{query}", &address[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_databases() {
        let cases = [
            ("postgres://u:p@h:1/postgres", "postgres://u:p@h:1/x"),
            ("postgres://h", "postgres://h/x"),
            ("postgres://h/", "postgres://h/x"),
            ("postgres://h/a?sslmode=disable", "postgres://h/x?sslmode=disable"),
        ];
        for (url, expected) in cases {
            assert_eq!(with_database(url, "x"), expected);
        }
    }
}
