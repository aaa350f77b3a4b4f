//! Clock-driven loops. Everything of this service is true without a job; what the ledger makes of it needs one.

pub(crate) mod adopt;
pub(crate) mod clock_check;
pub(crate) mod feed;
pub(crate) mod follow;
