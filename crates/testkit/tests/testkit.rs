//! Databases of tests: apart from one another, prepared, and gone afterwards.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use drawdown_testkit::{Database, redis};
use sqlx::PgPool;

async fn names(pool: &PgPool) -> Vec<String> {
    sqlx::query_scalar("select datname::text from pg_database").fetch_all(pool).await.unwrap()
}

async fn migrate(pool: &PgPool) -> Result<(), sqlx::Error> {
    sqlx::query("create table migrated as select 42 as answer").execute(pool).await?;
    Ok(())
}

#[tokio::test]
async fn two_databases_know_nothing_of_each_other() {
    let first = Database::create().await.unwrap();
    let second = Database::create().await.unwrap();
    assert_ne!(first.name(), second.name());
    sqlx::query("create table here (id int)").execute(first.pool()).await.unwrap();
    assert!(sqlx::query("select * from here").execute(second.pool()).await.is_err());
    assert!(first.url().contains(first.name()));
    let by_url = PgPool::connect(first.url()).await.unwrap();
    assert!(sqlx::query("select * from here").execute(&by_url).await.is_ok());

    let name = first.name().to_owned();
    // by_url is still signed in
    drop(first);
    assert!(!names(second.pool()).await.contains(&name));
}

#[tokio::test]
async fn a_database_is_migrated() {
    for _ in 0..2 {
        let database = Database::create_with("testkit", migrate).await.unwrap();
        let answer: i32 =
            sqlx::query_scalar("select answer from migrated").fetch_one(database.pool()).await.unwrap();
        assert_eq!(answer, 42);
    }
}

#[tokio::test]
async fn a_failed_migration_leaves_nothing() {
    let fails = async |pool: &PgPool| sqlx::query("select nothing").execute(pool).await.map(drop);
    let error = Database::create_with("testkit_fails", fails).await.unwrap_err();
    assert!(format!("{error:#}").contains("migrate"), "{error:#}");
}

#[tokio::test]
async fn namespaces_differ() {
    let (first, second) = (redis().await.unwrap(), redis().await.unwrap());
    assert_eq!(first.url, second.url);
    assert_ne!(first.namespace, second.namespace);
}
