//! What is applied and not settled can be asked for and watched.

use std::collections::{BTreeMap, BTreeSet};

use drawdown_metering_core::series::OTHER;
use drawdown_proto::{
    ledger::v1::Aggregation,
    metering::v1::{
        Dimension, GetLiveUsageRequest, GetLiveUsageResponse, GetMeteringStatusRequest, LiveUsage,
        WatchLiveUsageRequest, WatchLiveUsageResponse, usage_service_client::UsageServiceClient,
    },
};
use drawdown_service::config::{Count, Millis};
use drawdown_types::AppId;
use tonic::{Code, Status, Streaming, transport::Channel};

use crate::{
    gate::{Mode, Sums},
    producer::{Log, Until, clients_of_all_shards, deliver, key_of},
    rig::{Rig, Running, SHARDS, now, soon},
};

async fn connect(running: &Running) -> UsageServiceClient<Channel> {
    UsageServiceClient::connect(format!("http://{}", running.address)).await.unwrap()
}

async fn ask(running: &Running, request: GetLiveUsageRequest) -> Result<GetLiveUsageResponse, Status> {
    Ok(connect(running).await.get_live_usage(request).await?.into_inner())
}

fn by_batch(clients: &[String]) -> GetLiveUsageRequest {
    GetLiveUsageRequest { client_ids: clients.to_vec(), by_batch: true, ..GetLiveUsageRequest::default() }
}

async fn live(rig: &Rig, running: &Running, client_ids: &[String], meter: &str) -> Sums {
    let request = GetLiveUsageRequest {
        client_ids: client_ids.to_vec(),
        meter: meter.to_owned(),
        ..GetLiveUsageRequest::default()
    };
    let answer = ask(running, request).await.unwrap();
    let complete = drawdown_proto::scalar::timestamp_from_proto(&answer.complete_up_to.unwrap()).unwrap();
    assert_eq!(complete, drawdown_types::Clock::now(&*rig.clock));
    let mut sums = Sums::new();
    for usage in answer.usage {
        let series = usage.series.unwrap();
        assert_eq!(usage.window_start.unwrap().seconds, now().as_millis() / 60_000 * 60);
        assert_eq!(usage.part, None);
        sums.insert((series.client_id, series.meter, false), (usage.events, usage.quantity));
    }
    sums
}

