//! What is broken, or made to break the service: refused with a reason, at a bounded cost, and never counted.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use drawdown_metering_core::shard::SEQUENCE_MAX;
use drawdown_proto::metering::v1::{
    self as wire, ingest_request::Request, ingest_response::Response,
    ingest_service_client::IngestServiceClient,
};
use drawdown_service::config::Count;
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, codec::CompressionEncoding, transport::Channel};
use tonic_types::StatusExt as _;

use crate::{
    producer::{Ended, Frame, Log, Session, Until, connect, deliver, lane_to_wire, open, request},
    rig::{Rig, Running, now, soon},
};

fn reason(status: &Status) -> (Code, String) {
    (status.code(), status.get_error_details().error_info().unwrap().reason.clone())
}

/// How a stream of these messages ends.
async fn ended(
    mut client: IngestServiceClient<Channel>,
    messages: Vec<wire::IngestRequest>,
) -> (Code, String) {
    let (requests, receiver) = mpsc::channel(100);
    for message in messages {
        requests.send(message).await.unwrap();
    }
    let opened = client.ingest(ReceiverStream::new(receiver)).await;
    let end = async {
        let mut inbound = opened?.into_inner();
        while inbound.message().await?.is_some() {}
        Ok::<(), Status>(())
    };
    reason(&soon("the end of the stream", end).await.unwrap_err())
}

/// What becomes of a log whose last frame is wrong. The lane's stop, or the stream's end.
async fn stopped_by(log: &Log, running: &Running) -> String {
    let epoch = open(running.address, log.producer).await.unwrap();
    let mut session = Session::begin(log, running.address, epoch).await.unwrap();
    match soon("the end of the lane", session.run(Until::Settled)).await {
        Ended::Stopped(stopped) => stopped.reason,
        Ended::Closed(Some(status)) => reason(&status).1,
        ended => panic!("{ended:?}"),
    }
}

fn last(log: &mut Log) -> &mut Frame {
    log.lanes.values_mut().next().unwrap().last_mut().unwrap()
}

#[tokio::test]
async fn truncated_and_bit_flipped_frames_are_never_counted() {
    let rig = Rig::new().await;
    let running = rig.start().await;
    for rows in [false, true] {
        let mut log = Log::new(rig.gate.producer());
        log.append("c", "web.byte", &[1, 2, 3]);
        soon("applied", deliver(&log, running.address, Until::Applied)).await;
        let known = rig.gate.state().sums;
        if rows {
            log.append_rows("c", "web.byte", &[100, 200]);
        } else {
            log.append("c", "web.byte", &[100, 200]);
        }
        let body = last(&mut log).body.clone();
        let cut = (0..body.len()).step_by(5).map(|at| body[..at].to_vec());
        let flipped = (0..body.len() * 8).step_by(11).map(|bit| {
            let mut body = body.clone();
            body[bit / 8] ^= 1 << (bit % 8);
            body
        });
        let mut tried = 0;
        for broken in cut.chain(flipped) {
            // Rows that generated code does not write byte for byte can not be sent by it.
            let sent = wire::RowFrame::decode(broken.as_slice()).is_ok_and(|f| f.encode_to_vec() == broken);
            if rows && !sent {
                continue;
            }
            let mut spoiled = log.clone();
            last(&mut spoiled).body = broken;
            assert_eq!(stopped_by(&spoiled, &running).await, "FRAME_DAMAGED");
            tried += 1;
        }
        assert!(tried >= 20, "{tried} of {rows}");
        let now_known = rig.gate.state().sums;
        assert!(known.iter().all(|(series, sum)| now_known[series].1 - sum.1 <= 6), "{now_known:?}");
        soon("settlement", deliver(&log, running.address, Until::Settled)).await;
    }
    let sums = rig.gate.state().sums;
    assert_eq!(sums[&("c".to_owned(), "web.byte".to_owned(), false)], (10, 612));
    running.stop().await;
}

