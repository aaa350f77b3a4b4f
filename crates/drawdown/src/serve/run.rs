//! Runs checked services until a signal, or until one of them ends.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::{Context as _, Result, anyhow};
use drawdown_service::{
    Bound, Context, Telemetry,
    telemetry::{self, TelemetryConfig},
};
use drawdown_types::SystemClock;
use futures::future::select_all;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use super::{
    config::Settings,
    part::{Config, Running, Service},
};
use crate::operator::ServiceAddresses;

/// Addresses of the services that run, by name.
pub(super) type BoundAddresses = BTreeMap<String, ServiceAddresses>;

/// A service that was started.
struct Started {
    service: Service,
    shutdown: CancellationToken,
    telemetry: Telemetry,
    bound: Bound,
    task: JoinHandle<Result<()>>,
    /// Its task was waited for and gave its result.
    over: bool,
}

/// The signals that say stop.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

/// Runs everything in `settings`; `announce` is called once, when all of it takes calls.
pub(super) async fn run(
    settings: Settings,
    process: &'static str,
    mut signals: Signals,
    announce: impl FnOnce(BoundAddresses) -> Result<()>,
) -> Result<()> {
    telemetry::start_process(process, &settings.telemetry)?;
    let mut started = Vec::with_capacity(settings.services.len());
    for config in settings.services {
        started.push(start(config, &settings.telemetry)?);
    }
    let ended = until_stop(&mut started, signals.stop(), announce).await;
    let drained = tokio::select! {
        drained = stop_in_order(&mut started) => drained,
        () = signals.stop() => Err(anyhow!("stopped at once by a second signal")),
    };
    flush(started).await;
    ended.and(drained)
}

fn start(config: Config, telemetry: &TelemetryConfig) -> Result<Started> {
    let service = config.service();
    let telemetry = Telemetry::start(service.name(), telemetry)?;
    Ok(spawn(service, telemetry, |context| config.run(context)))
}

fn spawn(service: Service, telemetry: Telemetry, run: impl FnOnce(Context) -> Running) -> Started {
    let shutdown = CancellationToken::new();
    let (context, bound) = Context::new(telemetry.clone(), Arc::new(SystemClock), shutdown.clone());
    Started { service, shutdown, telemetry, bound, task: tokio::spawn(run(context)), over: false }
}

/// Waits for a signal; an error where a service ends by itself.
async fn until_stop(
    started: &mut [Started],
    stop: impl Future<Output = ()>,
    announce: impl FnOnce(BoundAddresses) -> Result<()>,
) -> Result<()> {
    tokio::pin!(stop);
    let bounds: Vec<(Service, Bound)> =
        started.iter().map(|started| (started.service, started.bound.clone())).collect();
    tokio::select! {
        () = &mut stop => return Ok(()),
        failed = ended(started) => return Err(failed),
        addresses = all_bound(bounds) => announce(addresses)?,
    }
    tokio::select! {
        () = &mut stop => Ok(()),
        failed = ended(started) => Err(failed),
    }
}

/// Never completes where a service ends before it is bound: that is told by its end.
async fn all_bound(bounds: Vec<(Service, Bound)>) -> BoundAddresses {
    let mut addresses = BoundAddresses::new();
    for (service, mut bound) in bounds {
        let Some(found) = bound.wait().await else { return std::future::pending().await };
        let scheme = if found.is_tls { "https" } else { "http" };
        let here = ServiceAddresses {
            grpc: format!("{scheme}://{}", found.grpc),
            metrics: format!("http://{}", found.metrics),
        };
        addresses.insert(service.name().to_owned(), here);
    }
    addresses
}

/// The first service that ends although nobody asked it to.
async fn ended(started: &mut [Started]) -> anyhow::Error {
    let (result, index, _) = select_all(started.iter_mut().map(|started| &mut started.task)).await;
    let Some(part) = started.get_mut(index) else { return anyhow!("a service ended") };
    part.over = true;
    let name = part.service.name();
    match result.map_err(anyhow::Error::from).flatten() {
        Ok(()) => anyhow!("{name} ended by itself"),
        Err(error) => error.context(format!("{name} failed")),
    }
}

/// The last one started goes first: metering drains while the ledger can still settle what it holds.
async fn stop_in_order(started: &mut [Started]) -> Result<()> {
    let mut first_failure = Ok(());
    started.sort_by_key(|started| std::cmp::Reverse(started.service));
    for part in started.iter_mut().filter(|part| !part.over) {
        part.shutdown.cancel();
        let ended = (&mut part.task).await.map_err(anyhow::Error::from).flatten();
        part.over = true;
        let ended = ended.with_context(|| format!("{} did not stop cleanly", part.service.name()));
        first_failure = first_failure.and(ended);
    }
    first_failure
}

/// Exporters block while they send what is left.
async fn flush(started: Vec<Started>) {
    let flushed = tokio::task::spawn_blocking(move || {
        for part in started {
            part.telemetry.shutdown();
        }
        telemetry::shutdown_process();
    });
    if let Err(error) = flushed.await {
        tracing::warn!(%error, "telemetry was not flushed");
    }
}

impl Signals {
    /// From here on SIGINT and SIGTERM are answered by this process and no longer end it.
    pub(crate) fn listen() -> Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).context("can not handle SIGINT")?,
            terminate: signal(SignalKind::terminate()).context("can not handle SIGTERM")?,
        })
    }

    /// Completes at the next of them.
    pub(crate) async fn stop(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
        tracing::info!("told to stop");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    type Ends = Arc<Mutex<Vec<&'static str>>>;

    /// A service that runs until it is told to stop and notes its end, or fails at once.
    fn part(service: Service, ends: &Ends, fails: bool) -> Started {
        let ends = Arc::clone(ends);
        spawn(service, Telemetry::detached(service.name()).unwrap(), move |context| {
            Box::pin(async move {
                if fails {
                    return Err(anyhow!("no database"));
                }
                context.shutdown.cancelled().await;
                ends.lock().unwrap().push(service.name());
                Ok(())
            })
        })
    }

    async fn run_parts(failing: Option<Service>, stop: bool) -> (Result<()>, Vec<&'static str>) {
        let ends = Ends::default();
        let mut started: Vec<Started> =
            Service::ALL.iter().map(|service| part(*service, &ends, failing == Some(*service))).collect();
        let stop = async move {
            if !stop {
                std::future::pending::<()>().await;
            }
        };
        let ended = until_stop(&mut started, stop, |_| Err(anyhow!("nothing is bound"))).await;
        let drained = stop_in_order(&mut started).await;
        let ends = ends.lock().unwrap().clone();
        (ended.and(drained), ends)
    }

    #[tokio::test]
    async fn metering_stops_before_what_it_settles_into() {
        let (result, ends) = run_parts(None, true).await;
        assert!(result.is_ok(), "{result:?}");
        assert_eq!(ends, ["metering", "ledger", "entitlement"]);
    }

    #[tokio::test]
    async fn one_that_fails_takes_the_others_down_cleanly() {
        for failing in Service::ALL {
            let (result, ends) = run_parts(Some(failing), false).await;
            let told = result.map_err(|error| format!("{error:#}"));
            assert_eq!(told, Err(format!("{} failed: no database", failing.name())));
            assert_eq!(ends.len(), 2, "{ends:?}");
        }
    }
}
