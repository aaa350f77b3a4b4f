//! The reads over HTTP, driven by programs that are not ours: curl, grpcio, buf, a validator of OpenAPI, and a billing system in Python.

use std::{fs, process::ExitCode};

use anyhow::Context as _;

use crate::{
    contracts,
    machine::{Workspace, code, run, status},
    pip, programs,
    tidy::tree,
};

const PINS: &str = "tests/pip/door.txt";
const PINS_OF_GRPC: &str = "tests/pip/wire.txt";
const SCRIPTS: &str = "tests/pip";

/// Starts `drawdown up` and has them ask the same; compares, validates, reconciles.
pub(crate) fn check(workspace: &Workspace) -> anyhow::Result<ExitCode> {
    let validator = pip::install(workspace, "door-tools", PINS)?.join("bin/python3");
    let python = pip::install(workspace, "wire-tools", PINS_OF_GRPC)?.join("bin/python3");
    let buf = contracts::install(workspace)?;
    let stubs = workspace.target.join("door-stubs");
    fs::create_dir_all(&stubs).with_context(|| format!("create {}", stubs.display()))?;
    let mut generate = workspace.command(&python);
    generate.args(["-m", "grpc_tools.protoc", "--proto_path", "proto"]);
    generate.arg(format!("--python_out={}", stubs.display()));
    let all = tree::files(&workspace.root)?.into_iter();
    let contracts = all.filter_map(|path| path.strip_prefix("proto").ok().map(ToOwned::to_owned));
    let contracts = contracts.filter(|path| path.extension().is_some_and(|extension| extension == "proto"));
    run(generate.args(contracts))?;
    programs::build(workspace, "door", "debug")?;
    let mut check = workspace.command(workspace.program("debug", "door"));
    check.env("DRAWDOWN_BIN", workspace.program("debug", "drawdown"));
    check.arg("--python").arg(python).arg("--stubs").arg(stubs).arg("--validator").arg(validator);
    check.arg("--buf").arg(buf).arg("--scripts").arg(SCRIPTS);
    Ok(code(status(&mut check)?))
}
