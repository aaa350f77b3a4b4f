//! What can be wrong with a log.

use std::{io, path::PathBuf};

use drawdown_types::ProducerId;

/// Why the log can not be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Another process, or another producer of this one, holds the directory.
    #[error("log directory {} is in use", dir.display())]
    InUse {
        /// The directory.
        dir: PathBuf,
    },
    /// The operating system refused.
    #[error("{action} failed for {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Bytes that were durable are not what was written. Nothing was opened, cut or sent.
    #[error("{} is corrupt at byte {offset}: {problem}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What does not hold.
        problem: String,
    },
    /// The log belongs to another producer.
    #[error("log belongs to {found}, not to {asked}")]
    OtherProducer {
        /// Whose log it is.
        found: ProducerId,
        /// Whose log was asked for.
        asked: ProducerId,
    },
    /// An earlier write failed, so the end of the file is unknown until the log is opened again.
    #[error("an earlier write to the log failed; open it again")]
    Poisoned,
    /// A record would have more bytes than the format can hold.
    #[error("a record of the log would be larger than 4 GiB")]
    RecordTooLarge,
}

impl LogError {
    pub(super) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }

    pub(super) fn corrupt(path: impl Into<PathBuf>, offset: usize, problem: impl Into<String>) -> Self {
        let offset = u64::try_from(offset).unwrap_or(u64::MAX);
        Self::Corrupt { path: path.into(), offset, problem: problem.into() }
    }

    /// Whether opening the log again can help without anybody's work on the directory.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::InUse { .. } | Self::Io { .. } | Self::Poisoned)
    }
}
