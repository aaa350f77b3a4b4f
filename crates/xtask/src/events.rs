//! Clients of others, as they are published, that send events by id over HTTP to the real services.

use std::process::ExitCode;

use crate::{
    machine::{Workspace, code, status},
    pip, programs,
};

const PINS: &str = "tests/pip/events.txt";
const SENDER: &str = "tests/pip/events.py";

/// Starts `drawdown up`, has the clients send, and compares what is in the ledger with what was sent.
pub(crate) fn check(workspace: &Workspace) -> anyhow::Result<ExitCode> {
    let python = pip::install(workspace, "events-tools", PINS)?.join("bin/python3");
    programs::build(workspace, "events", "debug")?;
    let mut check = workspace.command(workspace.program("debug", "events"));
    check.env("DRAWDOWN_BIN", workspace.program("debug", "drawdown"));
    check.arg("--python").arg(python).arg("--sender").arg(SENDER);
    Ok(code(status(&mut check)?))
}
