//! Every limit of the service, by name and with its unit; raw options become checked values before a port is bound.
//!
//! Memory of an instance is bounded by: streams × (2 × series per stream, those of rows with up to 4 KiB each +
//! events of a frame × 24 bytes + 3 × bytes of a message + responses) + shards × (2 × counters of a
//! shard + its values of dimensions × about 100 bytes) + shards at once × the blobs of one batch + shards watched × (lines and values that the reader holds × about 300
//! bytes + changes × 40 bytes) + watchers × lines of an answer × about 100 bytes + queries × their lines × about 300 bytes +
//! events by id that wait × 2 KiB + their calls in hand × 25 × the bytes of a call.

mod events;
mod record;
mod redis;
mod usage;

use std::{collections::BTreeMap, num::NonZeroU32, time::Duration};

pub use drawdown_client::CellOptions;
use drawdown_client::{ChannelOptions, channel::MESSAGE_BYTES_MAX};
use drawdown_metering_core::{aggregate::ValueLimits, frame::FrameLimits, shard::ShardMap};
use drawdown_service::{
    config::{Count, Millis, Problem, Problems},
    server::{ServerConfig, ServerOptions},
};
use serde::Deserialize;

use crate::redis::Settings;

/// The documented defaults of [`Options`]: the section `[metering]`.
pub const DEFAULTS_TOML: &str = include_str!("../metering.default.toml");

/// Shards of one map: a call asks the ledger about at most so many.
const SHARDS_MAX: usize = 1024;
/// Lua spreads a few thousand values over one call at most.
const LANES_PER_SHARD_MAX: usize = 1500;

/// The section `[metering]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// The version of the map that new events are appended under.
    pub map_version: Count,
    /// Its number of shards.
    pub shard_count: Count,
    /// Maps whose lanes still drain.
    pub older_maps: Vec<MapOptions>,
    /// Where the service listens.
    pub server: ServerOptions,
    /// The accumulator.
    pub redis: RedisOptions,
    /// How the ledger is reached: the only one, or the leading one.
    pub ledger: ChannelOptions,
    /// The ledgers of other cells.
    pub cells: Vec<CellOptions>,
    /// How entitlement is reached.
    pub entitlement: ChannelOptions,
    /// Limits of streams.
    pub ingest: IngestOptions,
    /// Bounds of event times.
    pub events: EventOptions,
    /// Limits of flushes.
    pub flush: FlushOptions,
    /// Limits of settlement.
    pub settle: SettleOptions,
    /// How the catalogue is kept up to date.
    pub meters: MeterOptions,
    /// Limits of queries.
    pub usage: UsageOptions,
    /// Callers without a log.
    pub record: RecordOptions,
}

pub use events::EventOptions;
pub use record::RecordOptions;
pub use redis::{RedisMode, RedisOptions};
pub use usage::UsageOptions;

/// A map that is not used for new events.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MapOptions {
    /// Its version.
    pub version: Count,
    /// Its number of shards.
    pub shard_count: Count,
}

/// The section `[metering.ingest]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IngestOptions {
    /// Most bytes of a frame.
    pub frame_bytes_max: Count,
    /// Most events of a frame.
    pub frame_events_max: Count,
    /// Series that one stream may define.
    pub series_per_stream_max: Count,
    /// Streams at once.
    pub streams_max: Count,
    /// Lanes of one stream.
    pub lanes_per_stream_max: Count,
    /// Lanes that this instance takes for one shard.
    pub lanes_per_shard_max: Count,
    /// Events of a lane that may be sent and are not applied yet.
    pub lane_window_events: Count,
    /// Counters that a shard adds up before its streams wait.
    pub shard_counters_max: Count,
    /// Series that a shard remembers from flush to flush.
    pub shard_series_max: Count,
    /// Answers that wait for a stream that is not read.
    pub responses_max: Count,
    /// Values of one dimension of one meter that a shard tells apart in a UTC day.
    pub dimension_values_max: Count,
    /// Values of all dimensions of all meters that a shard tells apart in a UTC day.
    pub shard_dimension_values_max: Count,
}

