//! [`ProducerMetrics`] as OpenTelemetry instruments, made once from an injected meter.

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Gauge, Histogram, Meter},
};

use super::{
    error::LaneStop,
    metrics::{GroupCommit, ProducerMetrics, Reached},
    progress::LostRange,
};

/// Bounds of the histogram of commits, in seconds: memory to a stalled disk.
const COMMIT_BOUNDS_SECS: [f64; 12] =
    [0.0001, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 2.0];
/// Bounds of the histogram of group sizes, in events.
const GROUP_BOUNDS: [f64; 8] = [1.0, 10.0, 100.0, 1_000.0, 10_000.0, 50_000.0, 200_000.0, 1_000_000.0];

/// The instruments of one producer: `producer.*`.
#[derive(Debug)]
pub struct Instruments {
    appended: Counter<u64>,
    shed: Counter<u64>,
    not_taken: Counter<u64>,
    refused: Counter<u64>,
    group: Histogram<u64>,
    commit: Histogram<f64>,
    kept_bytes: Gauge<u64>,
    frames: Counter<u64>,
    sent_events: Counter<u64>,
    sent_bytes: Counter<u64>,
    unapplied: Gauge<u64>,
    unsettled: Gauge<u64>,
    settled: Gauge<u64>,
    streams: Counter<u64>,
    disconnects: Counter<u64>,
    lost: Counter<u64>,
    stopped: Counter<u64>,
}

impl Instruments {
    /// Makes them.
    #[must_use]
    pub fn new(meter: &Meter) -> Self {
        let counter = |name: &'static str, description: &'static str| {
            meter.u64_counter(name).with_description(description).build()
        };
        let gauge = |name: &'static str, description: &'static str| {
            meter.u64_gauge(name).with_description(description).build()
        };
        Self {
            appended: counter("producer.events.appended", "Events in the log, or kept in memory"),
            shed: counter("producer.events.shed", "Events shed because there was no room"),
            not_taken: counter("producer.events.not_taken", "Events that were not taken, by reason"),
            refused: counter("producer.events.refused", "Events that metering refused, by reason"),
            group: meter
                .u64_histogram("producer.group.events")
                .with_description("Events of one group commit")
                .with_boundaries(GROUP_BOUNDS.to_vec())
                .build(),
            commit: meter
                .f64_histogram("producer.commit.duration")
                .with_unit("s")
                .with_description("Time of one group commit, with its fsync")
                .with_boundaries(COMMIT_BOUNDS_SECS.to_vec())
                .build(),
            kept_bytes: meter
                .u64_gauge("producer.kept.size")
                .with_unit("By")
                .with_description("Bytes of the log on disk, or of events in memory")
                .build(),
            frames: counter("producer.frames.sent", "Frames sent, for the first time or again"),
            sent_events: counter("producer.events.sent", "Events sent, for the first time or again"),
            sent_bytes: meter
                .u64_counter("producer.frames.sent.size")
                .with_unit("By")
                .with_description("Bytes of frames sent, for the first time or again")
                .build(),
            unapplied: gauge("producer.events.unapplied", "Events that metering has not counted yet"),
            unsettled: gauge("producer.events.unsettled", "Events that are not settled in the ledger yet"),
            settled: gauge("producer.events.settled", "Events that are settled in the ledger"),
            streams: counter("producer.streams.opened", "Streams that were opened"),
            disconnects: counter("producer.streams.lost", "Streams, or attempts to open one, that ended"),
            lost: counter(
                "producer.events.lost",
                "Events that a restored ledger lacks and this log had freed",
            ),
            stopped: counter("producer.lanes.stopped", "Lanes that were stopped, by reason"),
        }
    }
}

fn reason(reason: &str) -> [KeyValue; 1] {
    [KeyValue::new("reason", reason.to_owned())]
}

impl ProducerMetrics for Instruments {
    fn committed(&self, group: &GroupCommit) {
        self.appended.add(group.events, &[]);
        self.group.record(group.events, &[]);
        self.commit.record(group.took.as_secs_f64(), &[]);
        self.kept_bytes.record(group.kept_bytes, &[]);
    }

    fn shed(&self, events: u64) {
        self.shed.add(events, &[]);
    }

    fn not_taken(&self, why: &'static str, events: u64) {
        self.not_taken.add(events, &reason(why));
    }

    fn sent(&self, events: u64, bytes: usize) {
        self.frames.add(1, &[]);
        self.sent_events.add(events, &[]);
        self.sent_bytes.add(u64::try_from(bytes).unwrap_or(u64::MAX), &[]);
    }

    fn reached(&self, reached: &Reached) {
        self.unapplied.record(reached.kept.saturating_sub(reached.applied), &[]);
        self.unsettled.record(reached.kept.saturating_sub(reached.settled), &[]);
        self.settled.record(reached.settled, &[]);
    }

    fn refused(&self, why: &str, events: u64) {
        self.refused.add(events, &reason(why));
    }

    fn freed(&self, kept_bytes: u64) {
        self.kept_bytes.record(kept_bytes, &[]);
    }

    fn connected(&self) {
        self.streams.add(1, &[]);
    }

    fn disconnected(&self, _: &str) {
        self.disconnects.add(1, &[]);
    }

    fn lost(&self, range: &LostRange) {
        self.lost.add(range.to_sequence.saturating_sub(range.from_sequence).saturating_add(1), &[]);
    }

    fn lane_stopped(&self, stop: &LaneStop) {
        self.stopped.add(1, &reason(&stop.reason));
    }
}
