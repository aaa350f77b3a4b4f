//! Each wrong input gets its own reason and fields, and loses nothing that was valid beside it.

use drawdown_metering_core::{chain, frame::FrameBuilder, series::SeriesNumber, shard::Position};
use drawdown_proto::metering::v1::{
    self as wire, GetLiveUsageRequest, ingest_request::Request, usage_service_client::UsageServiceClient,
};
use drawdown_types::ProducerId;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::{
    producer::{
        Ended, Frame, Log, Session, Until, clients_of_all_shards, connect, deliver, key, lane_to_wire, open,
        request,
    },
    rig::{Rig, Running, now, soon},
};

fn refusal(status: &Status) -> (Code, String, Vec<String>) {
    let details = status.get_error_details();
    let fields =
        details.bad_request().map(|bad| bad.field_violations.iter().map(|v| v.field.clone()).collect());
    (status.code(), details.error_info().unwrap().reason.clone(), fields.unwrap_or_default())
}

/// How a stream of these messages ends.
async fn ended(running: &Running, messages: Vec<wire::IngestRequest>) -> Status {
    let (requests, receiver) = mpsc::channel(100);
    for message in messages {
        requests.send(message).await.unwrap();
    }
    let mut client = connect(running.address).await;
    let mut inbound = client.ingest(ReceiverStream::new(receiver)).await.unwrap().into_inner();
    let end = async {
        loop {
            match inbound.message().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("the stream ended well"),
                Err(status) => break status,
            }
        }
    };
    soon("the end of the stream", end).await
}

fn hello(producer: &str, epoch: u64) -> wire::IngestRequest {
    request(Request::Hello(wire::Hello { producer_id: producer.to_owned(), epoch }))
}

#[tokio::test]
async fn streams_that_can_not_be_trusted_end_with_their_reason() {
    let rig = Rig::new().await;
    let running = rig.start().await;
    let producer = rig.gate.producer();
    let id = producer.to_string();
    let old = open(running.address, producer).await.unwrap();
    let epoch = open(running.address, producer).await.unwrap();
    let attach = |map_version, shard| {
        let lane = Some(wire::Lane { map_version, shard });
        request(Request::Attach(wire::AttachLane { lane, end_sequence: 0, freed: None }))
    };
    let define = |number, client: &str, meter: &str| {
        let series =
            wire::Series { client_id: client.to_owned(), meter: meter.to_owned(), ..wire::Series::default() };
        wire::SeriesDefinition { number, series: Some(series) }
    };
    let defines = |definitions| request(Request::Define(wire::DefineSeries { definitions }));
    let unknown = ProducerId::generate().to_string();
    let invalid = Code::InvalidArgument;
    let cases = vec![
        (vec![attach(1, 0)], invalid, "HELLO_MISSING", vec!["hello"]),
        (vec![hello("prod_x", 1)], invalid, "ID_MALFORMED", vec!["producer_id"]),
        (vec![hello(&id, 0)], invalid, "REQUEST_INVALID", vec!["epoch"]),
        (vec![hello(&unknown, 1)], Code::NotFound, "PRODUCER_UNKNOWN", vec!["producer_id"]),
        (vec![hello(&id, old)], Code::FailedPrecondition, "FENCED", vec!["epoch"]),
        (vec![hello(&id, epoch), hello(&id, epoch)], invalid, "HELLO_REPEATED", vec![]),
        (
            vec![hello(&id, epoch), wire::IngestRequest { request: None }],
            invalid,
            "REQUEST_INVALID",
            vec!["request"],
        ),
        (vec![hello(&id, epoch), attach(9, 0)], invalid, "MAP_VERSION_UNKNOWN", vec!["lane.map_version"]),
        (vec![hello(&id, epoch), attach(1, 400)], invalid, "MAP_VERSION_UNKNOWN", vec!["lane.shard"]),
        (
            vec![hello(&id, epoch), defines(vec![define(0, "a b", "web.call"), define(2, "a", "WEB")])],
            invalid,
            "SERIES_INVALID",
            vec!["definitions[0].number", "definitions[0].series.client_id", "definitions[1].series.meter"],
        ),
        (
            vec![hello(&id, epoch), defines(vec![define(1, "a", "web.call"), define(1, "b", "web.call")])],
            invalid,
            "SERIES_CONFLICT",
            vec!["definitions[1].series"],
        ),
    ];
    for (messages, code, reason, fields) in cases {
        let status = ended(&running, messages).await;
        let (found_code, found_reason, found_fields) = refusal(&status);
        assert_eq!((found_code, found_reason.as_str()), (code, reason), "{status:?}");
        assert_eq!(found_fields, fields, "{reason}");
    }
    let status = open(running.address, ProducerId::generate()).await.unwrap_err();
    assert_eq!(refusal(&status).1, "PRODUCER_UNKNOWN");
    running.stop().await;
}

