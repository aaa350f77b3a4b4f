//! The whole service as it runs: ports, clients, metrics, and the settings that must fit the database.

use std::{sync::Arc, time::Duration};

use drawdown_client::{ChannelOptions, connect, reason_of};
use drawdown_entitlement::Options;
use drawdown_proto::entitlement::v1::{
    ClientInstant, CreateAccountRequest, GetAccountRequest, ResolveRequest,
};
use drawdown_service::{Context, Telemetry, config::ListenAddress};
use drawdown_testkit::Database;
use drawdown_types::SystemClock;
use tokio_util::sync::CancellationToken;

use crate::world::{at, wire};

const PEPPER: &str = "0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f";

pub(crate) fn options(database: &Database) -> Options {
    let mut options = Options { credential_pepper: PEPPER.into(), ..Options::default() };
    options.server.listen = ListenAddress::ANY_LOOPBACK;
    options.server.metrics_listen = ListenAddress::ANY_LOOPBACK;
    options.database.url = database.url().into();
    options
}

pub(crate) fn context(telemetry: &Telemetry, stop: &CancellationToken) -> (Context, drawdown_service::Bound) {
    Context::new(telemetry.clone(), Arc::new(SystemClock), stop.clone())
}

#[tokio::test]
async fn the_service_runs_answers_counts_and_stops() {
    let database = Database::create_with("entitlement", drawdown_entitlement::migrate).await.unwrap();
    let telemetry = Telemetry::detached("entitlement").unwrap();
    let stop = CancellationToken::new();
    let (context, mut bound) = context(&telemetry, &stop);
    let config = options(&database).validate().unwrap();
    let running = tokio::spawn(drawdown_entitlement::run(config, context));
    let addresses = bound.wait().await.unwrap();
    let channel = connect(&ChannelOptions::to(format!("http://{}", addresses.grpc))).unwrap();
    let mut hierarchy = drawdown_client::entitlement::hierarchy(&channel);
    let request = CreateAccountRequest { name: "A".to_owned(), contract_kind: 1, ..Default::default() };
    let account = hierarchy.create_account(request).await.unwrap().into_inner().account.unwrap();
    let request = GetAccountRequest { account_id: account.account_id.clone() };
    assert_eq!(hierarchy.get_account(request).await.unwrap().into_inner().account.unwrap(), account);
    let status = hierarchy.get_account(GetAccountRequest::default()).await.unwrap_err();
    assert_eq!(reason_of(&status).as_deref(), Some("REQUEST_INVALID"));
    let mut resolution = drawdown_client::entitlement::resolution(&channel);
    let query =
        Some(ClientInstant { client_id: "client_x".to_owned(), at: wire(at("2026-01-01T00:00:00Z")) });
    resolution.resolve(ResolveRequest { query }).await.unwrap();
    let page = telemetry.scrape().unwrap();
    for line in [
        "entitlement_resolutions_total{answer=\"unknown_client\"} 1",
        "entitlement_acts_total{method=\"CreateAccount\",outcome=\"done\"} 1",
        "entitlement_directory_load_duration_seconds_count 1",
    ] {
        assert!(page.contains(line), "{line}\n{page}");
    }
    stop.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(20), running).await;
    ended.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn settings_of_another_installation_are_refused_at_the_start() {
    let database = Database::create_with("entitlement", drawdown_entitlement::migrate).await.unwrap();
    let telemetry = Telemetry::detached("entitlement").unwrap();
    let stopped = CancellationToken::new();
    stopped.cancel();
    let start = async |options: Options| {
        let (context, _) = context(&telemetry, &stopped);
        let ended = drawdown_entitlement::run(options.validate().unwrap(), context).await;
        ended.map_err(|error| error.root_cause().to_string())
    };
    assert_eq!(start(options(&database)).await, Ok(()));
    let pepper = PEPPER.replace('f', "e");
    let other = Options { credential_pepper: pepper.as_str().into(), ..options(&database) };
    assert_eq!(start(other).await, Err("this database was set up under another pepper".to_owned()));
    let other = Options { window_secs: 30, ..options(&database) };
    let told = "this database has windows of 60 s, the configuration says 30 s";
    assert_eq!(start(other).await, Err(told.to_owned()));
    assert_eq!(start(options(&database)).await, Ok(()));
}

#[tokio::test]
async fn migrating_again_changes_nothing_and_an_unmigrated_database_is_named() {
    let database = Database::create().await.unwrap();
    let telemetry = Telemetry::detached("entitlement").unwrap();
    let (context, _) = context(&telemetry, &CancellationToken::new());
    let config = options(&database).validate().unwrap();
    let error = drawdown_entitlement::run(config, context).await.unwrap_err();
    assert!(error.to_string().contains("was it migrated"), "{error}");
    drawdown_entitlement::migrate(database.pool()).await.unwrap();
    drawdown_entitlement::migrate(database.pool()).await.unwrap();
    let applied: i64 = sqlx::query_scalar("SELECT count(*) FROM entitlement._sqlx_migrations")
        .fetch_one(database.pool())
        .await
        .unwrap();
    assert_eq!(applied, 6);
}
