use drawdown_service::config::{Sources, load};

use super::*;

const PEPPER: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

fn read(variables: &[(&str, &str)]) -> Result<Config, Vec<Problem>> {
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let sources = Sources::new(None, variables).map_err(|error| error.problems())?;
    let options: Options = load(DEFAULTS_TOML, &sources, "entitlement").map_err(|error| error.problems())?;
    options.validate()
}

fn fields(result: Result<Config, Vec<Problem>>) -> Vec<String> {
    result.err().unwrap_or_default().into_iter().map(|problem| problem.field).collect()
}

#[test]
fn the_documented_defaults_are_the_ones_in_code() {
    let documented: Options = load(DEFAULTS_TOML, &Sources::none(), "entitlement").unwrap();
    assert_eq!(format!("{documented:?}"), format!("{:?}", Options::default()));
}

#[test]
fn a_pepper_is_all_that_has_to_be_given() {
    assert_eq!(fields(read(&[])), ["credential_pepper_file"]);
    let config = read(&[("DRAWDOWN_ENTITLEMENT__CREDENTIAL_PEPPER", PEPPER)]).unwrap();
    assert_eq!(config.rules, Rules::default());
    assert_eq!(config.server.listen.port(), 7403);
}

#[test]
fn a_pepper_in_a_file_is_read_and_two_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pepper");
    std::fs::write(&file, format!("{PEPPER}\n")).unwrap();
    let file = file.to_str().unwrap();
    let by_file = ("DRAWDOWN_ENTITLEMENT__CREDENTIAL_PEPPER_FILE", file);
    assert!(read(&[by_file]).is_ok());
    let by_value = ("DRAWDOWN_ENTITLEMENT__CREDENTIAL_PEPPER", PEPPER);
    assert_eq!(fields(read(&[by_file, by_value])), ["credential_pepper_file"]);
    let missing = ("DRAWDOWN_ENTITLEMENT__CREDENTIAL_PEPPER_FILE", "/nowhere/pepper");
    assert_eq!(fields(read(&[missing])), ["credential_pepper_file"]);
}

#[test]
fn all_problems_are_told_at_once() {
    let problems = read(&[
        ("DRAWDOWN_ENTITLEMENT__WINDOW_SECS", "7"),
        ("DRAWDOWN_ENTITLEMENT__TRIAL_SECS", "0"),
        ("DRAWDOWN_ENTITLEMENT__TRANSFER_INVITATION_SECS", "0"),
        ("DRAWDOWN_ENTITLEMENT__RESOLVE_QUERIES_MAX", "10001"),
        ("DRAWDOWN_ENTITLEMENT__PAGE_ROWS_MAX", "1001"),
        ("DRAWDOWN_ENTITLEMENT__CREDENTIAL_PEPPER", "0011"),
        ("DRAWDOWN_ENTITLEMENT__DATABASE__URL", "mysql:"),
        ("DRAWDOWN_ENTITLEMENT__LEDGER__ENDPOINT", "nowhere"),
        ("DRAWDOWN_ENTITLEMENT__CELLS", "[{number=0, ledger={endpoint=\"nowhere\"}}]"),
    ]);
    assert_eq!(
        fields(problems),
        [
            "window_secs",
            "trial_secs",
            "transfer_invitation_secs",
            "resolve_queries_max",
            "page_rows_max",
            "credential_pepper",
            "database.url",
            "ledger.endpoint",
            "cells[0].number",
            "cells[0].ledger.endpoint"
        ]
    );
}

#[test]
fn no_problem_and_no_debug_output_quotes_a_secret() {
    let digits = "7".repeat(64);
    for pepper in [PEPPER, "not-a-pepper-at-all", digits.as_str(), "1e5", "true", "12345678901234567890"] {
        let url = ("DRAWDOWN_ENTITLEMENT__DATABASE__URL", "postgres://u:hunter2@[/d");
        let told = format!("{:?}", read(&[("DRAWDOWN_ENTITLEMENT__CREDENTIAL_PEPPER", pepper), url]));
        assert!(!told.contains(pepper) && !told.contains("hunter2"), "{told}");
    }
    let options = Options { credential_pepper: PEPPER.into(), ..Options::default() };
    assert!(!format!("{options:?} {:?}", options.clone().validate()).contains(PEPPER));
}