type Spoil = fn(&mut Log, &str);

/// Appends a frame to the lane of `client` that is built as told.
fn append(log: &mut Log, client: &str, build: impl FnOnce(&mut Log, &mut FrameBuilder)) {
    let mut builder = FrameBuilder::new();
    build(log, &mut builder);
    let lane = log.lane_of(client);
    log.append_built(lane, &mut builder);
}

fn last<'a>(log: &'a mut Log, client: &str) -> &'a mut Frame {
    let lane = log.lane_of(client);
    log.lanes.get_mut(&lane).unwrap().last_mut().unwrap()
}

const FRAMES: [(&str, &[&str], Spoil); 9] = [
    ("FRAME_MALFORMED", &["series"], |log, client| {
        log.append(client, "web.call", &[1]);
        let frame = last(log, client);
        frame.body.truncate(10);
        frame.chain_again();
    }),
    ("FRAME_EMPTY", &["event_count"], |log, client| {
        append(log, client, |_, _| {});
    }),
    ("FRAME_TOO_LARGE", &["event_count"], |log, client| {
        log.append(client, "web.call", &vec![1; 70_000]);
    }),
    ("SERIES_UNKNOWN", &["series[0]"], |log, client| {
        append(log, client, |_, builder| builder.push(SeriesNumber::new(999).unwrap(), 1, now().as_millis()));
    }),
    ("SERIES_CONFLICT", &["definitions[0].series"], |log, client| {
        append(log, client, |log, builder| {
            let number = log.number(&key(client, "web.call"));
            builder.define(number, &key(client, "web.byte"));
            builder.push(number, 1, now().as_millis());
        });
    }),
    ("SHARD_MISMATCH", &["series[0]"], |log, client| {
        let other =
            clients_of_all_shards().into_iter().find(|other| log.lane_of(other) != log.lane_of(client));
        append(log, client, |log, builder| {
            let number = log.number(&key(&other.unwrap(), "web.call"));
            builder.push(number, 1, now().as_millis());
        });
    }),
    ("LANE_OUT_OF_SEQUENCE", &["first_sequence"], |log, client| {
        log.append(client, "web.call", &[1]);
        let lane = log.lane_of(client);
        log.append(client, "web.call", &[1]);
        let frames = log.lanes.get_mut(&lane).unwrap();
        frames.remove(frames.len() - 2);
    }),
    ("DIVERGED", &["chain_before"], |log, client| {
        log.append(client, "web.call", &[1]);
        let frame = last(log, client);
        frame.before ^= 1;
        frame.chain_again();
    }),
    ("RECEIPT_IN_FUTURE", &["received_at_unix_ms"], |log, client| {
        let number = log.number(&key(client, "web.call"));
        let lane = log.lane_of(client);
        let mut builder = FrameBuilder::new();
        builder.push(number, 1, now().as_millis());
        let before = log.end(&lane);
        let body = builder.finish(lane, before.sequence + 1, now().as_millis() + 25 * 3_600_000);
        let chain = chain::next(before.chain, &body);
        let end = Position { sequence: before.sequence + 1, chain };
        let frame = Frame { first: before.sequence + 1, before: before.chain, end, body, rows: false };
        log.lanes.get_mut(&lane).unwrap().push(frame);
    }),
];

