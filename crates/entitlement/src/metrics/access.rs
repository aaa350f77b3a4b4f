//! The instruments of access. Answers are counted in plain atomics and read when they are scraped: an instrument a
//! question would cost more than the answer.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use drawdown_entitlement_core::access::{Decision, Reason};
use opentelemetry::{
    KeyValue,
    metrics::{Gauge, Histogram, Meter},
};

use crate::{
    memory::{Memory, MemorySize},
    reason::access::NAMES,
};

/// Most changes arrive within milliseconds; a second is the promise.
const INVALIDATION_BOUNDS_SECS: [f64; 12] =
    [0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// Instruments.
#[derive(Clone, Debug)]
pub(crate) struct AccessMetrics {
    answers: Arc<[AtomicU64; NAMES.len()]>,
    stale: Arc<AtomicU64>,
    invalidation: Histogram<f64>,
    load: Gauge<f64>,
    meter: Meter,
}

impl AccessMetrics {
    pub(crate) fn new(meter: &Meter) -> Self {
        let answers: Arc<[AtomicU64; NAMES.len()]> = Arc::new(std::array::from_fn(|_| AtomicU64::new(0)));
        let stale = Arc::new(AtomicU64::new(0));
        let (counted, counted_stale) = (Arc::clone(&answers), Arc::clone(&stale));
        let _answers = meter
            .u64_observable_counter("entitlement.access.answers")
            .with_unit("{answer}")
            .with_description("answers whether a meter may be used, by reason")
            .with_callback(move |observer| {
                for (count, name) in counted.iter().zip(NAMES) {
                    observer.observe(count.load(Ordering::Relaxed), &[KeyValue::new("reason", name)]);
                }
            })
            .build();
        let _stale = meter
            .u64_observable_counter("entitlement.access.stale")
            .with_unit("{answer}")
            .with_description("answers that were made of data older than the bound")
            .with_callback(move |observer| observer.observe(counted_stale.load(Ordering::Relaxed), &[]))
            .build();
        Self {
            answers,
            stale,
            invalidation: meter
                .f64_histogram("entitlement.access.invalidation.duration")
                .with_unit("s")
                .with_description("from the instant of a change to the answers that know it, by source")
                .with_boundaries(INVALIDATION_BOUNDS_SECS.to_vec())
                .build(),
            load: meter
                .f64_gauge("entitlement.access.load.duration")
                .with_unit("s")
                .with_description("time that the last load of the whole directory took")
                .build(),
            meter: meter.clone(),
        }
    }

    /// Ages and sizes are read from the memory when they are scraped.
    pub(crate) fn observe(&self, memory: &Arc<Memory>) {
        let weak = Arc::downgrade(memory);
        let _ages = self
            .meter
            .f64_observable_gauge("entitlement.access.age")
            .with_unit("s")
            .with_description("how old what is known is, by source and for a ledger its cell; absent where it was never heard")
            .with_callback(move |observer| {
                let Some(view) = weak.upgrade().and_then(|memory| memory.view()) else { return };
                let directory = view.directory_age().as_secs_f64();
                observer.observe(directory, &[KeyValue::new("source", "directory")]);
                for cell in view.cells() {
                    let Some(age) = view.age_of(cell) else { continue };
                    let of_cell = KeyValue::new("cell", i64::from(cell));
                    observer.observe(age.as_secs_f64(), &[KeyValue::new("source", "ledger"), of_cell]);
                }
            })
            .build();
        let weak: Weak<Memory> = Arc::downgrade(memory);
        let _size = self
            .meter
            .u64_observable_gauge("entitlement.access.known")
            .with_unit("{thing}")
            .with_description("what is in memory, by kind")
            .with_callback(move |observer| {
                let Some(size) = weak.upgrade().map(|memory| memory.size()) else { return };
                let MemorySize { client_ids, teams, accounts, .. } = size;
                for (kind, count) in [("client_id", client_ids), ("team", teams), ("account", accounts)] {
                    let count = u64::try_from(count).unwrap_or(u64::MAX);
                    observer.observe(count, &[KeyValue::new("kind", kind)]);
                }
            })
            .build();
    }

    pub(crate) fn decided(&self, decision: &Decision) {
        let Decision { reason, stale, .. } = decision;
        if let Some(count) = self.answers.get(Reason::index(*reason)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        if *stale {
            self.stale.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn loaded(&self, took: Duration, size: MemorySize) {
        self.load.record(took.as_secs_f64(), &[]);
        let MemorySize { client_ids, client_bytes, teams, accounts } = size;
        tracing::info!(
            client_ids,
            client_bytes,
            teams,
            accounts,
            took_ms = %took.as_millis(),
            "the directory is in memory"
        );
    }

    pub(crate) fn changed(&self, source: &'static str, lag: Duration) {
        self.invalidation.record(lag.as_secs_f64(), &[KeyValue::new("source", source)]);
    }
}
