//! The wire, nothing else: messages become checked values, values become messages, refusals become statuses.

mod decode;
mod encode;
mod ingest;
mod stream;
mod usage;

pub(crate) use ingest::Ingest;
pub(crate) use usage::Usage;
