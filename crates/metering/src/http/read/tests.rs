use axum::http::{HeaderName, HeaderValue};

use super::*;

const EVENT: &str = r#"{"specversion":"1.0","id":"1","source":"/eu","type":"web.byte","subject":"app","data":{"quantity":7}}"#;

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let pairs = pairs.iter().map(|(name, value)| {
        (name.parse::<HeaderName>().unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap())
    });
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(name, value);
    }
    headers
}

fn read(pairs: &[(&str, &str)], body: &[u8]) -> Result<Vec<Named>, Box<Problem>> {
    events(&headers(pairs), body, 3)
}

/// Status, reason and words of what is wrong with a call.
fn wrong(pairs: &[(&str, &str)], body: &[u8]) -> (u16, &'static str, String) {
    let problem = read(pairs, body).unwrap_err();
    (problem.status.as_u16(), problem.reason, problem.detail)
}

const BINARY: [(&str, &str); 6] = [
    ("content-type", "application/json"),
    ("ce-specversion", "1.0"),
    ("ce-id", "1"),
    ("ce-source", "/eu"),
    ("ce-type", "web.byte"),
    ("ce-subject", "app"),
];

#[test]
fn one_event_is_the_same_in_all_modes() {
    let batch = format!("[{EVENT},{EVENT}]");
    let structured =
        read(&[("content-type", "application/cloudevents+json; charset=utf-8")], EVENT.as_bytes());
    let batch = read(&[("content-type", "Application/CloudEvents-Batch+JSON")], batch.as_bytes());
    let binary = read(&BINARY, br#"{"quantity": 7}"#);
    let all: Vec<_> = [structured, batch, binary].into_iter().flat_map(Result::unwrap).collect();
    assert_eq!(all.len(), 4);
    let contents: Vec<_> = all.iter().map(|(_, event)| event.as_ref().unwrap().content).collect();
    assert!(contents.iter().all(|content| *content == contents[0]));
    assert!(all.iter().all(|(called, _)| (called.source.as_str(), called.id.as_str()) == ("/eu", "1")));
}

#[test]
fn headers_are_percent_decoded_and_never_guessed() {
    let with = |name: &'static str, value: &'static str| {
        let mut pairs = BINARY.to_vec();
        pairs.retain(|(known, _)| *known != name);
        pairs.push((name, value));
        read(&pairs, b"").unwrap().remove(0)
    };
    assert_eq!(with("ce-id", "%E2%82%AC%20%25").0.id, "€ %");
    for (value, why) in [
        ("%E2%82", "is not UTF-8"),
        ("%4", "has a % without two hexadecimal digits"),
        ("%zz", "has a % without two hexadecimal digits"),
    ] {
        let flaws = with("ce-id", value).1.unwrap_err();
        assert_eq!(flaws.fields[0], FieldFault::new("id", why), "{value}");
    }
    let mut twice = BINARY.to_vec();
    twice.push(("ce-id", "2"));
    let flaws = read(&twice, b"").unwrap().remove(0).1.unwrap_err();
    assert_eq!(flaws.fields[0], FieldFault::new("id", "header ce-id is there twice"));
    let mut bytes = headers(&BINARY);
    bytes.insert("ce-subject", HeaderValue::from_bytes(b"\xff").unwrap());
    let flaws = events(&bytes, b"", 3).unwrap().remove(0).1.unwrap_err();
    assert_eq!(flaws.fields[0], FieldFault::new("subject", "header ce-subject is not UTF-8"));
}

#[test]
fn a_call_that_is_wrong_as_a_whole_says_why() {
    let batch = [("content-type", BATCH)];
    let (status, reason, _) = wrong(&batch, b"[]");
    assert_eq!((status, reason), (400, "EVENTS_COUNT"));
    let four = format!("[{}]", [EVENT; 4].join(","));
    assert_eq!(wrong(&batch, four.as_bytes()).1, "EVENTS_COUNT");
    for body in [&b"{}"[..], b"", b"[", b"\xff\xfe", b"[1,]"] {
        let (status, reason, detail) = wrong(&batch, body);
        assert_eq!((status, reason), (400, "MESSAGE_MALFORMED"), "{detail}");
    }
    let deep = "[".repeat(100_000);
    assert_eq!(wrong(&batch, deep.as_bytes()).1, "MESSAGE_MALFORMED");
    for kind in ["application/json", "text/plain", "", "application/cloudevents"] {
        let (status, reason, _) = wrong(&[("content-type", kind)], EVENT.as_bytes());
        assert_eq!((status, reason), (415, "CONTENT_TYPE_UNKNOWN"), "{kind}");
    }
    let twice = [("content-type", BATCH), ("content-type", STRUCTURED)];
    assert_eq!(wrong(&twice, EVENT.as_bytes()).0, 415);
    assert_eq!(wrong(&[("content-type", BATCH_PROTO)], b"\xff\xff").1, "MESSAGE_MALFORMED");
}

#[test]
fn a_wrong_event_stands_in_its_place_beside_good_ones() {
    let body = format!("[{EVENT},7,{EVENT}]");
    let read = read(&[("content-type", BATCH)], body.as_bytes()).unwrap();
    assert_eq!(read.iter().map(|(_, event)| event.is_ok()).collect::<Vec<_>>(), [true, false, true]);
}

#[test]
fn a_caller_may_prefer_answers() {
    assert!(wants_answers(&headers(&[("prefer", "respond-async, Return=Representation")])));
    assert!(!wants_answers(&headers(&[("prefer", "return=minimal")])));
}
