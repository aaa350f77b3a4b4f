//! Clock-driven loops of the service.

mod post;
pub mod settle;
