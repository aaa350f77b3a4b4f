use std::collections::BTreeSet;

use super::*;
use crate::json::contracts;

fn all() -> Bindings {
    let pool = contracts();
    let names: Vec<String> = pool.services().map(|service| service.full_name().to_owned()).collect();
    Bindings::of(&pool, &names.iter().map(String::as_str).collect::<Vec<_>>()).unwrap()
}

/// What a path leads to: the method, and what was captured, as `name=value`.
fn found(http_method: &Method, path: &str) -> String {
    let all = all();
    match all.find(http_method, path) {
        Found::Binding(place, captures) => {
            let captured: Vec<String> = captures
                .into_iter()
                .map(|(path, value)| {
                    format!("{}={}", path.name, value.unwrap_or_else(|why| format!("({why})")))
                })
                .collect();
            format!("{} {}", all.get(place).unwrap().method.name(), captured.join(" ")).trim().to_owned()
        }
        Found::Methods(methods) => format!("only {methods:?}"),
        Found::Nothing => "nothing".to_owned(),
    }
}

#[test]
fn paths_lead_to_methods() {
    for (path, expected) in [
        ("/v1/teams/team_1/lots", "ListLots team_id=team_1"),
        ("/v1/teams/team_1", "GetTeam team_id=team_1"),
        ("/v1/teams/team_1/", "nothing"),
        ("/v1/teams//lots", "nothing"),
        ("/v1/teams/a%2Fb%20%C3%A9/lots", "ListLots team_id=a/b é"),
        ("/v1/teams/%FF/lots", "ListLots team_id=(is no UTF-8 when percent-decoded)"),
        ("/v1/clients/my.client:resolve", "Resolve query.client_id=my.client"),
        ("/v1/clients/a:resolve:resolve", "Resolve query.client_id=a:resolve"),
        ("/v1/clients/:resolve", "nothing"),
        ("/v1/clients/a:explain", "ExplainResolution client_id=a"),
        ("/v1/clients:resolve", "only [POST]"),
        ("/v1/teams/t/charges/chg_1:explain", "ExplainCharge team_id=t charge_id=chg_1"),
        ("/v1/accounts/a/teams/t/charges:stream", "StreamCharges account_id=a team_id=t"),
        ("/v1/live-usage:watch", "WatchLiveUsage"),
        ("/v1/nothing", "nothing"),
        ("/drawdown.ledger.v1.TokenService/ListLots", "nothing"),
        ("", "nothing"),
        ("*", "nothing"),
    ] {
        assert_eq!(found(&Method::GET, path), expected, "{path}");
    }
    assert_eq!(found(&Method::POST, "/v1/clients:resolve"), "BatchResolve");
    assert_eq!(found(&Method::POST, "/v1/live-usage"), "GetLiveUsage");
    assert_eq!(found(&Method::DELETE, "/v1/live-usage"), "only [GET, POST]");
}

#[test]
fn every_binding_is_found_by_its_own_path_whatever_service_it_is_of() {
    let all = all();
    let mut seen = BTreeSet::new();
    for (place, binding) in all.iter().enumerate() {
        let path = binding.segments.iter().map(|segment| match segment {
            Segment::Literal(text) => format!("/{text}"),
            Segment::Field(_) => "/x".to_owned(),
        });
        let verb = binding.verb.as_ref().map(|verb| format!(":{verb}")).unwrap_or_default();
        let path = path.collect::<String>() + &verb;
        let Found::Binding(got, _) = all.find(&binding.http_method, &path) else { panic!("{path}") };
        assert_eq!(got, place, "{path}");
        assert!(seen.insert((binding.http_method.clone(), path.clone())), "{path} is there twice");
    }
    assert!(seen.len() > 30, "{seen:?}");
}

#[test]
fn templates_that_can_not_be_served() {
    let input = contracts().get_message_by_name("drawdown.ledger.v1.ListLotsRequest").unwrap();
    for (template, why) in [
        ("v1/lots", "begins with /"),
        ("/v1/**", "segment \"**\""),
        ("/v1/{team_id=teams/*}/lots", "segment \"{team_id=teams\""),
        ("/v1/{nobody}/lots", "nobody is no field"),
        ("/v1/{at}/lots", "at is no text"),
        ("/v1//lots", "segment \"\""),
        ("/v1/a:b:c", "segment \"a:b\""),
    ] {
        let refused = parse(template, &input).unwrap_err();
        assert!(refused.contains(why), "{template}: {refused}");
    }
}
