//! The same server over HTTP: what a caller without gRPC gets, and that the layers do not tell the two apart.

use std::pin::Pin;

use drawdown_proto::ledger::v1::{
    ListNoticesRequest, ListNoticesResponse, Notice, WatchNoticesRequest, WatchNoticesResponse,
    notice_service_server::{NoticeService, NoticeServiceServer},
};
use futures::Stream;
use serde_json::{Value, json};

use super::*;
use crate::{Code, Refusal, json::OwnPaths};

/// Tells two notices, then what the cursor says.
struct Told;

#[tonic::async_trait]
impl NoticeService for Told {
    type WatchNoticesStream = Pin<Box<dyn Stream<Item = Result<WatchNoticesResponse, Status>> + Send>>;

    async fn watch_notices(
        &self,
        call: Call<WatchNoticesRequest>,
    ) -> Result<Answer<Self::WatchNoticesStream>, Status> {
        let cursor = call.into_inner().cursor;
        if cursor == "refused" {
            return Err(Refusal::new(Code::FailedPrecondition, "CURSOR_EXPIRED", "too old").into());
        }
        let part = |position: i64| WatchNoticesResponse {
            notices: vec![Notice { position, ..Notice::default() }],
            cursor: position.to_string(),
        };
        let end =
            (cursor == "fails").then(|| Err(Status::from(Refusal::new(Code::Unavailable, "GONE", "x"))));
        let parts = [1, 2].map(|position| Ok(part(position)));
        Ok(Answer::new(Box::pin(futures::stream::iter(parts.into_iter().chain(end)))))
    }

    async fn list_notices(
        &self,
        call: Call<ListNoticesRequest>,
    ) -> Result<Answer<ListNoticesResponse>, Status> {
        // More than is turned in place.
        let notice = Notice { account_id: "a".repeat(1_000), ..Notice::default() };
        let count = usize::try_from(call.into_inner().page_size).unwrap_or_default();
        Ok(Answer::new(ListNoticesResponse {
            notices: vec![notice; count],
            ..ListNoticesResponse::default()
        }))
    }
}

/// An answer.
struct Heard {
    code: u16,
    head: String,
    body: String,
}

impl Heard {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    fn reason(&self) -> String {
        let json = self.json();
        let info = json["details"].as_array().unwrap().iter().find(|detail| detail["reason"].is_string());
        info.map(|info| info["reason"].as_str().unwrap().to_owned()).unwrap_or_default()
    }

    fn violations(&self) -> Vec<String> {
        let json = self.json();
        let details = json["details"].as_array().unwrap();
        let lists = details.iter().filter_map(|detail| detail["fieldViolations"].as_array());
        lists.flatten().map(|violation| violation["field"].as_str().unwrap().to_owned()).collect()
    }
}

/// One call over HTTP/1.0, whose answer ends with the connection.
async fn ask(running: &Running, line: &str, headers: &str, body: &str) -> Heard {
    let mut stream = TcpStream::connect(running.addresses.grpc).await.unwrap();
    let length = if body.is_empty() { String::new() } else { format!("content-length: {}\r\n", body.len()) };
    let request = format!("{line} HTTP/1.0\r\nhost: x\r\n{headers}{length}\r\n{body}");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer:?}"));
    let code = head.split(' ').nth(1).unwrap().parse().unwrap();
    Heard { code, head: head.to_ascii_lowercase(), body: body.to_owned() }
}

async fn get(running: &Running, target: &str) -> Heard {
    ask(running, &format!("GET {target}"), "", "").await
}

#[tokio::test]
async fn a_read_is_answered_as_json_and_counted_as_its_method() {
    let running = Running::with(|_| {}).await;
    let heard = ask(&running, "GET /v1/clients/any:resolve", "x-request-id: mine-1\r\n", "").await;
    assert_eq!((heard.code, heard.body.as_str()), (200, "{}"));
    assert!(heard.head.contains("content-type: application/json"), "{}", heard.head);
    assert!(heard.head.contains("x-request-id: mine-1"), "{}", heard.head);
    assert!(!heard.head.contains("grpc-"), "{}", heard.head);
    let heard = ask(&running, "POST /v1/clients:resolve", "content-type: application/json\r\n", "{}").await;
    assert_eq!((heard.code, heard.json()), (200, json!({ "resolutions": [] })));
    let page = running.get("/metrics").await;
    for method in ["Resolve", "BatchResolve"] {
        let labels = format!(
            "code=\"Ok\",rpc_method=\"{method}\",rpc_service=\"drawdown.entitlement.v1.ResolutionService\""
        );
        assert!(
            page.contains(&format!("drawdown_rpc_server_duration_seconds_count{{{labels}}} 1")),
            "{page}"
        );
    }
    running.call("any").await.unwrap();
}

