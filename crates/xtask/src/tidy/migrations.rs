//! Migrations that a database may have run never change: a server that has run one would differ from one that runs it
//! now.
//!
//! `crates/X/migrations/CHECKSUMS` holds one line `<sha256>  <file>` for each of them, as sha256sum writes it, in their
//! order. Those behind the last line are new and may still change; a folder of migrations without the file is a finding,
//! and so is one that was left out before the last line.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use sha2::{Digest as _, Sha256};

use super::{Finding, Text};

const RIGHT: &str = "<sha256>  <file> for each migration that a database may have run";

pub(super) fn check(texts: &[Text]) -> Vec<Finding> {
    let mut folders: BTreeMap<&Path, BTreeMap<&str, &Text>> = BTreeMap::new();
    for text in texts {
        let folder = text.path.parent().filter(|folder| folder.ends_with("migrations"));
        if let Some((folder, name)) = folder.zip(text.path.file_name().and_then(|name| name.to_str())) {
            folders.entry(folder).or_default().insert(name, text);
        }
    }
    folders.into_values().flat_map(|files| check_folder(&files)).collect()
}

fn check_folder(files: &BTreeMap<&str, &Text>) -> Vec<Finding> {
    let migrations: BTreeMap<&str, &Text> =
        files.iter().filter(|(name, _)| name.ends_with(".sql")).map(|(name, text)| (*name, *text)).collect();
    let Some(list) = files.get("CHECKSUMS") else {
        let first = migrations.values().next();
        return first
            .map(|text| Finding::new(&text.path, 1, "no CHECKSUMS beside it", RIGHT))
            .into_iter()
            .collect();
    };
    let mut findings = Vec::new();
    let mut listed = BTreeSet::new();
    for (line, content) in list.lines().filter(|(_, content)| !content.is_empty()) {
        let Some((sum, name)) = content.split_once("  ") else {
            findings.push(Finding::new(&list.path, line, "not a checksum", RIGHT));
            continue;
        };
        listed.insert(name);
        match migrations.get(name) {
            None => {
                let what = format!("{name} was run and is gone");
                findings.push(Finding::new(&list.path, line, what, "the file as it was"));
            }
            Some(migration) if sha256(&migration.content) != sum => {
                let right = "the file as it was, and a new migration";
                findings.push(Finding::new(&migration.path, 1, "changed after it was run", right));
            }
            Some(_) => {}
        }
    }
    let last = listed.last().copied().unwrap_or_default();
    let left_out = migrations.keys().filter(|name| **name < last && !listed.contains(**name));
    findings.extend(left_out.map(|name| Finding::new(&list.path, 1, format!("{name} is not in it"), RIGHT)));
    findings
}

fn sha256(content: &str) -> String {
    Sha256::digest(content.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn migrations_that_were_run() {
        let sum = sha256("create table a ();\n");
        let listed = format!("{sum}  0001_a.sql\n");
        let list = |content: &str| Text::new("crates/a/migrations/CHECKSUMS", content);
        let first = |content: &str| Text::new("crates/a/migrations/0001_a.sql", content);
        let second = Text::new("crates/a/migrations/0002_b.sql", "whatever\n");
        let third = format!("{}  0002_b.sql\n", sha256("whatever\n"));
        let cases = [
            (vec![list(&listed), first("create table a ();\n")], 0),
            (vec![list(&listed), first("create table a ();\n"), second.clone()], 0),
            (vec![list(&third), first("create table a ();\n"), second], 1),
            (vec![first("whatever\n")], 1),
            (vec![list(&listed), first("create table b ();\n")], 1),
            (vec![list(&listed)], 1),
            (vec![list("0001_a.sql\n"), first("")], 1),
            (vec![Text::new("crates/a/sql/0001_a.sql", "")], 0),
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
