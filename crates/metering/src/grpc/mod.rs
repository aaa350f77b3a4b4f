//! The wire, nothing else: messages become checked values, values become messages, refusals become statuses.

mod codec;
mod decode;
mod encode;
mod events;
mod ingest;
mod record;
mod server;
mod stream;
mod usage;
mod watch;

pub(crate) use events::RecordServer;
pub(crate) use ingest::Ingest;
pub(crate) use record::{Problem, Record};
pub(crate) use server::IngestServer;
pub(crate) use usage::Usage;
