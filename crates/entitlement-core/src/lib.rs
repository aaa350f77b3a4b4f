//! The pure half of entitlement: who pays for a client id at a window, and what an admin act writes.
//!
//! Doctrine: no clock, no I/O, no database. [`Directory`] answers questions from histories that
//! somebody else loaded; the functions of [`plan`] take the facts of one admin act and return the
//! rows to write, a question to ask first, or the reason of the refusal. All of it is total:
//! no input panics.
#![deny(missing_docs)]
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects, clippy::float_arithmetic))]

pub mod access;
mod calendar;
mod directory;
mod history;
mod hub;
pub mod plan;
mod rules;
mod trial;

pub use directory::{
    Account, App, BilledTo, Client, ContractKind, Directory, Resolution, Revocation, TeamLink, is_known_at,
};
pub use history::{Change, Conflict, History, Link};
pub use hub::is_archived;
pub use rules::Rules;
pub use trial::{Trial, TrialTerms};
