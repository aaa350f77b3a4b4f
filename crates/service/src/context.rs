//! What a service is given when it starts, and the way it tells the addresses it is reached at.

use std::{net::SocketAddr, sync::Arc};

use drawdown_types::Clock;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::Telemetry;

/// What a service is given: telemetry, the clock, and the signal to stop.
#[derive(Clone)]
pub struct Context {
    /// Instruments and logs of this service.
    pub telemetry: Telemetry,
    /// Where every instant comes from.
    pub clock: Arc<dyn Clock>,
    /// Cancelled once: stop taking calls, drain, return.
    pub shutdown: CancellationToken,
    announce: watch::Sender<Option<Addresses>>,
}

/// Where a service is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// gRPC, and JSON over HTTP.
    pub grpc: SocketAddr,
    /// HTTP: `/metrics` and `/healthz`.
    pub metrics: SocketAddr,
    /// Whether gRPC is reached by TLS.
    pub is_tls: bool,
}

/// Waits until a service takes calls.
#[derive(Clone, Debug)]
pub struct Bound(watch::Receiver<Option<Addresses>>);

impl Context {
    /// A context and the handle that tells when its server takes calls.
    #[must_use]
    pub fn new(telemetry: Telemetry, clock: Arc<dyn Clock>, shutdown: CancellationToken) -> (Self, Bound) {
        let (announce, bound) = watch::channel(None);
        (Self { telemetry, clock, shutdown, announce }, Bound(bound))
    }

    pub(crate) fn announce(&self, addresses: Addresses) {
        self.announce.send_replace(Some(addresses));
    }
}

impl Bound {
    /// The addresses, as soon as calls are taken; `None` if the service ended before.
    pub async fn wait(&mut self) -> Option<Addresses> {
        self.0.wait_for(Option::is_some).await.ok().and_then(|addresses| *addresses)
    }
}
