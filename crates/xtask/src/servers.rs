//! Tests, and any other command, with real servers in the environment.

use std::{ffi::OsString, process::ExitCode};

use anyhow::{Context as _, bail};
use drawdown_sandbox::{Options, Sandbox};

use crate::machine::{Workspace, code, on_path, run, status};

pub(crate) const POSTGRES_URL: &str = "DRAWDOWN_TEST_POSTGRES_URL";
pub(crate) const REDIS_URL: &str = "DRAWDOWN_TEST_REDIS_URL";
/// Only for a Postgres of our own: on a lasting one a template could be older than the migrations.
const TEMPLATE: &str = "DRAWDOWN_TEST_TEMPLATE";

/// Servers, and what names them to tests.
pub(crate) struct Servers {
    pub(crate) sandbox: Sandbox,
    environment: Vec<(&'static str, OsString)>,
}

impl Servers {
    /// Those that the environment names, else private ones.
    pub(crate) fn start() -> anyhow::Result<Self> {
        // Nothing of a test outlives its servers: waiting for the disk would be for nothing.
        let mut options = Options { synced: false, ..Options::from_env()? };
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        options.postgres_url = variable(POSTGRES_URL).or(options.postgres_url);
        options.redis_url = variable(REDIS_URL).or(options.redis_url);
        let fresh = options.postgres_url.is_none();
        let sandbox = Sandbox::start(options).context("servers")?;
        let mut environment =
            vec![(POSTGRES_URL, sandbox.postgres_url().into()), (REDIS_URL, sandbox.redis_url().into())];
        if fresh {
            environment.push((TEMPLATE, "template".into()));
        }
        Ok(Self { sandbox, environment })
    }
}

/// `cargo xtask servers [COMMAND…]`
pub(crate) fn with_servers(workspace: &Workspace, command: &[String]) -> anyhow::Result<ExitCode> {
    let servers = Servers::start()?;
    let Some((program, arguments)) = command.split_first() else {
        println!("servers: ready and stopped again, programs of {:?}", servers.sandbox.postgres().programs());
        servers.sandbox.stop()?;
        return Ok(ExitCode::SUCCESS);
    };
    let ended = status(workspace.command(program).args(arguments).envs(servers.environment));
    servers.sandbox.stop()?;
    Ok(code(ended?))
}

/// `cargo xtask test [RUNNER OPTION…]`: documentation tests first, so that the last words are the runner's summary.
pub(crate) fn test(workspace: &Workspace, runner: &[String]) -> anyhow::Result<ExitCode> {
    // one build for everything: tests start the binary that was built with them
    run(workspace.cargo().args(["build", "--workspace", "--bins", "--tests"]))?;
    let servers = Servers::start()?;
    let ended = run_tests(workspace, &servers, runner);
    servers.sandbox.stop()?;
    ended
}

fn run_tests(workspace: &Workspace, servers: &Servers, runner: &[String]) -> anyhow::Result<ExitCode> {
    let cargo = || {
        let mut cargo = workspace.cargo();
        cargo
            .envs(servers.environment.iter().cloned())
            .env("DRAWDOWN_BIN", workspace.program("debug", "drawdown"));
        cargo
    };
    let nextest = on_path("cargo-nextest").is_some();
    if !nextest {
        return Ok(code(status(cargo().args(["test", "--workspace", "--no-fail-fast", "--"]).args(runner))?));
    }
    if runner.is_empty() {
        // nextest knows no documentation tests
        run(cargo().args(["test", "--workspace", "--doc", "--quiet"]))?;
    }
    let profile = if std::env::var_os("CI").is_some() { "ci" } else { "default" };
    let ended = status(cargo().args(["nextest", "run", "--workspace", "--profile", profile]).args(runner))?;
    if ended.code() == Some(4) {
        bail!("no test of this name")
    }
    Ok(code(ended))
}
