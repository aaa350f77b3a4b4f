//! Every way to write the same usage comes to the same sums: rows and columns, compressed or not, however the
//! transport cuts it.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use http_body::Frame as HttpFrame;
use tonic::{
    Status,
    body::Body,
    codec::CompressionEncoding,
    codegen::{Bytes, Service, http},
    transport::{self, Channel},
};

use drawdown_proto::metering::v1::ingest_service_client::IngestServiceClient;

use crate::{
    producer::{Ended, Log, Session, Until, clients_of_all_shards, connect, deliver, open},
    rig::{Rig, soon},
};

#[tokio::test]
async fn frames_of_both_forms_share_a_lane_and_are_counted_alike() {
    let rig = Rig::new().await;
    let running = rig.start().await;
    let mut log = Log::new(rig.gate.producer());
    for (at, client) in clients_of_all_shards().iter().enumerate() {
        log.append(client, "web.byte", &[5, 6]);
        log.append_rows(client, "web.byte", &[7]);
        log.append_rows(client, "web.call", &[1, 1, 1]);
        log.append(client, "web.call", &vec![1; at + 1]);
    }
    soon("settlement", deliver(&log, running.address, Until::Settled)).await;
    // And once more: a frame of rows is known again by its bytes.
    soon("settlement", deliver(&log, running.address, Until::Settled)).await;
    assert_eq!(rig.gate.state().sums, log.sums);
    running.stop().await;
}

#[tokio::test]
async fn bad_rows_are_refused_in_their_place() {
    let rig = Rig::new().await;
    let running = rig.start().await;
    let mut log = Log::new(rig.gate.producer());
    log.append_rows("c", "web.byte", &[3, (1 << 48) + 1, 4]);
    log.sums.insert(("c".to_owned(), "web.byte".to_owned(), false), (2, 7));
    let unknown = log.clone();
    log.append_rows("c", "no.such-meter", &[1]);
    let epoch = open(running.address, log.producer).await.unwrap();
    let mut session = Session::begin(&log, running.address, epoch).await.unwrap();
    assert!(matches!(soon("settlement", session.run(Until::Settled)).await, Ended::Reached));
    let told: Vec<_> = session
        .refused
        .iter()
        .map(|refused| {
            let field = refused.fault.as_ref().map(|fault| fault.field.as_str());
            (refused.reason.as_str(), refused.count, refused.first_sequence, field)
        })
        .collect();
    assert_eq!(
        told,
        [
            ("QUANTITY_TOO_LARGE", 1, 2, Some("rows[1].quantity")),
            ("METER_UNKNOWN", 1, 4, Some("rows[0].series"))
        ]
    );
    assert_eq!(rig.gate.state().sums, unknown.sums);
    running.stop().await;
}

#[tokio::test]
async fn compressed_messages_count_like_others() {
    let rig = Rig::new().await;
    let running = rig.start().await;
    for encoding in [CompressionEncoding::Zstd, CompressionEncoding::Gzip] {
        let mut log = Log::new(rig.gate.producer());
        log.fill(1, 20);
        log.append_rows("c", "web.byte", &[9; 500]);
        let client = connect(running.address).await.send_compressed(encoding);
        let epoch = open(running.address, log.producer).await.unwrap();
        let before = rig.gate.state().sums;
        let mut session = Session::begin_with(&log, client, epoch).await.unwrap();
        assert!(matches!(soon("settlement", session.run(Until::Settled)).await, Ended::Reached));
        let after = rig.gate.state().sums;
        for (series, (events, quantity)) in &log.sums {
            let (events_before, quantity_before) = before.get(series).copied().unwrap_or_default();
            assert_eq!(after[series], (events_before + events, quantity_before + quantity), "{encoding:?}");
        }
    }
    running.stop().await;
}

/// Sends requests in pieces of one byte.
#[derive(Clone)]
struct ByteByByte(Channel);

struct Pieces {
    body: Body,
    rest: Bytes,
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<HttpFrame<Bytes>, Status>>> {
        loop {
            if !self.rest.is_empty() {
                return Poll::Ready(Some(Ok(HttpFrame::data(self.rest.split_to(1)))));
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                end => return Poll::Ready(end),
            }
        }
    }
}

impl Service<http::Request<Body>> for ByteByByte {
    type Response = http::Response<Body>;
    type Error = transport::Error;
    type Future = <Channel as Service<http::Request<Body>>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), transport::Error>> {
        Service::poll_ready(&mut self.0, cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Service::call(&mut self.0, request.map(|body| Body::new(Pieces { body, rest: Bytes::new() })))
    }
}

#[tokio::test]
async fn a_transport_frame_for_each_byte_changes_nothing() {
    let rig = Rig::new().await;
    let running = rig.start().await;
    let mut log = Log::new(rig.gate.producer());
    log.fill(2, 30);
    log.append_rows("c", "web.byte", &[4; 50]);
    let epoch = open(running.address, log.producer).await.unwrap();
    let channel =
        Channel::from_shared(format!("http://{}", running.address)).unwrap().connect().await.unwrap();
    let client = IngestServiceClient::new(ByteByByte(channel));
    let mut session = Session::begin_with(&log, client, epoch).await.unwrap();
    assert!(matches!(soon("settlement", session.run(Until::Settled)).await, Ended::Reached));
    assert_eq!(rig.gate.state().sums, log.sums);
    running.stop().await;
}

#[tokio::test]
async fn a_frame_for_each_event_changes_nothing() {
    let rig = Rig::new().await;
    let running = rig.start().await;
    let mut log = Log::new(rig.gate.producer());
    for quantity in 0..2_000 {
        if quantity % 2 == 0 {
            log.append("c", "web.byte", &[quantity]);
        } else {
            log.append_rows("c", "web.byte", &[quantity]);
        }
    }
    soon("settlement", deliver(&log, running.address, Until::Settled)).await;
    assert_eq!(rig.gate.state().sums, log.sums);
    running.stop().await;
}
