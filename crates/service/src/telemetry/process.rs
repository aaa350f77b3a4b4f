//! Logs, traces and the propagator: one set for the process.

use std::sync::{Mutex, PoisonError};

use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::WithExportConfig;
use opentelemetry_sdk::{
    propagation::TraceContextPropagator,
    trace::{Sampler, SdkTracerProvider},
};
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    filter::{LevelFilter, filter_fn},
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

use super::{LogFormat, TelemetryConfig, TelemetryError, resource};

/// Set once: a process has one subscriber. A mutex, not a `OnceLock`, since setting it up may fail.
static PROCESS: Mutex<Option<SdkTracerProvider>> = Mutex::new(None);

/// Logs, traces and W3C context for this process; the first caller's configuration holds.
///
/// A subscriber that something else has set (a test harness) stays.
///
/// # Errors
/// [`TelemetryError`].
pub fn start_process(name: &'static str, config: &TelemetryConfig) -> Result<(), TelemetryError> {
    let mut process = PROCESS.lock().unwrap_or_else(PoisonError::into_inner);
    if process.is_none() {
        let provider = tracer_provider(name, config)?;
        opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
        // Without a filter every span of the transport would be made, at the price of all of them.
        let ours = filter_fn(|metadata| {
            *metadata.level() <= LevelFilter::INFO && metadata.target().starts_with("drawdown")
        });
        let traces = tracing_opentelemetry::layer()
            .with_tracer(provider.tracer("drawdown"))
            .with_location(false)
            .with_threads(false)
            .with_filter(ours.with_max_level_hint(LevelFilter::INFO));
        let filter = EnvFilter::try_new(&config.log_filter)?;
        if tracing_subscriber::registry()
            .with(log_layer(config.log_format, filter))
            .with(traces)
            .try_init()
            .is_err()
        {
            tracing::debug!("a subscriber was set before and stays");
        }
        *process = Some(provider);
    }
    Ok(())
}

/// Sends what is left of the traces; blocks for as long as the collector takes, at most a few seconds.
pub fn shutdown_process() {
    let provider = PROCESS.lock().unwrap_or_else(PoisonError::into_inner).clone();
    if let Some(Err(error)) = provider.map(|provider| provider.shutdown()) {
        tracing::debug!(%error, "traces were shut down before");
    }
}

fn log_layer(format: LogFormat, filter: EnvFilter) -> Box<dyn Layer<Registry> + Send + Sync> {
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    match format {
        LogFormat::Json => lines.json().flatten_event(true).with_span_list(false).with_filter(filter).boxed(),
        LogFormat::Text => lines.with_filter(filter).boxed(),
    }
}

fn tracer_provider(
    name: &'static str,
    config: &TelemetryConfig,
) -> Result<SdkTracerProvider, TelemetryError> {
    let builder = SdkTracerProvider::builder().with_resource(resource(name));
    let Some(endpoint) = &config.otlp_endpoint else {
        // Ids still travel from caller to callee and into the log; nothing is recorded.
        return Ok(builder.with_sampler(Sampler::ParentBased(Box::new(Sampler::AlwaysOff))).build());
    };
    let exporter =
        opentelemetry_otlp::SpanExporter::builder().with_tonic().with_endpoint(endpoint.as_str()).build()?;
    let one_in = f64::from(config.trace_one_in.get_u32());
    let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(1.0 / one_in)));
    Ok(builder.with_batch_exporter(exporter).with_sampler(sampler).build())
}
