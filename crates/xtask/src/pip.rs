//! Pinned packages of pip, in a venv below the build.

use std::{fs, path::PathBuf};

use anyhow::Context as _;

use crate::machine::{Workspace, run};

/// The packages of a file of pins, in a venv of that name. Made anew only when the pins change.
pub(crate) fn install(workspace: &Workspace, name: &str, pins: &str) -> anyhow::Result<PathBuf> {
    let venv = workspace.target.join(name);
    let wanted = fs::read_to_string(workspace.root.join(pins)).with_context(|| format!("read {pins}"))?;
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
        pins,
    ]))?;
    fs::write(&stamp, wanted).context("write the stamp of the tools")?;
    Ok(venv)
}
