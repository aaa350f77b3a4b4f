//! Clock-driven loops. Nothing waits for them to be true: every writer rolls its teams forward first, and
//! every reader computes the same without one.

pub mod adopt;
pub mod compact;
pub mod due;
pub mod feed;
pub mod months;
pub mod relay;
pub mod skew;
