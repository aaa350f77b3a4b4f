//! Tasks of this repository: `cargo xtask NAME`.
//!
//! Light on purpose: it compiles in seconds and knows of the project only what cargo, git and its files tell.
#![expect(clippy::print_stdout, reason = "a command line speaks on standard output")]

mod contracts;
mod deploy;
mod door;
mod events;
mod export;
mod machine;
mod metrics;
mod pip;
mod programs;
mod queries;
mod redis;
mod servers;
mod tidy;
mod wire;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

use crate::{machine::Workspace, programs::Measured};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "tasks of the Drawdown repository", disable_version_flag = true)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Run all tests against a real Postgres and a real Redis
    Test {
        /// Passed on to the runner, such as the name of a test
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        runner: Vec<String>,
    },
    /// Replay a real access log through all services and recount it
    Demo {
        /// Passed on to the demo, such as --keep
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<String>,
    },
    /// Measure, in release mode
    Bench {
        /// Run a development build instead: its figures say nothing, that its sums agree does
        #[arg(long)]
        dev: bool,
        #[command(flatten)]
        measurement: Measurement,
    },
    /// Break things on purpose and count what survives
    Drill(Measurement),
    /// Check the rules of the house
    Tidy,
    /// Lint the contracts and compare them with those that were accepted
    Buf {
        /// Accept additions; what breaks a caller is refused
        #[arg(long)]
        accept: bool,
    },
    /// The committed answers of the database to the queries in the code
    Sqlx {
        #[command(subcommand)]
        step: Queries,
    },
    /// Check the files of deploy/ and the shell scripts
    DeployCheck,
    /// Have files of usage read by programs that are not ours
    ExportCheck,
    /// Check the scrape pages of the last demo with promtool
    MetricsCheck,
    /// Have a producer in Python send usage to the real services
    WireCheck,
    /// Run metering's tests on each Redis that it supports, and have it refuse one that is too old
    RedisCheck,
    /// Have clients of others, as they are published, send events over HTTP to the real services
    EventsCheck,
    /// Have programs of others ask every read over HTTP and by gRPC, and reconcile what was charged
    DoorCheck,
    /// Run a command with private servers in its environment; without one, start them and stop them again
    Servers {
        /// The command
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
}

#[derive(clap::Args)]
struct Measurement {
    /// Which one
    name: String,
    /// Where the figures are written
    #[arg(long)]
    json: Option<PathBuf>,
    /// Passed on
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    options: Vec<String>,
}

impl Measurement {
    fn of<'a>(&'a self, kind: &'a str, profile: &'a str) -> Measured<'a> {
        let Self { name, json, options } = self;
        Measured { kind, profile, name, json: json.as_deref(), options }
    }
}

#[derive(Subcommand)]
enum Queries {
    /// Ask a fresh database and replace .sqlx
    Prepare,
    /// Ask a fresh database and compare with .sqlx
    Check,
}

fn main() -> ExitCode {
    let done = Workspace::find().and_then(|workspace| run(&workspace, Arguments::parse().task));
    match done {
        Ok(code) => code,
        Err(error) => {
            println!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(workspace: &Workspace, task: Task) -> anyhow::Result<ExitCode> {
    match task {
        Task::Test { runner } => servers::test(workspace, &runner),
        Task::Demo { options } => programs::demo(workspace, options),
        Task::Bench { dev, measurement } => {
            let profile = if dev { "debug" } else { "release" };
            programs::measure(workspace, &measurement.of("bench", profile))
        }
        Task::Drill(measurement) => programs::measure(workspace, &measurement.of("drill", "debug")),
        Task::Tidy => tidy::check(workspace),
        Task::Buf { accept } => contracts::check(workspace, accept),
        Task::Sqlx { step: Queries::Prepare } => queries::prepare(workspace),
        Task::Sqlx { step: Queries::Check } => queries::check(workspace),
        Task::DeployCheck => deploy::check(workspace),
        Task::ExportCheck => export::check(workspace),
        Task::MetricsCheck => metrics::check(workspace),
        Task::WireCheck => wire::check(workspace),
        Task::RedisCheck => redis::check(workspace),
        Task::EventsCheck => events::check(workspace),
        Task::DoorCheck => door::check(workspace),
        Task::Servers { command } => servers::with_servers(workspace, &command),
    }
}
