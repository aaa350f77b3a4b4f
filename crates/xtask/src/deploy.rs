//! The files of `deploy/` and the shell scripts, each read by the tool that its users have.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::Context as _;

use crate::{
    machine::{Workspace, on_path, run},
    tidy::tree,
};

/// Those of `deploy/.env.example`.
const SECRETS: [&str; 3] =
    ["DRAWDOWN_POSTGRES_PASSWORD", "DRAWDOWN_REDIS_PASSWORD", "DRAWDOWN_CREDENTIAL_PEPPER"];
const PINS: &str = "tests/pip/requirements.txt";

pub(crate) fn check(workspace: &Workspace) -> anyhow::Result<ExitCode> {
    let tools = install(workspace)?;
    let tool = |name: &str| workspace.command(tools.join("bin").join(name));
    run(tool("hadolint").arg("deploy/Dockerfile"))?;
    let mut compose = tool("docker-compose");
    // it refuses to resolve without them; nothing is started
    compose.envs(SECRETS.map(|name| (name, "0")));
    run(compose.args(["--file", "deploy/compose.yaml", "--profile", "observe", "config", "--quiet"]))?;
    let scripts = tree::files(&workspace.root)?.into_iter().filter(|path| is_shell(&workspace.root, path));
    run(tool("shellcheck").args(["--shell", "bash", "--severity", "style"]).args(scripts))?;
    run(workspace.command(promtool()?).args(["check", "config", "deploy/prometheus.yaml"]))?;
    println!("deploy: Dockerfile, compose.yaml, prometheus.yaml and the shell scripts are clean");
    Ok(ExitCode::SUCCESS)
}

fn is_shell(root: &Path, path: &Path) -> bool {
    let first =
        || fs::read_to_string(root.join(path)).is_ok_and(|text| text.starts_with("#!/usr/bin/env bash"));
    path.extension().map_or_else(first, |extension| extension == "sh")
}

/// The pinned pip packages, in a venv below the build. Made anew only when the pins change.
fn install(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    let venv = workspace.target.join("deploy-tools");
    let wanted = fs::read_to_string(workspace.root.join(PINS)).with_context(|| format!("read {PINS}"))?;
    let stamp = venv.join("pins");
    if fs::read_to_string(&stamp).is_ok_and(|made| made == wanted) {
        return Ok(venv);
    }
    run(workspace.command("python3").args(["-m", "venv", "--clear"]).arg(&venv))?;
    let mut pip = workspace.command(venv.join("bin/python3"));
    run(pip.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-input",
        "--only-binary",
        ":all:",
        "--requirement",
        PINS,
    ]))?;
    fs::write(&stamp, wanted).context("write the stamp of the tools")?;
    Ok(venv)
}

/// Prometheus' own checker; Debian has it in the package of the server.
fn promtool() -> anyhow::Result<PathBuf> {
    if let Some(found) = on_path("promtool") {
        return Ok(found);
    }
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command.args(["-q", "-o", "DPkg::Lock::Timeout=300"]).args(arguments);
        run(command.env("DEBIAN_FRONTEND", "noninteractive").env("RUNLEVEL", "1"))
    };
    apt(&["update"])?;
    apt(&["install", "--yes", "--no-install-recommends", "prometheus"])?;
    on_path("promtool").context("no promtool after the installation of prometheus")
}
