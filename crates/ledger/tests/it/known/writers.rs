//! Which statements change what a post remembers: each gives the teams another revision. Read from the files themselves.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Tables of which a post remembers rows.
const REMEMBERED: [&str; 9] = [
    "balance",
    "budget",
    "budget_month",
    "budget_terms",
    "hold",
    "hold_lot",
    "journal",
    "lot",
    "usage_state",
];

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else {
            found.push(path);
        }
    }
}

/// Whether a text has a statement that changes rows of a table.
fn writes(text: &str, table: &str) -> bool {
    ["insert into", "update", "update only", "delete from", "truncate", "merge into", "copy"].iter().any(
        |verb| {
            let statement = format!("{verb} ledger.{table}");
            let ends = |end: usize| !text[end..].starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
            text.match_indices(&statement).any(|(start, _)| ends(start + statement.len()))
        },
    )
}

/// Every file with a statement that changes one of these tables, and which.
fn writers() -> BTreeSet<(String, &'static str)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    ["src", "sql", "migrations"].iter().for_each(|folder| files(&root.join(folder), &mut found));
    let mut writers = BTreeSet::new();
    for path in found {
        let text = fs::read_to_string(&path).unwrap().to_lowercase();
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let file = path.strip_prefix(root).unwrap().to_str().unwrap();
        let changed = REMEMBERED.into_iter().filter(|table| writes(&text, table));
        writers.extend(changed.map(|table| (file.to_owned(), table)));
    }
    writers
}

/// Each of these statements gives the teams whose rows it changes another revision, or goes with one that does. A new
/// one belongs here when it does so too.
#[test]
fn every_statement_that_changes_what_a_post_remembers_is_known_to_change_the_revision() {
    let known = [
        // Makes balances, without anything to remember; and locks them.
        ("migrations/0008_revisions.sql", "balance"),
        ("src/store/teams.rs", "balance"),
        // Of balances that it makes.
        ("src/store/teams.rs", "budget"),
        ("src/store/teams.rs", "budget_terms"),
        // The one place that writes what the core planned.
        ("sql/write_plan.sql", "balance"),
        ("sql/write_plan.sql", "budget_month"),
        ("sql/write_plan.sql", "journal"),
        ("sql/write_plan.sql", "lot"),
        ("sql/write_plan.sql", "usage_state"),
        // Only ever after it, in `write_in_tx`.
        ("sql/write_holds.sql", "hold"),
        ("sql/write_holds.sql", "hold_lot"),
        // With the revision in the same statement.
        ("src/store/account_budgets.rs", "balance"),
        ("src/store/account_budgets.rs", "budget"),
        ("src/store/account_budgets.rs", "budget_month"),
        ("src/store/account_budgets.rs", "budget_terms"),
        ("src/store/budgets.rs", "balance"),
        ("src/store/budgets.rs", "budget"),
        ("src/store/budgets.rs", "budget_month"),
        ("src/store/budgets.rs", "budget_terms"),
    ];
    let known = known.map(|(file, table)| (file.to_owned(), table));
    assert_eq!(writers(), BTreeSet::from(known));
}
