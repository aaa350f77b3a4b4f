use std::collections::BTreeSet;

use super::*;

const PACKAGES: [&str; 3] = ["drawdown.entitlement.v1", "drawdown.ledger.v1", "drawdown.metering.v1"];

/// Every `$ref` below a value.
fn references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            if let Some(Value::String(reference)) = members.get("$ref") {
                found.insert(reference.clone());
            }
            members.values().for_each(|member| references(member, found));
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn every_read_is_described_and_every_reference_leads_somewhere() {
    let document = document(&PACKAGES).unwrap();
    let mut ids = BTreeSet::new();
    let mut described = 0;
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (http_method, operation) in operations.as_object().unwrap() {
            described += 1;
            let id = operation["operationId"].as_str().unwrap();
            assert!(ids.insert(id.to_owned()), "{id} is there twice");
            for part in ["summary", "description"] {
                assert!(!operation[part].as_str().unwrap().is_empty(), "{http_method} {path} has no {part}");
            }
            for parameter in operation["parameters"].as_array().unwrap() {
                assert_ne!(parameter["description"], "", "{http_method} {path}: {parameter}");
            }
        }
    }
    let names: Vec<String> = contracts().services().map(|service| service.full_name().to_owned()).collect();
    let reads = reads(&names.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
    assert_eq!(described, reads.len());
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    for reference in found {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some_and(Value::is_object), "{reference}");
    }
}

#[test]
fn types_are_those_of_json() {
    let document = document(&PACKAGES).unwrap();
    let schemas = &document["components"]["schemas"];
    let charge = &schemas["ledger.v1.Charge"];
    assert_eq!(charge["properties"]["amountMicros"]["type"], "string");
    assert_eq!(charge["properties"]["amountMicros"]["format"], "int64");
    assert_eq!(charge["properties"]["windowStart"]["format"], "date-time");
    assert_eq!(charge["properties"]["dimensions"]["additionalProperties"]["type"], "string");
    let required = charge["required"].as_array().unwrap();
    assert!(required.contains(&json!("openMicros")) && !required.contains(&json!("windowStart")));
    assert_eq!(schemas["ledger.v1.PriceMonthRequest"]["required"], Value::Null);
    assert_eq!(schemas["ledger.v1.PriceInput"]["required"], Value::Null);
    let state = &schemas["ledger.v1.LotState"];
    assert!(state["description"].as_str().unwrap().contains("`LOT_STATE_OPEN`: May be drawn."), "{state}");
    let usage = &document["paths"]["/v1/accounts/{accountId}/usage"]["get"]["parameters"];
    let parameter = |name: &str| {
        usage.as_array().unwrap().iter().find(|parameter| parameter["name"] == name).unwrap().clone()
    };
    assert_eq!(parameter("accountId")["in"], "path");
    assert_eq!(parameter("groupBy")["schema"]["items"]["$ref"], "#/components/schemas/ledger.v1.UsageKey");
    assert_eq!(parameter("filter.dimensions")["style"], "deepObject");
}

const LIST: &str = include_str!("../../../../../proto/README.md");
/// What a method that only reads is called by.
const READING: [&str; 14] = [
    "BatchCheck",
    "BatchResolve",
    "Check",
    "Explain",
    "Export",
    "Get",
    "Has",
    "List",
    "Price",
    "Resolve",
    "Stream",
    "Summarize",
    "Verify",
    "Watch",
];

/// The cells of the table with this head.
fn table(head: &str) -> Vec<Vec<String>> {
    let (_, rest) = LIST.split_once(head).unwrap_or_else(|| panic!("no table {head}"));
    let rows = rest.lines().skip(2).take_while(|line| line.starts_with('|'));
    rows.map(|row| {
        row.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`').to_owned()).collect()
    })
    .collect()
}

#[test]
fn the_list_of_reads_is_that_of_the_annotations_and_no_read_is_forgotten() {
    let pool = contracts();
    let names: Vec<String> = pool.services().map(|service| service.full_name().to_owned()).collect();
    let annotated = reads(&names.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
    let annotated: BTreeSet<Vec<String>> = annotated
        .into_iter()
        .map(|read| {
            vec![read.http_method, read.template, read.method.trim_start_matches("drawdown.").to_owned()]
        })
        .collect();
    let listed: BTreeSet<Vec<String>> = table("| HTTP | path | method |").into_iter().collect();
    assert_eq!(listed, annotated);
    let public: BTreeSet<String> = annotated.into_iter().filter_map(|row| row.into_iter().nth(2)).collect();
    let others = table("| method | why |").into_iter().filter_map(|row| row.into_iter().next());
    let others: BTreeSet<String> = others.collect();
    assert_eq!(public.intersection(&others).count(), 0);
    let listed: BTreeSet<String> = public.into_iter().chain(others).collect();
    let reading = pool.services().filter(|service| service.package_name().starts_with("drawdown.")).flat_map(
        |service| {
            let name = service.full_name().trim_start_matches("drawdown.").to_owned();
            let methods: Vec<String> = service.methods().map(|method| method.name().to_owned()).collect();
            methods.into_iter().map(move |method| (method.clone(), format!("{name}/{method}")))
        },
    );
    let reading = reading.filter(|(method, _)| READING.iter().any(|begin| method.starts_with(begin)));
    let reading: BTreeSet<String> = reading.map(|(_, path)| path).collect();
    assert_eq!(reading, listed, "each read has a path, or a row that says why it has none");
}
