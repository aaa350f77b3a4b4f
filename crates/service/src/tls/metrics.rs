//! What is told about handshakes and certificates.

use std::{sync::Weak, time::Duration};

use drawdown_types::Clock;
use opentelemetry::{
    KeyValue,
    metrics::{Counter, Histogram, Meter},
};

use super::{handshake::Failure, keeper::Tls};

const DURATION_BOUNDS_SECS: [f64; 9] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 1.0, 5.0];
const MICROS_PER_SEC: i64 = 1_000_000;

#[derive(Clone, Debug)]
pub(super) struct Metrics {
    duration: Histogram<f64>,
    failed: Counter<u64>,
    reloads: Counter<u64>,
}

impl Metrics {
    pub(super) fn new(meter: &Meter) -> Self {
        let duration = meter
            .f64_histogram("tls.handshake.duration")
            .with_unit("s")
            .with_description("time of handshakes that gave a connection")
            .with_boundaries(DURATION_BOUNDS_SECS.to_vec())
            .build();
        let failed = meter
            .u64_counter("tls.handshake.failed")
            .with_description("connections that ended before or in their handshake, by reason")
            .build();
        for failure in Failure::ALL {
            failed.add(0, &[KeyValue::new("reason", failure.word())]);
        }
        let reloads = meter
            .u64_counter("tls.reloads")
            .with_description("changes of the files that were seen, by outcome: used, or broken and left out")
            .build();
        for outcome in ["used", "broken"] {
            reloads.add(0, &[KeyValue::new("outcome", outcome)]);
        }
        Self { duration, failed, reloads }
    }

    pub(super) fn shaken(&self, took: Duration) {
        self.duration.record(took.as_secs_f64(), &[]);
    }

    pub(super) fn failed(&self, failure: Failure) {
        self.failed.add(1, &[KeyValue::new("reason", failure.word())]);
    }

    pub(super) fn reloaded(&self, outcome: &'static str) {
        self.reloads.add(1, &[KeyValue::new("outcome", outcome)]);
    }
}

/// Gauges that are asked when the page is read.
pub(super) fn watch(meter: &Meter, tls: &Weak<Tls>, clock: std::sync::Arc<dyn Clock>) {
    let of_expiry = tls.clone();
    meter
        .f64_observable_gauge("tls.certificate.remaining")
        .with_unit("s")
        .with_description("time until the own certificate in use expires; negative where it has")
        .with_callback(move |observer| {
            if let Some(not_after) = of_expiry.upgrade().and_then(|tls| tls.not_after()) {
                let remaining = not_after.saturating_sub(clock.now().as_micros().div_euclid(MICROS_PER_SEC));
                // seconds of centuries are exact in an f64
                #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
                observer.observe(remaining as f64, &[]);
            }
        })
        .build();
    let of_files = tls.clone();
    meter
        .u64_observable_gauge("tls.files.broken")
        .with_description("1 while the files are of no use and an older set stays in use")
        .with_callback(move |observer| {
            if let Some(tls) = of_files.upgrade() {
                observer.observe(u64::from(tls.is_broken()), &[]);
            }
        })
        .build();
}
