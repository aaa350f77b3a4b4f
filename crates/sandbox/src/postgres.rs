//! One private Postgres.
//!
//! Order: the cluster is made in `data.new` and renamed, so that a `data` that exists is whole. The port stays the
//! same while the sandbox lives: services keep their url through kills and restarts. No socket in the file system:
//! its path would bound the length of a data folder, and the loopback serves as well.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use nix::sys::signal::Signal;

use crate::{
    Error, Source,
    find::{self, PostgresPrograms},
    place::Place,
    probe,
    process::{Launch, Supervised, plain_environment, run, tail, wait_until},
};

const WHAT: &str = "Postgres";
const USER: &str = "drawdown";
const DATABASE: &str = "drawdown";
/// Sessions of all test processes together.
const CONNECTIONS_MAX: u32 = 200;
/// Recovery after a kill may take its time on a slow disk.
const READY_LIMIT: Duration = Duration::from_secs(60);
/// Ports or leftovers of a killed server may stand in the way of a start.
const START_TRIES: u32 = 5;
/// Fast shutdown, then immediate shutdown.
const STOP: [(Signal, Duration); 2] =
    [(Signal::SIGINT, Duration::from_secs(20)), (Signal::SIGQUIT, Duration::from_secs(5))];

/// Postgres: the sandbox's own, or one that was given by its url.
#[derive(Debug)]
pub(crate) struct Postgres {
    url: String,
    own: Option<Own>,
}

#[derive(Debug)]
struct Own {
    place: Arc<Place>,
    programs: PostgresPrograms,
    folder: PathBuf,
    port: u16,
    synced: bool,
    child: Mutex<Option<Supervised>>,
}

impl Postgres {
    pub(crate) fn given(url: String) -> Result<Self, Error> {
        probe::reach(WHAT, &url, 5432)?;
        Ok(Self { url, own: None })
    }

    pub(crate) fn start_in(place: Arc<Place>, sources: &[Source], synced: bool) -> Result<Self, Error> {
        let programs = find::postgres(sources)?;
        let folder = place.server("postgres")?;
        let secret = place.secret(&folder)?;
        if !folder.join("data").is_dir() {
            init(&place, &programs, &folder)?;
        }
        let mut tries = 1;
        loop {
            let port = probe::free_port()?;
            let own = Own {
                place: Arc::clone(&place),
                programs: programs.clone(),
                folder: folder.clone(),
                port,
                synced,
                child: Mutex::new(None),
            };
            match own.start() {
                Ok(()) => {
                    let url = format!("postgres://{USER}:{secret}@127.0.0.1:{port}/{DATABASE}");
                    return Ok(Self { url, own: Some(own) });
                }
                Err(error) if tries >= START_TRIES => return Err(error),
                Err(error) => tracing::debug!(%error, tries, "start of postgres"),
            }
            tries += 1;
        }
    }

    /// `postgres://…` of the database `drawdown`; the same through kills and restarts.
    #[must_use]
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The folder of `postgres`, `initdb` and mostly `psql`; none where the server was given by its url.
    #[must_use]
    pub(crate) fn programs(&self) -> Option<&Path> {
        self.own.as_ref()?.programs.postgres.parent()
    }

    pub(crate) fn start(&self) -> Result<(), Error> {
        let own = self.own()?;
        own.expect_stopped()?;
        let mut tries = 1;
        // backends of a killed server may still hold its memory for a moment
        while let Err(error) = own.start() {
            if tries >= START_TRIES {
                return Err(error);
            }
            tries += 1;
        }
        Ok(())
    }

    pub(crate) fn stop(&self) -> Result<(), Error> {
        match self.own.as_ref().and_then(|own| own.lock().take()) {
            Some(child) => child.stop(&STOP),
            None => Ok(()),
        }
    }

    pub(crate) fn kill9(&self) -> Result<(), Error> {
        match self.own()?.lock().take() {
            Some(child) => child.kill9(),
            None => Ok(()),
        }
    }

    pub(crate) fn back_up(&self) -> Result<(), Error> {
        let own = self.own()?;
        own.expect_stopped()?;
        replace(&own.folder.join("data"), &own.folder.join("backup"))
    }

    pub(crate) fn restore(&self) -> Result<(), Error> {
        let own = self.own()?;
        own.expect_stopped()?;
        replace(&own.folder.join("backup"), &own.folder.join("data"))
    }

    fn own(&self) -> Result<&Own, Error> {
        self.own.as_ref().ok_or(Error::NotOurs { what: WHAT })
    }
}

impl Own {
    fn lock(&self) -> MutexGuard<'_, Option<Supervised>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A server that ended by itself counts as stopped; its watcher must not tidy up behind the next one.
    fn expect_stopped(&self) -> Result<(), Error> {
        let mut child = self.lock();
        if child.as_mut().is_some_and(|child| child.exited().is_none()) {
            return Err(Error::Running { what: WHAT });
        }
        child.take().map_or(Ok(()), Supervised::kill9)
    }

