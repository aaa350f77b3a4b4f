//! Owns accounts, teams, users, apps and credentials with their history; says who pays (D23).
//!
//! The rules are in `drawdown-entitlement-core`; here are the wire, the tables and the start. See
//! `DESIGN.md` for what was decided and why.

mod acts;
mod app;
pub mod config;
mod error;
mod explain;
mod grpc;
mod identity;
mod jobs;
mod ledger;
mod memory;
mod metrics;
pub mod reason;
mod secret;
mod standing;
mod store;

pub use app::{Parts, migrate, run};
pub use config::{AccessLimits, Config, Limits, Options};
pub use error::{Error, Refused, Unfit};
pub use grpc::{
    Access, Accounts, Credentials, Hierarchy, Histories, Hubs, Imports, Members, Principals, Resolutions,
    Transfers,
};
pub use jobs::{
    adopt::{AdoptionConfig, Adoptions},
    follow::{FollowConfig, Follower},
};
pub use ledger::{Adopts, CellLedgers, FirstTeam, Ledger, LedgerFacts};
pub use memory::{AccessPolicy, Memory, MemorySize};
pub use secret::{Pepper, PepperError};
pub use standing::{StandingChanges, Standings};
pub use store::{InstallationError, PoolConfig, SERVICE_ROLE, TENANT_ROLE, owner, pool};
