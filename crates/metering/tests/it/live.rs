//! What is applied and not settled can be asked for.

use drawdown_proto::metering::v1::{
    GetLiveUsageRequest, GetMeteringStatusRequest, usage_service_client::UsageServiceClient,
};

use crate::{
    gate::{Mode, Sums},
    producer::{Log, Until, clients_of_all_shards, deliver},
    rig::{Rig, now, soon},
};

async fn live(rig: &Rig, address: std::net::SocketAddr, client_ids: &[String], meter: &str) -> Sums {
    let mut client = UsageServiceClient::connect(format!("http://{address}")).await.unwrap();
    let request = GetLiveUsageRequest { client_ids: client_ids.to_vec(), meter: meter.to_owned() };
    let answer = client.get_live_usage(request).await.unwrap().into_inner();
    let complete = drawdown_proto::scalar::timestamp_from_proto(&answer.complete_up_to.unwrap()).unwrap();
    assert_eq!(complete, drawdown_types::Clock::now(&*rig.clock));
    let mut sums = Sums::new();
    for usage in answer.usage {
        let series = usage.series.unwrap();
        assert_eq!(usage.window_start.unwrap().seconds, now().as_millis() / 60_000 * 60);
        sums.insert((series.client_id, series.meter, false), (usage.events, usage.quantity));
    }
    sums
}

#[tokio::test]
async fn live_usage_is_what_is_applied_and_not_settled() {
    let rig = Rig::new().await;
    let running = rig.start().await;
    rig.gate.set_mode(Mode::Down);
    let clients = clients_of_all_shards();
    let mut log = Log::new(rig.gate.producer());
    for (n, client) in clients.iter().enumerate() {
        log.append(client, "web.byte", &[1, 2, u64::try_from(n).unwrap()]);
        log.append(client, "web.call", &[1, 1]);
    }
    soon("applied", deliver(&log, running.address, Until::Applied)).await;
    assert_eq!(live(&rig, running.address, &clients, "").await, log.sums);
    let mut only = log.sums.clone();
    only.retain(|(client, meter, _), _| *client == clients[1] && meter == "web.call");
    assert_eq!(live(&rig, running.address, &clients[1..2], "web.call").await, only);

    rig.gate.set_mode(Mode::Open);
    soon("settlement", deliver(&log, running.address, Until::Settled)).await;
    assert!(live(&rig, running.address, &clients, "").await.is_empty());
    let mut client = UsageServiceClient::connect(format!("http://{}", running.address)).await.unwrap();
    let status = client.get_metering_status(GetMeteringStatusRequest {}).await.unwrap().into_inner();
    assert_eq!(status.shards.iter().map(|shard| shard.unsettled_events).sum::<u64>(), 0);
    assert!(status.shards.iter().all(|shard| shard.generation != 0 && shard.open_batch > 1));
    running.stop().await;
}

#[tokio::test]
async fn the_scrape_page_shows_drift_and_lag() {
    let rig = Rig::new().await;
    let running = rig.start().await;
    rig.gate.set_mode(Mode::Down);
    let mut log = Log::new(rig.gate.producer());
    log.fill(1, 10);
    soon("applied", deliver(&log, running.address, Until::Applied)).await;
    soon("post", rig.gate.asked()).await;
    let page = running.telemetry.scrape().unwrap();
    for name in ["metering_events_applied", "metering_events_unsettled", "metering_settlement_lag_seconds"] {
        assert!(page.contains(name), "{name} is not in {page}");
    }
    running.stop().await;
}
