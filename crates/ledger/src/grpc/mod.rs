//! The wire, nothing else: decode everything at once, call the ledger, encode.

mod budget;
mod catalog;
mod decode;
mod decode_batch;
mod decode_hold;
mod decode_lot;
mod decode_notice;
mod encode;
mod encode_notice;
mod hold;
mod lot;
mod notice;
mod settlement;
mod status;
mod token;

pub use budget::Budgets;
pub use catalog::Catalog;
pub use hold::Holds;
pub use lot::Lots;
pub use notice::Notices;
pub use settlement::Settlement;
pub use token::Tokens;