/// The section `[metering.flush]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlushOptions {
    /// From the end of one flush to the start of the next, in ms.
    pub pause_ms: Millis,
    /// The pause grows to this where flushes carry many counters, in ms.
    pub pause_max_ms: Millis,
    /// Counters for which a flush is followed by a pause of a millisecond.
    pub counters_per_pause_ms: Count,
    /// First pause after trouble, in ms.
    pub retry_pause_ms: Millis,
    /// Longest pause after trouble, in ms.
    pub retry_pause_max_ms: Millis,
    /// Blobs that one batch may have.
    pub batch_blobs_max: Count,
}

/// The section `[metering.settle]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SettleOptions {
    /// Shortest interval, in ms.
    pub interval_ms: Millis,
    /// Longest interval, in ms.
    pub interval_max_ms: Millis,
    /// How long a worker is believed to look at its shards, in ms.
    pub lease_ms: Millis,
    /// Lines above which the interval grows.
    pub lines_per_second: Count,
    /// Shards that are settled at once.
    pub shards_at_once: Count,
    /// Batches of a shard that may wait for the ledger.
    pub sealed_batches_max: Count,
    /// Lines of one post.
    pub post_lines_max: Count,
    /// Bytes of one post.
    pub post_bytes_max: Count,
    /// First pause after a failure, in ms.
    pub retry_pause_ms: Millis,
    /// Longest pause after a failure, in ms.
    pub retry_pause_max_ms: Millis,
    /// Where lanes are settled one by one: how long a lane may take to come, in ms.
    pub isolation_ms: Millis,
    /// Questions of one BatchResolve.
    pub resolve_queries_max: Count,
    /// Answers of entitlement that are remembered.
    pub resolved_max: Count,
    /// For how long, in ms.
    pub resolved_ttl_ms: Millis,
    /// How often unused lists are looked for, in ms.
    pub sweep_interval_ms: Millis,
    /// A lane that was not used for so long leaves the head, in ms by the clock of Redis.
    pub lanes_idle_ms: Millis,
    /// How often such lanes are looked for, in ms.
    pub lanes_interval_ms: Millis,
    /// Lanes of one call of it.
    pub lanes_per_call_max: Count,
}

/// The section `[metering.meters]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeterOptions {
    /// How often the catalogue is read, in ms.
    pub refresh_ms: Millis,
    /// Shortest time between two readings, in ms.
    pub refresh_pause_ms: Millis,
    /// Meters of one page.
    pub page_size: Count,
    /// Meters at all.
    pub meters_max: Count,
}

/// Checked [`Options`].
#[derive(Clone, Debug)]
pub struct Config {
    /// The map of new events, then older ones.
    pub maps: Vec<ShardMap>,
    /// Where the service listens.
    pub server: ServerConfig,
    /// The accumulator.
    pub redis: Settings,
    /// How the ledger is reached: the only one, or the leading one.
    pub ledger: ChannelOptions,
    /// The ledgers of other cells, by number.
    pub cells: BTreeMap<u8, ChannelOptions>,
    /// How entitlement is reached.
    pub entitlement: ChannelOptions,
    /// Limits of streams.
    pub ingest: IngestOptions,
    /// Bounds of event times.
    pub events: EventOptions,
    /// Limits of flushes.
    pub flush: FlushOptions,
    /// Limits of settlement.
    pub settle: SettleOptions,
    /// How the catalogue is kept up to date.
    pub meters: MeterOptions,
    /// Limits of queries.
    pub usage: UsageOptions,
    /// Callers without a log.
    pub record: RecordOptions,
}

impl Default for Options {
    /// What [`DEFAULTS_TOML`] says.
    fn default() -> Self {
        Self {
            map_version: Count::of(1),
            shard_count: Count::of(16),
            older_maps: Vec::new(),
            server: ServerOptions {
                listen: local(7401),
                metrics_listen: local(7411),
                ..ServerOptions::default()
            },
            redis: RedisOptions::default(),
            ledger: ChannelOptions::to("http://127.0.0.1:7402"),
            cells: Vec::new(),
            entitlement: ChannelOptions::to("http://127.0.0.1:7403"),
            ingest: IngestOptions::default(),
            events: EventOptions::default(),
            flush: FlushOptions::default(),
            settle: SettleOptions::default(),
            meters: MeterOptions::default(),
            usage: UsageOptions::default(),
            record: RecordOptions::default(),
        }
    }
}

fn local(port: u16) -> drawdown_service::config::ListenAddress {
    std::net::SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), port).into()
}

