//! The accumulator in Redis: keys, the function library, and typed calls of it. No rules.
//!
//! Shape: two keys a shard in one hash slot (see `lua/drawdown.lua`). Cost: every call here is one round
//! trip; [`Store::write`] is one for any number of shards. A call whose outcome is unknown (an error, a
//! time-out) may still take effect later: its caller reads the head again and takes a new dictionary id.

mod keys;
mod lanes;
mod lease;
mod line;
mod reply;
mod safety;
mod scripts;
mod settings;
mod store;

pub use keys::{Keys, Namespace, NamespaceError};
pub use lanes::{LanesRetired, RetireLanes};
pub use lease::{Lease, LeaseAsk, LeaseWish};
pub use reply::{
    Applied, Asked, Attached, HeadFault, Installed, LaneRefusal, Malformed, Refused, Retired, Sealed,
};
pub use safety::StartError;
pub use settings::{Servers, Settings};
pub use store::{Apply, ApplyLane, Attach, AttachLane, Error, Install, Roll, Store, Write, Written};

#[cfg(test)]
mod tests;
