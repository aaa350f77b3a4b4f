//! The committed answers of the database to the queries in the code (`.sqlx`), with which the workspace builds
//! where no database runs.
//!
//! Shape: a fresh private Postgres, the migrations of both services by psql (a compiled service would need the
//! answers that are being made), then one `cargo check` in which the query macros write what they were told.
//! It works in the usual target folder: what the crates depend on is compiled there already.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, bail};
use drawdown_sandbox::{Options, Sandbox};

use crate::machine::{Workspace, on_path, run};

/// Services with a database: the folder below `crates/`, and the schema of the same name.
const SERVICES: [&str; 2] = ["ledger", "entitlement"];

/// Replaces `.sqlx`.
pub(crate) fn prepare(workspace: &Workspace) -> anyhow::Result<ExitCode> {
    let fresh = answers(workspace)?;
    let committed = workspace.root.join(".sqlx");
    if committed.exists() {
        fs::remove_dir_all(&committed).context("remove .sqlx")?;
    }
    fs::create_dir_all(&committed).context("create .sqlx")?;
    for (name, content) in &fresh {
        fs::write(committed.join(name), content).with_context(|| format!("write .sqlx/{name}"))?;
    }
    println!("sqlx: {} queries", fresh.len());
    Ok(ExitCode::SUCCESS)
}

/// Compares with `.sqlx`.
pub(crate) fn check(workspace: &Workspace) -> anyhow::Result<ExitCode> {
    let fresh = answers(workspace)?;
    let committed = read(&workspace.root.join(".sqlx"))?;
    let drift = drift(&committed, &fresh);
    if drift.is_empty() {
        println!("sqlx: {} queries, as committed", fresh.len());
        return Ok(ExitCode::SUCCESS);
    }
    for line in &drift {
        println!("{line}");
    }
    bail!("{} queries differ from .sqlx; cargo xtask sqlx prepare would be right", drift.len())
}

fn drift(committed: &BTreeMap<String, String>, fresh: &BTreeMap<String, String>) -> Vec<String> {
    let absent = fresh
        .keys()
        .filter(|name| !committed.contains_key(*name))
        .map(|name| format!("{name}: not committed"));
    let other = committed.iter().filter_map(|(name, content)| match fresh.get(name) {
        None => Some(format!("{name}: no query in the code has it")),
        Some(now) if now != content => Some(format!("{name}: the database answers otherwise now")),
        Some(_) => None,
    });
    absent.chain(other).collect()
}

fn answers(workspace: &Workspace) -> anyhow::Result<BTreeMap<String, String>> {
    // never a given server: the schema must be exactly what the migrations make
    let options = Options { redis_url: None, postgres_url: None, ..Options::from_env()? };
    let sandbox = Sandbox::start(options).context("servers")?;
    let answers = migrate(workspace, &sandbox).and_then(|()| ask(workspace, &sandbox));
    sandbox.stop()?;
    answers
}

fn migrate(workspace: &Workspace, sandbox: &Sandbox) -> anyhow::Result<()> {
    let beside =
        sandbox.postgres().programs().map(|folder| folder.join("psql")).filter(|psql| psql.is_file());
    let psql = beside.or_else(|| on_path("psql")).context("no psql, neither beside postgres nor on PATH")?;
    for service in SERVICES {
        let base = |command: &str| {
            let mut psql = workspace.command(&psql);
            psql.args(["--no-psqlrc", "--quiet", "--single-transaction", "--set", "ON_ERROR_STOP=1"]);
            psql.args(["--output", "/dev/null"]);
            psql.args(["--dbname", sandbox.postgres_url(), "--command", command]);
            psql
        };
        run(&mut base(&format!("create schema if not exists {service}")))?;
        for migration in migrations(&workspace.root.join("crates").join(service).join("migrations"))? {
            run(base("set client_min_messages = warning").arg("--file").arg(migration))?;
        }
    }
    Ok(())
}

fn migrations(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "sql"));
    files.sort();
    Ok(files)
}

fn ask(workspace: &Workspace, sandbox: &Sandbox) -> anyhow::Result<BTreeMap<String, String>> {
    let folder = workspace.target.join("sqlx-answers");
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("remove {}", folder.display()))?;
    }
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    let mut cargo = workspace.cargo();
    cargo.args(["check", "--quiet", "--all-targets"]).env("DATABASE_URL", sandbox.postgres_url());
    cargo.env("SQLX_OFFLINE_DIR", &folder).env("SQLX_OFFLINE", "false");
    for service in SERVICES {
        cargo.args(["--package", &format!("drawdown-{service}")]);
    }
    // cargo must not find these crates fresh, neither now nor in the next build, which reads .sqlx again
    touch(workspace)?;
    let checked = run(&mut cargo);
    touch(workspace)?;
    checked?;
    read(&folder)
}

fn touch(workspace: &Workspace) -> anyhow::Result<()> {
    let now =
        fs::FileTimes::new().set_modified(fs::metadata(workspace.target.join("sqlx-answers"))?.modified()?);
    for service in SERVICES {
        let root = workspace.root.join("crates").join(service);
        let tests = fs::read_dir(root.join("tests"))
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path()));
        for file in tests.chain([root.join("src/lib.rs")]).filter(|file| file.is_file()) {
            let file = fs::File::options()
                .append(true)
                .open(&file)
                .with_context(|| format!("touch {}", file.display()))?;
            file.set_times(now).context("touch")?;
        }
    }
    Ok(())
}

fn read(folder: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    let entries = fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))?;
    let mut answers = BTreeMap::new();
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let content = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        // the macros end their files without a line end, editors and diffs want one
        answers.insert(name, format!("{}\n", content.trim_end()));
    }
    Ok(answers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
        entries.iter().map(|(name, content)| ((*name).to_owned(), (*content).to_owned())).collect()
    }

    #[test]
    fn drift_is_told_both_ways() {
        let committed = map(&[("same", "1"), ("changed", "1"), ("gone", "1")]);
        let fresh = map(&[("same", "1"), ("changed", "2"), ("new", "1")]);
        let lines = drift(&committed, &fresh);
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert_eq!(lines[0], "new: not committed");
        assert!(lines[1].starts_with("changed: ") && lines[2].starts_with("gone: "), "{lines:?}");
        assert!(drift(&committed, &committed).is_empty());
    }

    #[test]
    fn migrations_in_their_order() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["0002_b.sql", "0001_a.sql", "CHECKSUMS"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let names = migrations(folder.path()).unwrap();
        assert_eq!(names, [folder.path().join("0001_a.sql"), folder.path().join("0002_b.sql")]);
    }
}
