//! The instruments of this service. Calls, their durations and their codes are counted around it.

mod access;

use std::time::Duration;

use drawdown_entitlement_core::Resolution;
use opentelemetry::{
    KeyValue,
    metrics::{Counter, Gauge, Histogram, Meter},
};

pub(crate) use access::AccessMetrics;

/// Instruments.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    resolutions: Counter<u64>,
    directory_load: Histogram<f64>,
    acts: Counter<u64>,
    verifications: Counter<u64>,
    authentications: Counter<u64>,
    clock_skew: Gauge<f64>,
    connections: Gauge<u64>,
}

/// Answers of one batch, summed before they are recorded.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Answers {
    billed: u64,
    unknown_client: u64,
    no_team: u64,
}

impl Answers {
    pub(crate) fn add(&mut self, resolution: &Resolution) {
        let count = match resolution {
            Resolution::BilledTo(_) => &mut self.billed,
            Resolution::UnknownClient => &mut self.unknown_client,
            Resolution::NoTeam => &mut self.no_team,
        };
        *count = count.saturating_add(1);
    }
}

impl Metrics {
    pub(crate) fn new(meter: &Meter) -> Self {
        Self {
            resolutions: meter
                .u64_counter("entitlement.resolutions")
                .with_unit("{question}")
                .with_description("questions who pays, by answer")
                .build(),
            directory_load: meter
                .f64_histogram("entitlement.directory.load.duration")
                .with_unit("s")
                .with_description("time to load the links that one batch of questions needs")
                .build(),
            acts: meter
                .u64_counter("entitlement.acts")
                .with_unit("{act}")
                .with_description("admin acts, by method and outcome")
                .build(),
            verifications: meter
                .u64_counter("entitlement.credential.verifications")
                .with_unit("{verification}")
                .with_description("client ids and secrets compared, by verdict")
                .build(),
            authentications: meter
                .u64_counter("entitlement.key.authentications")
                .with_unit("{authentication}")
                .with_description("API keys looked up for all services, by verdict")
                .build(),
            clock_skew: meter
                .f64_gauge("entitlement.clock.skew")
                .with_unit("s")
                .with_description("how far this clock is ahead of the database's")
                .build(),
            connections: meter
                .u64_gauge("entitlement.database.connections")
                .with_unit("{connection}")
                .with_description("connections to the database, by state")
                .build(),
        }
    }

    pub(crate) fn resolved(&self, answers: Answers, load: Duration) {
        let Answers { billed, unknown_client, no_team } = answers;
        for (answer, count) in [("billed", billed), ("unknown_client", unknown_client), ("no_team", no_team)]
        {
            if count > 0 {
                self.resolutions.add(count, &[KeyValue::new("answer", answer)]);
            }
        }
        self.directory_load.record(load.as_secs_f64(), &[]);
    }

    pub(crate) fn acted(&self, method: &'static str, outcome: &'static str) {
        self.acts.add(1, &[KeyValue::new("method", method), KeyValue::new("outcome", outcome)]);
    }

    pub(crate) fn verified(&self, valid: bool) {
        self.verifications.add(1, &[KeyValue::new("valid", valid)]);
    }

    pub(crate) fn authenticated(&self, good: bool) {
        self.authentications.add(1, &[KeyValue::new("good", good)]);
    }

    pub(crate) fn clock_skew(&self, ahead_secs: f64) {
        self.clock_skew.record(ahead_secs, &[]);
    }

    pub(crate) fn connections(&self, in_use: u64, idle: u64) {
        self.connections.record(in_use, &[KeyValue::new("state", "used")]);
        self.connections.record(idle, &[KeyValue::new("state", "idle")]);
    }
}
