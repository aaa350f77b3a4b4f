//! The side that connects: TLS over a stream that is there, with files that are looked at for every connection.
//!
//! Connections are few and live long, so reading three small files for each costs nothing, and a rotation is used by
//! the next connection without a timer. Files that are of no use leave the ones in use there, with a line in the log.

use std::sync::Arc;

use rustls::{ClientConfig, pki_types::ServerName};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    files::{Broken, Files},
    name::{Name, NameError},
    reload::{Reloaded, Reloading},
};

/// Makes connections to one service.
#[derive(Clone, Debug)]
pub struct Connector {
    configs: Arc<Reloading<Arc<ClientConfig>>>,
    host: ServerName<'static>,
    peer: Option<Name>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The handshake failed.
    #[error("the TLS handshake failed")]
    Handshake(#[source] std::io::Error),
    /// The peer's certificate is trusted and names nobody.
    #[error("the peer has no name")]
    Nameless(#[source] NameError),
    /// The peer is trusted, and somebody else.
    #[error("the peer is {found}, not {wanted}")]
    Peer {
        /// Who it is.
        found: Name,
        /// Who it should be.
        wanted: Name,
    },
}

impl Connector {
    /// For a host as it stands in an address. Reads the files; blocks.
    ///
    /// The host is verified against the peer's certificate; where `peer` is given, so is its name.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn new(
        files: Files,
        host: ServerName<'static>,
        peer: Option<Name>,
        alpn: &'static [&'static [u8]],
    ) -> Result<Self, Broken> {
        let configs = Reloading::new(files, |set| set.client(alpn))?;
        Ok(Self { configs: Arc::new(configs), host, peer })
    }

    /// Handshakes over a stream. Not bounded in time: the caller does that.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn connect(&self, stream: TcpStream) -> Result<TlsStream<TcpStream>, ConnectError> {
        let config = self.config().await;
        let connecting = TlsConnector::from(config).connect(self.host.clone(), stream);
        let stream = connecting.await.map_err(ConnectError::Handshake)?;
        if let Some(wanted) = &self.peer {
            let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
            let found = chain.first().map_or(Err(NameError::Missing), Name::of);
            let found = found.map_err(ConnectError::Nameless)?;
            if found != *wanted {
                return Err(ConnectError::Peer { found, wanted: wanted.clone() });
            }
        }
        Ok(stream)
    }

    async fn config(&self) -> Arc<ClientConfig> {
        let configs = Arc::clone(&self.configs);
        let looked = tokio::task::spawn_blocking(move || configs.look()).await;
        match looked {
            Ok(Reloaded::Changed) => tracing::info!("certificates changed and are in use"),
            Ok(Reloaded::Broken(broken)) => {
                let source = std::error::Error::source(&broken).map(ToString::to_string);
                tracing::error!(error = %broken, cause = source, "new certificates are of no use: the old ones stay");
            }
            Ok(Reloaded::Unchanged | Reloaded::StillBroken) | Err(_) => {}
        }
        self.configs.current()
    }
}
