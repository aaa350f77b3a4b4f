//! A producer in Python, written from the documentation of the wire, against the real services.

use std::{fs, process::ExitCode};

use anyhow::{Context as _, ensure};

use crate::{
    machine::{Workspace, code, run, status},
    pip, programs,
};

const PINS: &str = "tests/pip/wire.txt";
const PRODUCER: &str = "tests/pip/producer.py";
/// A producer that needs more was not written from the documentation alone.
const PRODUCER_LINES_MAX: usize = 150;
const CONTRACT: &str = "drawdown/metering/v1/ingest.proto";

/// Generates its code, starts `drawdown up`, and compares what is in the ledger with what was sent.
pub(crate) fn check(workspace: &Workspace) -> anyhow::Result<ExitCode> {
    let lines = fs::read_to_string(workspace.root.join(PRODUCER))
        .with_context(|| format!("read {PRODUCER}"))?
        .lines()
        .count();
    ensure!(lines <= PRODUCER_LINES_MAX, "{PRODUCER} has {lines} lines, {PRODUCER_LINES_MAX} are allowed");
    let python = pip::install(workspace, "wire-tools", PINS)?.join("bin/python3");
    let stubs = workspace.target.join("wire-stubs");
    fs::create_dir_all(&stubs).with_context(|| format!("create {}", stubs.display()))?;
    let mut generate = workspace.command(&python);
    generate.args(["-m", "grpc_tools.protoc", "--proto_path", "proto"]);
    for kind in ["python_out", "grpc_python_out"] {
        generate.arg(format!("--{kind}={}", stubs.display()));
    }
    run(generate.arg(CONTRACT))?;
    programs::build(workspace, "wire", "debug")?;
    let mut check = workspace.command(workspace.program("debug", "wire"));
    check.env("DRAWDOWN_BIN", workspace.program("debug", "drawdown"));
    check.arg("--python").arg(python).arg("--producer").arg(PRODUCER).arg("--stubs").arg(stubs);
    Ok(code(status(&mut check)?))
}
