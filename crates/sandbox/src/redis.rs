//! One private Redis, with a log of every write: a sandbox loses only what a drill deletes.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use nix::sys::signal::Signal;

use crate::{
    Error, Source, find,
    place::Place,
    probe,
    process::{Launch, Supervised, tail, wait_until},
};

const WHAT: &str = "Redis";
/// A long log may take its time to be read.
const READY_LIMIT: Duration = Duration::from_secs(60);
/// A port may be lost to another process between its choice and its use.
const START_TRIES: u32 = 5;
const STOP: [(Signal, Duration); 1] = [(Signal::SIGTERM, Duration::from_secs(15))];
/// Starts a server that may not write files above a size, given in blocks of 512 bytes, and hears of it as an error.
const LIMITED: &str = "trap '' XFSZ; ulimit -f \"$1\"; shift; exec \"$@\"";
const BLOCK_BYTES: u64 = 512;

/// Redis: the sandbox's own, or one that was given by its url.
#[derive(Debug)]
pub(crate) struct Redis {
    url: String,
    own: Option<Own>,
}

/// What a server of our own is.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Its folder in the place.
    pub(crate) name: String,
    pub(crate) program: PathBuf,
    /// Its password; one of its own where there is none.
    pub(crate) secret: Option<String>,
    pub(crate) role: Role,
    /// Lines of its settings, after ours.
    pub(crate) lines: Vec<String>,
}

/// What a server does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Role {
    Data,
    /// A node of a cluster, which needs a second port.
    Node,
    Sentinel,
}

#[derive(Debug)]
struct Own {
    place: Arc<Place>,
    plan: Plan,
    folder: PathBuf,
    port: u16,
    bus_port: u16,
    secret: String,
    /// Largest file that it may write, in bytes.
    file_bytes_max: Mutex<Option<u64>>,
    child: Mutex<Option<Supervised>>,
}

impl Redis {
    pub(crate) fn given(url: String) -> Result<Self, Error> {
        probe::reach(WHAT, &url, 6379)?;
        Ok(Self { url, own: None })
    }

    pub(crate) fn start_in(place: Arc<Place>, sources: &[Source]) -> Result<Self, Error> {
        let program = find::redis(sources)?;
        let plan =
            Plan { name: "redis".to_owned(), program, secret: None, role: Role::Data, lines: Vec::new() };
        Self::start_as(place, &plan)
    }

    pub(crate) fn start_as(place: Arc<Place>, plan: &Plan) -> Result<Self, Error> {
        let folder = place.server(&plan.name)?;
        let secret = plan.secret.clone().map_or_else(|| place.secret(&folder), Ok)?;
        let mut tries = 1;
        loop {
            let (port, bus_port) = (probe::free_port()?, probe::free_port()?);
            let url = format!("redis://:{secret}@127.0.0.1:{port}");
            let own = Own {
                place: Arc::clone(&place),
                plan: plan.clone(),
                folder: folder.clone(),
                port,
                bus_port,
                secret: secret.clone(),
                file_bytes_max: Mutex::new(None),
                child: Mutex::new(None),
            };
            match own.start() {
                Ok(()) => return Ok(Self { url, own: Some(own) }),
                Err(error) if tries >= START_TRIES => return Err(error),
                Err(error) => tracing::debug!(%error, tries, "start of redis"),
            }
            tries += 1;
        }
    }

    /// `redis://…`; the same through kills and restarts.
    #[must_use]
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn start(&self) -> Result<(), Error> {
        let own = self.own()?;
        own.expect_stopped()?;
        own.start()
    }

    pub(crate) fn start_empty(&self) -> Result<(), Error> {
        let own = self.own()?;
        own.expect_stopped()?;
        let data = own.folder.join("data");
        fs::remove_dir_all(&data).map_err(Error::io(format!("remove {}", data.display())))?;
        own.start()
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

    /// From the next start on; `None` for any size.
    pub(crate) fn limit_files(&self, bytes_max: Option<u64>) -> Result<(), Error> {
        *self.own()?.file_bytes_max.lock().unwrap_or_else(PoisonError::into_inner) = bytes_max;
        Ok(())
    }

    /// Where it keeps its data.
    pub(crate) fn data(&self) -> Result<PathBuf, Error> {
        Ok(self.own()?.folder.join("data"))
    }

    pub(crate) fn port(&self) -> Result<u16, Error> {
        Ok(self.own()?.port)
    }

    pub(crate) fn bus_port(&self) -> Result<u16, Error> {
        Ok(self.own()?.bus_port)
    }

    pub(crate) fn secret(&self) -> Result<&str, Error> {
        Ok(&self.own()?.secret)
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
        let settings = self.folder.join("redis.conf");
        self.place.folder(&data)?;
        self.place.private_file(&settings, &self.settings())?;
        let (program, arguments) = self.command(settings);
        let mut child = Supervised::spawn(Launch {
            what: WHAT,
            program: &program,
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
            match probe::redis(self.port, &self.secret) {
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

    fn command(&self, settings: PathBuf) -> (PathBuf, Vec<OsString>) {
        let mut arguments: Vec<OsString> = vec![settings.into()];
        if self.plan.role == Role::Sentinel {
            arguments.push("--sentinel".into());
        }
        let limit = *self.file_bytes_max.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(bytes) = limit else { return (self.plan.program.clone(), arguments) };
        let blocks = (bytes / BLOCK_BYTES).to_string();
        let before = ["-c", LIMITED, "limited", blocks.as_str()].map(OsString::from);
        let all = before.into_iter().chain([self.plan.program.clone().into()]).chain(arguments);
        (Path::new("/bin/sh").to_owned(), all.collect())
    }

    /// In a file and not on the command line, which every user of the machine may read.
    fn settings(&self) -> String {
        let mut lines = vec![
            "bind 127.0.0.1".to_owned(),
            format!("port {}", self.port),
            "protected-mode yes".to_owned(),
            format!("requirepass {}", self.secret),
            "daemonize no".to_owned(),
        ];
        if self.plan.role != Role::Sentinel {
            let kept = ["save \"\"", "appendonly yes", "appendfsync always", "maxmemory-policy noeviction"];
            lines.extend(kept.map(str::to_owned));
        }
        if self.plan.role == Role::Node {
            lines.push("cluster-enabled yes".to_owned());
            lines.push(format!("cluster-port {}", self.bus_port));
        }
        lines.extend(self.plan.lines.iter().cloned());
        lines.join("\n") + "\n"
    }
}
