//! A line between a client and a server that can be cut in the middle of a message.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::Result;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// Bytes that are moved at once.
const PIECE_BYTES: usize = 1024;

/// The line. Connections are made for as long as it lives.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    line: Arc<Line>,
}

#[derive(Debug)]
struct Line {
    server: String,
    connections: AtomicU64,
    /// Bytes from clients so far.
    passed: watch::Sender<u64>,
    /// The connection that brings this byte is cut, once.
    cut_at: AtomicU64,
}

impl Relay {
    /// Starts a line to `server`, `host:port`.
    ///
    /// # Errors
    /// Where no port is free.
    pub async fn to(server: &str) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let line = Arc::new(Line {
            server: server.to_owned(),
            connections: AtomicU64::new(0),
            passed: watch::Sender::new(0),
            cut_at: AtomicU64::new(u64::MAX),
        });
        let address = listener.local_addr()?;
        let serving = Arc::clone(&line);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(Arc::clone(&serving).connection(client));
            }
        });
        Ok(Self { address, line })
    }

    /// Where clients connect to.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections so far.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.line.connections.load(Ordering::Relaxed)
    }

    /// Bytes that came from clients so far.
    #[must_use]
    pub fn passed(&self) -> u64 {
        *self.line.passed.borrow()
    }

    /// Cuts the connection that brings one more byte than so many from here on.
    pub fn cut_after(&self, bytes: u64) {
        self.line.cut_at.store(self.passed().saturating_add(bytes), Ordering::Relaxed);
    }

    /// Waits until so many bytes came from clients in all.
    ///
    /// # Errors
    /// Never, while this lives.
    pub async fn wait_passed(&self, bytes: u64) -> Result<()> {
        self.line.passed.subscribe().wait_for(|passed| *passed >= bytes).await?;
        Ok(())
    }
}

impl Line {
    async fn connection(self: Arc<Self>, client: TcpStream) {
        self.connections.fetch_add(1, Ordering::Relaxed);
        let Ok(server) = TcpStream::connect(&self.server).await else { return };
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_server, mut to_server) = server.into_split();
        let answers = async { tokio::io::copy(&mut from_server, &mut to_client).await.map(|_| ()) };
        let requests = async {
            let mut piece = [0; PIECE_BYTES];
            loop {
                let read = from_client.read(&mut piece).await?;
                if read == 0 {
                    return Ok(());
                }
                let bytes = piece.get(..read).unwrap_or_default();
                to_server.write_all(bytes).await?;
                self.passed.send_modify(|passed| *passed = passed.saturating_add(bytes.len() as u64));
                if *self.passed.borrow() > self.cut_at.load(Ordering::Relaxed) {
                    self.cut_at.store(u64::MAX, Ordering::Relaxed);
                    return Ok(());
                }
            }
        };
        // Whichever ends first ends both: a cut line has no half.
        let _: std::io::Result<()> = tokio::select! {
            end = answers => end,
            end = requests => end,
        };
    }
}
