//! The instruments of metering, made once from an injected meter. Nothing is recorded by event: frames and
//! flushes add up locally and record once.
//!
//! What has to stay small: `metering.events.unsettled` is the drift between what is applied in Redis and what
//! the ledger has posted, by shard; `metering.settlement.lag` is the age of its oldest part.

use std::time::Duration;

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Gauge, Histogram, Meter, UpDownCounter},
};

/// Bounds of the histogram of flushes, in seconds: one fsync to a stalled disk.
const FLUSH_BOUNDS_SECS: [f64; 12] = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0];
/// Bounds of the histogram of settlements, in seconds.
const SETTLE_BOUNDS_SECS: [f64; 11] = [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 15.0];

/// What became of a frame.
#[derive(Clone, Copy, Debug)]
pub(crate) enum FrameOutcome {
    /// Its events are in the aggregate.
    Counted,
    /// Its lane is past it.
    Duplicate,
    /// It came before its lane was rewound.
    Overtaken,
    /// It stopped its lane.
    Refused,
}

/// What became of a sealed batch.
#[derive(Clone, Copy, Debug)]
pub(crate) enum BatchOutcome {
    /// The ledger has it.
    Settled,
    /// The ledger had it before.
    Repeated,
    /// The ledger refused it, or it could not be merged.
    Refused,
}

/// All instruments.
#[derive(Debug)]
pub(crate) struct Metrics {
    frames: Counter<u64>,
    applied: Counter<u64>,
    clamped: Counter<u64>,
    overflowed: Counter<u64>,
    refused: Counter<u64>,
    blobs: Counter<u64>,
    blob_bytes: Counter<u64>,
    flush: Histogram<f64>,
    doubts: Counter<u64>,
    redis_errors: Counter<u64>,
    peer_errors: Counter<u64>,
    streams: UpDownCounter<i64>,
    rewound: Counter<u64>,
    stopped: Counter<u64>,
    sealed: Counter<u64>,
    batches: Counter<u64>,
    settled: Counter<u64>,
    lines: Counter<u64>,
    settle: Histogram<f64>,
    resets: Counter<u64>,
    repeated_resets: Counter<u64>,
    aside: Counter<u64>,
    cell_refused: Counter<u64>,
    watchers: UpDownCounter<i64>,
    live_blobs: Counter<u64>,
    leases: Gauge<u64>,
    lanes: Gauge<u64>,
    lanes_retired: Counter<u64>,
    unsettled: Gauge<u64>,
    lag: Gauge<f64>,
}

impl FrameOutcome {
    const fn label(self) -> &'static str {
        match self {
            Self::Counted => "counted",
            Self::Duplicate => "duplicate",
            Self::Overtaken => "overtaken",
            Self::Refused => "refused",
        }
    }
}

impl BatchOutcome {
    const fn label(self) -> &'static str {
        match self {
            Self::Settled => "settled",
            Self::Repeated => "repeated",
            Self::Refused => "refused",
        }
    }
}

impl Metrics {
    /// Makes the instruments.
    #[must_use]
    pub(crate) fn new(meter: &Meter) -> Self {
        let counter = |name, description| meter.u64_counter(name).with_description(description).build();
        let present =
            |name, description| meter.i64_up_down_counter(name).with_description(description).build();
        let gauge = |name, description| meter.u64_gauge(name).with_description(description).build();
        let seconds = |name, description, bounds: &[f64]| {
            let histogram = meter.f64_histogram(name).with_unit("s").with_description(description);
            histogram.with_boundaries(bounds.to_vec()).build()
        };
        Self {
            frames: counter("metering.frames", "frames taken from streams, by outcome"),
            applied: counter("metering.events.applied", "events applied in redis, refused ones among them"),
            clamped: counter("metering.events.clamped", "events whose time was set to their receipt"),
            overflowed: counter(
                "metering.events.overflowed",
                "events counted as ~other, because their dimension had too many values that day",
            ),
            refused: counter("metering.events.refused", "events refused in their place, by reason"),
            blobs: counter("metering.blobs", "blobs appended to open batches"),
            blob_bytes: meter
                .u64_counter("metering.blobs.size")
                .with_unit("By")
                .with_description("bytes of blobs appended to open batches")
                .build(),
            flush: seconds("metering.flush.duration", "time of one group commit", &FLUSH_BOUNDS_SECS),
            doubts: counter("metering.flush.doubts", "writes that were refused or in doubt, by cause"),
            redis_errors: counter("metering.redis.errors", "calls of redis without an answer, by call"),
            peer_errors: counter("metering.peer.errors", "calls of other services that failed, by peer"),
            streams: present("metering.streams", "streams of producers at this instance"),
            rewound: counter("metering.lanes.rewound", "lanes that had to be sent again from where redis is"),
            stopped: counter("metering.lanes.stopped", "lanes stopped, by reason"),
            sealed: counter("metering.batches.sealed", "batches sealed"),
            batches: counter("metering.batches.posted", "posts of sealed batches, by outcome"),
            settled: counter(
                "metering.events.settled",
                "events whose batch the ledger took from this worker",
            ),
            lines: counter("metering.lines.posted", "lines of settled batches"),
            settle: seconds(
                "metering.settle.duration",
                "time to read, merge, resolve, post and retire one batch",
                &SETTLE_BOUNDS_SECS,
            ),
            resets: counter("metering.shards.reset", "shards reset after damage, by cause"),
            repeated_resets: counter(
                "metering.shards.reset.repeated",
                "shards reset again though nothing had settled in between; must stay 0",
            ),
            cell_refused: counter("metering.cells.refused", "settled batches a cell refused; must stay 0"),
            aside: counter(
                "metering.lanes.aside",
                "lanes set aside because their usage can not be settled; must stay 0",
            ),
            watchers: present("metering.live.watchers", "watchers of live usage at this instance"),
            live_blobs: counter("metering.live.blobs", "blobs read for all watchers of live usage together"),
            leases: gauge("metering.leases", "shards that this instance looks at"),
            lanes: gauge("metering.lanes", "lanes in the head of a shard, by shard"),
            lanes_retired: counter(
                "metering.lanes.retired",
                "idle lanes that have left the head of their shard",
            ),
            unsettled: gauge(
                "metering.events.unsettled",
                "events applied in redis and not settled in the ledger, by shard",
            ),
            lag: meter
                .f64_gauge("metering.settlement.lag")
                .with_unit("s")
                .with_description("age of the oldest event seen applied and not settled, by shard")
                .build(),
        }
    }