/// A log whose only frame has this body.
fn of_body(rig: &Rig, body: impl FnOnce(wire::Lane) -> Vec<u8>, rows: bool) -> Log {
    let mut log = Log::new(rig.gate.producer());
    log.append("c", "web.byte", &[1]);
    let lane = lane_to_wire(log.lane_of("c"));
    let frame = last(&mut log);
    (frame.body, frame.rows) = (body(lane), rows);
    frame.chain_again();
    log
}

#[tokio::test]
async fn sequences_that_wrap_are_refused() {
    let rig = Rig::new().await;
    let running = rig.start().await;
    let at = now().as_millis();
    for first_sequence in [0, SEQUENCE_MAX, u64::MAX - 1, u64::MAX] {
        let columns = |lane| wire::ColumnFrame {
            lane: Some(lane),
            first_sequence,
            event_count: 3,
            received_at_unix_ms: at,
            base_time_unix_ms: at,
            series: vec![1; 3],
            ..wire::ColumnFrame::default()
        };
        let log = of_body(&rig, |lane| columns(lane).encode_to_vec(), false);
        assert_eq!(stopped_by(&log, &running).await, "FRAME_MALFORMED", "columns from {first_sequence}");
        let series = wire::Series {
            client_id: "c".to_owned(),
            meter: "web.byte".to_owned(),
            ..wire::Series::default()
        };
        let row = wire::UsageRow { series: Some(series), quantity: 1, time_unix_ms: at };
        let rows = |lane| wire::RowFrame {
            lane: Some(lane),
            first_sequence,
            received_at_unix_ms: at,
            rows: vec![row; 3],
        };
        let log = of_body(&rig, |lane| rows(lane).encode_to_vec(), true);
        assert_eq!(stopped_by(&log, &running).await, "FRAME_MALFORMED", "rows from {first_sequence}");
    }
    running.stop().await;
    assert!(rig.gate.state().sums.is_empty());
}

#[tokio::test]
async fn numbers_that_were_never_defined_are_refused() {
    let rig = Rig::new().await;
    let running = rig.start().await;
    let at = now().as_millis();
    for number in [0, 2, 70_000, u32::MAX] {
        let columns = |lane| wire::ColumnFrame {
            lane: Some(lane),
            first_sequence: 1,
            event_count: 2,
            received_at_unix_ms: at,
            base_time_unix_ms: at,
            series: vec![1, number],
            ..wire::ColumnFrame::default()
        };
        let log = of_body(&rig, |lane| columns(lane).encode_to_vec(), false);
        assert_eq!(stopped_by(&log, &running).await, "SERIES_UNKNOWN", "{number}");
    }
    running.stop().await;
    assert!(rig.gate.state().sums.is_empty());
}

/// A body that begins with its lane.
fn after_lane(lane: wire::Lane, rest: &[u8]) -> Vec<u8> {
    let lane = wire::ColumnFrame { lane: Some(lane), ..wire::ColumnFrame::default() };
    [lane.encode_to_vec().as_slice(), rest].concat()
}

