//! Typed calls of the function library, each one round trip.
//!
//! Two lines: writes and looks go over one, reading whole batches over the other, so that a batch of
//! some MiB never stands in front of a group commit. A missing library (an empty volume) is loaded when it is missed.

use bytes::Bytes;
use redis::{Cmd, FromRedisValue, RedisError, Value, cmd};

use drawdown_metering_core::{
    look::{Head, LaneApplied},
    shard::{Lane, Position},
};

use super::{
    keys::{self, Keys, encode_lane, hex, push_hex},
    line::{Call, Line, is_of_server},
    reply::{Applied, Attached, HeadFault, Installed, Malformed, Retired, Sealed, parse_head, parse_swept},
    safety::StartError,
    scripts, settings,
};

/// Blobs read by one call: bounds the size of a reply.
const BLOBS_PER_READ: u64 = 64;
/// Keys that one step of a sweep looks at.
const SWEEP_STEP: usize = 1000;

/// Why a call gave nothing. Its outcome is unknown, whatever the kind.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Redis did not answer, or answered with an error.
    #[error("redis did not carry out {call}")]
    Call {
        /// The function or command.
        call: &'static str,
        /// Why.
        #[source]
        source: RedisError,
    },
    /// The answer is none that this version knows.
    #[error("the answer of redis was not understood")]
    Reply(#[from] Malformed),
}

impl Error {
    /// Whether the same call may succeed later: everything but a request that is wrong by itself.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Call { source, .. } => !matches!(
                source.kind(),
                redis::ErrorKind::InvalidClientConfig | redis::ErrorKind::AuthenticationFailed
            ),
            Self::Reply(_) => false,
        }
    }
}

/// One blob for the open batch of a shard.
#[derive(Clone, Debug)]
pub struct Apply {
    /// The shard.
    pub shard: u32,
    /// The generation this was made for.
    pub generation: u64,
    /// The batch this was made for.
    pub batch: u64,
    /// Most blobs in a batch.
    pub blobs_max: u64,
    /// The blob.
    pub blob: Bytes,
    /// Its checksum.
    pub checksum: u64,
    /// Which dictionary its names belong to.
    pub dictionary: u64,
    /// Names that dictionary has defined in this batch before.
    pub names_before: u64,
    /// Names this blob defines.
    pub names: u64,
    /// The lanes it extends, each once.
    pub lanes: Vec<ApplyLane>,
}

/// How one blob extends one lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApplyLane {
    /// The lane.
    pub lane: Lane,
    /// The epoch of its producer.
    pub epoch: u64,
    /// Where the lane has to stand.
    pub before: Position,
    /// Where it stands then.
    pub after: Position,
}

/// Which lanes a head has: as long as both are the same, none has left it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Roll {
    /// The generation.
    pub generation: u64,
    /// The roll, another one whenever lanes were retired.
    pub number: u64,
}

/// Lanes to be made known to a shard.
#[derive(Clone, Debug)]
pub struct Attach {
    /// The shard.
    pub shard: u32,
    /// The generation and the roll that were known before the ledger was asked where the lanes stand.
    pub roll: Roll,
    /// The lanes.
    pub lanes: Vec<AttachLane>,
}

/// One lane to be made known.
#[derive(Clone, Copy, Debug)]
pub struct AttachLane {
    /// The lane.
    pub lane: Lane,
    /// The epoch of its producer.
    pub epoch: u64,
    /// Where Postgres has it.
    pub settled: Position,
}

/// A call of a pipeline.
#[derive(Clone, Debug)]
pub enum Write {
    /// Append a blob.
    Apply(Apply),
    /// Make lanes known.
    Attach(Attach),
}

/// The answer to a [`Write`] of the same kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    /// To [`Write::Apply`].
    Applied(Applied),
    /// To [`Write::Attach`].
    Attached(Attached),
}

/// A new head for a shard.
#[derive(Clone, Debug)]
pub struct Install {
    /// The shard.
    pub shard: u32,
    /// The generation that was seen; `None` where there was no readable head.
    pub seen: Option<u64>,
    /// Batches of that generation that were seen.
    pub seen_batches: Vec<u64>,
    /// The generation that Postgres has now.
    pub generation: u64,
    /// The last settled batch.
    pub last_batch: u64,
    /// The only lane that may be attached anew.
    pub only: Option<Lane>,
    /// Lanes that are set aside.
    pub aside: Vec<Lane>,
}

/// The accumulator.
#[derive(Debug)]
pub struct Store {
    pub(super) keys: Keys,
    pub(super) line: Line,
    bulk: Line,
}

