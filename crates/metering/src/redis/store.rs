//! Typed calls of the function library, each one round trip.
//!
//! Two connections: writes and looks go over one, reading whole batches over the other, so that a batch of
//! some MiB never stands in front of a group commit. After a time-out the connection is given up: an answer
//! that comes later belongs to nobody. A missing library (an empty volume) is loaded when it is missed.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use redis::{Client, Cmd, FromRedisValue, RedisError, Value, aio::ConnectionManager, cmd};

use drawdown_metering_core::{
    look::{Head, LaneApplied},
    shard::{Lane, Position},
};

use super::{
    keys::{self, Keys, encode_lane, hex, push_hex},
    reply::{Applied, Attached, HeadFault, Installed, Malformed, Retired, Sealed, parse_head, parse_swept},
    safety::{self, StartError},
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

/// Lanes to be made known to a shard.
#[derive(Clone, Debug)]
pub struct Attach {
    /// The shard.
    pub shard: u32,
    /// The generation it is believed to have.
    pub generation: u64,
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
    /// Lanes, as settled.
    pub lanes: Vec<(Lane, LaneApplied)>,
    /// The only lane that may be attached anew.
    pub only: Option<Lane>,
    /// Lanes that are set aside.
    pub aside: Vec<Lane>,
}

/// The accumulator.
#[derive(Debug)]
pub struct Store {
    keys: Keys,
    line: Line,
    bulk: Line,
}

impl Store {
    /// Connects and refuses a server that could lose or evict what it holds, by name.
    pub async fn connect(settings: &settings::Settings) -> Result<Self, StartError> {
        let line = Line::open(settings)?;
        let store = Self { keys: Keys::new(settings.namespace.clone()), line, bulk: Line::open(settings)? };
        safety::check(&mut store.line.get(), settings.allow_unsafe).await?;
        store.line.ensure_library().await.map_err(StartError::Library)?;
        Ok(store)
    }

    /// Appends blobs and makes lanes known, all in one round trip, in the order given. Each has its own
    /// outcome; where it is an error nobody knows whether it took, or will take, effect.
    pub async fn write(&self, writes: &[Write]) -> Vec<Result<Written, Error>> {
        let mut pipeline = redis::Pipeline::with_capacity(writes.len());
        for write in writes {
            pipeline.add_command(match write {
                Write::Apply(apply) => self.apply_command(apply),
                Write::Attach(attach) => self.attach_command(attach),
            });
        }
        let values: Result<Vec<Value>, RedisError> = self.line.pipeline(&pipeline).await;
        match values {
            Ok(values) if values.len() == writes.len() => {
                let answers = writes.iter().zip(values).map(|(write, value)| parse_written(write, value));
                let answers: Vec<_> = answers.collect();
                if answers.iter().any(|answer| matches!(answer, Err(Error::Call { .. }))) {
                    // Perhaps the library is gone; the caller looks again, and must find it then.
                    let _ = self.line.ensure_library().await;
                }
                answers
            }
            Ok(values) => {
                let found = Value::Int(i64::try_from(values.len()).unwrap_or(i64::MAX));
                writes.iter().map(|_| Err(Malformed::new("pipeline", &found).into())).collect()
            }
            Err(source) => {
                let call = "pipeline";
                writes.iter().map(|_| Err(Error::Call { call, source: source.clone() })).collect()
            }
        }
    }

    /// Heads and lengths of the open lists of some shards, each of one instant, in one round trip.
    pub async fn look(&self, shards: &[u32]) -> Result<Vec<Result<Head, HeadFault>>, Error> {
        let commands: Vec<Cmd> = shards
            .iter()
            .map(|shard| function("FCALL_RO", scripts::LOOK, &[self.keys.head(*shard)]))
            .collect();
        let values = self.line.all("look", &commands).await?;
        let heads = shards.iter().zip(&values).map(|(shard, value)| parse_head(*shard, value));
        Ok(heads.collect::<Result<Vec<_>, Malformed>>()?)
    }

    /// Closes the open batch, if it is still that one.
    pub async fn seal(&self, shard: u32, generation: u64, batch: u64, cap: u64) -> Result<Sealed, Error> {
        let keys = [self.keys.head(shard), self.keys.batch(shard, generation, batch)];
        let mut command = function("FCALL", scripts::SEAL, &keys);
        command.arg(hex(generation)).arg(batch).arg(cap);
        Ok(Sealed::parse(&self.line.one("seal", command).await?)?)
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
        Ok(Retired::parse(&self.line.one("retire", command).await?)?)
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
        for (lane, value) in &install.lanes {
            command.arg(encode_lane(*lane)).arg(lane_text(value.epoch, value.applied));
        }
        Ok(Installed::parse(&self.line.one("install", command).await?)?)
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
            let value = self.bulk.one("lrange", command).await?;
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
            let value = self.bulk.one("scan", command).await?;
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
                let swept = parse_swept(&self.line.one("sweep", command).await?)?;
                dropped = dropped.saturating_add(swept);
            }
            if next == 0 {
                return Ok(dropped);
            }
            cursor = next;
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
        command.arg(hex(attach.generation));
        for lane in &attach.lanes {
            command.arg(encode_lane(lane.lane)).arg(hex(lane.epoch)).arg(position_text(lane.settled));
        }
        command
    }
}

