//! The instruments of the ledger, made once from an injected meter. Nothing is recorded by line: a post
//! adds up locally and records once.

use std::time::Duration;

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Gauge, Histogram, Meter},
};

use crate::{
    error::Error,
    posting::{PostError, Posted, Recorded, SealedBatch, Summary, Verdict},
};

/// Bounds of the histogram of posts, in seconds: a small batch takes milliseconds, one of 100,000 lines
/// a few seconds.
const POST_BOUNDS_SECS: [f64; 12] = [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 15.0];

/// All instruments.
#[derive(Debug)]
pub struct Metrics {
    batches: Counter<u64>,
    repeated: Counter<u64>,
    refused: Counter<u64>,
    failed: Counter<u64>,
    deadlocks: Counter<u64>,
    events: Counter<u64>,
    lines: Counter<u64>,
    charges: Counter<u64>,
    amount: Counter<u64>,
    uncharged: Counter<u64>,
    unpriced: Counter<u64>,
    poisoned: Counter<u64>,
    teams: Counter<u64>,
    issued: Counter<u64>,
    expired: Counter<u64>,
    closed: Counter<u64>,
    due_refused: Counter<u64>,
    resets: Counter<u64>,
    lost: Counter<u64>,
    notices: Counter<u64>,
    notice_lag: Gauge<f64>,
    skew: Gauge<f64>,
    rolled_up: Counter<u64>,
    months_ahead: Gauge<i64>,
    default_used: Gauge<i64>,
    duration: Histogram<f64>,
    named: Counter<u64>,
    named_duration: Histogram<f64>,
}

fn seconds(meter: &Meter, name: &'static str, description: &'static str) -> Histogram<f64> {
    let histogram = meter.f64_histogram(name).with_unit("s").with_description(description);
    histogram.with_boundaries(POST_BOUNDS_SECS.to_vec()).build()
}

fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or_default()
}

// === impl Metrics ===

impl Metrics {
    /// Makes the instruments.
    #[must_use]
    pub fn new(meter: &Meter) -> Self {
        let counter = |name, description| meter.u64_counter(name).with_description(description).build();
        let gauge = |name, description| meter.i64_gauge(name).with_description(description).build();
        Self {
            batches: counter("ledger.batches.posted", "batches settled"),
            repeated: counter(
                "ledger.batches.repeated",
                "batches answered by the receipt of an earlier post",
            ),
            refused: counter("ledger.batches.refused", "batches refused by the gate, by reason"),
            failed: counter("ledger.batches.failed", "posts that failed, by whether trying again may help"),
            deadlocks: counter("ledger.deadlocks", "transactions ended by a deadlock; must stay 0"),
            events: counter(
                "ledger.events.settled",
                "events whose lanes moved, counted or refused by metering: the other side of what metering applied",
            ),
            lines: counter("ledger.lines.posted", "lines of settled batches, by what became of them"),
            charges: counter("ledger.charges", "charges written"),
            amount: counter("ledger.charges.amount.micros", "price of the charges, in micro-tokens"),
            uncharged: counter(
                "ledger.charges.uncharged.micros",
                "part of that price which no lot covered when it was posted, in micro-tokens",
            ),
            unpriced: counter(
                "ledger.lines.unpriced",
                "lines whose meter had no price in force at their window",
            ),
            poisoned: counter("ledger.teams.poisoned", "teams whose lines had to be set apart; must stay 0"),
            teams: counter("ledger.teams.posted", "teams of settled batches, by where they were read from"),
            issued: counter(
                "ledger.lots.issued.micros",
                "tokens bought and granted, in micro-tokens, by kind",
            ),
            expired: counter(
                "ledger.lots.expired.micros",
                "tokens forfeited by closed lots, in micro-tokens",
            ),
            closed: counter("ledger.lots.closed", "lots closed"),
            due_refused: counter("ledger.due.refused", "teams that could not be rolled forward; must be 0"),
            resets: counter("ledger.shards.reset", "new generations of shards"),
            lost: counter("ledger.events.lost", "events of ranges named as lost; must stay 0"),
            notices: counter("ledger.notices", "facts written for others, by kind"),
            notice_lag: meter
                .f64_gauge("ledger.notices.lag")
                .with_unit("s")
                .with_description(
                    "age of the oldest fact that has no place in the order yet; 0 where all have",
                )
                .build(),
            skew: meter
                .f64_gauge("ledger.clock.skew")
                .with_unit("s")
                .with_description("how far this clock is ahead of the database's")
                .build(),
            rolled_up: counter("ledger.usage.rolled_up", "charges added up by hour and by day"),
            months_ahead: gauge(
                "ledger.partitions.months.ahead",
                "months after the present one whose partitions are made",
            ),
            default_used: gauge(
                "ledger.partitions.default.used",
                "1 where rows are in a default partition, since their month had none; must stay 0",
            ),
            duration: seconds(meter, "ledger.post.duration", "time to post one batch, by outcome"),
            named: counter("ledger.events.named", "events by id, by what became of them"),
            named_duration: seconds(
                meter,
                "ledger.events.named.duration",
                "time to record one call of events by id, by outcome",
            ),
        }
    }