#[tokio::test]
async fn a_bad_frame_stops_its_lane_and_no_other() {
    let rig = Rig::new().await;
    let running = rig.start().await;
    let clients = clients_of_all_shards();
    for (reason, fields, spoil) in FRAMES {
        let mut log = Log::new(rig.gate.producer());
        for client in &clients {
            log.append(client, "web.call", &[1, 1]);
        }
        let good = log.clone();
        spoil(&mut log, &clients[0]);
        let epoch = open(running.address, log.producer).await.unwrap();
        let mut session = Session::begin(&log, running.address, epoch).await.unwrap();
        let Ended::Stopped(stopped) = soon(reason, session.run(Until::Settled)).await else {
            panic!("{reason}")
        };
        assert_eq!(stopped.reason, reason, "{stopped:?}");
        assert_eq!(stopped.lane, Some(lane_to_wire(log.lane_of(&clients[0]))), "{reason}");
        let named: Vec<&str> = stopped.faults.iter().map(|fault| fault.field.as_str()).collect();
        assert_eq!(named, fields, "{stopped:?}");
        // The lanes beside it, and what came before in the same lane, go on to be settled.
        session.log = &good;
        let ends = good.ends();
        while ends
            .iter()
            .any(|(lane, end)| *lane != log.lane_of(&clients[0]) && session.settled.get(lane) != Some(end))
        {
            assert!(soon(reason, session.next()).await.is_none());
        }
        drop(session);
        soon("the rest", deliver(&good, running.address, Until::Settled)).await;
    }
    running.stop().await;
    let cases = u64::try_from(FRAMES.len()).unwrap();
    assert!(rig.gate.state().sums.values().all(|sum| sum.0 == 2 * cases), "{:?}", rig.gate.state().sums);
}

#[tokio::test]
async fn a_frame_for_a_lane_that_was_not_attached_is_named() {
    let rig = Rig::new().await;
    let running = rig.start().await;
    let mut log = Log::new(rig.gate.producer());
    let clients = clients_of_all_shards();
    log.append(&clients[0], "web.call", &[1]);
    let epoch = open(running.address, log.producer).await.unwrap();
    let mut session = Session::begin(&log, running.address, epoch).await.unwrap();
    let mut other = log.clone();
    other.append(&clients[1], "web.call", &[1]);
    session.send(&other.lanes[&other.lane_of(&clients[1])][0]).await;
    let stopped = loop {
        match soon("stop", session.next()).await {
            Some(Ended::Stopped(stopped)) => break stopped,
            Some(ended) => panic!("{ended:?}"),
            None => {}
        }
    };
    assert_eq!(stopped.reason, "LANE_UNKNOWN");
    assert!(matches!(soon("settlement", session.run(Until::Settled)).await, Ended::Reached));
    running.stop().await;
}

#[tokio::test]
async fn bad_events_are_refused_in_their_place() {
    let rig = Rig::new().await;
    // The ledger has such meters; their events must not be summed or counted instead.
    rig.gate.meter("web.seat", drawdown_proto::ledger::v1::Aggregation::Unique, &[]);
    let running = rig.start().await;
    let client = clients_of_all_shards().remove(0);
    let mut log = Log::new(rig.gate.producer());
    let hour_ms = 3_600_000;
    append(&mut log, &client, |log, builder| {
        let good = log.number(&key(&client, "web.byte"));
        let unknown = log.number(&key(&client, "no.such-meter"));
        let seats = log.number(&key(&client, "web.seat"));
        let at = now().as_millis();
        builder.push(good, 5, at);
        builder.push(unknown, 1, at);
        builder.push(good, (1 << 48) + 1, at);
        builder.push(good, 0, at);
        builder.push(good, 1, at + 25 * hour_ms);
        builder.push(good, 2, at + hour_ms);
        builder.push(good, 1, at - 401 * 24 * hour_ms);
        builder.push(good, 7, at - 24 * hour_ms);
        builder.push(seats, 1, at);
    });
    let epoch = open(running.address, log.producer).await.unwrap();
    let mut session = Session::begin(&log, running.address, epoch).await.unwrap();
    assert!(matches!(soon("settlement", session.run(Until::Settled)).await, Ended::Reached));
    let mut told: Vec<(String, u32, u64)> =
        session.refused.iter().map(|r| (r.reason.clone(), r.count, r.first_sequence)).collect();
    told.sort();
    let expected = [
        ("AGGREGATION_UNSUPPORTED", 9),
        ("EVENT_TIME_IN_FUTURE", 5),
        ("EVENT_TIME_TOO_OLD", 7),
        ("METER_UNKNOWN", 2),
        ("QUANTITY_TOO_LARGE", 3),
    ];
    assert_eq!(told, expected.map(|(reason, at)| (reason.to_owned(), 1, at)));
    let state = rig.gate.state();
    assert_eq!(state.refused, expected.map(|(reason, _)| (reason.to_owned(), 1)).into_iter().collect());
    assert_eq!(state.sums[&(client, "web.byte".to_owned(), false)], (4, 14));
    running.stop().await;
}

