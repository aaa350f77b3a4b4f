//! One private Redis, with a log of every write: a sandbox loses only what a drill deletes.

use std::{
    fs,
    path::PathBuf,
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

/// Redis: the sandbox's own, or one that was given by its url.
#[derive(Debug)]
pub(crate) struct Redis {
    url: String,
    own: Option<Own>,
}

#[derive(Debug)]
struct Own {
    place: Arc<Place>,
    program: PathBuf,
    folder: PathBuf,
    port: u16,
    secret: String,
    child: Mutex<Option<Supervised>>,
}

impl Redis {
    pub(crate) fn given(url: String) -> Result<Self, Error> {
        probe::reach(WHAT, &url, 6379)?;
        Ok(Self { url, own: None })
    }

    pub(crate) fn start_in(place: Arc<Place>, sources: &[Source]) -> Result<Self, Error> {
        let program = find::redis(sources)?;
        let folder = place.server("redis")?;
        let secret = place.secret(&folder)?;
        let mut tries = 1;
        loop {
            let port = probe::free_port()?;
            let (program, folder, secret) = (program.clone(), folder.clone(), secret.clone());
            let url = format!("redis://:{secret}@127.0.0.1:{port}");
            let own =
                Own { place: Arc::clone(&place), program, folder, port, secret, child: Mutex::new(None) };
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
        let mut child = Supervised::spawn(Launch {
            what: WHAT,
            program: &self.program,
            arguments: vec![settings.into()],
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

    /// In a file and not on the command line, which every user of the machine may read.
    fn settings(&self) -> String {
        format!(
            "bind 127.0.0.1\nport {}\nprotected-mode yes\nrequirepass {}\ndaemonize no\nsave \"\"\n\
             appendonly yes\nappendfsync always\nmaxmemory-policy noeviction\n",
            self.port, self.secret
        )
    }
}