    /// A post ended.
    pub fn post(&self, batch: &SealedBatch, outcome: &Result<Posted, PostError>, took: Duration) {
        let label = match outcome {
            Ok(Posted::Settled(summary)) => {
                self.events.add(unsigned(batch.events), &[KeyValue::new("outcome", "counted")]);
                self.events.add(unsigned(batch.refused()), &[KeyValue::new("outcome", "refused")]);
                self.settled(summary);
                "settled"
            }
            Ok(Posted::Already(_)) => {
                self.repeated.add(1, &[]);
                "repeated"
            }
            Err(PostError::Refused(fault)) => {
                self.refused.add(1, &[KeyValue::new("reason", fault.reason())]);
                "refused"
            }
            Err(PostError::Failed(error)) => {
                self.failed.add(1, &[KeyValue::new("transient", error.is_transient())]);
                self.failure(error);
                "failed"
            }
        };
        self.duration.record(took.as_secs_f64(), &[KeyValue::new("outcome", label)]);
    }

    /// A batch is settled, of a stream or of events by id.
    fn settled(&self, summary: &Summary) {
        self.batches.add(1, &[]);
        self.lines.add(unsigned(summary.charges), &[KeyValue::new("outcome", "charged")]);
        self.lines.add(unsigned(summary.unattributed), &[KeyValue::new("outcome", "unattributed")]);
        self.charges.add(unsigned(summary.charges), &[]);
        self.amount.add(unsigned(summary.amount_micros), &[]);
        self.uncharged.add(unsigned(summary.uncharged_micros), &[]);
        self.unpriced.add(summary.unpriced, &[]);
        self.poisoned.add(summary.poisoned_teams, &[]);
        self.teams.add(summary.teams_known, &[KeyValue::new("from", "memory")]);
        self.teams.add(summary.teams_loaded, &[KeyValue::new("from", "database")]);
        self.lots_closed(summary.closed_lots, summary.expired_micros);
    }

    /// Events by id were recorded, or not.
    pub fn record(&self, outcome: &Result<Recorded, PostError>, took: Duration) {
        let label = match outcome {
            Ok(recorded) => {
                let mut counts =
                    [("recorded", 0), ("repeated", 0), ("conflict", 0), ("refused", 0), ("elsewhere", 0)];
                for verdict in &recorded.verdicts {
                    let [new, again, conflict, refused, elsewhere] = &mut counts;
                    let (_, count) = match verdict {
                        Verdict::Recorded { already: false, .. } => new,
                        Verdict::Recorded { already: true, .. } => again,
                        Verdict::Conflict { .. } => conflict,
                        Verdict::Elsewhere { .. } => elsewhere,
                        Verdict::TooOld { .. } | Verdict::InFuture { .. } => refused,
                    };
                    *count += 1;
                }
                for (outcome, count) in counts {
                    self.named.add(count, &[KeyValue::new("outcome", outcome)]);
                }
                if let Some(summary) = &recorded.summary {
                    self.settled(summary);
                }
                "settled"
            }
            Err(PostError::Refused(_)) => "refused",
            Err(PostError::Failed(error)) => {
                self.failed.add(1, &[KeyValue::new("transient", error.is_transient())]);
                self.failure(error);
                "failed"
            }
        };
        self.named_duration.record(took.as_secs_f64(), &[KeyValue::new("outcome", label)]);
    }

    /// Something failed: deadlocks are counted wherever they happen.
    pub fn failure(&self, error: &Error) {
        if error.is_deadlock() {
            self.deadlocks.add(1, &[]);
        }
    }

    /// Tokens were bought or granted.
    pub fn issued(&self, kind: &'static str, micros: i64) {
        self.issued.add(unsigned(micros), &[KeyValue::new("kind", kind)]);
    }

    /// Lots closed, with what they forfeited.
    pub fn lots_closed(&self, lots: u64, expired_micros: i64) {
        self.closed.add(lots, &[]);
        self.expired.add(unsigned(expired_micros), &[]);
    }

    /// A team could not be rolled forward.
    pub fn due_refused(&self) {
        self.due_refused.add(1, &[]);
    }

    /// Shards got new generations.
    pub fn reset(&self, shards: usize) {
        self.resets.add(u64::try_from(shards).unwrap_or(u64::MAX), &[]);
    }

    /// Facts of a kind got their places: each is counted once, after its commit.
    pub fn noted(&self, kind: &str, count: u64) {
        self.notices.add(count, &[KeyValue::new("kind", kind.to_owned())]);
    }

    /// The age of the oldest fact without a place.
    pub fn notice_lag(&self, lag: Duration) {
        self.notice_lag.record(lag.as_secs_f64(), &[]);
    }

    /// How far this clock is ahead of the database's.
    pub fn skew(&self, ahead_secs: f64) {
        self.skew.record(ahead_secs, &[]);
    }

    /// Charges were rolled up.
    pub fn rolled_up(&self, charges: i64) {
        self.rolled_up.add(unsigned(charges), &[]);
    }

    /// What partitions there are.
    pub fn partitions(&self, months_ahead: i32, default_is_empty: bool) {
        self.months_ahead.record(months_ahead.into(), &[]);
        self.default_used.record((!default_is_empty).into(), &[]);
    }

    /// A range was named as lost.
    pub fn lost(&self, events: i64) {
        self.lost.add(unsigned(events), &[]);
    }
}
