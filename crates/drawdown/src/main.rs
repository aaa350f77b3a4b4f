//! The one binary of Drawdown: the services, and the operator's commands.
//!
//! It parses, runs and turns the result into an exit code: 0, 64 for a command line or a configuration
//! that can not be used, 1 for everything else.

mod certs;
mod cli;
mod failure;
mod openapi;
mod operator;
mod output;
mod replay;
mod secrecy;
mod serve;
mod status;

use std::process::ExitCode;

use clap::{Parser, error::ErrorKind};

use crate::cli::Cli;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            // Nothing is left to do where even this can not be printed.
            let _ = error.print();
            return if asked { ExitCode::SUCCESS } else { ExitCode::from(failure::BAD_CONFIGURATION) };
        }
    };
    if !cli.allow_core_dumps
        && let Err(error) = secrecy::forbid_core_dumps()
    {
        output::complain(&format!("drawdown: core dumps can not be turned off: {error}\n"));
        return ExitCode::from(failure::FAILED);
    }
    let result = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(cli.run()));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::complain(&failure::describe(&error));
            failure::exit_code(&error)
        }
    }
}
