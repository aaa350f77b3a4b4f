//! The whole service: migrated, started, called over a channel, measured, stopped.

use std::sync::Arc;

use drawdown_client::{ChannelOptions, connect};
use drawdown_ledger::{Options, config::CellOptions};
use drawdown_proto::ledger::v1::{
    GetBalanceRequest, GetShardsRequest, WatchNoticesRequest, WatchStandingsRequest,
};
use drawdown_service::{Addresses, Context, Telemetry, config::ListenAddress};
use drawdown_testkit::Database;
use drawdown_types::{SystemClock, TeamId};
use tokio_util::sync::CancellationToken;

use crate::world::reason;

fn options(database: &Database) -> Options {
    let mut options = Options::default();
    options.database.url = database.url().into();
    options.server.listen = ListenAddress::ANY_LOOPBACK;
    options.server.metrics_listen = ListenAddress::ANY_LOOPBACK;
    // Nobody is there.
    options.entitlement = ChannelOptions::to("http://127.0.0.1:1");
    options
}

struct Running {
    addresses: Option<Addresses>,
    telemetry: Telemetry,
    shutdown: CancellationToken,
    service: tokio::task::JoinHandle<anyhow::Result<()>>,
}

async fn start(options: Options) -> Running {
    let (telemetry, shutdown) = (Telemetry::detached("ledger").unwrap(), CancellationToken::new());
    let (context, mut bound) = Context::new(telemetry.clone(), Arc::new(SystemClock), shutdown.clone());
    let service = tokio::spawn(drawdown_ledger::run(options.validate().unwrap(), context));
    Running { addresses: bound.wait().await, telemetry, shutdown, service }
}

#[tokio::test]
async fn it_is_served_and_measured_and_stops() {
    let database = Database::create_with("ledger", drawdown_ledger::migrate).await.unwrap();
    let running = start(options(&database)).await;
    let address = format!("http://{}", running.addresses.unwrap().grpc);
    let channel = connect(&ChannelOptions::to(address)).unwrap();
    let shards = GetShardsRequest { shards: vec![0], producer_ids: Vec::new(), only_their_lanes: false };
    let answer = drawdown_client::ledger::settlement(&channel).get_shards(shards).await.unwrap().into_inner();
    assert_eq!(answer.shards[0].last_batch, 0);
    // Whether the team exists is known to entitlement only, which does not answer.
    let unknown =
        GetBalanceRequest { team_id: TeamId::generate().to_string(), ..GetBalanceRequest::default() };
    let balance = drawdown_client::ledger::token(&channel).get_balance(unknown).await;
    assert_eq!(reason(balance), "UNAVAILABLE");
    // A stream of facts is open while the service stops, and does not hold it up.
    let request = WatchNoticesRequest::default();
    let stream = drawdown_client::ledger::notice_stream(&channel).watch_notices(request).await.unwrap();
    let mut stream = stream.into_inner();
    assert!(stream.message().await.unwrap().unwrap().notices.is_empty());
    // So is one of standings.
    let mut standings = drawdown_client::ledger::standing_changes(&channel);
    let changes = standings.watch_standings(WatchStandingsRequest::default()).await.unwrap();
    let mut changes = changes.into_inner();
    assert!(changes.message().await.unwrap().unwrap().as_of.is_some());
    let page = running.telemetry.scrape().unwrap();
    assert!(page.contains("drawdown_rpc_server_duration_seconds"), "{page}");
    assert!(page.contains("ledger_notices_lag_seconds 0"), "{page}");
    // Months were made at the start.
    assert!(page.contains("ledger_partitions_months_ahead 3"), "{page}");
    assert!(page.contains("ledger_partitions_default_used 0"), "{page}");
    running.shutdown.cancel();
    running.service.await.unwrap().unwrap();
    assert!(stream.message().await.unwrap().is_none(), "it ended in order");
    // It may have had a sign of life to give.
    while changes.message().await.unwrap().is_some() {}
}

#[tokio::test]
async fn settings_that_stay_for_life_are_compared_at_every_start() {
    let database = Database::create_with("ledger", drawdown_ledger::migrate).await.unwrap();
    let running = start(options(&database)).await;
    running.shutdown.cancel();
    running.service.await.unwrap().unwrap();
    let number = CellOptions { number: 1, ..CellOptions::default() };
    for (other, ours, theirs) in [
        (Options { window_secs: 30, ..options(&database) }, "windows of 60 s", "windows of 30 s"),
        (Options { cells: number, ..options(&database) }, "as cell 0", "as cell 1"),
    ] {
        let other = start(other).await;
        assert!(other.addresses.is_none());
        let error = other.service.await.unwrap().unwrap_err().to_string();
        assert!(error.contains(ours) && error.contains(theirs), "{error}");
    }
}

#[tokio::test]
async fn a_database_that_was_not_migrated_is_told_at_the_start() {
    let database = Database::create().await.unwrap();
    let running = start(options(&database)).await;
    assert!(running.addresses.is_none());
    let error = running.service.await.unwrap().unwrap_err().to_string();
    assert!(error.contains("was it migrated?"), "{error}");
}
