//! The wire: messages in, checked values inside, messages and statuses out. No rules.

pub(crate) mod decode;
pub(crate) mod encode;
mod hierarchy;
mod resolution;
mod status;

pub use hierarchy::Hierarchy;
pub use resolution::Resolutions;
