//! The wire, nothing else: decode everything at once, call the ledger, encode.

mod catalog;
mod decode;
mod decode_batch;
mod encode;
mod settlement;
mod status;
mod token;

pub use catalog::Catalog;
pub use settlement::Settlement;
pub use token::Tokens;
