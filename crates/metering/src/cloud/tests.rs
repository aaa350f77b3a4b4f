use serde_json::json;

use super::*;

fn event(change: &Value) -> Json {
    let mut event = json!({
        "specversion": "1.0", "id": "1", "source": "/eu", "type": "web.byte", "subject": "app",
        "time": "2026-03-01T12:00:00+01:00", "data": { "quantity": 7 },
    });
    for (name, value) in change.as_object().unwrap() {
        event[name] = value.clone();
    }
    Json { value: event, twice: Vec::new() }
}

/// What is wrong with an event, as `field why`.
fn flaws(change: &Value) -> Vec<String> {
    let flaws = of_json(&event(change)).unwrap_err();
    assert_eq!(flaws.reason, "EVENT_INVALID");
    flaws.fields.iter().map(ToString::to_string).collect()
}

#[test]
fn an_event_says_all_of_a_usage() {
    let data = json!({ "quantity": 9, "outcome": "failed", "dimensions": { "region": "eu" } });
    let read = of_json(&event(&json!({ "data": data, "traceparent": "00-1" }))).unwrap();
    assert_eq!((read.name.source.as_str(), read.name.id.as_str(), read.quantity), ("/eu", "1", 9));
    assert_eq!((read.series.client_id().as_str(), read.series.meter().as_str()), ("app", "web.byte"));
    assert_eq!(read.series.dimensions().len(), 1);
    assert_eq!(read.time.unwrap().to_string(), "2026-03-01T11:00:00Z");
    // Without data it is one unit that succeeded, received when it happened.
    let bare = of_json(&event(&json!({ "data": null, "time": null }))).unwrap();
    assert_eq!((bare.quantity, bare.time), (1, None));
}

