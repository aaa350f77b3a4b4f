//! Files of usage, read by programs that are not ours.

use std::{fs, process::ExitCode};

use crate::{
    machine::{Workspace, run},
    pip,
};

const PINS: &str = "tests/pip/export.txt";
const READER: &str = "tests/pip/read_usage.py";

/// Writes the same usage in all forms, and has them read and compared.
pub(crate) fn check(workspace: &Workspace) -> anyhow::Result<ExitCode> {
    let reader = pip::install(workspace, "export-tools", PINS)?.join("bin/python3");
    let folder = workspace.target.join("export-files");
    fs::create_dir_all(&folder)?;
    let example = ["run", "--quiet", "--package", "drawdown-ledger", "--example", "usage_files", "--"];
    run(workspace.cargo().args(example).arg(&folder))?;
    run(workspace.command(reader).arg(READER).arg(&folder))?;
    Ok(ExitCode::SUCCESS)
}