impl Store {
    /// Connects and refuses a server that could lose or evict what it holds, by name.
    pub async fn connect(settings: &settings::Settings) -> Result<Self, StartError> {
        let (line, bulk) = (Line::open(settings).await?, Line::open(settings).await?);
        line.prepare().await?;
        Ok(Self { keys: Keys::new(settings.namespace.clone()), line, bulk })
    }

    /// Appends blobs and makes lanes known, all in one round trip, those of one shard in the order given. Each has its
    /// own outcome; where it is an error nobody knows whether it took, or will take, effect.
    pub async fn write(&self, writes: &[Write]) -> Vec<Result<Written, Error>> {
        let calls: Vec<Call> = writes.iter().map(|write| self.write_call(write)).collect();
        let answers = self.line.run(&calls).await;
        let mut missed: Vec<&str> = Vec::new();
        for (answer, call) in answers.iter().zip(&calls) {
            if answer.as_ref().is_err_and(is_of_server) && !missed.contains(&call.key.as_str()) {
                missed.push(&call.key);
            }
        }
        for key in missed {
            // Perhaps the library is gone; the caller looks again, and must find it then.
            let _ = self.line.ensure_library(key).await;
        }
        writes.iter().zip(answers).map(|(write, answer)| parse_written(write, answer)).collect()
    }

    /// Heads and lengths of the open lists of some shards, each of one instant, in one round trip.
    pub async fn look(&self, shards: &[u32]) -> Result<Vec<Result<Head, HeadFault>>, Error> {
        let look = |shard: &u32| {
            let key = self.keys.head(*shard);
            Call { command: function("FCALL_RO", scripts::LOOK, std::slice::from_ref(&key)), key }
        };
        let calls: Vec<Call> = shards.iter().map(look).collect();
        let values = self.line.all(&calls).await.map_err(|source| call_failed("look", source))?;
        let heads = shards.iter().zip(&values).map(|(shard, value)| parse_head(*shard, value));
        Ok(heads.collect::<Result<Vec<_>, Malformed>>()?)
    }

    /// Closes the open batch, if it is still that one.
    pub async fn seal(&self, shard: u32, generation: u64, batch: u64, cap: u64) -> Result<Sealed, Error> {
        let keys = [self.keys.head(shard), self.keys.batch(shard, generation, batch)];
        let mut command = function("FCALL", scripts::SEAL, &keys);
        command.arg(hex(generation)).arg(batch).arg(cap);
        Ok(Sealed::parse(&self.one(&self.line, "seal", shard, command).await?)?)
    }

    /// Forgets a sealed batch that was posted with this `count:fingerprint`.
    pub async fn retire(
        &self,
        shard: u32,
        generation: u64,
        batch: u64,
        seal: &str,
    ) -> Result<Retired, Error> {
        let keys = [self.keys.head(shard), self.keys.batch(shard, generation, batch)];
        let mut command = function("FCALL", scripts::RETIRE, &keys);
        command.arg(hex(generation)).arg(batch).arg(seal);
        Ok(Retired::parse(&self.one(&self.line, "retire", shard, command).await?)?)
    }

    /// Replaces the head of a shard, if it still has the generation that was seen.
    pub async fn install(&self, install: &Install) -> Result<Installed, Error> {
        let mut keys = vec![self.keys.head(install.shard)];
        if let Some(seen) = install.seen {
            keys.extend(
                install.seen_batches.iter().map(|batch| self.keys.batch(install.shard, seen, *batch)),
            );
        }
        let mut command = function("FCALL", scripts::INSTALL, &keys);
        command.arg(install.seen.map(hex).unwrap_or_default()).arg(hex(install.generation));
        command.arg(scripts::LAYOUT).arg(install.last_batch).arg(install.last_batch.saturating_add(1));
        command.arg(install.only.map(encode_lane).unwrap_or_default()).arg(install.aside.len());
        for lane in &install.aside {
            command.arg(encode_lane(*lane));
        }
        Ok(Installed::parse(&self.one(&self.line, "install", install.shard, command).await?)?)
    }

    /// The entries of a batch, from the first to at most `count`, each with its index before the blob.
    pub async fn entries(
        &self,
        shard: u32,
        generation: u64,
        batch: u64,
        count: u64,
    ) -> Result<Vec<Bytes>, Error> {
        self.entries_from(shard, generation, batch, 0, count).await
    }

    /// The same from one entry on: at most `count` of them.
    pub async fn entries_from(
        &self,
        shard: u32,
        generation: u64,
        batch: u64,
        first: u64,
        count: u64,
    ) -> Result<Vec<Bytes>, Error> {
        let key = self.keys.batch(shard, generation, batch);
        let mut entries: Vec<Bytes> = Vec::new();
        let (mut first, end) = (first, first.saturating_add(count));
        while first < end {
            let last = first.saturating_add(BLOBS_PER_READ).min(end).saturating_sub(1);
            let mut command = cmd("LRANGE");
            command.arg(&key).arg(first).arg(last);
            let value = self.one(&self.bulk, "lrange", shard, command).await?;
            let read: Vec<Vec<u8>> = FromRedisValue::from_redis_value(value)
                .map_err(|error| call_failed("lrange", error.into()))?;
            if read.is_empty() {
                break;
            }
            entries.extend(read.into_iter().map(Bytes::from));
            first = last.saturating_add(1);
        }
        Ok(entries)
    }