#[tokio::test]
async fn a_meter_made_just_now_is_known_to_the_first_event() {
    let rig = Rig::new().await;
    let running = rig.start().await;
    rig.gate.meter("brand.new", drawdown_proto::ledger::v1::Aggregation::Sum, &[]);
    let mut log = Log::new(rig.gate.producer());
    log.append("c", "brand.new", &[4, 5]);
    soon("settlement", deliver(&log, running.address, Until::Settled)).await;
    assert_eq!(rig.gate.state().sums, log.sums);
    running.stop().await;
}

#[tokio::test]
async fn a_newer_epoch_fences_the_older_stream() {
    let rig = Rig::new().await;
    let running = rig.start().await;
    let mut log = Log::new(rig.gate.producer());
    log.append("c", "web.call", &[1]);
    let old = open(running.address, log.producer).await.unwrap();
    let mut first = Session::begin(&log, running.address, old).await.unwrap();
    assert!(matches!(soon("settlement", first.run(Until::Settled)).await, Ended::Reached));
    soon("settlement", deliver(&log, running.address, Until::Settled)).await;
    let fenced = soon("fence", async {
        loop {
            if let Some(ended) = first.next().await {
                break ended;
            }
        }
    });
    let Ended::Stopped(stopped) = fenced.await else { panic!() };
    assert_eq!(stopped.reason, "FENCED");
    running.stop().await;
}

#[tokio::test]
async fn a_cloned_log_is_found_by_its_chain() {
    let rig = Rig::new().await;
    let running = rig.start().await;
    let mut log = Log::new(rig.gate.producer());
    let mut clone = log.clone();
    log.append("c", "web.byte", &[1, 2]);
    clone.append("c", "web.byte", &[8, 9]);
    soon("settlement", deliver(&log, running.address, Until::Settled)).await;
    log.append("c", "web.byte", &[3]);
    clone.append("c", "web.byte", &[3]);
    let epoch = open(running.address, clone.producer).await.unwrap();
    let mut session = Session::begin(&clone, running.address, epoch).await.unwrap();
    let Ended::Stopped(stopped) = soon("stop", session.run(Until::Settled)).await else { panic!() };
    assert_eq!(stopped.reason, "DIVERGED");
    drop(session);
    soon("settlement", deliver(&log, running.address, Until::Settled)).await;
    assert_eq!(rig.gate.state().sums, log.sums);
    running.stop().await;
}

#[tokio::test]
async fn queries_name_every_wrong_field() {
    let rig = Rig::new().await;
    let running = rig.start().await;
    let mut client = UsageServiceClient::connect(format!("http://{}", running.address)).await.unwrap();
    let mut ask = async |client_ids: Vec<String>, meter: &str| {
        let request =
            GetLiveUsageRequest { client_ids, meter: meter.to_owned(), ..GetLiveUsageRequest::default() };
        refusal(&client.get_live_usage(request).await.unwrap_err())
    };
    let invalid = |fields: &[&str]| {
        let fields = fields.iter().map(|field| (*field).to_owned()).collect();
        (Code::InvalidArgument, "REQUEST_INVALID".to_owned(), fields)
    };
    assert_eq!(ask(vec![], "").await, invalid(&["client_ids"]));
    assert_eq!(ask(vec!["a b".to_owned(), "ok".to_owned()], "X").await, invalid(&["client_ids[0]", "meter"]));
    assert_eq!(ask(vec!["a".to_owned(); 1001], "").await, invalid(&["client_ids"]));
    running.stop().await;
}
