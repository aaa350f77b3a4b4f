//! The wire, nothing else: decode everything at once, call the ledger, encode.

mod budget;
mod catalog;
mod decode;
mod decode_batch;
mod decode_hold;
mod decode_lot;
mod decode_notice;
mod decode_report;
mod decode_review;
mod encode;
mod encode_notice;
mod encode_report;
mod explain;
mod export;
mod hold;
mod lot;
mod notice;
mod report;
mod review;
mod settlement;
mod statement;
mod status;
mod token;
mod what_if;

pub use budget::Budgets;
pub use catalog::Catalog;
pub use explain::Explain;
pub use hold::Holds;
pub use lot::Lots;
pub use notice::Notices;
pub use report::Reports;
pub use review::Review;
pub use settlement::Settlement;
pub use token::Tokens;
pub use what_if::WhatIf;
