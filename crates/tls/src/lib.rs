//! TLS for both ends of a connection: what is read from files, how it is read again, and who the other end is.
//!
//! Doctrine:
//! - TLS 1.3 and nothing older: the code of 1.2 is not compiled in.
//! - One crypto provider, ring, named here and handed to every configuration: no process-wide default is needed.
//! - One trust bundle. A peer is known by its certificate alone: the one name `drawdown://NAME` among the URIs of the
//!   subject alternative names ([`Name`]).
//! - Every handshake verifies. Nothing is resumed and there is no early data, so a peer that was taken out of the trust
//!   bundle can not come back by an old ticket, and nothing can be replayed.
//! - Files are read whole and change as a whole: a set that does not hold together ([`Broken`]) leaves the old one in use.
//! - Keys are wiped from the buffers they were read into. The copy inside ring lives as long as its configuration.

mod connect;
mod files;
pub mod issue;
mod name;
mod reload;

use std::sync::Arc;

pub use connect::{ConnectError, Connector};
pub use files::{Broken, Clients, Files, Set};
pub use name::{Name, NameError, SCHEME};
pub use reload::{Reloaded, Reloading};
pub use rustls;
pub use tokio_rustls::{TlsAcceptor, client, server};

/// The one implementation of cryptography in a binary of Drawdown.
#[must_use]
pub fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// What a gRPC connection speaks.
pub const ALPN_HTTP2: &[u8] = b"h2";
/// What the HTTP doors speak.
pub const ALPN_HTTP1: &[u8] = b"http/1.1";