impl Default for IngestOptions {
    fn default() -> Self {
        Self {
            frame_bytes_max: Count::of(1 << 20),
            frame_events_max: Count::of(1 << 16),
            series_per_stream_max: Count::of(1 << 20),
            streams_max: Count::of(256),
            lanes_per_stream_max: Count::of(1024),
            lanes_per_shard_max: Count::of(1000),
            lane_window_events: Count::of(1 << 21),
            shard_counters_max: Count::of(1 << 16),
            shard_series_max: Count::of(1 << 16),
            responses_max: Count::of(64),
            dimension_values_max: Count::of(1000),
            shard_dimension_values_max: Count::of(1 << 16),
        }
    }
}

impl FlushOptions {
    /// The pause after a flush with so many counters. Each of them costs this instance, Redis and the settlement about a
    /// microsecond however many events it holds, so with many series it pays to wait for more events.
    pub(crate) fn pause(&self, counters: usize) -> Duration {
        let millis = counters.checked_div(self.counters_per_pause_ms.get()).unwrap_or(0);
        let pause = Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX));
        pause.min(self.pause_max_ms.duration()).max(self.pause_ms.duration())
    }
}

impl Default for FlushOptions {
    fn default() -> Self {
        Self {
            pause_ms: Millis::from_millis(5),
            pause_max_ms: Millis::from_millis(50),
            counters_per_pause_ms: Count::of(1000),
            retry_pause_ms: Millis::from_millis(20),
            retry_pause_max_ms: Millis::from_millis(1000),
            batch_blobs_max: Count::of(8192),
        }
    }
}

impl Default for SettleOptions {
    fn default() -> Self {
        Self {
            interval_ms: Millis::from_millis(1000),
            interval_max_ms: Millis::from_millis(60_000),
            lease_ms: Millis::from_millis(3000),
            lines_per_second: Count::of(50_000),
            shards_at_once: Count::of(4),
            sealed_batches_max: Count::of(8),
            post_lines_max: Count::of(200_000),
            post_bytes_max: Count::of(48 << 20),
            retry_pause_ms: Millis::from_millis(200),
            retry_pause_max_ms: Millis::from_millis(15_000),
            isolation_ms: Millis::from_millis(5000),
            resolve_queries_max: Count::of(10_000),
            resolved_max: Count::of(1 << 18),
            resolved_ttl_ms: Millis::from_millis(300_000),
            sweep_interval_ms: Millis::from_millis(600_000),
            lanes_idle_ms: Millis::from_millis(3 * 86_400_000),
            lanes_interval_ms: Millis::from_millis(60_000),
            lanes_per_call_max: Count::of(1000),
        }
    }
}

impl Default for MeterOptions {
    fn default() -> Self {
        Self {
            refresh_ms: Millis::from_millis(30_000),
            refresh_pause_ms: Millis::from_millis(500),
            page_size: Count::of(1000),
            meters_max: Count::of(100_000),
        }
    }
}

fn map(problems: &mut Problems, version: (&str, Count), shard_count: (&str, Count)) -> Option<ShardMap> {
    let checked = u32::try_from(version.1.get()).ok();
    problems.ensure(checked.is_some(), version.0, "does not fit 32 bits");
    let few = shard_count.1.get() <= SHARDS_MAX;
    problems.ensure(few, shard_count.0, format!("is above {SHARDS_MAX}"));
    let shard_count = NonZeroU32::new(shard_count.1.get_u32())?;
    Some(ShardMap { version: checked?, shard_count })
}

