//! What can go wrong, one type for each family of calls.

use std::sync::Arc;

use drawdown_metering_core::{
    fault::FieldFault,
    resume::ChainAt,
    shard::{Lane, Position},
};
use drawdown_types::ProducerId;
use tonic::Status;

use super::log::LogError;
use crate::channel::{ChannelError, OptionProblem};

/// Why a producer stopped for good. It sends nothing any more; what is in its log stays there, and what was in
/// memory only and is not settled is lost.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// Another process has opened the same producer since; this one is the copy that stops.
    #[error("fenced: epoch {registered} is registered, this producer has {mine}")]
    Fenced {
        /// The epoch in the ledger; 0 where metering did not say.
        registered: u64,
        /// The epoch of this process.
        mine: u64,
    },
    /// The ledger settled other events under the same sequences: the log is a clone, or was restored.
    #[error("diverged: lane {lane} is settled through {settled:?}, where this log holds {held:?}")]
    Diverged {
        /// The lane.
        lane: Lane,
        /// What the ledger holds.
        settled: Position,
        /// What this log holds there.
        held: ChainAt,
    },
    /// The ledger stands before what the log has freed, so a range can not be sent again.
    #[error("lane {lane} is settled through {settled} only, while the log has freed through {freed}")]
    Freed {
        /// The lane.
        lane: Lane,
        /// The last sequence that the ledger has.
        settled: u64,
        /// The last sequence that the log has let go.
        freed: u64,
    },
    /// The ledger does not know this producer.
    #[error("producer {0} is not known")]
    Unknown(ProducerId),
    /// Metering refuses this producer for a reason that will not pass.
    #[error("metering refuses the producer: {}", reason.as_deref().unwrap_or("no reason given"))]
    Refused {
        /// The stable reason, where one was given.
        reason: Option<String>,
        /// The status.
        #[source]
        status: Box<Status>,
    },
    /// The log can not be written or read back.
    #[error("the log failed")]
    Log(#[source] LogError),
    /// Metering sent what the contract does not allow.
    #[error("metering broke the contract: {0}")]
    Contract(&'static str),
}

/// One lane that metering stopped; the others go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("lane {lane} stopped: {reason}: {detail}")]
pub struct LaneStop {
    /// The lane.
    pub lane: Lane,
    /// The stable reason.
    pub reason: String,
    /// For people.
    pub detail: String,
    /// Offending fields.
    pub fields: Vec<FieldFault>,
}

/// Why a producer was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Options that can not be used, all of them at once.
    #[error("producer options can not be used: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Options(Vec<OptionProblem>),
    /// The log can not be opened.
    #[error("the log can not be opened")]
    Log(#[source] LogError),
    /// A new log needs the id that CreateProducer gave.
    #[error("the log is new and no producer id was given")]
    ProducerIdMissing,
    /// A new log was not registered within `register_timeout_ms`.
    #[error("metering did not register the new log in time")]
    NotRegistered(#[source] Option<Box<Status>>),
    /// The producer may not go on.
    #[error("the producer may not go on")]
    Fault(#[source] Arc<Fault>),
    /// A thread of the producer was not started.
    #[error("a thread of the producer was not started")]
    Thread(#[source] std::io::Error),
    /// The options of the channel can not be used.
    #[error("the channel to metering can not be made")]
    Channel(#[source] ChannelError),
}

/// Why an event was not taken. Nothing of it was kept.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The event itself is wrong; every offending field.
    #[error("usage is not valid: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Invalid(Vec<FieldFault>),
    /// More events wait for the disk than may; `ready` says when there is room.
    #[error("{pending_events} events wait to be durable, which is the most")]
    Backlogged {
        /// How many wait.
        pending_events: u64,
    },
    /// The log, or the memory for events, is full of what is not settled; `ready` says when there is room.
    #[error("{kept_bytes} bytes of at most {kept_bytes_max} are kept for events that are not settled")]
    Full {
        /// What is kept.
        kept_bytes: u64,
        /// What may be kept.
        kept_bytes_max: u64,
    },
    /// The log has defined as many series as it may.
    #[error("log has {0} series, which is the most")]
    SeriesExhausted(u32),
    /// The log keeps marks of as many sources as it may.
    #[error("log keeps marks of {0} sources, which is the most")]
    SourcesExhausted(usize),
    /// A mark says what is durable, and this producer keeps its events in memory only.
    #[error("marks need a log, and this producer has none")]
    MarksNeedLog,
    /// The producer has stopped for good.
    #[error("the producer has stopped")]
    Stopped(#[source] Arc<Fault>),
    /// The producer was closed.
    #[error("the producer is closed")]
    Closed,
}

impl AppendError {
    /// A short name of the reason, for metrics.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "invalid",
            Self::Backlogged { .. } => "backlogged",
            Self::Full { .. } => "full",
            Self::SeriesExhausted(_) => "series_exhausted",
            Self::SourcesExhausted(_) => "sources_exhausted",
            Self::MarksNeedLog => "marks_need_log",
            Self::Stopped(_) => "stopped",
            Self::Closed => "closed",
        }
    }

    /// Whether the same event may be taken later.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Backlogged { .. } | Self::Full { .. })
    }
}

/// Why something that was waited for will not come.
#[derive(Debug, thiserror::Error)]
pub enum WaitError {
    /// The producer has stopped for good.
    #[error("the producer has stopped")]
    Stopped(#[source] Arc<Fault>),
    /// A lane was stopped by metering, so its events will not settle.
    #[error("a lane was stopped")]
    LaneStopped(#[source] LaneStop),
    /// It did not come in the time that the caller gave.
    #[error("it did not come in time")]
    TimedOut,
    /// The producer kept its events in memory only and was closed before they were settled.
    #[error("{events} events were kept in memory only and were not settled: they are lost")]
    Unsettled {
        /// How many. Some may be counted all the same: those that metering had on their way.
        events: u64,
    },
    /// The producer was closed.
    #[error("the producer is closed")]
    Closed,
}
