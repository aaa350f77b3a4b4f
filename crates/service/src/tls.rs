//! TLS in front of the port that a service listens at.
//!
//! Shape: [`Tls`] holds what was made of the files and looks at them again at an interval, off the runtime's threads;
//! a [`Listener`] accepts, shakes hands and gives connections to tonic. Each handshake is a task of its own,
//! bounded in time, and there are at most so many: the loop that accepts never waits for one, and who connects while
//! all are taken is closed at once. A connection keeps what it was made with; the next one uses what the files say by then.
//!
//! Who is at the other end stands in the extensions of each request as a [`Peer`], where the connection came with a
//! verified client certificate. Without TLS, or without a certificate, there is none.
//!
//! `/metrics` and `/healthz` stay plain, on a port of their own: they are for whoever runs the machine, name no
//! customer and change nothing. That port belongs to a network that only they reach.

mod handshake;
mod keeper;
mod listener;
mod metrics;
mod options;

pub use drawdown_tls::{Broken, Clients, Files, Name};
pub use keeper::Tls;
pub use listener::{Connection, Io, Listener, Peer};
pub(crate) use listener::{Room, reveal};
pub use options::{ClientCertificates, PlaintextRefused, TlsConfig, TlsOptions, may_listen};

#[cfg(test)]
mod tests;