#[tokio::test]
async fn refusals_of_handlers_come_with_code_and_details() {
    let running = Running::with(|_| {}).await;
    let heard = ask(&running, "GET /v1/clients/fail:resolve", "x-request-id: mine-1\r\n", "").await;
    assert_eq!((heard.code, heard.reason()), (500, reason::INTERNAL.to_owned()));
    assert_eq!(heard.json()["code"], 13);
    assert!(heard.body.contains("\"mine-1\"") && !heard.body.contains("secret"), "{}", heard.body);
    let heard = get(&running, "/v1/clients/panic:resolve").await;
    assert_eq!((heard.code, heard.reason()), (500, reason::INTERNAL.to_owned()));
}

#[tokio::test]
async fn what_is_wrong_with_a_call_is_told_by_name() {
    let running = Running::with(|options| {
        options.message_bytes_max = Count::of(64);
        options.http_target_bytes_max = Count::of(100);
    })
    .await;
    let json = "content-type: application/json\r\n";
    let long = format!("GET /v1/clients/{}:resolve", "x".repeat(100));
    let large = format!("{{\"queries\":[{}]}}", vec!["{}"; 100].join(","));
    for (line, headers, body, code, reason, fields) in [
        (
            "GET /v1/clients/a:resolve?query.when=1&x=2",
            "",
            "",
            400,
            reason::REQUEST_INVALID,
            &["query.when", "x"][..],
        ),
        (
            "GET /v1/clients/a:resolve?x=2",
            "grpc-timeout: soon\r\n",
            "",
            400,
            reason::REQUEST_INVALID,
            &["x", "grpc-timeout"],
        ),
        (
            "GET /v1/clients/a:resolve",
            "grpc-timeout: soon\r\n",
            "",
            400,
            reason::REQUEST_INVALID,
            &["grpc-timeout"],
        ),
        ("GET /v1/clients/a:resolve", "", "{}", 400, reason::REQUEST_INVALID, &["body"]),
        ("POST /v1/clients:resolve", json, "{\"a\":1}", 400, reason::REQUEST_INVALID, &["a"]),
        ("POST /v1/clients:resolve", "content-type: text/plain\r\n", "{}", 415, reason::BODY_NOT_JSON, &[]),
        ("POST /v1/clients:resolve", "content-encoding: gzip\r\n", "{}", 415, reason::BODY_NOT_JSON, &[]),
        ("POST /v1/clients:resolve", json, &large, 413, reason::BODY_TOO_LARGE, &[]),
        (&long, "", "", 414, reason::TARGET_TOO_LONG, &[]),
        ("GET /v1/clients:resolve", "", "", 405, reason::HTTP_METHOD_UNKNOWN, &[]),
        ("GET /v1/nothing", "", "", 404, reason::PATH_UNKNOWN, &[]),
        ("GET /v1/teams/t/lots", "", "", 404, reason::PATH_UNKNOWN, &[]),
        ("POST /drawdown.entitlement.v1.ResolutionService/Resolve", "", "", 404, reason::PATH_UNKNOWN, &[]),
    ] {
        let heard = ask(&running, line, headers, body).await;
        assert_eq!((heard.code, heard.reason().as_str()), (code, reason), "{line} {}", heard.body);
        assert_eq!(heard.violations(), fields, "{line}");
    }
    let heard = get(&running, "/v1/clients:resolve").await;
    assert!(heard.head.contains("allow: post"), "{}", heard.head);
}