    /// Drops lists of a shard that no generation or batch refers to any more; says how many.
    pub async fn sweep(&self, shard: u32) -> Result<u64, Error> {
        let pattern = self.keys.batches_pattern(shard);
        let (mut cursor, mut dropped) = (0_u64, 0_u64);
        loop {
            let mut command = cmd("SCAN");
            command.arg(cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(SWEEP_STEP);
            let value = self.one(&self.bulk, "scan", shard, command).await?;
            let (next, found): (u64, Vec<String>) =
                FromRedisValue::from_redis_value(value).map_err(|error| call_failed("scan", error.into()))?;
            let lists: Vec<_> = found
                .into_iter()
                .filter_map(|key| self.keys.parse_batch(shard, &key).map(|named| (key, named)))
                .collect();
            if !lists.is_empty() {
                let mut keys = vec![self.keys.head(shard)];
                keys.extend(lists.iter().map(|(key, _)| key.clone()));
                let mut command = function("FCALL", scripts::SWEEP, &keys);
                for (_, (generation, batch)) in &lists {
                    command.arg(hex(*generation)).arg(*batch);
                }
                let swept = parse_swept(&self.one(&self.line, "sweep", shard, command).await?)?;
                dropped = dropped.saturating_add(swept);
            }
            if next == 0 {
                return Ok(dropped);
            }
            cursor = next;
        }
    }

    pub(super) async fn one(
        &self,
        line: &Line,
        call: &'static str,
        shard: u32,
        command: Cmd,
    ) -> Result<Value, Error> {
        let calls = [Call { key: self.keys.head(shard), command }];
        let mut values = line.all(&calls).await.map_err(|source| call_failed(call, source))?;
        values.pop().ok_or_else(|| Malformed::new(call, &Value::Nil).into())
    }

    fn write_call(&self, write: &Write) -> Call {
        match write {
            Write::Apply(apply) => {
                Call { key: self.keys.head(apply.shard), command: self.apply_command(apply) }
            }
            Write::Attach(attach) => {
                Call { key: self.keys.head(attach.shard), command: self.attach_command(attach) }
            }
        }
    }

    fn apply_command(&self, apply: &Apply) -> Cmd {
        let list = self.keys.batch(apply.shard, apply.generation, apply.batch);
        let mut command = function("FCALL", scripts::APPLY, &[self.keys.head(apply.shard), list]);
        command.arg(hex(apply.generation)).arg(apply.batch).arg(apply.blobs_max);
        command.arg(apply.blob.as_ref()).arg(hex(apply.checksum));
        command.arg(hex(apply.dictionary)).arg(apply.names_before).arg(apply.names);
        for part in &apply.lanes {
            command.arg(encode_lane(part.lane)).arg(hex(part.epoch));
            command.arg(position_text(part.before)).arg(position_text(part.after));
        }
        command
    }

    fn attach_command(&self, attach: &Attach) -> Cmd {
        let mut command = function("FCALL", scripts::ATTACH, &[self.keys.head(attach.shard)]);
        command.arg(hex(attach.roll.generation)).arg(hex(attach.roll.number));
        for lane in &attach.lanes {
            command.arg(encode_lane(lane.lane)).arg(hex(lane.epoch)).arg(position_text(lane.settled));
        }
        command
    }
}

pub(super) fn function(how: &str, name: &str, keys: &[String]) -> Cmd {
    let mut command = cmd(how);
    command.arg(name).arg(keys.len()).arg(keys);
    command
}

fn position_text(position: Position) -> String {
    let mut text = String::with_capacity(33);
    push_hex(&mut text, position.sequence);
    text.push(':');
    push_hex(&mut text, position.chain);
    text
}

pub(super) fn lane_text(lane: LaneApplied) -> String {
    format!("{}:{}", keys::hex(lane.epoch), position_text(lane.applied))
}

fn parse_written(write: &Write, answer: Result<Value, RedisError>) -> Result<Written, Error> {
    let value = answer.map_err(|source| call_failed("pipeline", source))?;
    Ok(match write {
        Write::Apply(_) => Written::Applied(Applied::parse(&value)?),
        Write::Attach(_) => Written::Attached(Attached::parse(&value)?),
    })
}

const fn call_failed(call: &'static str, source: RedisError) -> Error {
    Error::Call { call, source }
}
