//! Who signs in to the database.

use drawdown_ledger::store::pool::SERVICE_ROLE;
use drawdown_testkit::Database;

/// A user that signs in with a password and is a member of the service's role, as an operator makes one.
pub(crate) struct User {
    name: String,
    pub(crate) url: String,
}

impl User {
    pub(crate) async fn create(database: &Database) -> Self {
        let name = format!("user_{}", &database.name()[1..]);
        let make = format!("create user {name} password 'secret' in role {SERVICE_ROLE}");
        sqlx::raw_sql(sqlx::AssertSqlSafe(make)).execute(database.pool()).await.unwrap();
        let (_, rest) = database.url().split_once('@').unwrap();
        Self { url: format!("postgres://{name}:secret@{rest}"), name }
    }

    /// Users belong to the server and would stay; a user owns nothing, so its database may be gone already.
    pub(crate) async fn drop(self) {
        let server = Database::create().await.unwrap();
        let drop = format!("drop user {}", self.name);
        sqlx::raw_sql(sqlx::AssertSqlSafe(drop)).execute(server.pool()).await.unwrap();
    }
}
