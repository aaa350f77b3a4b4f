//! What can go wrong with private servers, and what was tried before giving up.

use std::{io, path::PathBuf, time::Duration};

/// Why a sandbox could not be started, stopped or handled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No source has a server of this kind that is new enough.
    #[error("no usable {what}; tried: {}", tried.join("; "))]
    NotFound {
        /// The server that was looked for.
        what: &'static str,
        /// One line for each place that was looked at, with the reason why it does not serve.
        tried: Vec<String>,
    },
    /// A file, folder or process of the sandbox could not be handled.
    #[error("cannot {doing}")]
    Io {
        /// What was being done, and to what.
        doing: String,
        /// The operating system's answer.
        #[source]
        source: io::Error,
    },
    /// A program that prepares a server ended with a failure.
    #[error("{program} failed ({outcome}): {output}")]
    Program {
        /// The program, with what it was asked.
        program: String,
        /// How it ended.
        outcome: String,
        /// The end of what it printed.
        output: String,
    },
    /// The server ended, or did not answer in time.
    #[error("{what} did not become ready within {waited:?}: {reason}; its log ends: {log}")]
    NotReady {
        /// The server.
        what: &'static str,
        /// How long it was waited for.
        waited: Duration,
        /// The last answer, or how the server ended.
        reason: String,
        /// The last lines of its log.
        log: String,
    },
    /// A server did not end, though it was killed.
    #[error("{what} (process {pid}) does not end")]
    NotStopped {
        /// The server.
        what: &'static str,
        /// Its process.
        pid: i32,
    },
    /// The data folder is used by another process.
    #[error("{} is in use by {holder}", path.display())]
    InUse {
        /// The data folder.
        path: PathBuf,
        /// Who holds it, as far as can be told.
        holder: String,
    },
    /// The unprivileged user under whom the servers run cannot enter a folder.
    #[error("the user {user}, under whom the servers run, cannot enter {}; choose another data folder", path.display())]
    Unreachable {
        /// The user.
        user: String,
        /// The folder that shuts it out.
        path: PathBuf,
    },
    /// Started as root, on a machine without an unprivileged user.
    #[error("servers are not run as root, and neither of the users postgres and nobody exists")]
    NoUser,
    /// A drill was asked of a server that was given by its url: it is not ours to stop.
    #[error("{what} was given by its url and is not the sandbox's to start or stop")]
    NotOurs {
        /// The server.
        what: &'static str,
    },
    /// The server is started already.
    #[error("{what} runs already")]
    Running {
        /// The server.
        what: &'static str,
    },
    /// An environment variable has a value that means nothing.
    #[error("{name} must be a comma-separated list of path, debian, wheels, not {value:?}")]
    Variable {
        /// The variable.
        name: &'static str,
        /// Its value.
        value: String,
    },
    /// A url names no address that can be tried.
    #[error("the url of {what} names no host and port")]
    Url {
        /// The server.
        what: &'static str,
    },
}

impl Error {
    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }

    pub(crate) fn errno(doing: impl Into<String>) -> impl FnOnce(nix::Error) -> Self {
        let doing = doing.into();
        move |errno| Self::Io { doing, source: errno.into() }
    }
}
