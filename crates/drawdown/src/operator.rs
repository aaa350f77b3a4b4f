//! The operator's commands: each is one call of a service, under a request id where it changes something.
//!
//! Nothing is checked here that a service checks: its refusal names every wrong field.

pub(crate) mod access;
pub(crate) mod app;
pub(crate) mod budget;
pub(crate) mod catalog;
mod connection;
mod correction;
mod explain;
mod export;
pub(crate) mod hierarchy;
pub(crate) mod history;
mod import;
mod import_accounts;
pub(crate) mod ledger;
mod lines;
mod live;
pub(crate) mod lots;
pub(crate) mod members;
pub(crate) mod notice;
mod pages;
mod postings;
pub(crate) mod principals;
pub(crate) mod reports;
pub(crate) mod statement;
pub(crate) mod tokens;
pub(crate) mod transfer;
pub(crate) mod unattributed;
pub(crate) mod usage;

use clap::Args;
use drawdown_proto::scalar::timestamp_to_proto;
use drawdown_types::Timestamp;

pub(crate) use connection::{Addresses, ClientFiles, Connection, ServiceAddresses, Session};
use pages::Pages;

/// What every change can be given.
#[derive(Args, Debug)]
pub(crate) struct Change {
    /// Makes a retry harmless: the same id and content give the same answer [default: a new one]
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
}

impl Change {
    fn id(self) -> String {
        self.request_id.unwrap_or_else(|| format!("cli-{}", uuid::Uuid::now_v7().simple()))
    }
}

/// An instant of a command line as the contracts want it.
fn wire(at: Option<Timestamp>) -> Option<prost_types::Timestamp> {
    at.map(timestamp_to_proto)
}