#[tokio::test]
async fn layers_refuse_calls_over_http_too() {
    let running = Running::with(|options| options.calls_max = Count::of(1)).await;
    let held = running.hold().await;
    for target in ["/v1/clients/any:resolve", "/v1/nothing"] {
        let heard = get(&running, target).await;
        assert_eq!((heard.code, heard.reason()), (429, reason::OVERLOADED.to_owned()), "{target}");
        assert!(heard.head.contains("retry-after: 1"), "{}", heard.head);
    }
    running.go_on.add_permits(1);
    held.await.unwrap().unwrap();
    let heard = ask(&running, "GET /v1/clients/wait:resolve", "grpc-timeout: 5m\r\n", "").await;
    assert_eq!((heard.code, heard.reason()), (504, reason::DEADLINE_EXCEEDED.to_owned()));
}

#[tokio::test]
async fn a_body_that_does_not_come_spends_the_deadline_of_its_call() {
    let running = Running::with(|_| {}).await;
    let mut stream = TcpStream::connect(running.addresses.grpc).await.unwrap();
    let request = "POST /v1/clients:resolve HTTP/1.0\r\ngrpc-timeout: 5m\r\ncontent-length: 10\r\n\r\n{";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.0 504"), "{answer}");
    assert!(answer.contains(reason::DEADLINE_EXCEEDED), "{answer}");
}

#[tokio::test]
async fn streams_are_lines_and_tell_how_they_end() {
    let running = Running::of(|server| server.add_service(NoticeServiceServer::new(Told))).await;
    let line = |position: i64| {
        let notice = json!({ "noticeId": "", "position": position.to_string(), "accountId": "", "teamId": "",
            "kind": "NOTICE_KIND_UNSPECIFIED" });
        json!({ "result": { "notices": [notice], "cursor": position.to_string() } })
    };
    let heard = get(&running, "/v1/notices:watch").await;
    assert!(heard.head.contains("content-type: application/x-ndjson"), "{}", heard.head);
    let lines: Vec<Value> = heard.body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((heard.code, lines), (200, vec![line(1), line(2)]));
    let heard = get(&running, "/v1/notices:watch?cursor=fails").await;
    let lines: Vec<Value> = heard.body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((heard.code, &lines[..2]), (200, &[line(1), line(2)][..]));
    assert_eq!((lines.len(), &lines[2]["error"]["code"]), (3, &json!(14)));
    assert_eq!(lines[2]["error"]["details"][0]["reason"], "GONE");
    let heard = get(&running, "/v1/notices:watch?cursor=refused").await;
    assert_eq!((heard.code, heard.reason().as_str()), (400, "CURSOR_EXPIRED"));
    let heard = get(&running, "/v1/notices?pageSize=1000").await;
    assert_eq!((heard.code, heard.json()["notices"].as_array().map(Vec::len)), (200, Some(1_000)));
}

#[tokio::test]
async fn the_contract_of_what_is_served_is_served() {
    let running = Running::with(|_| {}).await;
    let heard = get(&running, crate::json::OPENAPI_PATH).await;
    let document = heard.json();
    let paths: Vec<&str> = document["paths"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(heard.code, 200);
    assert_eq!(paths, ["/v1/clients/{query.clientId}:resolve", "/v1/clients:resolve"]);
}

#[tokio::test]
async fn what_a_service_reads_itself_goes_through_the_layers_as_its_method() {
    let paths = OwnPaths {
        paths: &["/v1/events"],
        stand_for: "/drawdown.entitlement.v1.ResolutionService/BatchResolve",
    };
    let own = axum::Router::new().route(
        "/v1/events",
        axum::routing::post(|| async { (axum::http::StatusCode::CONFLICT, "its own words") }),
    );
    let change = |options: &mut ServerOptions| options.calls_max = Count::of(1);
    let running = Running::start(change, |server| server.add_own(paths, own)).await;
    let heard = ask(&running, "POST /v1/events", "content-type: text/plain\r\n", "x").await;
    assert_eq!((heard.code, heard.body.as_str()), (409, "its own words"));
    assert!(!heard.head.contains("grpc-status") && heard.head.contains("x-request-id"), "{}", heard.head);
    let page = running.get("/metrics").await;
    let labels = "code=\"AlreadyExists\",rpc_method=\"BatchResolve\"";
    assert!(page.contains(labels), "{page}");
    let held = running.hold().await;
    let heard = ask(&running, "POST /v1/events", "", "x").await;
    assert_eq!((heard.code, heard.reason()), (429, reason::OVERLOADED.to_owned()));
    running.go_on.add_permits(1);
    held.await.unwrap().unwrap();
}
