//! The other services, as metering needs them: typed questions over the clients of `drawdown-client`.
//!
//! Doctrine: an answer is decoded whole or is an error; what another service refuses is told apart from what
//! it could not answer, because only a refusal may lead to a reset.

mod cells;
mod events;
mod ledger;
mod meters;
mod resolver;

pub(crate) use cells::{Cell, Cells, Standing};
pub(crate) use events::Events;
pub(crate) use ledger::{LanesOf, Ledger, Posted};
pub(crate) use meters::Meters;
pub(crate) use resolver::{Question, Resolved, Resolver};

/// Why another service gave no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The call failed.
    #[error("{peer} did not answer {call}")]
    Call {
        /// Who was asked.
        peer: &'static str,
        /// What.
        call: &'static str,
        /// What came back.
        #[source]
        source: Box<tonic::Status>,
    },
    /// The answer can not be read.
    #[error("the answer of {peer} to {call} can not be read: {detail}")]
    Answer {
        /// Who was asked.
        peer: &'static str,
        /// What.
        call: &'static str,
        /// What is wrong with it.
        detail: String,
    },
    /// The ledger of another cell than the leading one.
    #[error("the ledger of cell {cell} was not asked")]
    Cell {
        /// Which.
        cell: u8,
        /// Why.
        #[source]
        source: Box<Error>,
    },
}

impl Error {
    pub(crate) fn call(peer: &'static str, call: &'static str) -> impl FnOnce(tonic::Status) -> Self {
        move |source| Self::Call { peer, call, source: Box::new(source) }
    }

    pub(crate) fn answer(peer: &'static str, call: &'static str, detail: impl std::fmt::Display) -> Self {
        Self::Answer { peer, call, detail: detail.to_string() }
    }

    pub(crate) fn of_cell(cell: u8) -> impl FnOnce(Self) -> Self {
        move |source| Self::Cell { cell, source: Box::new(source) }
    }

    /// Whether the same question may be answered later.
    #[must_use]
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Call { source, .. } => drawdown_client::is_transient(source),
            Self::Answer { .. } => false,
            Self::Cell { source, .. } => source.is_transient(),
        }
    }

    /// Who was asked.
    #[must_use]
    pub(crate) fn peer(&self) -> &'static str {
        match self {
            Self::Call { peer, .. } | Self::Answer { peer, .. } => peer,
            Self::Cell { source, .. } => source.peer(),
        }
    }
}
