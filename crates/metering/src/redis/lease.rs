//! Leases of shards, and who is there to take them.

use std::time::Duration;

use redis::Value;

use super::{
    keys::{hex, parse_hex},
    line::Call,
    reply::{Malformed, text, words},
    scripts,
    store::{Error, Store, function},
};

/// What is asked of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseWish {
    /// To live on, or to begin where nobody has it.
    Keep,
    /// To be told who has it.
    See,
    /// To end, where it is ours.
    Leave,
}

/// One question.
#[derive(Clone, Copy, Debug)]
pub struct LeaseAsk {
    /// The shard.
    pub shard: u32,
    /// Who asks.
    pub token: u64,
    /// How long it lives from then on.
    pub life: Duration,
    /// What is asked.
    pub wish: LeaseWish,
}

/// Who has a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lease {
    /// Who asked.
    Ours,
    /// Somebody else.
    Others,
    /// Nobody.
    Free,
}

impl Store {
    /// Asks for leases, in one round trip.
    pub async fn leases(&self, asks: &[LeaseAsk]) -> Result<Vec<Lease>, Error> {
        let call = |ask: &LeaseAsk| {
            let mut command = function("FCALL", scripts::LEASE, &[self.keys.lease(ask.shard)]);
            command.arg(hex(ask.token)).arg(millis(ask.life)).arg(match ask.wish {
                LeaseWish::Keep => "keep",
                LeaseWish::See => "see",
                LeaseWish::Leave => "leave",
            });
            Call { key: self.keys.head(ask.shard), command }
        };
        let calls: Vec<Call> = asks.iter().map(call).collect();
        let values = self.line.all(&calls).await.map_err(|source| Error::Call { call: "lease", source })?;
        Ok(values.iter().map(parse_lease).collect::<Result<_, _>>()?)
    }

    /// Says that a worker is there for so long; answers all that are, in the order of their tokens.
    pub async fn workers(&self, token: u64, life: Duration) -> Result<Vec<u64>, Error> {
        let key = self.keys.workers();
        let mut command = function("FCALL", scripts::WORKERS, std::slice::from_ref(&key));
        command.arg(hex(token)).arg(millis(life));
        let values = self.line.all(&[Call { key, command }]).await;
        let values = values.map_err(|source| Error::Call { call: "workers", source })?;
        let value = values.first().unwrap_or(&Value::Nil);
        let mut workers = parse_workers(value).ok_or_else(|| Malformed::new("workers", value))?;
        workers.sort_unstable();
        Ok(workers)
    }

    /// Says that a worker goes.
    pub async fn leave_workers(&self, token: u64) -> Result<(), Error> {
        self.workers(token, Duration::ZERO).await.map(drop)
    }
}

fn millis(life: Duration) -> u64 {
    u64::try_from(life.as_millis()).unwrap_or(u64::MAX)
}

fn parse_lease(value: &Value) -> Result<Lease, Malformed> {
    let lease = words(value).and_then(|(word, _)| match word {
        "OURS" => Some(Lease::Ours),
        "OTHERS" => Some(Lease::Others),
        "FREE" => Some(Lease::Free),
        _ => None,
    });
    lease.ok_or_else(|| Malformed::new("lease", value))
}

fn parse_workers(value: &Value) -> Option<Vec<u64>> {
    let (word, tokens) = words(value)?;
    let tokens = tokens.iter().map(|token| parse_hex(text(token)?));
    if word == "OK" { tokens.collect() } else { None }
}