    pub(crate) fn frame(&self, outcome: FrameOutcome) {
        self.frames.add(1, &[KeyValue::new("outcome", outcome.label())]);
    }

    /// One blob is in redis.
    pub(crate) fn applied(&self, events: u64, clamped: u64, refused: &[(&'static str, u64)], bytes: usize) {
        self.applied.add(events, &[]);
        self.clamped.add(clamped, &[]);
        for (reason, count) in refused {
            self.refused.add(*count, &[KeyValue::new("reason", *reason)]);
        }
        self.blobs.add(1, &[]);
        self.blob_bytes.add(u64::try_from(bytes).unwrap_or(u64::MAX), &[]);
    }

    /// Of the events of a blob in redis, so many had a value too many.
    pub(crate) fn overflowed(&self, events: u64) {
        self.overflowed.add(events, &[]);
    }

    pub(crate) fn flushed(&self, took: Duration) {
        self.flush.record(took.as_secs_f64(), &[]);
    }

    pub(crate) fn doubt(&self, cause: &'static str) {
        self.doubts.add(1, &[KeyValue::new("cause", cause)]);
    }

    pub(crate) fn redis_error(&self, call: &'static str) {
        self.redis_errors.add(1, &[KeyValue::new("call", call)]);
    }

    pub(crate) fn peer_error(&self, peer: &'static str) {
        self.peer_errors.add(1, &[KeyValue::new("peer", peer)]);
    }

    pub(crate) fn stream(&self, change: i64) {
        self.streams.add(change, &[]);
    }

    pub(crate) fn lane_rewound(&self) {
        self.rewound.add(1, &[]);
    }

    pub(crate) fn lane_stopped(&self, reason: &'static str) {
        self.stopped.add(1, &[KeyValue::new("reason", reason)]);
    }

    pub(crate) fn sealed(&self) {
        self.sealed.add(1, &[]);
    }

    pub(crate) fn batch(&self, outcome: BatchOutcome) {
        self.batches.add(1, &[KeyValue::new("outcome", outcome.label())]);
    }

    /// The ledger has a batch because of this worker.
    pub(crate) fn settled(&self, events: u64, lines: usize, took: Duration) {
        self.settled.add(events, &[]);
        self.lines.add(u64::try_from(lines).unwrap_or(u64::MAX), &[]);
        self.settle.record(took.as_secs_f64(), &[]);
    }

    pub(crate) fn reset(&self, cause: &'static str, repeated: bool) {
        self.resets.add(1, &[KeyValue::new("cause", cause)]);
        if repeated {
            self.repeated_resets.add(1, &[]);
        }
    }

    pub(crate) fn cell_refused(&self) {
        self.cell_refused.add(1, &[]);
    }

    pub(crate) fn lane_aside(&self) {
        self.aside.add(1, &[]);
    }

    pub(crate) fn watcher(&self, change: i64) {
        self.watchers.add(change, &[]);
    }

    pub(crate) fn live_read(&self, blobs: usize) {
        self.live_blobs.add(u64::try_from(blobs).unwrap_or(u64::MAX), &[]);
    }

    pub(crate) fn leases(&self, held: usize) {
        self.leases.record(u64::try_from(held).unwrap_or(u64::MAX), &[]);
    }

    /// The head of a shard has so many lanes.
    pub(crate) fn lanes(&self, shard: u32, lanes: usize) {
        let shard = [KeyValue::new("shard", i64::from(shard))];
        self.lanes.record(u64::try_from(lanes).unwrap_or(u64::MAX), &shard);
    }

    pub(crate) fn lanes_retired(&self, lanes: u64) {
        self.lanes_retired.add(lanes, &[]);
    }

    pub(crate) fn drift(&self, shard: u32, events: u64, lag: Duration) {
        let shard = [KeyValue::new("shard", i64::from(shard))];
        self.unsettled.record(events, &shard);
        self.lag.record(lag.as_secs_f64(), &shard);
    }
}
