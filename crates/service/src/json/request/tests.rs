use http::Method;
use prost_reflect::SerializeOptions;
use serde_json::Value as Json;

use super::*;
use crate::json::{
    binding::{Bindings, Found},
    contracts,
};

/// The request that a call becomes, as JSON, or the violations as `field: description`.
fn read(method: &Method, target: &str, body: &str) -> Result<Json, Vec<String>> {
    let pool = contracts();
    let names: Vec<String> = pool.services().map(|service| service.full_name().to_owned()).collect();
    let all = Bindings::of(&pool, &names.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let Found::Binding(place, captures) = all.find(method, path) else { panic!("{path} is no path") };
    let given = Given { captures, query: query.to_owned() };
    match message(all.get(place).unwrap(), given, body.as_bytes()) {
        Ok(message) => {
            let options = SerializeOptions::new();
            Ok(message.serialize_with_options(serde_json::value::Serializer, &options).unwrap())
        }
        Err(refusal) => {
            assert_eq!(refusal.reason, reason::REQUEST_INVALID);
            let told = |violation: crate::refusal::Violation| {
                format!("{}: {}", violation.field, violation.description)
            };
            Err(refusal.violations.into_iter().map(told).collect())
        }
    }
}

#[test]
fn urls_become_messages() {
    for (target, expected) in [
        ("/v1/meters", json!({})),
        ("/v1/meters?", json!({})),
        ("/v1/meters?pageSize=5&pageToken=", json!({ "pageSize": 5 })),
        ("/v1/meters?page_size=5", json!({ "pageSize": 5 })),
        (
            "/v1/teams/t/lots?at=2026-03-01T01%3A00%3A00%2B01:00&accountId=a",
            json!({ "teamId": "t", "at": "2026-03-01T00:00:00Z", "accountId": "a" }),
        ),
        (
            "/v1/teams/t/balance?asOf.recorded=2026-03-01T00:00:00.000001Z",
            json!({ "teamId": "t", "asOf": { "recorded": "2026-03-01T00:00:00.000001Z" } }),
        ),
        (
            "/v1/accounts/a/usage?groupBy=USAGE_KEY_DAY&groupBy=3&groupByDimensions=region&filter.meters=x&filter.meters=y+z",
            json!({
                "accountId": "a", "groupBy": ["USAGE_KEY_DAY", "USAGE_KEY_CLIENT_ID"], "groupByDimensions": ["region"],
                "filter": { "meters": ["x", "y z"] },
            }),
        ),
        (
            "/v1/teams/t/charges?filter.dimensions[region]=eu&filter.dimensions%5Ba.b%5D=%C3%A9%26&filter.outcome=CHARGE_OUTCOME_FAILED",
            json!({
                "teamId": "t",
                "filter": { "dimensions": { "region": "eu", "a.b": "é&" }, "outcome": "CHARGE_OUTCOME_FAILED" },
            }),
        ),
        (
            "/v1/teams/t/journal?afterSeq=9223372036854775807",
            json!({ "teamId": "t", "afterSeq": "9223372036854775807" }),
        ),
        (
            "/v1/accounts/a/teams/t/forecast?microsPerDay=0",
            json!({ "accountId": "a", "teamId": "t", "microsPerDay": "0" }),
        ),
        (
            "/v1/clients/c:resolve?query.at=2026-03-01T00:00:00Z",
            json!({ "query": { "clientId": "c", "at": "2026-03-01T00:00:00Z" } }),
        ),
        ("/v1/roles?withEnded=true&teamId=t", json!({ "withEnded": true, "teamId": "t" })),
    ] {
        assert_eq!(read(&Method::GET, target, ""), Ok(expected), "{target}");
    }
}

#[test]
fn everything_that_is_wrong_is_told_by_its_name() {
    for (target, expected) in [
        ("/v1/meters?limit=5", vec!["limit: \"limit\" is no parameter of GET /v1/meters"]),
        ("/v1/meters?pageSize=-1", vec!["pageSize: \"-1\" is not a whole number from 0 on, of 32 bits"]),
        (
            "/v1/meters?pageSize=4294967296&pageToken=a&pageToken=b",
            vec![
                "pageSize: \"4294967296\" is not a whole number from 0 on, of 32 bits",
                "pageToken: is given 2 times; once is right",
            ],
        ),
        (
            "/v1/teams/t/lots?at=yesterday",
            vec!["at: \"yesterday\" is not an instant such as 2026-03-01T00:00:00Z"],
        ),
        ("/v1/teams/t/lots?at.seconds=5", vec!["at.seconds: has fields of its own"]),
        ("/v1/teams/t/lots?teamId=u", vec!["teamId: is in the path already"]),
        ("/v1/teams/%FF/lots", vec!["teamId: is no UTF-8 when percent-decoded"]),
        ("/v1/meters?pageToken=%FF", vec!["pageToken: is no UTF-8 when percent-decoded"]),
        ("/v1/teams/t/charges?filter=x", vec!["filter: has fields of its own, such as filter.appIds"]),
        (
            "/v1/teams/t/charges?filter.dimensions=eu",
            vec!["filter.dimensions: is given by key, as in filter.dimensions[KEY]=VALUE"],
        ),
        ("/v1/teams/t/charges?filter.meters[a]=eu", vec!["filter.meters[a]: has no values by key"]),
        ("/v1/teams/t/charges?filter.dimensions[a=eu", vec!["filter.dimensions[a: has no ] at its end"]),
        (
            "/v1/teams/t/charges?filter.nothing.inside=eu",
            vec!["filter.nothing.inside: \"nothing\" is no parameter of GET /v1/teams/{teamId}/charges"],
        ),
        ("/v1/roles?withEnded=yes", vec!["withEnded: \"yes\" is not true or false"]),
        (
            "/v1/live-usage?dimensions=x",
            vec!["dimensions: can not be given in a URL; use POST, where this path takes it"],
        ),
    ] {
        let violations = read(&Method::GET, target, "").unwrap_err();
        let expected: Vec<String> = expected.into_iter().map(str::to_owned).collect();
        if expected == ["at.seconds: has fields of its own"] {
            assert_eq!(violations.len(), 1, "{violations:?}");
            continue;
        }
        assert_eq!(violations, expected, "{target}");
    }
    let unknown = read(&Method::GET, "/v1/accounts/a/usage?groupBy=DAY", "").unwrap_err();
    assert!(unknown[0].starts_with("groupBy: \"DAY\" is not one of USAGE_KEY_UNSPECIFIED, "), "{unknown:?}");
    let with_body = read(&Method::GET, "/v1/meters", "{}").unwrap_err();
    assert_eq!(with_body, ["body: a GET of this path has no body"]);
}

#[test]
fn bodies_become_messages() {
    let body = r#"{"queries":[{"clientId":"a","at":"2026-03-01T00:00:00Z"},{"client_id":"b"}]}"#;
    let expected =
        json!({ "queries": [{ "clientId": "a", "at": "2026-03-01T00:00:00Z" }, { "clientId": "b" }] });
    assert_eq!(read(&Method::POST, "/v1/clients:resolve", body), Ok(expected));
    assert_eq!(read(&Method::POST, "/v1/clients:resolve", ""), Ok(json!({})));
    for (target, body, field) in [
        ("/v1/clients:resolve", r#"{"queries":[{"clientId":"a"},{"clientId":7}]}"#, "queries[1].clientId"),
        ("/v1/clients:resolve", r#"{"queries":[{"at":"soon"}]}"#, "queries[0].at"),
        ("/v1/clients:resolve", r#"{"queries":[{"who":"a"}]}"#, "queries[0].who"),
        ("/v1/clients:resolve", "{\"a\":1,\"queries\":[]}", "a"),
        (
            "/v1/months:price",
            r#"{"draft":{"prices":[{"tiers":[{"above":"1","to":"2"}]}]}}"#,
            "draft.prices[0].tiers[0].to",
        ),
        ("/v1/clients:resolve", "{", "body"),
        ("/v1/clients:resolve", "{} {}", "body"),
        ("/v1/clients:resolve", "[]", "body"),
        ("/v1/clients:resolve?queries=a", "{}", "queries"),
    ] {
        let violations = read(&Method::POST, target, body).unwrap_err();
        assert!(violations[0].starts_with(&format!("{field}: ")), "{body}: {violations:?}");
    }
}
