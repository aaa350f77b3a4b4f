//! A port that gives connections, with or without TLS.
//!
//! Without TLS a connection is the socket itself: no task, no copy, no lock between it and what reads it. There are so many of
//! them at once; who connects beyond is closed, before a handshake and before a byte is read. So whoever opens connections
//! takes no handles and no memory beyond that.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use drawdown_tls::{Name, server::TlsStream};
use futures::Stream;
use http::Extensions;
use opentelemetry::metrics::{Counter, Meter};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::Instant,
};

use super::{
    handshake::{Failure, shake},
    keeper::Tls,
};

/// After an accept that failed for want of file handles or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Who is at the other end: the owner of a verified client certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// From the URI `drawdown://NAME` among the names of the certificate.
    pub name: Name,
}

/// What is known of a connection; in the extensions of each request that came by it.
#[derive(Clone, Debug)]
pub struct Connection {
    /// The address of the other end.
    pub remote: SocketAddr,
    /// Who is there, where a certificate said so.
    pub peer: Option<Peer>,
    /// Whether it is encrypted.
    pub is_tls: bool,
}

/// Puts the [`Peer`] of the connection, where there is one, beside the [`Connection`] that the transport left.
pub(crate) fn reveal(extensions: &mut Extensions) {
    if let Some(peer) = extensions.get::<Connection>().and_then(|connection| connection.peer.clone()) {
        extensions.insert(peer);
    }
}

/// How many connections there may be.
#[derive(Clone, Debug)]
pub(crate) struct Room {
    places: Arc<Semaphore>,
    refused: Counter<u64>,
}

impl Room {
    pub(crate) fn new(connections_max: usize, meter: &Meter) -> Self {
        let refused = meter
            .u64_counter("rpc.server.connections.refused")
            .with_description("connections that were closed because there were as many as may be")
            .build();
        refused.add(0, &[]);
        Self { places: Arc::new(Semaphore::new(connections_max)), refused }
    }

    /// A place for as long as it is held; none, and counted, where all are taken.
    fn take(&self) -> Option<OwnedSemaphorePermit> {
        let place = Arc::clone(&self.places).try_acquire_owned().ok();
        if place.is_none() {
            self.refused.add(1, &[]);
        }
        place
    }
}

/// A port.
#[derive(Debug)]
pub struct Listener(Source);

#[derive(Debug)]
enum Source {
    Plain(TcpListener, Room),
    /// Connections whose handshake is over.
    Tls(mpsc::Receiver<Io>),
}

/// A connection.
#[derive(Debug)]
pub struct Io {
    transport: Transport,
    connection: Connection,
    _place: OwnedSemaphorePermit,
}

#[derive(Debug)]
enum Transport {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

// === impl Listener ===

impl Listener {
    pub(crate) fn new(listener: TcpListener, tls: Option<&Arc<Tls>>, room: Room) -> Self {
        Self(match tls {
            None => Source::Plain(listener, room),
            Some(tls) => {
                // one place for each handshake: a finished one never waits with its permit for long
                let (sender, receiver) = mpsc::channel(tls.config.handshakes_max);
                tokio::spawn(accept(listener, Arc::clone(tls), room, sender));
                Source::Tls(receiver)
            }
        })
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Io>>> {
        match &mut self.0 {
            Source::Plain(listener, room) => loop {
                let (stream, remote) = match ready!(listener.poll_accept(cx)) {
                    Ok(accepted) => accepted,
                    Err(error) => return Poll::Ready(Some(Err(error))),
                };
                if let Some(place) = room.take() {
                    prepare(&stream);
                    return Poll::Ready(Some(Ok(Io::plain(stream, remote, place))));
                }
            },
            Source::Tls(connections) => connections.poll_recv(cx).map(|io| io.map(Ok)),
        }
    }
}

impl Stream for Listener {
    type Item = io::Result<Io>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_accept(cx)
    }
}

/// Accepts for as long as somebody takes the connections. Never waits for a handshake.
async fn accept(listener: TcpListener, tls: Arc<Tls>, room: Room, ready: mpsc::Sender<Io>) {
    let permits = Arc::new(Semaphore::new(tls.config.handshakes_max));
    loop {
        let accepted = tokio::select! {
            () = ready.closed() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, remote) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                pause(&error).await;
                continue;
            }
        };
        let Some(place) = room.take() else { continue };
        let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else {
            tls.metrics.failed(Failure::TooMany);
            continue;
        };
        prepare(&stream);
        let (tls, ready) = (Arc::clone(&tls), ready.clone());
        tokio::spawn(async move {
            let began = Instant::now();
            let shaken = tokio::select! {
                // who stops does not wait for handshakes
                () = ready.closed() => return,
                shaken = shake(&tls, stream) => shaken,
            };
            match shaken {
                Ok((stream, name)) => {
                    tls.metrics.shaken(began.elapsed());
                    // nobody takes it where the server has stopped meanwhile
                    drop(ready.send(Io::tls(stream, remote, name, place)).await);
                }
                Err(failure) => {
                    tracing::debug!(reason = failure.word(), %remote, "no connection");
                }
            }
            drop(permit);
        });
    }
}

/// Small answers go out at once. A socket that is gone already fails at its first read.
fn prepare(stream: &TcpStream) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a socket takes no options");
    }
}

async fn pause(error: &io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    if !matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset) {
        tracing::error!(%error, "can not accept");
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}

// === impl Io ===

impl Io {
    const fn plain(stream: TcpStream, remote: SocketAddr, place: OwnedSemaphorePermit) -> Self {
        Self {
            _place: place,
            transport: Transport::Plain(stream),
            connection: Connection { remote, peer: None, is_tls: false },
        }
    }

    fn tls(
        stream: TlsStream<TcpStream>,
        remote: SocketAddr,
        name: Option<Name>,
        place: OwnedSemaphorePermit,
    ) -> Self {
        Self {
            _place: place,
            transport: Transport::Tls(Box::new(stream)),
            connection: Connection { remote, peer: name.map(|name| Peer { name }), is_tls: true },
        }
    }
}

impl tonic::transport::server::Connected for Io {
    type ConnectInfo = Connection;

    fn connect_info(&self) -> Connection {
        self.connection.clone()
    }
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Transport::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Transport::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Transport::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Transport::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Transport::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.transport {
            Transport::Plain(stream) => stream.is_write_vectored(),
            Transport::Tls(stream) => stream.is_write_vectored(),
        }
    }
}