impl Options {
    /// Checks the values.
    ///
    /// # Errors
    /// Every problem, by the path inside the section.
    pub fn validate(self) -> Result<Config, Vec<Problem>> {
        let mut problems = Problems::new();
        let mut maps = Vec::new();
        let current =
            map(&mut problems, ("map_version", self.map_version), ("shard_count", self.shard_count));
        maps.extend(current);
        for (at, older) in self.older_maps.iter().enumerate() {
            let (version, count) =
                (format!("older_maps[{at}].version"), format!("older_maps[{at}].shard_count"));
            if let Some(older) = map(&mut problems, (&version, older.version), (&count, older.shard_count)) {
                let known = maps.iter().any(|map: &ShardMap| map.version == older.version);
                problems.ensure(!known, &version, "is the version of another map as well");
                maps.push(older);
            }
        }
        self.check_limits(&mut problems);
        let server = problems.section("server", self.server.validate());
        let redis = problems.section("redis", self.redis.validate());
        let files = server.as_ref().and_then(ServerConfig::files);
        let (ledger, entitlement) = (self.ledger.or_files(files), self.entitlement.or_files(files));
        for (section, channel) in [("ledger", &ledger), ("entitlement", &entitlement)] {
            for problem in channel.problems() {
                problems.push(&format!("{section}.{}", problem.field), problem.problem);
            }
        }
        let cells = CellOptions::checked(&self.cells, files, |field, problem| {
            problems.push(&format!("cells{field}"), problem);
        });
        let config = server.zip(redis).map(|(server, redis)| Config {
            maps,
            server,
            redis,
            ledger,
            cells,
            entitlement,
            ingest: self.ingest,
            events: self.events,
            flush: self.flush,
            settle: self.settle,
            meters: self.meters,
            usage: self.usage,
            record: self.record,
        });
        problems.finish(config)
    }

    fn check_limits(&self, problems: &mut Problems) {
        let lanes = self.ingest.lanes_per_shard_max.get();
        problems.ensure(
            lanes <= LANES_PER_SHARD_MAX,
            "ingest.lanes_per_shard_max",
            format!("is above {LANES_PER_SHARD_MAX}"),
        );
        let room = self.server.message_bytes_max.get() > self.ingest.frame_bytes_max.get();
        problems.ensure(room, "ingest.frame_bytes_max", "does not fit into server.message_bytes_max");
        let window = self.ingest.lane_window_events >= self.ingest.frame_events_max;
        problems.ensure(window, "ingest.lane_window_events", "is below frame_events_max");
        let ordered = self.settle.interval_ms <= self.settle.interval_max_ms;
        problems.ensure(ordered, "settle.interval_max_ms", "is below interval_ms");
        let ordered = self.settle.retry_pause_ms <= self.settle.retry_pause_max_ms;
        problems.ensure(ordered, "settle.retry_pause_max_ms", "is below retry_pause_ms");
        self.record.check(problems);
        // One blob can not be cut: it holds what a shard may have added up, and the frame that reached it.
        let blob_lines =
            self.ingest.shard_counters_max.get().saturating_add(self.ingest.frame_events_max.get());
        problems.ensure(
            blob_lines <= self.settle.post_lines_max.get(),
            "settle.post_lines_max",
            "is below ingest.shard_counters_max and ingest.frame_events_max together",
        );
        let fits = self.settle.post_bytes_max.get() <= MESSAGE_BYTES_MAX;
        problems.ensure(fits, "settle.post_bytes_max", format!("is above {MESSAGE_BYTES_MAX}"));
        let ordered = self.flush.pause_ms <= self.flush.pause_max_ms;
        problems.ensure(ordered, "flush.pause_max_ms", "is below pause_ms");
        let ordered = self.flush.retry_pause_ms <= self.flush.retry_pause_max_ms;
        problems.ensure(ordered, "flush.retry_pause_max_ms", "is below retry_pause_ms");
        let asked = self.settle.resolve_queries_max.get() <= 10_000;
        problems.ensure(asked, "settle.resolve_queries_max", "is above 10000, which entitlement refuses");
    }
}

impl IngestOptions {
    /// Limits of one frame.
    #[must_use]
    pub fn frames(&self) -> FrameLimits {
        FrameLimits { bytes_max: self.frame_bytes_max.get(), events_max: self.frame_events_max.get_u32() }
    }

    /// How many values of dimensions are told apart.
    #[must_use]
    pub const fn values(&self) -> ValueLimits {
        ValueLimits {
            per_dimension_max: self.dimension_values_max.get(),
            total_max: self.shard_dimension_values_max.get(),
        }
    }
}

impl Config {
    /// The map with this version.
    #[must_use]
    pub fn map(&self, version: u32) -> Option<ShardMap> {
        self.maps.iter().find(|map| map.version == version).copied()
    }

    /// The map of new events.
    #[must_use]
    pub fn current_map(&self) -> Option<ShardMap> {
        self.maps.first().copied()
    }

    /// Shards of all maps.
    #[must_use]
    pub fn shards(&self) -> u32 {
        self.maps.iter().map(|map| map.shard_count.get()).max().unwrap_or(1)
    }
}

#[cfg(test)]
mod tests;
