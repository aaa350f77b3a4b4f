//! What may stand in a file, and how long it may be.

use super::{Finding, Text};

const SOURCE_MAX_LINES: usize = 500;
const TEST_MAX_LINES: usize = 800;
/// Files that people write and read as code.
const CODE: [&str; 5] = ["lua", "py", "rs", "sh", "sql"];
/// Split, so that this file does not find itself.
const BANNED: [(&str, &str); 8] = [
    (concat!("TO", "DO"), "an issue, or the thing itself"),
    (concat!("FIX", "ME"), "an issue, or the fix"),
    (concat!("XX", "X"), "a sentence that says what is meant"),
    (concat!("HA", "CK"), "a sentence that says why it must be so"),
    (concat!("dbg", "!("), "a tracing event"),
    (concat!("todo", "!("), "the code itself"),
    (concat!("#[ign", "ore"), "a test that always runs"),
    (concat!("#[should", "_panic"), "an error that the test looks at"),
];

pub(super) fn length(text: &Text) -> Option<Finding> {
    if !CODE.contains(&text.extension()) {
        return None;
    }
    let is_test = text.path.iter().any(|part| part == "tests" || part == "tests.rs" || part == "benches");
    let most = if is_test { TEST_MAX_LINES } else { SOURCE_MAX_LINES };
    let lines = text.lines().count();
    let right = format!("at most {most}, the rest in a module with a name of its own");
    (lines > most).then(|| Finding::new(&text.path, most + 1, format!("{lines} lines"), right))
}

pub(super) fn banned(text: &Text) -> Vec<Finding> {
    let code = CODE.contains(&text.extension());
    if !code && !["proto", "toml", "yaml"].contains(&text.extension()) {
        return Vec::new();
    }
    let hits = |(number, line)| {
        BANNED
            .iter()
            .filter(move |(word, _)| contains_word(line, word))
            .map(move |(word, right)| Finding::new(&text.path, number, format!("{word} in code"), *right))
    };
    text.lines().flat_map(hits).collect()
}

/// Not as a part of a longer name: `XXXL` is a size.
fn contains_word(line: &str, word: &str) -> bool {
    let part_of_name = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        let ends_in_name = word.ends_with(part_of_name);
        let longer = before.is_some_and(part_of_name) || ends_in_name && after.is_some_and(part_of_name);
        !longer
    })
}

/// Scripts and statements are read far from the code that uses them: each says first what it is for.
pub(super) fn header(text: &Text) -> Option<Finding> {
    let comment = match text.extension() {
        "sql" | "lua" => "--",
        "py" | "sh" => "#",
        // scripts without an extension
        "" if text.content.starts_with("#!") => "#",
        _ => return None,
    };
    let mut lines = text.lines().filter(|(_, line)| !line.starts_with("#!") && !line.trim().is_empty());
    let (number, first) = lines.next().unwrap_or((1, ""));
    let says = first.strip_prefix(comment).is_some_and(|rest| rest.trim().len() > 1);
    let right = format!("a first line `{comment} …` that says what it is for");
    (!says).then(|| Finding::new(&text.path, number, "no header", right))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths() {
        let lines = |count: usize| "line\n".repeat(count);
        let cases = [
            ("crates/a/src/lib.rs", 500, false),
            ("crates/a/src/lib.rs", 501, true),
            ("crates/a/tests/it.rs", 800, false),
            ("crates/a/src/draw/tests.rs", 501, false),
            ("tests/src/lib.rs", 801, true),
            ("crates/a/lua/x.lua", 501, true),
            ("README.md", 5_000, false),
        ];
        for (path, count, expected) in cases {
            assert_eq!(length(&Text::new(path, &lines(count))).is_some(), expected, "{path} {count}");
        }
    }

    #[test]
    fn banned_words() {
        let cases = [
            (concat!("// TO", "DO: later"), 1),
            (concat!("let x = dbg", "!(y);"), 1),
            (concat!("#[ign", "ore = \"slow\"]"), 1),
            (concat!("size XX", "XL and aXX", "X"), 0),
            ("a method of todoist", 0),
        ];
        for (line, expected) in cases {
            let found = banned(&Text::new("crates/a/src/lib.rs", &format!("fine\n{line}\n")));
            assert_eq!(found.len(), expected, "{line}");
            assert!(found.iter().all(|finding| finding.line == 2));
        }
        assert!(banned(&Text::new("README.md", concat!("TO", "DO"))).is_empty());
    }

    #[test]
    fn headers() {
        let cases = [
            ("a.sql", "-- Loads the lots of a team.\nselect 1;", false),
            ("a.sql", "select 1;", true),
            ("a.lua", "#!lua name=drawdown_v1\n-- Applies frames.\n", false),
            ("a.lua", "local x = 1", true),
            ("run", "#!/usr/bin/env bash\n\n# Everything that CI runs.\nset -e", false),
            ("run", "#!/usr/bin/env bash\nset -e", true),
            ("a.sh", "", true),
            ("LICENSE", "Apache License", false),
        ];
        for (path, content, expected) in cases {
            assert_eq!(header(&Text::new(path, content)).is_some(), expected, "{path}: {content}");
        }
    }
}
