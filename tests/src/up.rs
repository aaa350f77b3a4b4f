//! `drawdown up` and the operator's commands, as a person would type them.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::process::{Program, drawdown_binary, wait_until};

/// How long it may take until everything serves.
pub const UP_LIMIT: Duration = Duration::from_secs(60);

/// One `drawdown up` on free ports.
#[derive(Debug)]
pub struct Up {
    program: Program,
    addresses: PathBuf,
    key: Option<String>,
}

impl Up {
    /// Starts it with its data under `dir` and waits until everything serves.
    ///
    /// # Errors
    /// Where it does not; with the end of its log.
    pub async fn start(dir: &Path) -> Result<Self> {
        Self::start_with(dir, &[]).await
    }

    /// With settings of its own, by the environment.
    ///
    /// # Errors
    /// As [`Up::start`].
    pub async fn start_with(dir: &Path, settings: &[(&str, &str)]) -> Result<Self> {
        Self::started(dir, settings, &[]).await
    }

    /// By TLS only, with the certificates of `<dir>/certs`.
    ///
    /// # Errors
    /// As [`Up::start`].
    pub async fn start_secured(dir: &Path, settings: &[(&str, &str)]) -> Result<Self> {
        let certs = dir.join("certs");
        Self::started(dir, settings, &["--tls", &certs.to_string_lossy()]).await
    }

    async fn started(dir: &Path, settings: &[(&str, &str)], arguments: &[&str]) -> Result<Self> {
        let addresses = dir.join("addresses.json");
        if addresses.exists() {
            std::fs::remove_file(&addresses)?;
        }
        let mut command = Command::new(drawdown_binary()?);
        command.arg("up").arg("--free-ports").arg("--data-dir").arg(dir.join("data"));
        command.arg("--addresses-file").arg(&addresses).env_remove("DRAWDOWN_CONFIG");
        command.args(arguments).envs(settings.iter().copied());
        let program = Program::start("up", command, dir)?;
        let up = Self { program, addresses, key: None };
        let written = wait_until("addresses", UP_LIMIT, || async { Ok(up.addresses.is_file()) }).await;
        written.with_context(|| up.program.log_tail())?;
        Ok(up)
    }

    /// Calls with this API key from now on.
    pub fn call_with(&mut self, key: impl Into<String>) {
        self.key = Some(key.into());
    }

    fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new(drawdown_binary()?);
        command.args(arguments).env("DRAWDOWN_ADDRESSES_FILE", &self.addresses);
        command.env_remove("DRAWDOWN_API_KEY").envs(self.key.iter().map(|key| ("DRAWDOWN_API_KEY", key)));
        Ok(command)
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.program.pid()
    }

    /// Runs a command of the operator.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn cli(&self, arguments: &[&str]) -> Result<Output> {
        self.command(arguments)?.output().with_context(|| format!("{arguments:?}"))
    }

    /// Starts a command of the operator that goes on, its output under `dir`.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn follow(&self, name: &str, arguments: &[&str], dir: &Path) -> Result<Program> {
        Program::start(name, self.command(arguments)?, dir)
    }

    /// Runs a command of the operator that succeeds, and reads its answer.
    ///
    /// # Errors
    /// Where it fails or answers no JSON.
    pub fn json(&self, arguments: &[&str]) -> Result<Value> {
        let output = self.cli(&[arguments, &["--json"]].concat())?;
        let (status, errors) = (output.status, String::from_utf8_lossy(&output.stderr));
        ensure!(status.success(), "{arguments:?} ended with {status}: {errors}\n{}", self.program.log_tail());
        serde_json::from_slice(&output.stdout).with_context(|| format!("{arguments:?}"))
    }

    /// What it wrote of its addresses.
    ///
    /// # Errors
    /// Where that can not be read.
    pub fn addresses(&self) -> Result<Value> {
        Ok(serde_json::from_slice(&std::fs::read(&self.addresses)?)?)
    }

    /// Stops it gently.
    ///
    /// # Errors
    /// Where it does not end, or not well.
    pub async fn stop(mut self) -> Result<()> {
        let status = self.program.stop().await?;
        ensure!(status.success(), "up ended with {status}; {}", self.program.log_tail());
        Ok(())
    }
}

/// A text in an answer.
///
/// # Errors
/// Where it is not there.
pub fn text<'a>(value: &'a Value, pointer: &str) -> Result<&'a str> {
    value.pointer(pointer).and_then(Value::as_str).with_context(|| format!("no {pointer} in {value}"))
}
