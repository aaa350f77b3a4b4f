//! The instruments of events by id, made once from an injected meter and recorded once a call or post.

use std::time::Duration;

use drawdown_proto::ledger::v1::EventOutcome;
use opentelemetry::{
    KeyValue,
    metrics::{Counter, Histogram, Meter},
};

use super::Answer;

/// Bounds of the histogram of posts, in seconds.
const POST_BOUNDS_SECS: [f64; 11] = [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0, 15.0];

/// All instruments of events by id.
#[derive(Debug)]
pub(crate) struct RecordMetrics {
    events: Counter<u64>,
    shed: Counter<u64>,
    posted: Counter<u64>,
    posts: Histogram<f64>,
}

impl RecordMetrics {
    /// Makes the instruments.
    #[must_use]
    pub(crate) fn new(meter: &Meter) -> Self {
        let counter = |name, description| meter.u64_counter(name).with_description(description).build();
        Self {
            events: counter("metering.record.events", "events by id, by what became of them"),
            shed: counter(
                "metering.record.events.shed",
                "events by id that were refused because too many waited",
            ),
            posted: counter(
                "metering.record.events.posted",
                "events by id that were sent to the ledger, repeats too",
            ),
            posts: meter
                .f64_histogram("metering.record.post.duration")
                .with_unit("s")
                .with_description("time of one call to the ledger with events by id, by outcome")
                .with_boundaries(POST_BOUNDS_SECS.to_vec())
                .build(),
        }
    }

    /// A call was answered.
    pub(super) fn answered(&self, answers: &[Answer]) {
        let mut counts = [("recorded", 0_u64), ("repeated", 0), ("conflict", 0), ("refused", 0)];
        for answer in answers {
            let [new, again, conflict, refused] = &mut counts;
            let (_, count) = match answer {
                Answer::Wrong(_) => refused,
                Answer::Told(told) => match told.outcome() {
                    EventOutcome::Recorded if told.already_recorded => again,
                    EventOutcome::Recorded => new,
                    EventOutcome::Conflict => conflict,
                    EventOutcome::Refused | EventOutcome::Elsewhere | EventOutcome::Unspecified => refused,
                },
            };
            *count += 1;
        }
        for (outcome, count) in counts {
            self.events.add(count, &[KeyValue::new("outcome", outcome)]);
        }
    }

    /// A call was refused before anything was done.
    pub(super) fn shed(&self, events: usize) {
        self.shed.add(u64::try_from(events).unwrap_or(u64::MAX), &[]);
    }

    /// The ledger answered a post, or did not.
    pub(super) fn post(&self, events: usize, took: Duration, answered: bool) {
        self.posted.add(u64::try_from(events).unwrap_or(u64::MAX), &[]);
        let outcome = if answered { "answered" } else { "failed" };
        self.posts.record(took.as_secs_f64(), &[KeyValue::new("outcome", outcome)]);
    }
}
