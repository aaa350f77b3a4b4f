//! The wire: messages in, checked values inside, messages and statuses out. No rules.

mod access;
mod accounts;
mod credentials;
pub(crate) mod decode;
pub(crate) mod encode;
mod encode_access;
pub(crate) mod encode_history;
pub(crate) mod encode_principal;
mod hierarchy;
mod history;
mod hubs;
mod imports;
mod lists;
mod members;
mod principals;
mod resolution;
mod status;
mod transfers;
mod watch;

pub use access::Access;
pub use accounts::Accounts;
pub use credentials::Credentials;
pub use hierarchy::Hierarchy;
pub use history::Histories;
pub use hubs::Hubs;
pub use imports::Imports;
pub use members::Members;
pub use principals::Principals;
pub use resolution::Resolutions;
pub use transfers::Transfers;
