//! Instruments, logs and traces.
//!
//! Each service has its own meter provider, so that the scrape page of a service shows nothing but its
//! own instruments even where several services share a process. Logs and traces belong to the process:
//! the first [`Telemetry::start`] (or [`start_process`]) sets them up, later ones find them there.
//!
//! Names of instruments are dotted and lower case, with the service first and without the product:
//! `ledger.post.duration` with unit `s` is `drawdown_ledger_post_duration_seconds` on the scrape page, a
//! counter gets `_total`. Units are UCUM and base units (`s`, `By`), or none. Every instrument needs a
//! description. A hot loop sums locally and records once.

mod process;

use opentelemetry::{
    KeyValue,
    metrics::{Meter, MeterProvider},
};
use opentelemetry_otlp::WithExportConfig;
use opentelemetry_sdk::{Resource, metrics::SdkMeterProvider};
use prometheus::{Registry, TextEncoder};
use serde::Deserialize;

pub use process::{shutdown_process, start_process};

use crate::config::{Count, Problem, Url};

/// The documented defaults of [`TelemetryOptions`]: the section `[telemetry]`.
pub const DEFAULTS_TOML: &str = include_str!("../telemetry.default.toml");

/// How lines of the log look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// The section `[telemetry]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TelemetryOptions {
    /// How lines of the log look.
    pub log_format: LogFormat,
    /// Which lines are written, such as `info,drawdown_ledger=debug`.
    pub log_filter: String,
    /// Where traces and metrics are sent by OTLP over gRPC; empty for nowhere.
    pub otlp_endpoint: String,
    /// One of this many traces that begin here is recorded.
    pub trace_one_in: Count,
}

/// Checked [`TelemetryOptions`].
#[derive(Clone, Debug)]
pub struct TelemetryConfig {
    /// How lines of the log look.
    pub log_format: LogFormat,
    /// Which lines are written.
    pub log_filter: String,
    /// Where traces and metrics are sent.
    pub otlp_endpoint: Option<Url>,
    /// One of this many traces that begin here is recorded.
    pub trace_one_in: Count,
}

/// Why telemetry did not start.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The exporter of metrics or traces was refused.
    #[error("could not build the OTLP exporter")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
    /// The scrape page could not be set up or written.
    #[error("could not set up the scrape page")]
    Prometheus(#[from] prometheus::Error),
    /// The reader behind the scrape page was refused.
    #[error("could not build the reader of the scrape page")]
    Reader(#[from] opentelemetry_sdk::error::OTelSdkError),
    /// The filter of the log does not parse.
    #[error("log filter is not valid")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
}

/// The instruments of one service.
#[derive(Clone)]
pub struct Telemetry {
    service: &'static str,
    provider: SdkMeterProvider,
    registry: Registry,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self {
            log_format: LogFormat::Text,
            log_filter: "warn".to_owned(),
            otlp_endpoint: None,
            trace_one_in: Count::of(1),
        }
    }
}

impl TelemetryOptions {
    /// Checks the values.
    ///
    /// # Errors
    /// Every problem, by the path inside the section.
    pub fn validate(self) -> Result<TelemetryConfig, Vec<Problem>> {
        let mut problems = crate::config::Problems::new();
        let filter = tracing_subscriber::EnvFilter::try_new(&self.log_filter);
        problems.field("log_filter", filter);
        let endpoint = match self.otlp_endpoint.as_str() {
            "" => Some(None),
            _ => problems.field("otlp_endpoint", Url::try_from(self.otlp_endpoint.clone())).map(Some),
        };
        problems.finish(endpoint.map(|otlp_endpoint| TelemetryConfig {
            log_format: self.log_format,
            log_filter: self.log_filter,
            otlp_endpoint,
            trace_one_in: self.trace_one_in,
        }))
    }
}

impl Telemetry {
    /// Instruments of a service, exported as configured. Needs a tokio runtime where OTLP is on.
    ///
    /// # Errors
    /// [`TelemetryError`].
    pub fn start(service: &'static str, config: &TelemetryConfig) -> Result<Self, TelemetryError> {
        start_process(service, config)?;
        Self::build(service, config.otlp_endpoint.as_ref())
    }

    /// Instruments with a scrape page and nothing else: no log, no export. For tests and benches.
    ///
    /// # Errors
    /// [`TelemetryError`].
    pub fn detached(service: &'static str) -> Result<Self, TelemetryError> {
        Self::build(service, None)
    }

    fn build(service: &'static str, otlp: Option<&Url>) -> Result<Self, TelemetryError> {
        let registry = Registry::new();
        // Scope and target labels would be the same on every line of the page: the scrape job names the service.
        let reader = opentelemetry_prometheus::exporter()
            .with_registry(registry.clone())
            .with_namespace("drawdown")
            .without_target_info()
            .scope_info_enabled(false)
            .build()?;
        let mut builder = SdkMeterProvider::builder().with_resource(resource(service)).with_reader(reader);
        if let Some(endpoint) = otlp {
            let exporter = opentelemetry_otlp::MetricExporter::builder()
                .with_tonic()
                .with_endpoint(endpoint.as_str())
                .build()?;
            builder = builder.with_periodic_exporter(exporter);
        }
        let telemetry = Self { service, provider: builder.build(), registry };
        telemetry
            .meter()
            .u64_gauge("build.info")
            .with_description("1, with the version of this binary as a label")
            .build()
            .record(1, &[KeyValue::new("version", env!("CARGO_PKG_VERSION"))]);
        Ok(telemetry)
    }

    /// The service's name.
    #[must_use]
    pub const fn service(&self) -> &'static str {
        self.service
    }

    /// Where instruments are made.
    #[must_use]
    pub fn meter(&self) -> Meter {
        self.provider.meter("drawdown")
    }

    /// The scrape page.
    ///
    /// # Errors
    /// [`TelemetryError::Prometheus`].
    pub fn scrape(&self) -> Result<String, TelemetryError> {
        Ok(TextEncoder::new().encode_to_string(&self.registry.gather())?)
    }

    /// Sends what is left; blocks for as long as the collector takes, at most a few seconds.
    pub fn shutdown(&self) {
        if let Err(error) = self.provider.shutdown() {
            tracing::debug!(%error, "metrics were shut down before");
        }
    }
}

fn resource(service: &'static str) -> Resource {
    Resource::builder()
        .with_service_name(format!("drawdown-{service}"))
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build()
}

#[cfg(test)]
mod tests;