fn function(how: &str, name: &str, keys: &[String]) -> Cmd {
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

fn lane_text(epoch: u64, applied: Position) -> String {
    format!("{}:{}", keys::hex(epoch), position_text(applied))
}

fn parse_written(write: &Write, value: Value) -> Result<Written, Error> {
    let value = match value {
        Value::ServerError(error) => return Err(call_failed("pipeline", error.into())),
        value => value,
    };
    Ok(match write {
        Write::Apply(_) => Written::Applied(Applied::parse(&value)?),
        Write::Attach(_) => Written::Attached(Attached::parse(&value)?),
    })
}

const fn call_failed(call: &'static str, source: RedisError) -> Error {
    Error::Call { call, source }
}

/// One connection that is made again after a time-out.
struct Line {
    settings: settings::Settings,
    client: Client,
    connection: Mutex<ConnectionManager>,
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Line").finish_non_exhaustive()
    }
}

impl Line {
    fn open(settings: &settings::Settings) -> Result<Self, StartError> {
        let client = Client::open(settings.url.as_str()).map_err(StartError::Address)?;
        let connection = ConnectionManager::new_lazy_with_config(client.clone(), settings.connection())
            .map_err(StartError::Address)?;
        Ok(Self { settings: settings.clone(), client, connection: Mutex::new(connection) })
    }

    fn get(&self) -> ConnectionManager {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn give_up_after(&self, error: &RedisError) {
        if !error.is_timeout() {
            return;
        }
        let again = ConnectionManager::new_lazy_with_config(self.client.clone(), self.settings.connection());
        if let Ok(again) = again {
            *self.connection.lock().unwrap_or_else(PoisonError::into_inner) = again;
        }
    }

    /// Values of all commands, errors of the server among them.
    async fn pipeline(&self, pipeline: &redis::Pipeline) -> Result<Vec<Value>, RedisError> {
        use redis::aio::ConnectionLike as _;
        let answer = self.get().req_packed_commands(pipeline, 0, pipeline.len()).await;
        answer.inspect_err(|error| self.give_up_after(error))
    }

    /// Values of all commands, or the first error. The library is loaded and all are sent once more where a
    /// function was missing: such calls changed nothing.
    async fn all(&self, call: &'static str, commands: &[Cmd]) -> Result<Vec<Value>, Error> {
        let mut pipeline = redis::Pipeline::with_capacity(commands.len());
        for command in commands {
            pipeline.add_command(command.clone());
        }
        let mut loaded = false;
        loop {
            let values = self.pipeline(&pipeline).await.map_err(|source| call_failed(call, source))?;
            let failed = values.iter().find_map(|value| match value {
                Value::ServerError(error) => Some(error.clone()),
                _ => None,
            });
            let Some(failed) = failed else { return Ok(values) };
            if loaded || !self.ensure_library().await.map_err(|source| call_failed("load", source))? {
                return Err(call_failed(call, failed.into()));
            }
            loaded = true;
        }
    }

    async fn one(&self, call: &'static str, command: Cmd) -> Result<Value, Error> {
        let mut values = self.all(call, &[command]).await?;
        values.pop().ok_or_else(|| Malformed::new(call, &Value::Nil).into())
    }

    /// Loads the library where it is missing or older; says whether it did.
    async fn ensure_library(&self) -> Result<bool, RedisError> {
        let mut connection = self.get();
        let found: Result<u64, RedisError> =
            cmd("FCALL_RO").arg(scripts::REVISION_OF).arg(0).query_async(&mut connection).await;
        match found {
            Ok(revision) if revision >= scripts::REVISION => return Ok(false),
            Ok(_) => {}
            Err(error) if matches!(error.kind(), redis::ErrorKind::Server(_)) => {}
            Err(error) => {
                self.give_up_after(&error);
                return Err(error);
            }
        }
        let mut load = cmd("FUNCTION");
        load.arg("LOAD").arg("REPLACE").arg(scripts::LIBRARY);
        load.query_async::<()>(&mut connection).await.inspect_err(|error| self.give_up_after(error))?;
        Ok(true)
    }
}
