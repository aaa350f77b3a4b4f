//! Which crate may depend on which: the table of `crates/ARCHITECTURE.md`.

use std::path::{Path, PathBuf};

use cargo_metadata::{DependencyKind, Metadata};

use super::Finding;

/// What a crate's own code may depend on.
const EDGES: [(&str, &[&str]); 17] = [
    ("types", &[]),
    ("metering-core", &["types"]),
    ("ledger-core", &["types"]),
    ("entitlement-core", &["types"]),
    ("proto", &["types"]),
    ("tls", &["types"]),
    ("service", &["types", "proto", "tls"]),
    ("client", &["types", "proto", "metering-core", "tls"]),
    ("metering", &["metering-core", "types", "proto", "service", "client"]),
    ("ledger", &["ledger-core", "types", "proto", "service", "client"]),
    ("entitlement", &["entitlement-core", "types", "proto", "service", "client"]),
    ("agent", &["types", "client", "service"]),
    ("sandbox", &[]),
    ("ledger-model", &[]),
    ("testkit", &["sandbox", "types"]),
    ("xtask", &["sandbox"]),
    (
        "drawdown",
        &[
            "types",
            "proto",
            "tls",
            "service",
            "client",
            "agent",
            "metering",
            "ledger",
            "entitlement",
            "sandbox",
        ],
    ),
];
/// What tests of a crate may name besides; `testkit` is open to all of them.
const TEST_EDGES: [(&str, &[&str]); 3] =
    [("metering-core", &["proto"]), ("ledger-core", &["ledger-model"]), ("ledger", &["ledger-model"])];
/// Joins everything: the harness, the demo, the benches and the drills.
const TESTS: &str = "tests";
/// Rules stay pure: no runtime, no wire, no database.
const PURE: [&str; 5] = ["types", "metering-core", "ledger-core", "ledger-model", "entitlement-core"];
const IMPURE: [&str; 4] = ["tokio", "tonic", "sqlx", "redis"];

/// A crate of the workspace, without the prefix of its package.
#[derive(Debug)]
pub(super) struct Member {
    name: String,
    manifest: PathBuf,
    depends: Vec<(String, DependencyKind)>,
}

pub(super) fn members(metadata: &Metadata) -> Vec<Member> {
    let root = metadata.workspace_root.as_std_path();
    let packages = metadata.workspace_packages();
    let member = |package: &&cargo_metadata::Package| {
        let manifest = package.manifest_path.as_std_path();
        Member {
            name: short(&package.name),
            manifest: manifest.strip_prefix(root).unwrap_or(manifest).to_path_buf(),
            depends: package.dependencies.iter().map(|on| (short(&on.name), on.kind)).collect(),
        }
    };
    packages.iter().map(member).collect()
}

fn short(name: &str) -> String {
    name.strip_prefix("drawdown-").unwrap_or(name).to_owned()
}

pub(super) fn check(members: &[Member]) -> Vec<Finding> {
    members.iter().flat_map(|member| check_one(member, members)).collect()
}

fn check_one(member: &Member, members: &[Member]) -> Vec<Finding> {
    let line = |on: &str| line_of(&member.manifest, on);
    if member.name == TESTS {
        return Vec::new();
    }
    let Some(allowed) = of(&EDGES, &member.name) else {
        let what = format!("the crate {} has no row in the table of edges", member.name);
        return vec![Finding::new(&member.manifest, 1, what, "a row there and in crates/ARCHITECTURE.md")];
    };
    let mut findings = Vec::new();
    for (on, kind) in &member.depends {
        if PURE.contains(&&*member.name) && IMPURE.contains(&&**on) {
            let what = format!("{} names {on}", member.name);
            findings.push(Finding::new(&member.manifest, line(on), what, "pure rules, called by a service"));
        }
        if !members.iter().any(|other| other.name == *on) {
            continue;
        }
        let in_tests = *kind == DependencyKind::Development
            && (on == "testkit" || of(&TEST_EDGES, &member.name).is_some_and(|more| more.contains(&&**on)));
        if !allowed.contains(&&**on) && !in_tests {
            let right = format!(
                "one of: {}",
                if allowed.is_empty() { "none".to_owned() } else { allowed.join(", ") }
            );
            let what = format!("{} depends on {on} ({kind})", member.name);
            findings.push(Finding::new(&member.manifest, line(on), what, right));
        }
    }
    findings
}

fn of<'a>(table: &[(&str, &'a [&'a str])], name: &str) -> Option<&'a [&'a str]> {
    table.iter().find(|(crate_name, _)| *crate_name == name).map(|(_, allowed)| *allowed)
}

/// Where the manifest names the dependency; its first line where it cannot be read.
fn line_of(manifest: &Path, on: &str) -> usize {
    let content = std::fs::read_to_string(manifest).unwrap_or_default();
    let names = |line: &str| {
        let name = line.split(['.', '=', ' ']).next().unwrap_or_default();
        name == on || name.strip_prefix("drawdown-") == Some(on)
    };
    content.lines().position(names).map_or(1, |index| index + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(name: &str, depends: &[(&str, DependencyKind)]) -> Vec<Finding> {
        let member = |name: &str, depends: &[(&str, DependencyKind)]| Member {
            name: name.to_owned(),
            manifest: format!("nowhere/{name}/Cargo.toml").into(),
            depends: depends.iter().map(|(on, kind)| ((*on).to_owned(), *kind)).collect(),
        };
        let mut members: Vec<Member> =
            EDGES.iter().filter(|(other, _)| *other != name).map(|(name, _)| member(name, &[])).collect();
        members.push(member(name, depends));
        check(&members)
    }

    #[test]
    fn edges() {
        use DependencyKind::{Development, Normal};
        type Edge = (&'static str, DependencyKind);
        let cases: [(&str, &[Edge], usize); 12] = [
            ("ledger", &[("ledger-core", Normal), ("client", Normal), ("tokio", Normal)], 0),
            ("ledger", &[("testkit", Development)], 0),
            ("ledger", &[("testkit", Normal)], 1),
            ("ledger", &[("entitlement", Normal)], 1),
            ("ledger", &[("metering", Development)], 1),
            ("metering-core", &[("proto", Development)], 0),
            ("metering-core", &[("proto", Normal)], 1),
            ("ledger-core", &[("tokio", Normal)], 1),
            ("ledger-core", &[("sqlx", Development)], 1),
            ("types", &[("serde", Normal)], 0),
            ("console", &[], 1),
            ("tests", &[("testkit", Normal), ("ledger", Normal)], 0),
        ];
        for (name, depends, expected) in cases {
            let found = findings(name, depends);
            assert_eq!(found.len(), expected, "{name} {depends:?}: {found:?}");
        }
    }

    #[test]
    fn the_table_names_only_crates_that_have_a_row() {
        for (name, allowed) in EDGES.iter().chain(&TEST_EDGES) {
            for on in *allowed {
                assert!(of(&EDGES, on).is_some(), "{name} may depend on {on}, which has no row");
            }
        }
    }
}
