//! Real processes of the `drawdown` binary: started with their output in files, stopped gently or by
//! SIGKILL, and never left behind.

use std::{
    fs::File,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// How long a process may take to end after SIGTERM before it is killed.
const STOP_LIMIT: Duration = Duration::from_secs(20);
/// How often a condition is looked at while it is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// One process of ours.
#[derive(Debug)]
pub struct Program {
    name: String,
    log: PathBuf,
    child: Child,
}

impl Program {
    /// Starts `command`, its output in `<dir>/<name>.log` behind what is there.
    ///
    /// # Errors
    /// Where the program or its log file cannot be opened.
    pub fn start(name: &str, mut command: Command, dir: &Path) -> Result<Self> {
        let log = dir.join(format!("{name}.log"));
        let out = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| log.display().to_string())?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .with_context(|| format!("cannot start {name}: {:?}", command.get_program()))?;
        Ok(Self { name: name.to_owned(), log, child })
    }

    /// Its number.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Memory that it occupies now, in bytes.
    ///
    /// # Errors
    /// Where it has ended.
    pub fn resident_bytes(pid: u32) -> Result<u64> {
        memory(pid, "VmRSS:")
    }

    /// The most memory that it occupied so far, in bytes.
    ///
    /// # Errors
    /// Where it has ended.
    pub fn peak_bytes(pid: u32) -> Result<u64> {
        memory(pid, "VmHWM:")
    }

    /// Ends it at once, as a power cut would.
    ///
    /// # Errors
    /// Where it cannot be signalled.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill().with_context(|| format!("cannot kill {}", self.name))?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks it to end and waits for that.
    ///
    /// # Errors
    /// Where it does not end in time.
    pub async fn stop(&mut self) -> Result<ExitStatus> {
        if let Some(status) = self.child.try_wait()? {
            return Ok(status);
        }
        kill(Pid::from_raw(i32::try_from(self.child.id())?), Signal::SIGTERM)?;
        self.wait(STOP_LIMIT).await
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// Where it does not end within `limit`.
    pub async fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let mut looks = tokio::time::interval(LOOK_EVERY);
        let waited = tokio::time::timeout(limit, async {
            loop {
                looks.tick().await;
                if let Some(status) = self.child.try_wait()? {
                    return Ok::<_, anyhow::Error>(status);
                }
            }
        });
        match waited.await {
            Ok(status) => status,
            Err(_) => anyhow::bail!("{} runs on after {limit:?}; {}", self.name, self.log_tail()),
        }
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// Where its state cannot be read.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// The end of what it printed, for messages.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<_> = text.lines().rev().take(30).collect();
        let lines: Vec<_> = lines.into_iter().rev().collect();
        format!("the end of {}:\n{}", self.log.display(), lines.join("\n"))
    }
}

fn memory(pid: u32, name: &str) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)).with_context(|| name.to_owned())?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}

impl Drop for Program {
    fn drop(&mut self) {
        // Best effort: it may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until `condition` holds, looking at it again and again.
///
/// # Errors
/// Where it does not hold within `limit`, with what was waited for and the last fault.
pub async fn wait_until<F, Fut>(what: &str, limit: Duration, mut condition: F) -> Result<()>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<bool>>,
{
    let mut looks = tokio::time::interval(LOOK_EVERY);
    let mut fault = None;
    let waited = tokio::time::timeout(limit, async {
        loop {
            looks.tick().await;
            match condition().await {
                Ok(true) => return,
                Ok(false) => fault = None,
                Err(error) => fault = Some(error),
            }
        }
    });
    match (waited.await, fault) {
        (Ok(()), _) => Ok(()),
        (Err(_), Some(error)) => Err(error.context(format!("waited {limit:?} for {what}"))),
        (Err(_), None) => anyhow::bail!("waited {limit:?} for {what}"),
    }
}

/// Ports of loopback that were free a moment ago, all different.
///
/// # Errors
/// Where none is free.
pub fn free_ports<const N: usize>() -> Result<[u16; N]> {
    let listeners: Vec<_> =
        (0..N).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).collect::<std::io::Result<_>>()?;
    let mut ports = [0; N];
    for (port, listener) in ports.iter_mut().zip(&listeners) {
        *port = listener.local_addr()?.port();
    }
    Ok(ports)
}

/// The `drawdown` binary: named by `DRAWDOWN_BIN`, else beside this program's own folder.
///
/// # Errors
/// Where it was not built.
pub fn drawdown_binary() -> Result<PathBuf> {
    if let Some(named) = std::env::var_os("DRAWDOWN_BIN") {
        return Ok(PathBuf::from(named));
    }
    let own = std::env::current_exe()?;
    let found = own.ancestors().skip(1).take(2).map(|dir| dir.join("drawdown")).find(|path| path.is_file());
    let found =
        found.context("no drawdown binary beside this program; build it with cargo build -p drawdown")?;
    ensure!(found.is_file(), "{} is no file", found.display());
    Ok(found)
}
