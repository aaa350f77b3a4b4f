//! Readiness, asked of the servers in their own words: no client library is linked for one question.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs},
    time::Duration,
};

use crate::Error;

/// How long one question may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// How long a server that was given by its url may take to be reached.
const REACH_LIMIT: Duration = Duration::from_secs(10);
/// The answer to a ping.
const PONG: &[u8] = b"+PONG\r\n";
/// Version 3.0 of Postgres' protocol.
const POSTGRES_PROTOCOL: u32 = 196_608;

/// A port on the loopback that was free a moment ago; who starts a server on it tries again where it lost a race.
pub(crate) fn free_port() -> Result<u16, Error> {
    TcpListener::bind(("127.0.0.1", 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(Error::io("find a free port on 127.0.0.1"))
}

/// Asks Postgres for a session and stops at its first word: a request for the password means that it is ready.
pub(crate) fn postgres(port: u16, user: &str, database: &str) -> Result<(), String> {
    let mut body = Vec::new();
    for text in ["user", user, "database", database] {
        body.extend_from_slice(text.as_bytes());
        body.push(0);
    }
    body.push(0);
    let length = u32::try_from(body.len() + 8).map_err(|_| "the names are too long".to_owned())?;
    let mut message = length.to_be_bytes().to_vec();
    message.extend_from_slice(&POSTGRES_PROTOCOL.to_be_bytes());
    message.extend_from_slice(&body);
    let answer = ask(port, &message, |answer| !answer.is_empty())?;
    match answer.first() {
        Some(b'R') => Ok(()),
        Some(_) => Err(String::from_utf8_lossy(answer.get(5..).unwrap_or_default()).replace('\0', " ")),
        None => Err("no answer".to_owned()),
    }
}

/// Signs in to Redis and pings it; one that still reads its log answers `-LOADING`.
pub(crate) fn redis(port: u16, password: &str) -> Result<(), String> {
    let message = format!("AUTH {password}\r\nPING\r\n");
    let two_lines = |answer: &[u8]| answer.iter().filter(|byte| **byte == b'\n').count() >= 2;
    let answer = ask(port, message.as_bytes(), two_lines)?;
    if answer == b"+OK\r\n+PONG\r\n" {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&answer).trim().to_owned())
    }
}

/// What Redis answers to one command, as it comes, the leading sign of its first line included.
pub(crate) fn redis_command(port: u16, password: &str, command: &str) -> Result<String, String> {
    // The last answer marks the end of the one before. Sentinels do not close a connection when they are asked to.
    let message = format!("AUTH {password}\r\n{command}\r\nPING\r\n");
    let answer = ask(port, message.as_bytes(), |answer| answer.ends_with(PONG))?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let rest = answer.strip_prefix("+OK\r\n").and_then(|rest| rest.strip_suffix("+PONG\r\n"));
    let rest = rest.ok_or_else(|| answer.trim().to_owned())?;
    if rest.starts_with('-') { Err(rest.trim().to_owned()) } else { Ok(rest.to_owned()) }
}

fn ask(port: u16, message: &[u8], complete: impl Fn(&[u8]) -> bool) -> Result<Vec<u8>, String> {
    let exchange = || -> std::io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], port)), ANSWER_LIMIT)?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        stream.set_write_timeout(Some(ANSWER_LIMIT))?;
        stream.write_all(message)?;
        let mut answer = Vec::new();
        let mut chunk = [0_u8; 512];
        while !complete(&answer) {
            let read = stream.read(&mut chunk)?;
            if read == 0 {
                break;
            }
            answer.extend_from_slice(&chunk[..read]);
        }
        Ok(answer)
    };
    exchange().map_err(|error| error.to_string())
}

/// Whether anything listens where a given url points.
pub(crate) fn reach(what: &'static str, url: &str, default_port: u16) -> Result<(), Error> {
    let (host, port) = authority(url, default_port).ok_or(Error::Url { what })?;
    let mut last = std::io::Error::other("the name has no address");
    for address in (host.as_str(), port).to_socket_addrs().map_err(Error::io(format!("look up {host}")))? {
        match TcpStream::connect_timeout(&address, REACH_LIMIT) {
            Ok(_reached) => return Ok(()),
            Err(error) => last = error,
        }
    }
    Err(Error::io(format!("reach the given {what} at {host}:{port}"))(last))
}

pub(crate) fn authority(url: &str, default_port: u16) -> Option<(String, u16)> {
    let (_scheme, rest) = url.split_once("://")?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let address = rest[..end].rsplit('@').next()?;
    let (host, port) = match address.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port.parse().ok()?),
        _ => (address, default_port),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    (!host.is_empty()).then(|| (host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authority_of_a_url() {
        let cases = [
            ("postgres://drawdown@127.0.0.1:54329/x", Some(("127.0.0.1", 54329))),
            ("postgres://u:p%40ss@db.example/x?sslmode=require", Some(("db.example", 1))),
            ("redis://:secret@[::1]:6380", Some(("::1", 6380))),
            ("redis://[::1]", Some(("::1", 1))),
            ("redis://cache", Some(("cache", 1))),
            ("postgres:///x", None),
            ("nonsense", None),
            ("redis://host:port", None),
        ];
        for (url, expected) in cases {
            let expected = expected.map(|(host, port)| (host.to_owned(), port));
            assert_eq!(authority(url, 1), expected, "{url}");
        }
    }

    #[test]
    fn nobody_listens() {
        let port = free_port().unwrap();
        assert!(postgres(port, "a", "b").is_err());
        assert!(redis(port, "a").is_err());
    }
}
