//! `CloudEvents` over HTTP: every mode, what is wrong by status and place, and input that means harm.

use std::{net::SocketAddr, sync::Arc};

use drawdown_proto::io::cloudevents::v1::{
    CloudEvent, CloudEventBatch,
    cloud_event::{CloudEventAttributeValue, cloud_event_attribute_value::Attr},
};
use drawdown_service::config::Count;
use prost::Message as _;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::Semaphore,
};

use crate::{
    gate::Mode,
    rig::{NOW, Rig, soon},
};

const STRUCTURED: &str = "application/cloudevents+json";
const BATCH: &str = "application/cloudevents-batch+json";

/// Status, head and body of an answer.
type Answer = (u16, String, String);

async fn send(address: SocketAddr, request: Vec<u8>) -> Answer {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // A body that is refused may not be read to its end.
    drop(stream.write_all(&request).await);
    let mut answer = Vec::new();
    drop(soon("an answer", stream.read_to_end(&mut answer)).await);
    let text = String::from_utf8(answer).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_ascii_lowercase(), body.to_owned())
}

fn request(path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut request =
        format!("POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    [request.as_bytes(), body].concat()
}

async fn post(address: SocketAddr, kind: &str, body: &str) -> Answer {
    send(address, request("/v1/events", &[("content-type", kind)], body.as_bytes())).await
}

fn event(id: &str, quantity: impl Into<Value>) -> Value {
    json!({
        "specversion": "1.0", "id": id, "source": "/test", "type": "web.byte", "subject": "app", "time": NOW,
        "data": { "quantity": quantity.into() },
    })
}

fn problem(answer: &Answer) -> Value {
    assert!(answer.1.contains("content-type: application/problem+json"), "{answer:?}");
    let problem: Value = serde_json::from_str(&answer.2).unwrap();
    assert_eq!(problem["status"], answer.0);
    problem
}

#[tokio::test]
async fn one_event_counts_once_in_whatever_mode_it_comes() {
    let rig = Rig::new().await;
    let running = rig.start().await;
    let to = running.events;
    assert_eq!(post(to, STRUCTURED, &event("a", 7).to_string()).await.0, 204);
    assert_eq!(post(to, BATCH, &json!([event("a", 7), event("b", 1)]).to_string()).await.0, 204);
    let headers = [
        ("content-type", "application/json"),
        ("ce-specversion", "1.0"),
        ("ce-id", "a"),
        ("ce-source", "/test"),
        ("ce-type", "web.byte"),
        ("ce-subject", "app"),
        ("ce-time", NOW),
    ];
    assert_eq!(send(to, request("/v1/events", &headers, b"{\"quantity\":7}")).await.0, 204);
    let text = |text: &str| CloudEventAttributeValue { attr: Some(Attr::CeString(text.to_owned())) };
    let message = CloudEvent {
        id: "a".to_owned(),
        source: "/test".to_owned(),
        spec_version: "1.0".to_owned(),
        r#type: "web.byte".to_owned(),
        attributes: [("subject".to_owned(), text("app")), ("time".to_owned(), text(NOW))].into(),
        data: Some(drawdown_proto::io::cloudevents::v1::cloud_event::Data::TextData(
            "{\"quantity\":7}".to_owned(),
        )),
    };
    let batch = CloudEventBatch { events: vec![message] }.encode_to_vec();
    let kind = [("content-type", "application/cloudevents-batch+protobuf")];
    // Clients of OpenMeter have another path.
    assert_eq!(send(to, request("/api/v1/events", &kind, &batch)).await.0, 204);
    assert_eq!(rig.gate.book().sums.values().copied().collect::<Vec<_>>(), [(2, 8)]);
    running.stop().await;
}

#[tokio::test]
async fn answers_of_a_batch_are_told_where_they_are_preferred() {
    let rig = Rig::new().await;
    let running = rig.start().await;
    post(running.events, STRUCTURED, &event("a", 7).to_string()).await;
    let body = json!([event("a", 7), event("b", 1)]).to_string();
    let headers = [("content-type", BATCH), ("prefer", "return=representation")];
    let (status, _, body) = send(running.events, request("/v1/events", &headers, body.as_bytes())).await;
    let told: Value = serde_json::from_str(&body).unwrap();
    let of = |index: u32, id: &str, again: bool| {
        json!({
            "index": index, "source": "/test", "id": id, "outcome": "recorded", "already_recorded": again,
            "recorded_at": NOW, "window_start": "2026-03-01T12:00:00Z", "charge_id": "chg_1",
        })
    };
    assert_eq!((status, told), (200, json!({ "events": [of(0, "a", true), of(1, "b", false)] })));
    running.stop().await;
}

#[tokio::test]
async fn every_event_that_is_not_recorded_is_named_by_its_place() {
    let rig = Rig::new().await;
    let running = rig.start().await;
    post(running.events, STRUCTURED, &event("known", 7).to_string()).await;
    let mut unknown = event("unknown", 1);
    unknown["type"] = json!("web.unknown");
    let sent =
        json!([event("good", 1), event("float", 1.5), event("known", 8), 7, unknown, event("other", 2)]);
    let answer = post(running.events, BATCH, &sent.to_string()).await;
    assert_eq!(answer.0, 400);
    let problem = problem(&answer);
    assert_eq!(problem["reason"], "EVENT_INVALID");
    assert_eq!(problem["detail"], "4 of 6 events are not recorded; the others are");
    assert_eq!(problem["recorded"], 2);
    let events = problem["events"].as_array().unwrap();
    let told: Vec<_> = events
        .iter()
        .map(|event| {
            (
                event["index"].as_u64().unwrap(),
                event["outcome"].as_str().unwrap(),
                event["reason"].as_str().unwrap(),
            )
        })
        .collect();
    let expected = [
        (1, "refused", "EVENT_INVALID"),
        (2, "conflict", "EVENT_ID_CONFLICT"),
        (3, "refused", "EVENT_INVALID"),
        (4, "refused", "METER_UNKNOWN"),
    ];
    assert_eq!(told, expected);
    assert_eq!(events[0]["problems"][0]["field"], "data.quantity");
    assert_eq!(rig.gate.book().sums.values().copied().collect::<Vec<_>>(), [(3, 10)]);
    // Where ids conflict and nothing else is wrong the status says so.
    let conflict = post(running.events, STRUCTURED, &event("known", 9).to_string()).await;
    assert_eq!((conflict.0, self::problem(&conflict)["reason"].clone()), (409, json!("EVENT_ID_CONFLICT")));
    running.stop().await;
}

#[tokio::test]
async fn calls_that_are_wrong_as_a_whole_are_refused_and_record_nothing() {
    let rig = Rig::new().await;
    let mut options = rig.options();
    options.record.call_bytes_max = Count::of(4096);
    let running = rig.start_with(options).await;
    let to = running.events;
    let deep = ["[".repeat(2000), "]".repeat(2000)].concat();
    let huge = json!([event(&"x".repeat(5000), 1)]).to_string();
    for (kind, body, status, reason) in [
        (BATCH, "[]", 400, "EVENTS_COUNT"),
        (BATCH, "{}", 400, "MESSAGE_MALFORMED"),
        (STRUCTURED, "", 400, "MESSAGE_MALFORMED"),
        (BATCH, &*deep, 400, "MESSAGE_MALFORMED"),
        ("application/xml", "<a/>", 415, "CONTENT_TYPE_UNKNOWN"),
        (BATCH, &*huge, 413, "MESSAGE_TOO_LARGE"),
        ("application/cloudevents+protobuf", "\u{1}\u{2}", 400, "MESSAGE_MALFORMED"),
    ] {
        let answer = post(to, kind, body).await;
        assert_eq!(
            (answer.0, problem(&answer)["reason"].as_str()),
            (status, Some(reason)),
            "{kind} {:.40}",
            body
        );
    }
    let not_utf8 = send(to, request("/v1/events", &[("content-type", STRUCTURED)], b"\"\xff\xfe\"")).await;
    assert_eq!((not_utf8.0, problem(&not_utf8)["reason"].clone()), (400, json!("MESSAGE_MALFORMED")));
    let twice = [("content-type", BATCH), ("content-type", STRUCTURED)];
    assert_eq!(send(to, request("/v1/events", &twice, b"[]")).await.0, 415);
    // A body without an end, in pieces, is cut at its limit.
    let mut endless =
        b"POST /v1/events HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n"
            .to_vec();
    endless.extend_from_slice(format!("content-type: {BATCH}\r\n\r\n").as_bytes());
    for _ in 0..20 {
        endless.extend_from_slice(format!("400\r\n{}\r\n", " ".repeat(1024)).as_bytes());
    }
    assert_eq!(send(to, endless).await.0, 413);
    assert_eq!(send(to, request("/v2/events", &[], b"")).await.0, 404);
    assert_eq!(
        send(to, b"GET /v1/events HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".to_vec()).await.0,
        405
    );
    assert!(rig.gate.book().sums.is_empty());
    running.stop().await;
}

#[tokio::test]
async fn numbers_that_are_no_quantities_are_refused_by_name() {
    let rig = Rig::new().await;
    let running = rig.start().await;
    for quantity in
        ["-1", "1.5", "7.0", "1e2", "18446744073709551616", "281474976710657", "\"7\"", "null", "true"]
    {
        let body = event("a", 0).to_string().replace(":0}", &format!(":{quantity}}}"));
        assert!(body.contains(quantity), "{body}");
        let answer = post(running.events, STRUCTURED, &body).await;
        assert_eq!(answer.0, 400, "{quantity}");
        assert_eq!(problem(&answer)["events"][0]["problems"][0]["field"], "data.quantity", "{quantity}");
    }
    let nan = event("a", 0).to_string().replace(":0}", ":NaN}");
    assert_eq!(post(running.events, STRUCTURED, &nan).await.0, 400);
    assert!(rig.gate.book().sums.is_empty());
    running.stop().await;
}

#[tokio::test]
async fn callers_are_told_when_to_come_again() {
    let rig = Rig::new().await;
    let mut options = rig.options();
    options.record.http_calls_max = Count::of(1);
    let running = rig.start_with(options).await;
    let to = running.events;
    rig.gate.set_mode(Mode::Down);
    let down = post(to, STRUCTURED, &event("a", 1).to_string()).await;
    assert_eq!((down.0, problem(&down)["reason"].clone()), (503, json!("UNAVAILABLE")));
    assert!(down.1.contains("retry-after: 1"), "{}", down.1);
    rig.gate.set_mode(Mode::Open);
    let held = Arc::new(Semaphore::new(0));
    rig.gate.book().held = Some(Arc::clone(&held));
    // Whichever comes first waits for the ledger, and the other is refused at once.
    let mut calls = tokio::task::JoinSet::new();
    for id in ["a", "b"] {
        calls.spawn(async move { post(to, STRUCTURED, &event(id, 1).to_string()).await });
    }
    let busy = calls.join_next().await.unwrap().unwrap();
    assert_eq!((busy.0, problem(&busy)["reason"].clone()), (429, json!("EVENTS_WAITING")));
    assert!(busy.1.contains("retry-after: 1"), "{}", busy.1);
    held.add_permits(100);
    assert_eq!(calls.join_next().await.unwrap().unwrap().0, 204);
    running.stop().await;
}
