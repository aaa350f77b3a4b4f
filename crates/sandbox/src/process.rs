//! One server as a child that never outlives this process.
//!
//! Shape: the child is started through `watch.sh`, which becomes the server; a watcher beside it holds the other
//! end of a pipe and stops the server when the pipe ends. The death signal of the kernel would not do: it follows
//! the *thread* that started the child, and test threads end before their process.
//! Order: the watcher is released only after the server was waited for, so that there is no instant at which
//! nobody would stop it.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{Read, Seek, SeekFrom, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{Error, place::RunAs};

const WATCH: &str = include_str!("watch.sh");
/// How long a killed process may take until it is gone.
const KILL_LIMIT: Duration = Duration::from_secs(10);
/// Between two looks at something that is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// How much of a log is quoted in an error.
const LOG_TAIL_BYTES: u64 = 1_200;

/// What to start, as whom, and where.
pub(crate) struct Launch<'a> {
    pub(crate) what: &'static str,
    pub(crate) program: &'a Path,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) folder: &'a Path,
    pub(crate) log: &'a Path,
    pub(crate) run_as: Option<&'a RunAs>,
    /// Removed by the watcher when this process dies without stopping the server.
    pub(crate) remove: Option<PathBuf>,
}

/// A running server.
#[derive(Debug)]
pub(crate) struct Supervised {
    what: &'static str,
    child: Child,
    watcher: ChildStdin,
}

impl Supervised {
    pub(crate) fn spawn(launch: Launch<'_>) -> Result<Self, Error> {
        let doing = || format!("start {}", launch.program.display());
        let log = File::options()
            .create(true)
            .append(true)
            .open(launch.log)
            .map_err(Error::io(format!("open {}", launch.log.display())))?;
        let errors = log.try_clone().map_err(Error::io(doing()))?;
        let mut command = Command::new("/bin/sh");
        command
            .arg("-c")
            .arg(WATCH)
            .arg("watch")
            .arg(launch.remove.map(OsString::from).unwrap_or_default())
            .arg(launch.program)
            .args(launch.arguments)
            .current_dir(launch.folder)
            .stdin(Stdio::piped())
            .stdout(log)
            .stderr(errors)
            // its own group: the interrupt key must reach the services, not the servers below them
            .process_group(0);
        plain_environment(&mut command);
        if let Some(user) = launch.run_as {
            user.apply(&mut command);
        }
        let mut child = command.spawn().map_err(Error::io(doing()))?;
        let Some(watcher) = child.stdin.take() else {
            return Err(Error::io(doing())(std::io::Error::other("no pipe to the watcher")));
        };
        Ok(Self { what: launch.what, child, watcher })
    }

    pub(crate) fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// The process of the server itself: the shell that starts it becomes it.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    fn pid(&self) -> Pid {
        // the kernel's own limit on process ids is far below i32::MAX
        Pid::from_raw(i32::try_from(self.id()).unwrap_or(i32::MAX))
    }

    /// Sends each signal in turn and waits for its time; then kills.
    pub(crate) fn stop(mut self, steps: &[(Signal, Duration)]) -> Result<(), Error> {
        for (signal, limit) in steps {
            if self.gone_after(*signal, *limit) {
                self.release();
                return Ok(());
            }
        }
        self.kill9()
    }

    /// Kills the server and its children at once, as a power cut would.
    pub(crate) fn kill9(mut self) -> Result<(), Error> {
        let pid = self.pid();
        let children = children_of(pid);
        let gone = self.gone_after(Signal::SIGKILL, KILL_LIMIT);
        for child in children {
            // most are gone by themselves already: their parent is
            let _gone = kill(child, Signal::SIGKILL);
        }
        self.release();
        if gone { Ok(()) } else { Err(Error::NotStopped { what: self.what, pid: pid.as_raw() }) }
    }

    fn gone_after(&mut self, signal: Signal, limit: Duration) -> bool {
        // a child that was not yet waited for keeps its id, so this never reaches a stranger
        if self.exited().is_none() {
            let _gone = kill(self.pid(), signal);
        }
        wait_until(limit, || self.exited().is_some())
    }

    fn release(&mut self) {
        let _closed = self.watcher.write_all(b"released\n");
    }
}

/// Nothing but what a server needs: variables such as `PGDATA` must not reach it.
pub(crate) fn plain_environment(command: &mut Command) {
    command.env_clear().env("LC_ALL", "C").env("TZ", "UTC");
    for name in ["PATH", "LD_LIBRARY_PATH"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
}

/// Waits, at most `limit`, until `condition` holds.
pub(crate) fn wait_until(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        pause(LOOK_EVERY);
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the sandbox is synchronous; callers on a runtime use spawn_blocking"
)]
fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// The processes whose parent is `parent`; empty where there is no /proc.
fn children_of(parent: Pid) -> Vec<Pid> {
    processes().into_iter().filter(|pid| parent_of(*pid) == Some(parent)).collect()
}

/// The processes whose working folder is `folder`, as far as this user may see.
pub(crate) fn working_in(folder: &Path) -> Vec<Pid> {
    let inside = |pid: &Pid| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == folder);
    processes().into_iter().filter(inside).collect()
}

fn processes() -> Vec<Pid> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).map(Pid::from_raw).collect()
}

fn parent_of(pid: Pid) -> Option<Pid> {
    // the second field is the program's name in brackets and may hold spaces and brackets itself
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?;
    parent.parse().ok().map(Pid::from_raw)
}

/// The last lines of a log, for an error.
pub(crate) fn tail(log: &Path) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
    };
    read().unwrap_or_else(|error| format!("(no log: {error})"))
}

/// Runs a program that prepares something, and quotes the end of its output where it fails.
pub(crate) fn run(command: &mut Command, input: &str) -> Result<String, Error> {
    let program = format!("{command:?}");
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(Error::io(format!("run {program}")))?;
    if let Some(mut stdin) = child.stdin.take() {
        // a program that ends without reading its input says why by its outcome
        let _closed = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(Error::io(format!("run {program}")))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    let start = text.char_indices().rev().nth(1_200).map_or(0, |(at, _)| at);
    Err(Error::Program {
        program,
        outcome: output.status.to_string(),
        output: text[start..].trim().to_owned(),
    })
}
