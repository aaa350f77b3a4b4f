//! Limits that a linter keeps: tidy makes sure that the linter is told.
//!
//! The length of functions is counted by clippy, which knows where one ends; here it is only made sure that
//! the lint is on for every crate and that its threshold is the one agreed on.

use super::{Finding, Text};

/// File, line that has to stand in it, why.
const SETTINGS: [(&str, &str, &str); 4] = [
    ("Cargo.toml", "too_many_lines = \"warn\"", "functions have a limit"),
    (".clippy.toml", "too-many-lines-threshold = 70", "a function has at most 70 lines"),
    ("Cargo.toml", "unsafe_code = \"forbid\"", "there is no unsafe code"),
    (".ci/run", "-D warnings", "a warning fails the run"),
];

pub(super) fn check(texts: &[Text]) -> Vec<Finding> {
    let missing = |(path, setting, why): &(&str, &str, &str)| {
        let text = texts.iter().find(|text| text.path.as_os_str() == *path);
        let stands = text.is_some_and(|text| text.lines().any(|(_, line)| stands_in(line, setting)));
        (!stands)
            .then(|| Finding::new(*path, 1, format!("no `{setting}`"), format!("it stands there: {why}")))
    };
    SETTINGS.iter().filter_map(missing).collect()
}

/// As a whole line, or inside a command; `70` is not in `700`.
fn stands_in(line: &str, setting: &str) -> bool {
    line.trim() == setting || line.ends_with(&format!(" {setting}"))
}

/// Every crate takes the workspace's lints.
pub(super) fn inherited(text: &Text) -> Option<Finding> {
    let manifest = text.path.file_name().is_some_and(|name| name == "Cargo.toml");
    if !manifest || text.path.components().count() == 1 {
        return None;
    }
    let inherits = text.content.contains("[lints]\nworkspace = true");
    let right = "`[lints]` with `workspace = true`";
    (!inherits).then(|| Finding::new(&text.path, 1, "own lints", right))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_that_goes_is_missed() {
        let all = [
            Text::new("Cargo.toml", "unsafe_code = \"forbid\"\ntoo_many_lines = \"warn\"\n"),
            Text::new(".clippy.toml", "too-many-lines-threshold = 70\n"),
            Text::new(".ci/run", "step clippy cargo clippy -- -D warnings\n"),
        ];
        assert!(check(&all).is_empty());
        for left_out in 0..all.len() {
            let mut some = all.to_vec();
            some.remove(left_out);
            assert!(!check(&some).is_empty(), "{left_out}");
        }
        let higher = [Text::new(".clippy.toml", "too-many-lines-threshold = 700\n")];
        assert!(check(&higher).iter().any(|finding| finding.path.as_os_str() == ".clippy.toml"));
    }

    #[test]
    fn every_crate_takes_the_lints_of_the_workspace() {
        let cases = [
            ("crates/a/Cargo.toml", "[lints]\nworkspace = true\n", false),
            ("crates/a/Cargo.toml", "[lints.clippy]\nall = \"allow\"\n", true),
            ("Cargo.toml", "[workspace]\n", false),
        ];
        for (path, content, expected) in cases {
            assert_eq!(inherited(&Text::new(path, content)).is_some(), expected, "{path}: {content}");
        }
    }
}