    fn start(&self) -> Result<(), Error> {
        let data = self.folder.join("data");
        let log = self.folder.join("log");
        let mut arguments: Vec<OsString> = vec!["-D".into(), data.clone().into()];
        for setting in settings(self.port, self.synced) {
            arguments.extend(["-c".into(), setting.into()]);
        }
        let mut child = Supervised::spawn(Launch {
            what: WHAT,
            program: &self.programs.postgres,
            arguments,
            folder: &data,
            log: &log,
            run_as: self.place.run_as(),
            remove: self.place.temporary().then(|| self.folder.clone()),
        })?;
        let mut reason = String::new();
        let mut ended = None;
        wait_until(READY_LIMIT, || {
            ended = child.exited();
            // a stranger that took the port in between must not pass for our own
            let ours = if is_ready(&data, child.id()) {
                probe::postgres(self.port, USER, DATABASE)
            } else {
                Err("it does not call itself ready".to_owned())
            };
            match ours {
                Ok(()) => reason.clear(),
                Err(answer) => reason = answer,
            }
            ended.is_some() || reason.is_empty()
        });
        if ended.is_none() && reason.is_empty() {
            *self.lock() = Some(child);
            return Ok(());
        }
        let reason = ended.map_or(reason, |status| format!("it ended: {status}"));
        child.kill9()?;
        Err(Error::NotReady { what: WHAT, waited: READY_LIMIT, reason, log: tail(&log) })
    }
}

/// Copies a folder with owners and rights in the place of another one.
fn replace(from: &Path, to: &Path) -> Result<(), Error> {
    if to.exists() {
        fs::remove_dir_all(to).map_err(Error::io(format!("remove {}", to.display())))?;
    }
    let mut copy = Command::new("cp");
    plain_environment(copy.arg("-a").arg(from).arg(to));
    run(&mut copy, "").map(drop)
}

/// Whether the server of this process has written that it takes calls. A file of a killed one names another process.
fn is_ready(data: &Path, process: u32) -> bool {
    let Ok(file) = fs::read_to_string(data.join("postmaster.pid")) else { return false };
    file.lines().next().is_some_and(|pid| pid.trim().parse() == Ok(process))
        && file.lines().any(|line| line.trim() == "ready")
}

/// What is said at every start; everything else stays as Postgres has it, `full_page_writes` among it.
fn settings(port: u16, synced: bool) -> Vec<String> {
    let fixed = [
        "listen_addresses=127.0.0.1",
        "unix_socket_directories=",
        if synced { "fsync=on" } else { "fsync=off" },
        "synchronous_commit=on",
        "logging_collector=off",
        "log_destination=stderr",
        "timezone=UTC",
        "log_timezone=UTC",
    ];
    let mut all: Vec<String> = fixed.map(str::to_owned).into();
    all.push(format!("port={port}"));
    all.push(format!("max_connections={CONNECTIONS_MAX}"));
    all
}

fn init(place: &Place, programs: &PostgresPrograms, folder: &Path) -> Result<(), Error> {
    let fresh = folder.join("data.new");
    if fresh.exists() {
        fs::remove_dir_all(&fresh).map_err(Error::io(format!("remove {}", fresh.display())))?;
    }
    let prepared = |program: &Path| {
        let mut command = Command::new(program);
        plain_environment(command.current_dir(folder));
        if let Some(user) = place.run_as() {
            user.apply(&mut command);
        }
        command
    };
    let mut initdb = prepared(&programs.initdb);
    initdb.arg("--pgdata").arg(&fresh).arg("--pwfile").arg(folder.join("secret"));
    initdb.args(["--username", USER, "--encoding=UTF8", "--locale=C", "--auth=scram-sha-256"]);
    if place.temporary() {
        // the folder goes with this process; what is committed later is synced all the same
        initdb.arg("--no-sync");
    }
    run(&mut initdb, "")?;
    let mut single = prepared(&programs.postgres);
    single.arg("--single").arg("-D").arg(&fresh).arg("postgres");
    run(&mut single, &format!("create database {DATABASE}\n"))?;
    let data = folder.join("data");
    fs::rename(&fresh, &data).map_err(Error::io(format!("rename {}", fresh.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_is_that_of_our_own_process() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!is_ready(folder.path(), 42));
        let cases = [
            ("42\n/data\n1700000000\n5432\n\n127.0.0.1\n  1 2\nready   \n", true),
            ("42\n/data\n1700000000\n5432\n\n127.0.0.1\n  1 2\nstarting\n", false),
            ("43\n/data\n1700000000\n5432\n\n127.0.0.1\n  1 2\nready   \n", false),
            ("", false),
        ];
        for (content, expected) in cases {
            fs::write(folder.path().join("postmaster.pid"), content).unwrap();
            assert_eq!(is_ready(folder.path(), 42), expected, "{content}");
        }
    }
}
