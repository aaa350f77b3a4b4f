//! The scrape pages that the demo left, judged by Prometheus's own `promtool`.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context as _, ensure};

use crate::machine::{Workspace, on_path, run};

/// `cargo xtask metrics-check`
pub(crate) fn check(workspace: &Workspace) -> anyhow::Result<std::process::ExitCode> {
    let folder = workspace.target.join("demo");
    let mut pages: Vec<PathBuf> = fs::read_dir(&folder)
        .with_context(|| format!("read {}; cargo xtask demo writes the pages", folder.display()))?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "prom"))
        .collect();
    pages.sort();
    ensure!(pages.len() == 3, "{} has {} pages, three services have one each", folder.display(), pages.len());
    let promtool = promtool(workspace)?;
    for page in &pages {
        let open = File::open(page).with_context(|| page.display().to_string())?;
        run(workspace.command(&promtool).args(["check", "metrics"]).stdin(Stdio::from(open)))
            .with_context(|| page.display().to_string())?;
    }
    println!("metrics: promtool has nothing against {} pages", pages.len());
    Ok(std::process::ExitCode::SUCCESS)
}

/// From PATH, else from Debian's package.
fn promtool(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    if let Some(found) = on_path("promtool") {
        return Ok(found);
    }
    let apt = |arguments: &[&str]| {
        let mut command: Command = workspace.command("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive").args(arguments);
        run(&mut command)
    };
    apt(&["update", "--quiet"])?;
    apt(&["install", "--yes", "--quiet", "--no-install-recommends", "prometheus"])?;
    on_path("promtool").context("Debian's package prometheus brought no promtool")
}
