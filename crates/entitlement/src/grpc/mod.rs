//! The wire: messages in, checked values inside, messages and statuses out. No rules.

mod accounts;
mod credentials;
pub(crate) mod decode;
pub(crate) mod encode;
pub(crate) mod encode_history;
mod hierarchy;
mod history;
mod hubs;
mod imports;
mod lists;
mod members;
mod resolution;
mod status;
mod transfers;

pub use accounts::Accounts;
pub use credentials::Credentials;
pub use hierarchy::Hierarchy;
pub use history::Histories;
pub use hubs::Hubs;
pub use imports::Imports;
pub use members::Members;
pub use resolution::Resolutions;
pub use transfers::Transfers;