#[tokio::test]
async fn varint_bombs_are_refused() {
    const LARGE: usize = 1_000_000;
    let rig = Rig::new().await;
    let running = rig.start().await;
    let column = |byte: u8| {
        // A million bytes of column 7 that never end a varint, or are one each.
        [&[0x18, 1, 0x3a, 0xc0, 0x84, 0x3d][..], &vec![byte; LARGE]].concat()
    };
    let cases: [(&str, Vec<u8>, &str); 7] = [
        ("a varint without end", column(0xff), "FRAME_MALFORMED"),
        ("a varint of zeros", column(0x80), "FRAME_MALFORMED"),
        ("more entries than events", column(1), "FRAME_MALFORMED"),
        ("more events than bytes", vec![0x18, 0xff, 0xff, 0x03, 0x3a, 1, 1], "FRAME_MALFORMED"),
        ("2^32 events", vec![0x18, 0xff, 0xff, 0xff, 0xff, 0x0f, 0x3a, 1, 1], "FRAME_TOO_LARGE"),
        ("a length of 2^63", [&[0x3a][..], &[0xff; 9], &[1]].concat(), "FRAME_MALFORMED"),
        // Half a million definitions of nothing.
        (
            "definitions of nothing",
            [&[0x10, 1, 0x18, 1, 0x3a, 1, 1][..], &[0x2a, 0].repeat(LARGE / 2)].concat(),
            "SERIES_INVALID",
        ),
    ];
    for (what, rest, expected) in cases {
        let log = of_body(&rig, |lane| after_lane(lane, &rest), false);
        assert_eq!(stopped_by(&log, &running).await, expected, "{what}");
    }
    // Half a million rows of nothing, which generated code writes as well.
    let rows = wire::RowFrame {
        first_sequence: 1,
        rows: vec![wire::UsageRow::default(); LARGE / 2],
        ..wire::RowFrame::default()
    };
    let rows = |lane| wire::RowFrame { lane: Some(lane), ..rows }.encode_to_vec();
    let log = of_body(&rig, rows, true);
    assert_eq!(stopped_by(&log, &running).await, "FRAME_TOO_LARGE");
    running.stop().await;
    assert!(rig.gate.state().sums.is_empty());
}

fn hello(log: &Log, epoch: u64) -> wire::IngestRequest {
    request(Request::Hello(wire::Hello { producer_id: log.producer.to_string(), epoch }))
}

#[tokio::test]
async fn zip_bombs_end_their_stream_before_they_are_unpacked() {
    const BOMB_BYTES: usize = 64 << 20;
    let rig = Rig::new().await;
    let running = rig.start().await;
    let log = Log::new(rig.gate.producer());
    for encoding in [CompressionEncoding::Zstd, CompressionEncoding::Gzip] {
        let epoch = open(running.address, log.producer).await.unwrap();
        let body = vec![0; BOMB_BYTES].into();
        let bomb = wire::LaneFrame { chain_before: 0, body, chain_after: None };
        let client = connect(running.address).await.send_compressed(encoding);
        let messages = vec![hello(&log, epoch), request(Request::Frame(bomb))];
        let (code, reason) = ended(client, messages).await;
        assert_eq!((code, reason.as_str()), (Code::InvalidArgument, "MESSAGE_TOO_LARGE"), "{encoding:?}");
    }
    // The same length as it is, for comparison.
    let epoch = open(running.address, log.producer).await.unwrap();
    let bomb = wire::LaneFrame { chain_before: 0, body: vec![0; 17 << 20].into(), chain_after: None };
    let messages = vec![hello(&log, epoch), request(Request::Frame(bomb))];
    let (code, reason) = ended(connect(running.address).await, messages).await;
    assert_eq!((code, reason.as_str()), (Code::InvalidArgument, "MESSAGE_TOO_LARGE"));
    running.stop().await;
}

#[tokio::test]
async fn two_producers_with_one_id_count_once() {
    let rig = Rig::new().await;
    let running = rig.start().await;
    let mut log = Log::new(rig.gate.producer());
    log.fill(3, 40);
    // A copy of the log on another machine, both at once: the later one fences the earlier.
    let first_epoch = open(running.address, log.producer).await.unwrap();
    let mut first = Session::begin(&log, running.address, first_epoch).await.unwrap();
    assert!(matches!(soon("applied", first.run(Until::Applied)).await, Ended::Reached));
    let copy = log.clone();
    let epoch = open(running.address, copy.producer).await.unwrap();
    let mut second = Session::begin(&copy, running.address, epoch).await.unwrap();
    assert!(matches!(soon("settlement", second.run(Until::Settled)).await, Ended::Reached));
    assert_eq!(stop_of(&mut first).await, "FENCED");
    // Two streams of one epoch: the later one takes the lanes.
    let mut third = Session::begin(&copy, running.address, epoch).await.unwrap();
    assert!(matches!(soon("settlement", third.run(Until::Settled)).await, Ended::Reached));
    assert_eq!(stop_of(&mut second).await, "LANE_TAKEN");
    assert_eq!(rig.gate.state().sums, log.sums);
    // Each goes on by itself: the second one to send a sequence is found by its chain.
    let mut own = copy.clone();
    log.append("client-3-0", "web.byte", &[1]);
    own.append("client-3-0", "web.byte", &[2]);
    own.append("client-3-0", "web.byte", &[3]);
    soon("settlement", deliver(&log, running.address, Until::Settled)).await;
    assert_eq!(stopped_by(&own, &running).await, "DIVERGED");
    assert_eq!(rig.gate.state().sums, log.sums);
    running.stop().await;
}