fn add(sums: &mut Sums, usage: &LiveUsage) {
    let series = usage.series.as_ref().unwrap();
    let sum = sums.entry((series.client_id.clone(), series.meter.clone(), false)).or_default();
    *sum = (sum.0 + usage.events, sum.1 + usage.quantity);
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
    assert_eq!(live(&rig, &running, &clients, "").await, log.sums);
    let mut only = log.sums.clone();
    only.retain(|(client, meter, _), _| *client == clients[1] && meter == "web.call");
    assert_eq!(live(&rig, &running, &clients[1..2], "web.call").await, only);

    rig.gate.set_mode(Mode::Open);
    soon("settlement", deliver(&log, running.address, Until::Settled)).await;
    assert!(live(&rig, &running, &clients, "").await.is_empty());
    let status = connect(&running).await.get_metering_status(GetMeteringStatusRequest {}).await;
    let status = status.unwrap().into_inner();
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

/// Settled usage and live usage together, by the rule of the contract.
async fn together(rig: &Rig, running: &Running, clients: &[String]) -> Sums {
    let answer = ask(running, by_batch(clients)).await.unwrap();
    // One snapshot: the positions are the same before and after the sums.
    let state = rig.gate.state();
    let places = state.places();
    let mut sums = state.sums;
    for usage in &answer.usage {
        let part = usage.part.as_ref().unwrap();
        let position = answer.positions.iter().find(|position| position.shard == part.shard).unwrap();
        assert!(position.settled_batch < part.batch && part.batch <= position.open_batch);
        if part.batch > places.get(&part.shard).map_or(0, |place| place.0) {
            add(&mut sums, usage);
        }
    }
    sums
}

#[tokio::test]
async fn settled_and_live_usage_together_are_every_event_once_at_any_moment() {
    let rig = Rig::new().await;
    let running = rig.start().await;
    let clients = clients_of_all_shards();
    let mut log = Log::new(rig.gate.producer());
    let mut were_live = BTreeSet::new();
    for round in 0..6 {
        for client in &clients {
            log.append(client, "web.byte", &[round, 1, 7]);
        }
        // Settlement goes on meanwhile, at a pace of its own.
        soon("applied", deliver(&log, running.address, Until::Applied)).await;
        for _ in 0..4 {
            assert_eq!(together(&rig, &running, &clients).await, log.sums, "round {round}");
            were_live.insert(!live(&rig, &running, &clients, "").await.is_empty());
        }
        soon("settlement", deliver(&log, running.address, Until::Settled)).await;
        were_live.insert(!live(&rig, &running, &clients, "").await.is_empty());
    }
    assert!(were_live.contains(&false), "all was settled now and then");
    running.stop().await;
}

#[tokio::test]
async fn apps_dimensions_and_aggregations_can_be_asked_for() {
    let rig = Rig::new().await;
    rig.gate.meter("web.peak", Aggregation::Max, &["region"]);
    rig.gate.unique_meter("web.user", &["region", "user"], "user");
    let (app, other) = (AppId::generate().to_string(), AppId::generate().to_string());
    let clients = clients_of_all_shards();
    rig.gate.app(&clients[0], &app);
    rig.gate.app(&clients[1], &app);
    rig.gate.app(&clients[2], &other);
    rig.gate.stranger(&clients[3]);
    let mut options = rig.options();
    options.ingest.dimension_values_max = Count::of(1);
    let running = rig.start_with(options).await;
    rig.gate.set_mode(Mode::Down);
    let mut log = Log::new(rig.gate.producer());
    for client in &clients {
        for (region, user, peak) in [("eu", "ann", 4), ("eu", "bob", 9), ("us", "ann", 2), ("ap", "ann", 3)] {
            let place = ("region", region);
            log.append_events(
                client,
                &[
                    (key_of(client, "web.user", &[place, ("user", user)]), 1),
                    (key_of(client, "web.peak", &[place]), peak),
                ],
            );
        }
    }
    soon("applied", deliver(&log, running.address, Until::Applied)).await;
    let found = async |request: GetLiveUsageRequest| {
        let answer = ask(&running, request).await.unwrap();
        let of = |usage: LiveUsage| {
            let (aggregation, series) = (usage.aggregation(), usage.series.unwrap());
            let regions: Vec<String> =
                series.dimensions.into_iter().map(|dimension| dimension.value).collect();
            (series.client_id, usage.app_id, aggregation, regions.join(" "), usage.events, usage.quantity)
        };
        answer.usage.into_iter().map(of).collect::<Vec<_>>()
    };
    let of_app = GetLiveUsageRequest { app_ids: vec![app.clone()], ..GetLiveUsageRequest::default() };
    let all = found(of_app.clone()).await;
    let told: BTreeSet<_> = all.iter().map(|usage| (usage.0.as_str(), usage.1.as_str())).collect();
    assert_eq!(told, clients[..2].iter().map(|client| (client.as_str(), app.as_str())).collect());
    assert_eq!(all.iter().map(|usage| usage.4).sum::<u64>(), 16);

    let eu = Dimension { name: "region".to_owned(), value: "eu".to_owned() };
    let other_value = Dimension { value: OTHER.to_owned(), ..eu.clone() };
    for (dimension, users, peak, events) in [(eu, 2, 9, 2), (other_value, 1, 3, 2)] {
        let request = GetLiveUsageRequest {
            client_ids: vec![clients[1].clone()],
            dimensions: vec![dimension.clone()],
            ..of_app.clone()
        };
        let expected =
            [(Aggregation::Max, peak), (Aggregation::Unique, users)].map(|(aggregation, quantity)| {
                (clients[1].clone(), app.clone(), aggregation, dimension.value.clone(), events, quantity)
            });
        assert_eq!(found(request).await, expected);
    }
    let nobody = GetLiveUsageRequest {
        client_ids: vec![clients[3].clone()],
        resolve_apps: true,
        meter: "web.peak".to_owned(),
        ..GetLiveUsageRequest::default()
    };
    let nobodys: Vec<_> = found(nobody).await.into_iter().map(|usage| (usage.1, usage.4)).collect();
    assert_eq!(nobodys, [(String::new(), 2), (String::new(), 2)]);
    running.stop().await;
}

#[tokio::test]
async fn every_wrong_field_of_a_question_is_named() {
    let rig = Rig::new().await;
    let running = rig.start().await;
    let refused = ask(&running, GetLiveUsageRequest::default()).await.unwrap_err();
    assert_eq!((refused.code(), drawdown_client::reason_of(&refused)), wrong());
    let bad = WatchLiveUsageRequest {
        client_ids: vec!["a b".to_owned()],
        app_ids: vec!["app".to_owned()],
        meter: "No".to_owned(),
        dimensions: vec![Dimension { name: String::new(), value: String::new() }],
        resolve_apps: false,
    };
    let refused = connect(&running).await.watch_live_usage(bad).await.unwrap_err();
    assert_eq!((refused.code(), drawdown_client::reason_of(&refused)), wrong());
    let mut options = rig.options();
    options.usage.answer_lines_max = Count::of(1);
    rig.gate.set_mode(Mode::Down);
    let small = rig.start_with(options).await;
    let clients = clients_of_all_shards();
    let mut log = Log::new(rig.gate.producer());
    log.append(&clients[0], "web.byte", &[1]);
    log.append(&clients[0], "web.call", &[1]);
    soon("applied", deliver(&log, small.address, Until::Applied)).await;
    let refused = ask(&small, by_batch(&clients)).await.unwrap_err();
    assert_eq!(drawdown_client::reason_of(&refused).as_deref(), Some("USAGE_TOO_LARGE"));
    let mut stream = watch(&small, &clients).await.unwrap();
    let refused = soon("the end", async {
        loop {
            if let Err(status) = stream.message().await {
                break status;
            }
        }
    });
    assert_eq!(drawdown_client::reason_of(&refused.await).as_deref(), Some("USAGE_TOO_LARGE"));
    small.stop().await;
    running.stop().await;
}

fn wrong() -> (Code, Option<String>) {
    (Code::InvalidArgument, Some("REQUEST_INVALID".to_owned()))
}

/// What a watcher knows, by the rules of the contract.
#[derive(Default)]
struct View {
    known: BTreeMap<(u32, u64, String), LiveUsage>,
    settled: BTreeMap<u32, u64>,
    snapshots: usize,
    messages: usize,
    complete: bool,
}

impl View {
    fn take(&mut self, message: WatchLiveUsageResponse) {
        self.messages += 1;
        self.complete = message.complete_up_to.is_some() && !message.more;
        let Some(position) = message.position else { return };
        if message.snapshot {
            self.snapshots += 1;
            self.known.retain(|(shard, ..), _| *shard != position.shard);
        }
        self.settled.insert(position.shard, position.settled_batch);
        self.known.retain(|(shard, batch, _), _| *shard != position.shard || *batch > position.settled_batch);
        for usage in message.usage {
            let part = usage.part.unwrap();
            let key = format!("{:?} {:?} {:?}", usage.series, usage.window_start, part.received_window_start);
            self.known.insert((part.shard, part.batch, key), usage);
        }
    }

    fn sums(&self) -> Sums {
        let mut sums = Sums::new();
        self.known.values().for_each(|usage| add(&mut sums, usage));
        sums
    }

    /// Takes messages until the sums are these.
    async fn follow(&mut self, stream: &mut Streaming<WatchLiveUsageResponse>, expected: &Sums) {
        soon("news", async {
            while !(self.complete && self.settled.len() == usize::try_from(SHARDS).unwrap())
                || self.sums() != *expected
            {
                self.take(stream.message().await.unwrap().unwrap());
            }
        })
        .await;
    }
}

async fn watch(running: &Running, clients: &[String]) -> Result<Streaming<WatchLiveUsageResponse>, Status> {
    let request = WatchLiveUsageRequest { client_ids: clients.to_vec(), ..WatchLiveUsageRequest::default() };
    Ok(connect(running).await.watch_live_usage(request).await?.into_inner())
}

#[tokio::test]
async fn a_watcher_is_told_what_is_applied_settled_and_lost() {
    let mut rig = Rig::new().await;
    let mut options = rig.options();
    options.usage.watch_interval_ms = Millis::from_millis(5);
    options.usage.message_lines_max = Count::of(1);
    let running = rig.start_with(options).await;
    let clients = clients_of_all_shards();
    let mut stream = watch(&running, &clients).await.unwrap();
    let mut view = View::default();
    view.follow(&mut stream, &Sums::new()).await;
    rig.gate.set_mode(Mode::Down);
    let mut log = Log::new(rig.gate.producer());
    for round in 0..3 {
        for client in &clients {
            log.append(client, "web.byte", &[round, 5]);
            log.append(client, "web.call", &[1]);
        }
        soon("applied", deliver(&log, running.address, Until::Applied)).await;
        view.follow(&mut stream, &log.sums).await;
    }
    // Whoever comes later gets all of it at once.
    let mut later = View::default();
    later.follow(&mut watch(&running, &clients).await.unwrap(), &log.sums).await;
    assert_eq!(later.snapshots, usize::try_from(SHARDS).unwrap());

    // Redis loses everything: nothing is live until it was sent again.
    let snapshots = view.snapshots;
    rig.flush_all().await;
    soon("applied", deliver(&log, running.address, Until::Applied)).await;
    soon("a snapshot", async {
        while view.snapshots == snapshots {
            view.take(stream.message().await.unwrap().unwrap());
        }
    })
    .await;
    view.follow(&mut stream, &log.sums).await;
    rig.gate.set_mode(Mode::Open);
    view.follow(&mut stream, &Sums::new()).await;
    assert_eq!(rig.gate.state().sums, log.sums);
    running.stop().await;
    assert!(stream.message().await.is_ok(), "a drain ends the stream in order");
}

#[tokio::test]
async fn a_watcher_that_missed_changes_gets_everything_again_and_no_gap() {
    let rig = Rig::new().await;
    let mut options = rig.options();
    options.usage.watch_interval_ms = Millis::from_millis(1);
    options.usage.watch_changes_max = Count::of(1);
    let running = rig.start_with(options).await;
    rig.gate.set_mode(Mode::Down);
    let clients = clients_of_all_shards();
    let mut stream = watch(&running, &clients).await.unwrap();
    let mut view = View::default();
    let mut log = Log::new(rig.gate.producer());
    for round in 0..5 {
        for client in &clients {
            log.append(client, "web.byte", &[round]);
            log.append(client, "web.call", &[1]);
        }
        soon("applied", deliver(&log, running.address, Until::Applied)).await;
        view.follow(&mut stream, &log.sums).await;
    }
    assert!(view.snapshots > 2 * usize::try_from(SHARDS).unwrap(), "{} snapshots", view.snapshots);
    running.stop().await;
}

#[tokio::test]
async fn a_query_reads_only_so_much() {
    let rig = Rig::new().await;
    let clients = clients_of_all_shards();
    let lines = clients.len() * 2;
    for (lines_max, is_answered) in [(lines, true), (lines - 1, false)] {
        let mut options = rig.options();
        options.usage.query_lines_max = Count::of(lines_max);
        let running = rig.start_with(options).await;
        rig.gate.set_mode(Mode::Down);
        let mut log = Log::new(rig.gate.producer());
        for client in &clients {
            for meter in ["web.byte", "web.call"] {
                log.append(client, meter, &[1]);
            }
        }
        soon("applied", deliver(&log, running.address, Until::Applied)).await;
        // What is read counts, not what is wanted of it.
        let request = GetLiveUsageRequest { meter: "web.call".to_owned(), ..by_batch(&clients) };
        let answer = ask(&running, request).await;
        let reason = answer.as_ref().err().and_then(drawdown_client::reason_of);
        assert_eq!((answer.is_ok(), reason.is_some()), (is_answered, !is_answered), "{answer:?}");
        assert!(reason.is_none_or(|reason| reason == "USAGE_TOO_LARGE"));
        rig.gate.set_mode(Mode::Open);
        soon("settled", deliver(&log, running.address, Until::Settled)).await;
        running.stop().await;
    }
}

#[tokio::test]
async fn queries_are_only_so_many_at_once() {
    let rig = Rig::new().await;
    let mut options = rig.options();
    options.usage.queries_max = Count::of(1);
    let running = rig.start_with(options).await;
    let clients = clients_of_all_shards();
    let mut log = Log::new(rig.gate.producer());
    clients.iter().for_each(|client| log.append(client, "web.call", &[1]));
    soon("settled", deliver(&log, running.address, Until::Settled)).await;
    // Each waits for Redis and for the ledger, so that others come while it is under way.
    let mut refused = 0;
    while refused == 0 {
        let answers = (0..16).map(|_| ask(&running, by_batch(&clients)));
        for answer in soon("answers", futures::future::join_all(answers)).await {
            let Err(status) = answer else { continue };
            assert_eq!(drawdown_client::reason_of(&status).as_deref(), Some("QUERIES_EXHAUSTED"));
            refused += 1;
        }
    }
    // None of them kept its place.
    ask(&running, by_batch(&clients)).await.unwrap();
    running.stop().await;
}

#[tokio::test]
async fn watchers_share_one_reader_and_are_only_so_many() {
    let rig = Rig::new().await;
    let mut options = rig.options();
    options.usage.watch_interval_ms = Millis::from_millis(5);
    options.usage.watch_heartbeat_ms = Millis::from_millis(5);
    options.usage.watchers_max = Count::of(6);
    let running = rig.start_with(options).await;
    rig.gate.set_mode(Mode::Down);
    let clients = clients_of_all_shards();
    let mut streams = Vec::new();
    for _ in 0..6 {
        streams.push((watch(&running, &clients).await.unwrap(), View::default()));
    }
    let refused = watch(&running, &clients).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert_eq!(drawdown_client::reason_of(&refused).as_deref(), Some("WATCHERS_EXHAUSTED"));

    let mut log = Log::new(rig.gate.producer());
    for round in 0..6 {
        for client in &clients {
            log.append(client, "web.byte", &[round, 1]);
        }
        soon("applied", deliver(&log, running.address, Until::Applied)).await;
        for (stream, view) in &mut streams {
            view.follow(stream, &log.sums).await;
        }
    }
    // With each new blob the last one that was known is read once more.
    let (read, applied) =
        (running.metric("drawdown_metering_live_blobs"), running.metric("drawdown_metering_blobs_total"));
    assert!(applied >= 6 && read >= applied && read <= 2 * applied, "{read} read, {applied} applied");

    // Nothing changes: they are told how far their answers reach.
    let (stream, view) = &mut streams[0];
    let messages = view.messages;
    soon("a beat", async {
        while view.messages < messages + 2 {
            view.take(stream.message().await.unwrap().unwrap());
        }
    })
    .await;
    assert_eq!(view.sums(), log.sums);
    // Who goes makes room.
    streams.pop();
    soon("room", async {
        while watch(&running, &clients).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    running.stop().await;
}
