//! The demo, the benches and the drills: built here, written in `tests/`.

use std::{fs, path::Path, process::ExitCode};

use anyhow::{Context as _, ensure};

use crate::machine::{Workspace, code, folder_of, run, status};

/// `cargo xtask demo`
pub(crate) fn demo(workspace: &Workspace, options: Vec<String>) -> anyhow::Result<ExitCode> {
    let summary = workspace.target.join("demo/summary.json");
    match fs::remove_file(&summary) {
        // an old summary must never pass for that of a run which failed
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("remove {}", summary.display()));
        }
        _ => folder_of(&summary)?,
    }
    build(workspace, "demo", "debug")?;
    let mut demo = workspace.command(workspace.program("debug", "demo"));
    demo.env("DRAWDOWN_BIN", workspace.program("debug", "drawdown"));
    Ok(code(status(demo.arg("--summary").arg(&summary).args(options))?))
}

/// What `cargo xtask bench` and `cargo xtask drill` run.
pub(crate) struct Measured<'a> {
    /// `bench` or `drill`.
    pub(crate) kind: &'a str,
    /// The folder of the build, `release` or `debug`.
    pub(crate) profile: &'a str,
    pub(crate) name: &'a str,
    pub(crate) json: Option<&'a Path>,
    pub(crate) options: &'a [String],
}

/// `cargo xtask bench NAME` measures a release build; `cargo xtask drill NAME` breaks a development build.
pub(crate) fn measure(workspace: &Workspace, measured: &Measured<'_>) -> anyhow::Result<ExitCode> {
    let &Measured { kind, profile, name, json, options } = measured;
    let written = workspace.root.join(format!("tests/src/bin/{kind}.rs"));
    ensure!(written.is_file(), "there is no {kind} in this repository yet");
    build(workspace, kind, profile)?;
    let mut program = workspace.command(workspace.program(profile, kind));
    program.env("DRAWDOWN_BIN", workspace.program(profile, "drawdown")).arg(name);
    if let Some(json) = json {
        // a relative file is the caller's, not the workspace's
        let json = std::path::absolute(json).with_context(|| format!("find {}", json.display()))?;
        folder_of(&json)?;
        program.arg("--json").arg(json);
    }
    Ok(code(status(program.args(options))?))
}

/// Builds a program of `tests/`, and the services beside it.
pub(crate) fn build(workspace: &Workspace, program: &str, profile: &str) -> anyhow::Result<()> {
    let mut cargo = workspace.cargo();
    // of the whole workspace: with the features of two packages cargo would build half of it a second time
    cargo.args(["build", "--workspace", "--bin", "drawdown", "--bin", program]);
    if profile == "release" {
        cargo.arg("--release");
    }
    run(&mut cargo)
}
