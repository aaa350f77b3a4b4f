//! Connections by TLS, for a channel.
//!
//! The channel's own time limit bounds all of it: name, socket and handshake.

use std::{
    future::Future,
    io,
    net::IpAddr,
    pin::Pin,
    task::{Context, Poll},
};

use drawdown_tls::{
    ALPN_HTTP2, Broken, Connector, Files, Name, client::TlsStream, rustls::pki_types::ServerName,
};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tonic::{codegen::Service, transport::Uri};

use super::TlsOptions;

const PORT_DEFAULT: u16 = 443;

/// Makes a connection by TLS whenever the channel asks for one.
#[derive(Clone, Debug)]
pub(super) struct Secure {
    connector: Connector,
    host: String,
    port: u16,
}

type Connecting = Pin<Box<dyn Future<Output = io::Result<TokioIo<TlsStream<TcpStream>>>> + Send>>;

impl Secure {
    /// Reads the files; blocks.
    pub(super) fn new(uri: &Uri, options: &TlsOptions) -> Result<Self, Broken> {
        let host = host(uri).to_owned();
        let given = |path: &std::path::PathBuf| (!path.as_os_str().is_empty()).then(|| path.clone());
        let files = Files {
            trust_bundle: given(&options.trust_bundle),
            certificate: given(&options.certificate),
            key: given(&options.key),
        };
        let name = ServerName::try_from(host.clone()).map_err(|_| Broken::Host(host.clone()))?;
        let peer = Name::new(&options.peer).ok();
        let connector = Connector::new(files, name, peer, &[ALPN_HTTP2])?;
        Ok(Self { connector, host, port: uri.port_u16().unwrap_or(PORT_DEFAULT) })
    }
}

impl Service<Uri> for Secure {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = io::Error;
    type Future = Connecting;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Connecting {
        let Self { connector, host, port } = self.clone();
        Box::pin(async move {
            let stream = TcpStream::connect((host.as_str(), port)).await?;
            stream.set_nodelay(true)?;
            let stream = connector.connect(stream).await.map_err(io::Error::other)?;
            Ok(TokioIo::new(stream))
        })
    }
}

/// Whether nothing leaves this machine on the way there.
pub(super) fn is_loopback(uri: &Uri) -> bool {
    let host = host(uri);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn host(uri: &Uri) -> &str {
    let host = uri.host().unwrap_or_default();
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}
