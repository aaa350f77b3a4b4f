//! Counts the statements that cross the wire to Postgres: a relay between a pool and its server that reads
//! the client's messages (protocol 3.0) and changes none. Every statement is an `Execute` or a simple
//! `Query`, so nothing that the client does can pass by uncounted, whatever library it uses.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

const STARTUP: u32 = 196_608;
/// A message longer than this is none of ours.
const MESSAGE_BYTES_MAX: usize = 1 << 30;

/// What crossed the wire.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counted {
    /// Statements apart from those that begin and end a transaction.
    pub statements: u64,
    /// `BEGIN`, `COMMIT` and `ROLLBACK`.
    pub transactional: u64,
}

/// The relay.
#[derive(Debug)]
pub struct Relay {
    url: String,
    counted: Arc<Mutex<Counted>>,
    listening: JoinHandle<()>,
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

// === impl Relay ===

impl Relay {
    /// Listens for sessions and relays them to the server of `url`.
    ///
    /// # Errors
    /// Where the url names no host and port.
    pub async fn to(url: &str) -> Result<Self> {
        let (credentials, rest) = url.split_once('@').context("no user in the url")?;
        let (server, database) = rest.split_once('/').context("no database in the url")?;
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let url = format!("{credentials}@{}/{database}", listener.local_addr()?);
        let counted = Arc::new(Mutex::new(Counted::default()));
        let (server, counting) = (server.to_owned(), Arc::clone(&counted));
        let listening = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (server, counting) = (server.clone(), Arc::clone(&counting));
                // a session that breaks ends at its client, who says so
                tokio::spawn(async move { relay(client, &server, &counting).await.ok() });
            }
        });
        Ok(Self { url, counted, listening })
    }

    /// The address to use instead of the server's.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What crossed since the last call.
    #[must_use]
    pub fn take(&self) -> Counted {
        std::mem::take(&mut *self.counted.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

async fn relay(client: TcpStream, server: &str, counted: &Mutex<Counted>) -> Result<()> {
    let server = TcpStream::connect(server).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let answers = tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
    let mut started = false;
    loop {
        let mut head = Vec::with_capacity(5);
        if started {
            head.push(from_client.read_u8().await?);
        }
        let length = from_client.read_u32().await?;
        head.extend_from_slice(&length.to_be_bytes());
        let body = body(&mut from_client, length).await?;
        if started {
            count(head.first().copied().unwrap_or_default(), &body, counted);
        } else {
            // a request for encryption comes before, and is followed by another first message
            started = body.get(..4) == Some(STARTUP.to_be_bytes().as_slice());
        }
        head.extend_from_slice(&body);
        to_server.write_all(&head).await?;
        if answers.is_finished() {
            return Ok(());
        }
    }
}

async fn body(from: &mut (impl AsyncRead + Unpin), length: u32) -> Result<Vec<u8>> {
    let length = usize::try_from(length)?.checked_sub(4).filter(|length| *length < MESSAGE_BYTES_MAX);
    let mut body = vec![0; length.context("no message of Postgres")?];
    from.read_exact(&mut body).await?;
    Ok(body)
}

fn count(kind: u8, body: &[u8], counted: &Mutex<Counted>) {
    let mut counted = counted.lock().unwrap_or_else(PoisonError::into_inner);
    match kind {
        b'E' => counted.statements += 1,
        b'Q' => {
            let word: Vec<u8> = body.iter().take_while(|byte| byte.is_ascii_alphabetic()).copied().collect();
            match word.to_ascii_uppercase().as_slice() {
                b"BEGIN" | b"COMMIT" | b"ROLLBACK" => counted.transactional += 1,
                _ => counted.statements += 1,
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_runs_a_statement_counts() {
        let counted = Mutex::new(Counted::default());
        let messages: [(u8, &[u8]); 7] = [
            (b'Q', b"BEGIN\0"),
            (b'P', b"sqlx_s_1\0select 1\0"),
            (b'B', b""),
            (b'E', b"\0\0\0\0\0"),
            (b'S', b""),
            (b'Q', b"copy t from stdin\0"),
            (b'Q', b"COMMIT\0"),
        ];
        for (kind, body) in messages {
            count(kind, body, &counted);
        }
        assert_eq!(*counted.lock().unwrap(), Counted { statements: 2, transactional: 2 });
    }
}