#[test]
fn an_event_is_the_same_one_in_every_mode() {
    let structured = of_json(&event(&json!({ "data": { "quantity": 7 }, "traceparent": "x" }))).unwrap();
    let attributes = Attributes {
        spec_version: "1.0",
        source: "/eu",
        id: "1",
        kind: "web.byte",
        subject: "app",
        time: Time::Text("2026-03-01T11:00:00Z"),
        content_type: "application/json; charset=utf-8",
    };
    let binary = event_of(&attributes, Data::Bytes(br#"{ "quantity": 7 }"#), Vec::new()).unwrap();
    let text = |text: &str| drawdown_proto::io::cloudevents::v1::cloud_event::CloudEventAttributeValue {
        attr: Some(Attr::CeString(text.to_owned())),
    };
    let message = CloudEvent {
        id: "1".to_owned(),
        source: "/eu".to_owned(),
        spec_version: "1.0".to_owned(),
        r#type: "web.byte".to_owned(),
        attributes: [("subject", text("app")), ("time", text("2026-03-01T11:00:00Z"))]
            .map(|(name, value)| (name.to_owned(), value))
            .into(),
        data: Some(WireData::TextData(r#"{"quantity":7}"#.to_owned())),
    };
    let message = of_message(&message).unwrap();
    assert_eq!((structured.content, &structured.name), (binary.content, &binary.name));
    assert_eq!((structured.content, &structured.name), (message.content, &message.name));
}

#[test]
fn quantities_are_whole_numbers_of_the_event_and_nothing_else() {
    for (quantity, shown) in [
        (json!(1.5), "1.5"),
        (json!(7.0), "7.0"),
        (json!(-1), "-1"),
        (json!("7"), "\"7\""),
        (json!(null), "null"),
        (json!([7]), "an array"),
        (serde_json::from_str("1e3").unwrap(), "1000.0"),
    ] {
        let wanted = format!("data.quantity is {shown}, must be a whole number, not below 0");
        assert_eq!(flaws(&json!({ "data": { "quantity": quantity } })), [wanted]);
    }
    // How a number too large for 64 bits is written is the library's choice.
    let beyond: serde_json::Value = serde_json::from_str("18446744073709551616").unwrap();
    let wanted = format!("data.quantity is {beyond}, must be a whole number, not below 0");
    assert_eq!(flaws(&json!({ "data": { "quantity": beyond } })), [wanted]);
    let most = of_json(&event(&json!({ "data": { "quantity": 1_u64 << 48 } }))).unwrap();
    assert_eq!(most.quantity, 1 << 48);
    assert_eq!(flaws(&json!({ "data": { "quantity": u64::MAX } })).len(), 1);
    assert!(parse(b"{\"quantity\": NaN}", &mut Vec::new()).is_none());
}

#[test]
fn what_is_not_known_or_not_json_is_refused_by_name() {
    let known = "is not known; known are quantity, outcome, dimensions, hold_id";
    assert_eq!(flaws(&json!({ "data": { "quantiy": 5 } })), [format!("data.quantiy {known}")]);
    assert_eq!(flaws(&json!({ "data": [1] })), ["data is an array, must be an object"]);
    assert_eq!(
        flaws(&json!({ "data": { "outcome": "lost", "dimensions": { "region": 1 }, "hold_id": 3 } })),
        [
            "data.outcome is \"lost\", must be \"succeeded\" or \"failed\"",
            "data.hold_id is a number, must be a string",
            "data.dimensions.region is a number, must be a string",
        ]
    );
    assert_eq!(
        flaws(&json!({ "data": { "dimensions": "eu" } })),
        ["data.dimensions is a string, must be an object"]
    );
    assert_eq!(
        flaws(&json!({ "datacontenttype": "application/xml" })),
        ["datacontenttype is \"application/xml\", must be application/json"]
    );
    assert_eq!(
        flaws(&json!({ "data_base64": "e30=" })),
        ["data data_base64 is not taken: send JSON in data"]
    );
}

#[test]
fn missing_and_wrong_attributes_are_named_at_once() {
    let none = of_json(&Json { value: json!({}), ..Json::default() }).unwrap_err();
    let fields: Vec<_> = none.fields.iter().map(|flaw| flaw.field.as_str()).collect();
    assert_eq!(fields, ["specversion", "source", "id", "subject", "type"]);
    assert_eq!(flaws(&json!({ "specversion": "0.3" })), ["specversion is \"0.3\", must be \"1.0\""]);
    assert_eq!(flaws(&json!({ "id": 7 })), ["id is a number, must be a string", "id is empty"]);
    assert_eq!(flaws(&json!({ "time": "yesterday" })).len(), 1);
    assert!(of_json(&Json { value: json!([]), ..Json::default() }).is_err());
}

#[test]
fn json_that_is_too_deep_is_refused() {
    let mut flaws = Vec::new();
    let deep = ["[".repeat(100_000), "]".repeat(100_000)].concat();
    assert!(parse(deep.as_bytes(), &mut flaws).is_none());
    assert!(flaws[0].description.contains("recursion limit"), "{flaws:?}");
    assert!(parse(b"\"\xff\"", &mut flaws).is_none());
}

#[test]
fn a_member_that_comes_twice_is_refused_in_every_mode() {
    let text = r#"{"specversion": "1.0", "id": "1", "source": "/eu", "type": "web.byte", "subject": "app",
        "id": "2", "data": {"quantity": 1, "quantity": 1}}"#;
    let structured: Json = serde_json::from_str(text).unwrap();
    let flaws = |flaws: Flaws| flaws.fields.iter().map(ToString::to_string).collect::<Vec<_>>();
    let twice = ["id is there twice", "data.quantity is there twice"];
    let mut found = flaws(of_json(&structured).unwrap_err());
    found.sort_by_key(|flaw| flaw.starts_with("data"));
    assert_eq!(found, twice);
    let data = WireData::TextData(r#"{"quantity":1,"quantity":2}"#.to_owned());
    let message = CloudEvent { data: Some(data), ..CloudEvent::default() };
    assert!(flaws(of_message(&message).unwrap_err()).iter().any(|flaw| flaw == twice[1]));
}
