//! Released migrations never change: a server that has run one would differ from one that runs it now.
//!
//! `crates/X/migrations/CHECKSUMS` holds one line `<sha256>  <file>` for each released migration, as sha256sum
//! writes it; a migration without a line is not released yet and may still change.

use std::{collections::BTreeMap, path::Path};

use sha2::{Digest as _, Sha256};

use super::{Finding, Text};

pub(super) fn check(texts: &[Text]) -> Vec<Finding> {
    let by_path: BTreeMap<&Path, &Text> = texts.iter().map(|text| (text.path.as_path(), text)).collect();
    let mut findings = Vec::new();
    for list in texts.iter().filter(|text| text.path.ends_with("migrations/CHECKSUMS")) {
        for (line, content) in list.lines().filter(|(_, content)| !content.is_empty()) {
            let Some((sum, name)) = content.split_once("  ") else {
                findings.push(Finding::new(&list.path, line, "not a checksum", "<sha256>  <file>"));
                continue;
            };
            match by_path.get(list.path.with_file_name(name).as_path()) {
                None => {
                    let what = format!("{name} was released and is gone");
                    findings.push(Finding::new(&list.path, line, what, "the file as it was"));
                }
                Some(migration) if sha256(&migration.content) != sum => {
                    let what = "changed after its release";
                    findings.push(Finding::new(
                        &migration.path,
                        1,
                        what,
                        "the file as it was, and a new migration",
                    ));
                }
                Some(_) => {}
            }
        }
    }
    findings
}

fn sha256(content: &str) -> String {
    Sha256::digest(content.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn released_migrations() {
        let sum = sha256("create table a ();\n");
        let listed = format!("{sum}  0001_a.sql\n");
        let list = |content: &str| Text::new("crates/a/migrations/CHECKSUMS", content);
        let first = |content: &str| Text::new("crates/a/migrations/0001_a.sql", content);
        let cases = [
            (vec![list(&listed), first("create table a ();\n")], 0),
            (vec![first("whatever\n")], 0),
            (vec![list(&listed), first("create table b ();\n")], 1),
            (vec![list(&listed)], 1),
            (vec![list("0001_a.sql\n"), first("")], 1),
        ];
        for (texts, expected) in cases {
            assert_eq!(check(&texts).len(), expected, "{texts:?}");
        }
    }

    #[test]
    fn sums_are_those_of_sha256sum() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(sha256(""), empty);
    }
}
