//! Which files may be in the repository at all.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::Finding;
use crate::machine::output;

/// The top level, from which a reader learns where everything is.
const TOP_LEVEL: [&str; 17] = [
    ".cargo",
    ".ci",
    ".clippy.toml",
    ".deny.toml",
    ".config",
    ".dockerignore",
    ".gitignore",
    ".rustfmt.toml",
    ".sqlx",
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "crates",
    "deploy",
    "proto",
];
const TESTS: &str = "tests";
/// Larger files make every clone slow for good.
const FILE_MAX_BYTES: u64 = 3 * 1024 * 1024;
/// What tools leave behind.
const DEBRIS: [&str; 14] = [
    "DS_Store", "aof", "bak", "core", "log", "orig", "pid", "profdata", "profraw", "pyc", "rdb", "rej",
    "swp", "tmp",
];
/// Names that say nothing of what is inside, and so attract everything.
const PLACELESS: [&str; 6] = ["common", "helper", "helpers", "misc", "util", "utils"];

/// What git knows, and what it would add; paths from the root, sorted.
pub(crate) fn files(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let listed = output(
        Command::new("git")
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .current_dir(root),
    )?;
    let paths: BTreeSet<PathBuf> =
        listed.split('\0').filter(|path| !path.is_empty()).map(PathBuf::from).collect();
    // deleted, but not yet in git's index
    Ok(paths.into_iter().filter(|path| root.join(path).is_file()).collect())
}

pub(crate) fn check(root: &Path, files: &[PathBuf]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for path in files {
        findings.extend(place(path));
        let bytes = fs::metadata(root.join(path)).map_or(0, |meta| meta.len());
        findings.extend(size(path, bytes));
    }
    findings
}

fn place(path: &Path) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut parts = path.components().map(|part| part.as_os_str().to_string_lossy());
    let top = parts.next().unwrap_or_default();
    if top != TESTS && !TOP_LEVEL.contains(&&*top) {
        findings.push(Finding::new(path, 1, "a new entry of the top level", "one of the folders that exist"));
    }
    let extension = path.extension().unwrap_or_default().to_string_lossy();
    let fixture = path.starts_with("tests/fixtures");
    if DEBRIS.contains(&&*extension) && !fixture {
        findings.push(Finding::new(path, 1, "left behind by a tool", "a line in .gitignore"));
    }
    for part in path.iter().map(|part| Path::new(part).file_stem().unwrap_or_default().to_string_lossy()) {
        if PLACELESS.contains(&&*part) {
            let what = format!("the name {part} says nothing of what is inside");
            findings.push(Finding::new(path, 1, what, "a noun of the domain"));
        }
    }
    findings
}

fn size(path: &Path, bytes: u64) -> Option<Finding> {
    let what = format!("{bytes} bytes");
    (bytes > FILE_MAX_BYTES).then(|| Finding::new(path, 1, what, format!("at most {FILE_MAX_BYTES}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        let cases = [
            ("crates/ledger/src/store/lots.rs", 0),
            ("tests/fixtures/apache_access.log", 0),
            ("README.md", 0),
            ("scripts/run.sh", 1),
            ("Makefile", 1),
            ("crates/ledger/default.profraw", 1),
            ("crates/common/src/lib.rs", 1),
            ("crates/ledger/src/utils.rs", 1),
            ("crates/ledger/src/helpers/mod.rs", 1),
            ("crates/ledger/src/commons.rs", 0),
        ];
        for (path, expected) in cases {
            assert_eq!(place(Path::new(path)).len(), expected, "{path}");
        }
    }

    #[test]
    fn sizes() {
        assert!(size(Path::new("x"), FILE_MAX_BYTES).is_none());
        assert!(size(Path::new("x"), FILE_MAX_BYTES + 1).is_some());
    }

    #[test]
    fn files_that_git_knows_and_would_add() {
        let folder = tempfile::tempdir().unwrap();
        let git = |arguments: &[&str]| {
            output(Command::new("git").args(arguments).current_dir(folder.path())).unwrap()
        };
        git(&["init", "--quiet"]);
        for name in ["kept", "fresh", "ignored", "removed"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        fs::write(folder.path().join(".gitignore"), "ignored\n").unwrap();
        git(&["add", "kept", "removed"]);
        fs::remove_file(folder.path().join("removed")).unwrap();
        let found = files(folder.path()).unwrap();
        assert_eq!(found, [".gitignore", "fresh", "kept"].map(PathBuf::from));
    }
}
