//! A line to Redis that can be held or cut: what was sent may still arrive, or has arrived and nobody hears of it.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};

/// What is done with bytes of new and open connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// They pass.
    Open,
    /// Requests pass; so many times the reply to a write is thrown away with its connection, then the line is open.
    NoReplies(u32),
    /// Requests of connections that are open now wait until the line opens; new connections pass.
    Held,
}

#[derive(Clone)]
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    line: watch::Sender<Line>,
    /// Connections made before this number are held.
    held: Arc<Mutex<u64>>,
    made: Arc<Mutex<u64>>,
}

impl Proxy {
    pub(crate) async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Self {
            address: listener.local_addr().unwrap(),
            line: watch::Sender::new(Line::Open),
            held: Arc::default(),
            made: Arc::default(),
        };
        let made_here = proxy.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let number = {
                    let mut made = made_here.made.lock().unwrap();
                    *made += 1;
                    *made
                };
                let Ok(upstream) = TcpStream::connect(server).await else { continue };
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = upstream.into_split();
                let cut = Arc::new(AtomicBool::new(false));
                tokio::spawn(made_here.clone().requests(number, from_client, to_server, Arc::clone(&cut)));
                tokio::spawn(replies(from_server, to_client, cut));
            }
        });
        proxy
    }

    pub(crate) fn set(&self, line: Line) {
        if line == Line::Held {
            *self.held.lock().unwrap() = *self.made.lock().unwrap();
        }
        self.line.send_replace(line);
    }

    async fn requests(
        self,
        number: u64,
        mut from: OwnedReadHalf,
        mut to: OwnedWriteHalf,
        cut: Arc<AtomicBool>,
    ) {
        let mut line = self.line.subscribe();
        let mut buffer = vec![0; 1 << 16];
        while let Ok(read) = from.read(&mut buffer).await {
            if read == 0 {
                // The server side stays open: what was held may still arrive.
                break;
            }
            while *line.borrow_and_update() == Line::Held && number <= *self.held.lock().unwrap() {
                if line.changed().await.is_err() {
                    return;
                }
            }
            if self.throws_away(&buffer[..read]) {
                cut.store(true, Ordering::SeqCst);
            }
            if to.write_all(&buffer[..read]).await.is_err() {
                return;
            }
        }
    }

    /// Whether the reply to these bytes is to be thrown away.
    fn throws_away(&self, request: &[u8]) -> bool {
        const WRITE: &[u8] = b"drawdown_v1_apply";
        let is_write = request.windows(WRITE.len()).any(|window| window == WRITE);
        is_write
            && self.line.send_if_modified(|line| match *line {
                Line::NoReplies(left) => {
                    *line = if left > 1 { Line::NoReplies(left - 1) } else { Line::Open };
                    true
                }
                Line::Open | Line::Held => false,
            })
    }
}

async fn replies(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, cut: Arc<AtomicBool>) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(read) = from.read(&mut buffer).await {
        if read == 0 || cut.load(Ordering::SeqCst) {
            return;
        }
        // A client that went away does not stop the server from reading what was held.
        let _ = to.write_all(&buffer[..read]).await;
    }
}
