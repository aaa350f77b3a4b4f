use serde::Deserialize;

use super::*;

const DEFAULTS: &str = "
name = \"a\"
limit = 10
[server]
listen = \"127.0.0.1:7401\"
drain_ms = 500
";

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    name: String,
    limit: Count,
    server: Inner,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Inner {
    listen: ListenAddress,
    drain_ms: Millis,
}

fn check(file: &str, environment: &[(&str, &str)]) -> Result<Section, Vec<String>> {
    let directory = std::env::temp_dir();
    let path = directory.join(format!("drawdown-config-{}.toml", uuid::Uuid::now_v7()));
    std::fs::write(&path, file).unwrap();
    let variables = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let loaded = Sources::new(Some(&path), variables).and_then(|sources| load(DEFAULTS, &sources, "ledger"));
    std::fs::remove_file(&path).unwrap();
    let name = path.display().to_string();
    loaded.map_err(|error| error.problems().iter().map(|p| p.to_string().replace(&name, "FILE")).collect())
}

#[test]
fn file_and_environment_lie_over_the_defaults() {
    let loaded = check(
        "[ledger]\nname = \"b\"\n[ledger.server]\nlisten = \"[::1]:1\"\n[metering]\nother = 1",
        &[("DRAWDOWN_LEDGER__SERVER__DRAIN_MS", "7"), ("DRAWDOWN_TEST", "1"), ("DRAWDOWN_METERING__X", "1")],
    );
    let server = Inner { listen: "[::1]:1".to_owned().try_into().unwrap(), drain_ms: Millis::from_millis(7) };
    assert_eq!(loaded, Ok(Section { name: "b".to_owned(), limit: Count::of(10), server }));
}

#[test]
fn text_from_the_environment_stays_text() {
    for text in
        ["007", "1e9", "5", "-1", "true", "0x1f", "a=b", "12345678901234567890123456789012345678901234567890"]
    {
        let loaded = check("", &[("DRAWDOWN_LEDGER__NAME", text)]);
        assert_eq!(loaded.map(|section| section.name), Ok(text.to_owned()));
    }
}

#[test]
fn what_is_set_lies_over_everything() {
    let variables = [("DRAWDOWN_LEDGER__SERVER__DRAIN_MS".to_owned(), "7".to_owned())];
    let sources = Sources::new(None, variables).unwrap();
    assert!(sources.has("ledger", "server.drain_ms") && !sources.has("ledger", "server.listen"));
    let sources = sources.with("ledger", "server.drain_ms", "9");
    let loaded: Section = load(DEFAULTS, &sources, "ledger").unwrap();
    assert_eq!(loaded.server.drain_ms, Millis::from_millis(9));
}

#[test]
fn every_problem_is_told_at_once() {
    let problems = check(
        "[ledger]\nlimit = 0\nnmae = \"b\"\n[ledger.server]\nlisten = \"here\"",
        &[("DRAWDOWN_LEDGER__SERVER__DRAIN_MS", "soon"), ("DRAWDOWN_LEDGER__SERVER__X__Y", "1")],
    )
    .unwrap_err();
    insta::assert_snapshot!(problems.join("\n"), @r#"
    ledger.limit: 0 is not a whole number from 1 on
    ledger.nmae: is no known setting; known here: name, limit, server
    ledger.server.drain_ms: invalid type: found string "soon", expected u64
    ledger.server.listen: "here" is not an address and port such as 127.0.0.1:7401
    ledger.server.x: is no known setting; known here: listen, drain_ms
    "#);
}

#[test]
fn a_value_in_place_of_a_section_is_told() {
    insta::assert_snapshot!(check("ledger = 1", &[]).unwrap_err().join("\n"), @"ledger: has to be a section: [ledger]");
    insta::assert_snapshot!(check("[ledger]\nserver = 1", &[]).unwrap_err().join("\n"), @"ledger.server: has to be a section, not signed int `1`");
}

#[test]
fn a_broken_file_is_told() {
    insta::assert_snapshot!(check("[ledger\n", &[]).unwrap_err().join("\n"), @"FILE: TOML parse error at line 1, column 8: expected `.`, `]`");
    let missing = Sources::new(Some(std::path::Path::new("/nowhere/drawdown.toml")), []).unwrap_err();
    insta::assert_snapshot!(missing.problems()[0], @"can not read /nowhere/drawdown.toml: No such file or directory (os error 2)");
}

#[test]
fn unknown_sections_are_told() {
    let path = std::env::temp_dir().join(format!("drawdown-config-{}.toml", uuid::Uuid::now_v7()));
    std::fs::write(&path, "[ledger]\n[leger]\n").unwrap();
    let sources = Sources::new(Some(&path), []).unwrap();
    std::fs::remove_file(&path).unwrap();
    let unknown: Vec<String> =
        sources.unknown_sections(&["ledger"]).iter().map(ToString::to_string).collect();
    assert_eq!(unknown, ["leger: is no known section; known: ledger"]);
}

#[test]
fn checked_values_refuse_what_does_not_fit() {
    assert!(Millis::try_from(0).is_err() && Millis::try_from(u64::MAX).is_err());
    assert!(Count::try_from(0).is_err());
    for url in ["", "localhost:1", "/path", "http://"] {
        assert!(Url::try_from(url.to_owned()).is_err(), "{url}");
    }
    assert!(Url::try_from("redis://127.0.0.1:6379/0".to_owned()).is_ok());
}
