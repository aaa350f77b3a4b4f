//! What a replay needs of a producer. One seam, so that a replay can be killed at any line in a test
//! without a disk or a network.

use std::future::Future;

use drawdown_client::producer::{AppendError, Appended, Mark, Producer, Progress, Usage, WaitError};

/// Takes events and remembers marks, both durable together. [`Producer`] is the one that ships.
pub trait Sink: Sync {
    /// See [`Producer::append`].
    ///
    /// # Errors
    /// [`AppendError`].
    fn append(&self, usage: &Usage<'_>, mark: Mark<'_>) -> Result<Appended, AppendError>;
    /// See [`Producer::mark`].
    ///
    /// # Errors
    /// [`AppendError`].
    fn mark(&self, mark: Mark<'_>) -> Result<(), AppendError>;
    /// See [`Producer::mark_of`].
    fn mark_of(&self, source: &[u8]) -> Option<Vec<u8>>;
    /// See [`Producer::ready`].
    fn ready(&self) -> impl Future<Output = Result<(), WaitError>> + Send;
    /// See [`Producer::flush`].
    fn flush(&self) -> impl Future<Output = Result<(), WaitError>> + Send;
    /// See [`Producer::await_settled`].
    fn await_settled(&self) -> impl Future<Output = Result<(), WaitError>> + Send;
    /// See [`Producer::progress`].
    fn progress(&self) -> Progress;
}

impl Sink for Producer {
    fn append(&self, usage: &Usage<'_>, mark: Mark<'_>) -> Result<Appended, AppendError> {
        Self::append(self, usage, Some(mark))
    }

    fn mark(&self, mark: Mark<'_>) -> Result<(), AppendError> {
        Self::mark(self, mark)
    }

    fn mark_of(&self, source: &[u8]) -> Option<Vec<u8>> {
        Self::mark_of(self, source)
    }

    fn ready(&self) -> impl Future<Output = Result<(), WaitError>> + Send {
        Self::ready(self)
    }

    fn flush(&self) -> impl Future<Output = Result<(), WaitError>> + Send {
        Self::flush(self)
    }

    fn await_settled(&self) -> impl Future<Output = Result<(), WaitError>> + Send {
        Self::await_settled(self)
    }

    fn progress(&self) -> Progress {
        Self::progress(self)
    }
}
