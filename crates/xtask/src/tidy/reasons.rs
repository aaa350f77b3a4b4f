//! The reasons of refusals: the list in `proto/README.md` and the constants in the code are the same.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use super::{Finding, Text};

const LIST: &str = "proto/README.md";

struct Row<'a> {
    line: usize,
    reason: &'a str,
    code: &'a str,
}

pub(super) fn check(texts: &[Text]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut raised = BTreeSet::new();
    for text in texts.iter().filter(|text| is_reasons(&text.path)) {
        for (line, name, value) in constants(text) {
            if name != value {
                findings.push(Finding::new(
                    &text.path,
                    line,
                    format!("{name} says {value}"),
                    "the same word",
                ));
            }
            raised.insert((value, &text.path, line));
        }
    }
    let list = texts.iter().find(|text| text.path == Path::new(LIST));
    let rows = list.map(rows).unwrap_or_default();
    let mut listed = BTreeMap::new();
    for row in &rows {
        if let Some(before) = listed.insert(row.reason, row.code) {
            let what = format!("{} is listed twice, as {before} and as {}", row.reason, row.code);
            findings.push(Finding::new(LIST, row.line, what, "one row"));
        }
    }
    for (value, path, line) in &raised {
        if !listed.contains_key(value) {
            let what = format!("{value} is not in the list");
            findings.push(Finding::new(*path, *line, what, format!("a row in {LIST}")));
        }
    }
    let known: BTreeSet<&str> = raised.iter().map(|(value, ..)| *value).collect();
    for row in rows.iter().filter(|row| !known.contains(row.reason)) {
        let what = format!("{} is raised nowhere", row.reason);
        findings.push(Finding::new(LIST, row.line, what, "no row, or a constant in a reason.rs"));
    }
    findings
}

/// `crates/X/src/reason.rs`, or a file below `crates/X/src/reason/`.
fn is_reasons(path: &Path) -> bool {
    path.starts_with("crates")
        && path.extension().is_some_and(|extension| extension == "rs")
        && path.iter().nth(2).is_some_and(|part| part == "src")
        && path.iter().nth(3).is_some_and(|part| part == "reason.rs" || part == "reason")
}

/// `pub const NAME: &str = "VALUE";`, also over two lines, as rustfmt breaks long ones.
fn constants(text: &Text) -> Vec<(usize, &str, &str)> {
    let lines: Vec<(usize, &str)> = text.lines().collect();
    let mut found = Vec::new();
    for (index, (number, line)) in lines.iter().enumerate() {
        let Some((name, rest)) =
            line.trim_start().strip_prefix("pub const ").and_then(|rest| rest.split_once(':'))
        else {
            continue;
        };
        if !rest.trim_start().starts_with("&str =") {
            continue;
        }
        let quoted = |text: &'_ str| text.find('"');
        let value = match quoted(rest) {
            Some(_) => rest,
            None => lines.get(index + 1).map_or("", |(_, next)| next),
        };
        if let Some(value) = value.split('"').nth(1) {
            found.push((*number, name, value));
        }
    }
    found
}

/// The rows of every table whose first column is headed `reason`.
fn rows(text: &Text) -> Vec<Row<'_>> {
    let mut rows = Vec::new();
    let mut inside = false;
    for (line, content) in text.lines() {
        let Some(row) = content.trim().strip_prefix('|') else {
            inside = false;
            continue;
        };
        let mut cells = row.split('|').map(|cell| cell.trim().trim_matches('`'));
        let (reason, code) = (cells.next().unwrap_or_default(), cells.next().unwrap_or_default());
        if reason.eq_ignore_ascii_case("reason") && !inside {
            inside = true;
        } else if inside && !reason.starts_with("--") && !reason.starts_with(":--") {
            rows.push(Row { line, reason, code });
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODE: &str = "crates/a/src/reason.rs";

    fn findings(code: &str, list: &str) -> Vec<String> {
        let list = format!(
            "# Contracts\n\n| REASON | gRPC code | meaning |\n|---|---|---|\n{list}\n\n| other | x |\n"
        );
        let texts = [Text::new(CODE, code), Text::new(LIST, &list)];
        check(&texts).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn list_and_code_agree() {
        let code = "/// Why.\npub const A_B: &str = \"A_B\";\npub const LONG: &str =\n    \"LONG\";\npub const N: u8 = 1;\n";
        assert!(findings(code, "| A_B | NOT_FOUND | x |\n| `LONG` | INTERNAL | y |").is_empty());
    }

    #[test]
    fn each_way_of_drifting() {
        let cases = [
            ("pub const A: &str = \"A\";", "", "A is not in the list"),
            ("", "| A | INTERNAL | x |", "A is raised nowhere"),
            ("pub const A: &str = \"B\";", "| B | INTERNAL | x |", "A says B"),
            ("pub const A: &str = \"A\";", "| A | INTERNAL | x |\n| A | ABORTED | x |", "listed twice"),
        ];
        for (code, list, expected) in cases {
            let found = findings(code, list);
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(found[0].contains(expected), "{found:?}");
        }
    }

    #[test]
    fn one_reason_of_two_crates_is_one_row() {
        let line = "pub const A: &str = \"A\";";
        let list = "| reason | gRPC code |\n|---|---|\n| A | INTERNAL |";
        let texts = [Text::new(CODE, line), Text::new("crates/b/src/reason.rs", line), Text::new(LIST, list)];
        assert!(check(&texts).is_empty());
    }

    #[test]
    fn files_of_reasons() {
        let cases = [
            ("crates/a/src/reason.rs", true),
            ("crates/a/src/reason/lane.rs", true),
            ("crates/a/src/grpc/reason.rs", false),
            ("tests/src/reason.rs", false),
        ];
        for (path, expected) in cases {
            assert_eq!(is_reasons(Path::new(path)), expected, "{path}");
        }
    }
}
