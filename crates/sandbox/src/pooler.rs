//! One private PgBouncer in transaction mode: what stands between many processes and few sessions of a Postgres.
//!
//! It listens on the loopback, knows the one user of the url it is made for, and gives a session out for the length
//! of a transaction; after that the next one may be another.

use std::{path::PathBuf, sync::Arc, time::Duration};

use nix::sys::signal::Signal;

use crate::{
    Error, Source, find,
    place::Place,
    probe,
    process::{Launch, Supervised, tail, wait_until},
};

const WHAT: &str = "PgBouncer";
const READY_LIMIT: Duration = Duration::from_secs(30);
/// A port may be lost to another process between its choice and its use.
const START_TRIES: u32 = 5;
/// At once: a gentle stop would wait for transactions.
const STOP: [(Signal, Duration); 1] = [(Signal::SIGTERM, Duration::from_secs(10))];
/// Clients of all test processes together.
const CLIENTS_MAX: u32 = 500;

/// A pooler in front of a Postgres, running until this is dropped.
#[derive(Debug)]
pub struct Pooler {
    url: String,
    child: Option<Supervised>,
    _place: Arc<Place>,
}

/// What is read of the url of the server.
struct Upstream {
    user: String,
    password: String,
    host: String,
    port: u16,
    database: String,
}

impl Pooler {
    /// Starts a pooler for `url`, a `postgres://user:password@host:port/database` whose parts hold nothing that a url
    /// encodes, with at most `sessions` sessions of that server, and waits until it answers.
    ///
    /// # Errors
    /// Where no PgBouncer is found, the url has not these parts, or it does not become ready.
    pub fn start(url: &str, sessions: u32, sources: &[Source]) -> Result<Self, Error> {
        let upstream = Upstream::of(url).ok_or(Error::Url { what: WHAT })?;
        let program = find::pgbouncer(sources)?;
        let place = Arc::new(Place::open(None)?);
        let folder = place.server("pgbouncer")?;
        place.folder(&folder.join("data"))?;
        let mut tries = 1;
        loop {
            let port = probe::free_port()?;
            match start(&place, &program, &folder, &upstream, port, sessions) {
                Ok(child) => {
                    let Upstream { user, password, database, .. } = upstream;
                    let url = format!("postgres://{user}:{password}@127.0.0.1:{port}/{database}");
                    return Ok(Self { url, child: Some(child), _place: place });
                }
                Err(error) if tries >= START_TRIES => return Err(error),
                Err(error) => tracing::debug!(%error, tries, "start of pgbouncer"),
            }
            tries += 1;
        }
    }

    /// The url of the same database and user through the pooler.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.child.take().map(|child| child.stop(&STOP)) {
            tracing::error!(%error, "cannot stop a pooler of the sandbox");
        }
    }
}

impl Upstream {
    fn of(url: &str) -> Option<Self> {
        let (host, port) = probe::authority(url, 5432)?;
        let rest = url.split_once("://")?.1;
        let (address, path) = rest.split_once('/')?;
        let (user, password) = address.rsplit_once('@')?.0.split_once(':')?;
        let database = path.split('?').next()?;
        let plain = |text: &&str| {
            !text.is_empty()
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
        };
        [user, password, database].iter().all(plain).then(|| Self {
            user: user.to_owned(),
            password: password.to_owned(),
            host,
            port,
            database: database.to_owned(),
        })
    }

    /// In a file and not on the command line, which every user of the machine may read.
    fn settings(&self, port: u16, sessions: u32, users: &str) -> String {
        let Self { host, port: upstream, .. } = self;
        format!(
            "[databases]\n* = host={host} port={upstream}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = scram-sha-256\nauth_file = {users}\npool_mode = transaction\n\
             default_pool_size = {sessions}\nmax_client_conn = {CLIENTS_MAX}\n"
        )
    }
}

fn start(
    place: &Arc<Place>,
    program: &PathBuf,
    folder: &std::path::Path,
    upstream: &Upstream,
    port: u16,
    sessions: u32,
) -> Result<Supervised, Error> {
    let (settings, users, log) = (folder.join("pgbouncer.ini"), folder.join("users"), folder.join("log"));
    place.private_file(&users, &format!("\"{}\" \"{}\"\n", upstream.user, upstream.password))?;
    place.private_file(&settings, &upstream.settings(port, sessions, &users.to_string_lossy()))?;
    let mut child = Supervised::spawn(Launch {
        what: WHAT,
        program,
        arguments: vec![settings.into()],
        folder: &folder.join("data"),
        log: &log,
        run_as: place.run_as(),
        remove: Some(folder.to_path_buf()),
    })?;
    let mut reason = String::new();
    let mut ended = None;
    wait_until(READY_LIMIT, || {
        ended = child.exited();
        match probe::postgres(port, &upstream.user, &upstream.database) {
            Ok(()) => reason.clear(),
            Err(answer) => reason = answer,
        }
        ended.is_some() || reason.is_empty()
    });
    if ended.is_none() && reason.is_empty() {
        return Ok(child);
    }
    let reason = ended.map_or(reason, |status| format!("it ended: {status}"));
    child.kill9()?;
    Err(Error::NotReady { what: WHAT, waited: READY_LIMIT, reason, log: tail(&log) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_url_must_have() {
        let upstream = Upstream::of("postgres://me:secret@127.0.0.1:5433/mine?sslmode=disable").unwrap();
        assert_eq!((upstream.user.as_str(), upstream.database.as_str(), upstream.port), ("me", "mine", 5433));
        let settings = upstream.settings(6432, 2, "/users");
        assert!(settings.contains("host=127.0.0.1 port=5433") && settings.contains("listen_port = 6432"));
        for url in
            ["postgres://me@h/x", "postgres://me:a%20b@h/x", "postgres://me:s@h", "postgres://me:\"@h/x"]
        {
            assert!(Upstream::of(url).is_none(), "{url}");
        }
    }
}
