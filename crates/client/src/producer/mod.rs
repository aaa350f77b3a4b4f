//! The producer: events go into a durable log and stay there until the ledger has settled them. Or, where that is
//! asked for by name ([`Keep::Memory`]), into memory and nowhere else.
//!
//! Shape: [`Producer::append`] puts an event into the open group (a lock, a hash, a few varints). A
//! *writer* thread makes groups durable, one `fdatasync` each. A *sender* task sends durable frames to
//! metering, lane by lane, and listens for watermarks: `applied` steers sending, `settled` frees the
//! log. Whatever dies (this process, the stream, metering, its store), what was durable is sent again
//! and counted once, because an event is its lane and sequence.
//!
//! What can be lost: events appended and not yet durable when the process dies (about `linger_ms`, up to
//! `linger_max_ms` on a slow disk, and one fsync); [`Producer::flush`] waits until there are none. What cannot be undone is said as a
//! [`Fault`]: a second process with the same id (fenced), or a log that was copied or restored
//! (diverged). Then this producer sends nothing more and refuses events.
//!
//! In memory only, a group is kept instead of written and freed when it is settled; everything behind that is the
//! same: lanes, sequences, chains, resending. Whatever is not settled when the process ends is lost. `adoption`
//! says how the next process takes the lanes over, and why nothing is counted twice.

mod adoption;
pub mod blocking;
mod encode;
mod error;
mod index;
mod log;
mod memory;
mod metrics;
mod open;
mod opening;
mod options;
mod otel;
mod pending;
mod progress;
mod refusals;
mod registration;
mod sender;
mod series;
mod session;
mod shared;
mod spelling;
mod usage;
mod writer;

pub use drawdown_metering_core::{fault::FieldFault, series::Outcome};

pub use self::{
    error::{AppendError, Fault, LaneStop, OpenError, WaitError},
    log::LogError,
    metrics::{GroupCommit, ProducerMetrics, Reached},
    open::Producer,
    options::{Keep, ProducerOptions, WhenFull},
    otel::Instruments,
    progress::{LaneProgress, LostRange, Progress},
    usage::{Appended, MARK_BYTES_MAX, Mark, SeriesHandle, SeriesUsage, Usage},
};

#[cfg(test)]
mod tests;
