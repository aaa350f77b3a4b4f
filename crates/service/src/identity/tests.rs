//! The table against the contracts, and judgements by it.

mod who;

use std::collections::{BTreeSet, HashMap};

use drawdown_types::TeamId;

use super::{names::Contracts, *};

fn rules() -> impl Iterator<Item = &'static Rule> {
    RULES.iter().copied().flatten()
}

#[test]
fn every_method_has_one_rule_and_every_rule_a_method() {
    let contracts = Contracts::load();
    let methods: BTreeSet<&str> = contracts.methods().collect();
    let ruled: BTreeSet<&str> = rules().map(|rule| rule.method).collect();
    assert_eq!(methods.difference(&ruled).collect::<Vec<_>>(), Vec::<&&str>::new(), "methods without a rule");
    assert_eq!(ruled.difference(&methods).collect::<Vec<_>>(), Vec::<&&str>::new(), "rules without a method");
    assert_eq!(rules().count(), ruled.len(), "a method has two rules");
    assert!(methods.len() > 100, "{}", methods.len());
}

#[test]
fn every_field_that_a_rule_looks_at_is_a_text_of_its_request() {
    let contracts = Contracts::load();
    for rule in rules() {
        assert!(contracts.names(rule).is_some(), "{rule:?}");
        if let Reach::Named(fields) = rule.reach {
            assert!(!fields.is_empty(), "{} is about nothing", rule.method);
            assert!(
                !contracts.takes_stream(rule.method),
                "{}: only one message can be read ahead",
                rule.method
            );
        }
    }
}

/// Fields that name something inside of what is named, a person, or what is everybody's. A new field has to be put here or
/// into the rule.
const INSIDE: &[&str] = &[
    // looked up inside of the account or team that the same request names
    "charge_id",
    "hold_id",
    "lot_id",
    "statement_id",
    // filters, which only ever narrow what the account or team has
    "filter.app_id",
    "filter.app_ids",
    "filter.charge_id",
    "filter.client_id",
    "filter.client_ids",
    "filter.lot_id",
    "subject",
    // of everybody
    "rate_card_id",
    "draft.rate_card_id",
    // people are of no account
    "by_user_id",
    "owner_user_id",
    "to_user_id",
    "user_id",
    // makes a retry harmless
    "request_id",
];

#[test]
fn no_field_that_names_something_is_overlooked() {
    let contracts = Contracts::load();
    let mut overlooked = Vec::new();
    for rule in rules() {
        let Reach::Named(fields) = rule.reach else { continue };
        let texts = contracts.texts(rule.method);
        let names = |path: &&String| path.ends_with("_id") || path.ends_with("_ids") || *path == "subject";
        for path in texts.iter().filter(names) {
            let ruled = fields.iter().any(|field| field.path == path);
            if !ruled && !INSIDE.contains(&path.as_str()) {
                overlooked.push(format!("{}: {path}", rule.method));
            }
        }
        // who acts is checked wherever a request says it
        let acts = texts.iter().any(|path| path == "by_user_id");
        assert_eq!(rule.actor.is_some(), acts, "{}", rule.method);
    }
    assert_eq!(overlooked, Vec::<String>::new());
}

#[test]
fn what_is_for_services_admits_no_role() {
    for (method, peer) in [
        ("drawdown.ledger.v1.SettlementService/PostBatch", Peer::Metering),
        ("drawdown.ledger.v1.SettlementService/GetCellPart", Peer::Metering),
        ("drawdown.ledger.v1.SettlementService/NameLost", Peer::Metering),
        ("drawdown.ledger.v1.EventService/RecordEvents", Peer::Metering),
    ] {
        let rule = rules().find(|rule| rule.method == method).unwrap();
        for other in Peer::ALL {
            let judged = rule.judge(&Caller::certified(other.name()));
            assert_eq!(judged.is_ok(), other == peer, "{method} {other:?}");
        }
        for role in Role::ALL {
            assert_eq!(rule.judge(&of(role, Scope::Platform)), Err(Denied::Role), "{method} {role}");
        }
    }
}

fn of(role: Role, scope: Scope) -> Caller {
    Caller { roles: Roles::of(&[role]), scope, ..Caller::certified("somebody") }
}

#[test]
fn an_operator_may_call_all_that_is_not_for_services_alone() {
    let operator = Caller::certified("operator");
    let refused: Vec<&str> =
        rules().filter(|rule| rule.judge(&operator).is_err()).map(|rule| rule.method).collect();
    for method in &refused {
        let rule = rules().find(|rule| rule.method == *method).unwrap();
        let Who::Some(roles, peers) = rule.who else { panic!("{method}") };
        assert!(roles.is_empty() && peers.iter().count() > 0, "{method} admits {roles:?} but no operator");
    }
}

#[test]
fn strangers_and_tenants_are_refused_what_is_not_theirs() {
    let account = Scope::Account(AccountId::generate());
    let team = Scope::Team { account_id: AccountId::generate(), team_id: TeamId::generate() };
    for rule in rules().filter(|rule| rule.who != Who::Anyone) {
        assert_eq!(rule.judge(&Caller::anonymous()), Err(Denied::Unknown), "{}", rule.method);
        let stranger = rule.judge(&Caller::certified("somebody"));
        assert_eq!(stranger.is_ok(), rule.who == Who::Known, "{}", rule.method);
        for (role, scope) in
            [(Role::ContractManager, account), (Role::TeamAdmin, team), (Role::BillingReader, account)]
        {
            let admitted = rule.judge(&of(role, scope)).is_ok();
            if rule.reach == Reach::Platform {
                assert!(!admitted, "{} {role}", rule.method);
            }
            if admitted && rule.reach != Reach::Shared {
                assert!(rule.looks_at_names(&of(role, scope)), "{} {role}", rule.method);
            }
        }
    }
}

#[test]
fn names_in_certificates_are_services_gateways_or_operators() {
    let known: HashMap<&str, (Roles, Option<Peer>)> = HashMap::from([
        ("metering", (Roles::NONE, Some(Peer::Metering))),
        ("ledger", (Roles::NONE, Some(Peer::Ledger))),
        ("entitlement", (Roles::NONE, Some(Peer::Entitlement))),
        ("agent", (Roles::of(&[Role::Gateway]), None)),
        ("operator", (Roles::of(&[Role::Operator]), None)),
        ("Operator", (Roles::NONE, None)),
        ("", (Roles::NONE, None)),
    ]);
    for (name, expected) in known {
        let caller = Caller::certified(name);
        assert_eq!((caller.roles, caller.peer), expected, "{name}");
        assert!(!caller.is_anonymous());
    }
}

#[tokio::test]
async fn who_calls_is_known_inside_of_the_call_only() {
    let account_id = AccountId::generate();
    let tenant = Arc::new(of(Role::ContractManager, Scope::Account(account_id)));
    let inside = scope(Arc::clone(&tenant), async { (current(), current_account()) }).await;
    assert_eq!(inside, (tenant, Some(account_id)));
    assert_eq!((current().proof.clone(), current_account()), (Proof::Process, None));
}