async fn stop_of(session: &mut Session<'_>) -> String {
    let stop = async {
        loop {
            match session.next().await {
                Some(Ended::Stopped(stopped)) => break stopped.reason,
                Some(ended) => panic!("{ended:?}"),
                None => {}
            }
        }
    };
    soon("a stop", stop).await
}

#[tokio::test]
async fn a_stream_that_never_reads_its_answers_is_not_read_either() {
    const FRAMES: usize = 20_000;
    let rig = Rig::new().await;
    let mut options = rig.options();
    options.server.stream_window_bytes = Count::of(1 << 16);
    let running = rig.start_with(options).await;
    // Each frame gets an answer of its own, because its meter is unknown.
    let mut log = Log::new(rig.gate.producer());
    for _ in 0..FRAMES {
        log.append("c", "no.such-meter", &[1]);
    }
    let lane = log.lane_of("c");
    let attach = wire::AttachLane {
        lane: Some(lane_to_wire(lane)),
        end_sequence: log.end(&lane).sequence,
        freed: None,
    };
    let epoch = open(running.address, log.producer).await.unwrap();
    let begin = [hello(&log, epoch), log.define(), request(Request::Attach(attach))];
    let (requests, receiver) = mpsc::channel(1);
    let (attached, wait) = tokio::sync::oneshot::channel();
    let sent = Arc::new(AtomicUsize::new(0));
    let (frames, count) = (log.lanes[&lane].clone(), Arc::clone(&sent));
    let pump = tokio::spawn(async move {
        for message in begin {
            requests.send(message).await.unwrap();
        }
        wait.await.unwrap();
        for frame in frames {
            requests.send(frame.to_wire()).await.unwrap();
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    // A client has a window of two megabytes by itself, in which all answers would find room.
    let endpoint = Channel::from_shared(format!("http://{}", running.address)).unwrap();
    let channel = endpoint.initial_stream_window_size(1 << 16).connect().await.unwrap();
    let mut client = IngestServiceClient::new(channel);
    let mut inbound = client.ingest(ReceiverStream::new(receiver)).await.unwrap().into_inner();
    let first = soon("the attachment", inbound.message()).await.unwrap().unwrap();
    assert!(matches!(first.response, Some(Response::Attached(_))), "{first:?}");
    attached.send(()).unwrap();
    // Others are served meanwhile, until the silent one has come to a stop.
    let mut other = Log::new(rig.gate.producer());
    let mut before = 0;
    loop {
        other.append("d", "web.byte", &[1]);
        soon("the other one", deliver(&other, running.address, Until::Settled)).await;
        let now = sent.load(Ordering::Relaxed);
        if now == before && now > 0 {
            break;
        }
        before = now;
    }
    assert!(before < FRAMES, "all frames were taken");
    // As soon as it reads, everything goes on, and nothing is missing.
    let mut refused = 0;
    while refused < FRAMES {
        if let Some(Response::Refused(events)) =
            soon("an answer", inbound.message()).await.unwrap().unwrap().response
        {
            refused += usize::try_from(events.count).unwrap();
        }
    }
    soon("the pump", pump).await.unwrap();
    assert_eq!(refused, FRAMES);
    assert_eq!(rig.gate.state().sums, other.sums);
    running.stop().await;
}
