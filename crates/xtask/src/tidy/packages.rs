//! Packages from elsewhere: their licences, and big ones that must exist once.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::Metadata;

use super::Finding;

/// Licences that Apache-2.0 software may be linked with.
const LICENCES: [&str; 14] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];
/// A second version of one of these doubles build time, or splits types and metrics in two.
const ONCE: [&str; 8] = ["axum", "hyper", "prost", "redis", "rustls", "sqlx", "tokio", "tonic"];
const ONCE_PREFIX: &str = "opentelemetry";
const LOCK: &str = "Cargo.lock";

#[derive(Debug)]
pub(super) struct Package {
    name: String,
    version: String,
    licence: Option<String>,
}

pub(super) fn external(metadata: &Metadata) -> Vec<Package> {
    let external = metadata.packages.iter().filter(|package| package.source.is_some());
    let package = |package: &cargo_metadata::Package| Package {
        name: package.name.to_string(),
        version: package.version.to_string(),
        licence: package.license.clone(),
    };
    external.map(package).collect()
}

pub(super) fn licences(packages: &[Package]) -> Vec<Finding> {
    let refused = packages.iter().filter(|package| !package.licence.as_deref().is_some_and(allowed));
    let finding = |package: &Package| {
        let licence = package.licence.as_deref().unwrap_or("no licence expression");
        let what = format!("{} {} has {licence}", package.name, package.version);
        Finding::new(LOCK, 1, what, format!("a package under one of: {}", LICENCES.join(", ")))
    };
    refused.map(finding).collect()
}

pub(super) fn duplicates(packages: &[Package]) -> Vec<Finding> {
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for package in packages {
        let name = &*package.name;
        let singular = ONCE.contains(&name) || name == ONCE_PREFIX || name.starts_with("opentelemetry-");
        if singular || name == "opentelemetry_sdk" {
            versions.entry(name).or_default().insert(&package.version);
        }
    }
    let twice = versions.into_iter().filter(|(_, versions)| versions.len() > 1);
    let finding = |(name, versions): (&str, BTreeSet<&str>)| {
        let versions: Vec<&str> = versions.into_iter().collect();
        Finding::new(LOCK, 1, format!("{name} in versions {}", versions.join(" and ")), "one version")
    };
    twice.map(finding).collect()
}

/// An SPDX expression: `OR` (also written `/`) gives the choice, `AND` binds to both, brackets group.
fn allowed(expression: &str) -> bool {
    let expression = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = expression.split_whitespace().collect();
    let mut at = 0;
    let verdict = any(&words, &mut at);
    verdict && at == words.len()
}

fn any(words: &[&str], at: &mut usize) -> bool {
    let mut verdict = all(words, at);
    while words.get(*at) == Some(&"OR") {
        *at += 1;
        verdict |= all(words, at);
    }
    verdict
}

fn all(words: &[&str], at: &mut usize) -> bool {
    let mut verdict = one(words, at);
    while words.get(*at) == Some(&"AND") {
        *at += 1;
        verdict &= one(words, at);
    }
    verdict
}

fn one(words: &[&str], at: &mut usize) -> bool {
    let Some(word) = words.get(*at) else { return false };
    *at += 1;
    if *word == "(" {
        let verdict = any(words, at);
        let closed = words.get(*at) == Some(&")");
        *at += 1;
        return verdict && closed;
    }
    let mut licence = (*word).to_owned();
    if words.get(*at) == Some(&"WITH") {
        licence = format!("{licence} WITH {}", words.get(*at + 1).unwrap_or(&""));
        *at += 2;
    }
    LICENCES.contains(&&*licence)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions() {
        let cases = [
            ("MIT", true),
            ("MIT/Apache-2.0", true),
            ("MIT OR GPL-3.0", true),
            ("GPL-3.0", false),
            ("MIT AND GPL-3.0", false),
            ("(MIT OR GPL-3.0) AND Unicode-3.0", true),
            ("(MIT OR Apache-2.0) AND GPL-3.0", false),
            ("Apache-2.0 WITH LLVM-exception OR MIT", true),
            ("GPL-2.0 WITH Classpath-exception-2.0", false),
            ("(MIT", false),
            ("", false),
        ];
        for (expression, expected) in cases {
            assert_eq!(allowed(expression), expected, "{expression}");
        }
    }

    fn package(name: &str, version: &str, licence: Option<&str>) -> Package {
        Package { name: name.to_owned(), version: version.to_owned(), licence: licence.map(str::to_owned) }
    }

    #[test]
    fn unknown_licences_are_told() {
        let packages = [package("a", "1.0.0", Some("MIT")), package("b", "1.0.0", None)];
        let found = licences(&packages);
        assert_eq!(found.len(), 1);
        assert!(found[0].what.contains("b 1.0.0 has no licence expression"), "{}", found[0]);
    }

    #[test]
    fn big_packages_exist_once() {
        let cases = [
            (["tonic", "tonic"], 1),
            (["opentelemetry-otlp", "opentelemetry-otlp"], 1),
            (["opentelemetry_sdk", "opentelemetry_sdk"], 1),
            (["syn", "syn"], 0),
            (["tonic", "tonic-prost"], 0),
        ];
        for ([first, second], expected) in cases {
            let packages = [package(first, "1.0.0", None), package(second, "2.0.0", None)];
            assert_eq!(duplicates(&packages).len(), expected, "{first} {second}");
        }
    }
}
