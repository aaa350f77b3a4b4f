//! `grpc.health.v1`, by service and overall (the empty name), and what `/healthz` answers.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tonic_health::{
    ServingStatus,
    pb::health_server::HealthServer,
    server::{HealthReporter, HealthService},
};

/// Says whether services can be called. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Health {
    reporter: HealthReporter,
    serving: Arc<AtomicBool>,
    draining: Arc<AtomicBool>,
}

const OVERALL: &str = "";

impl Health {
    pub(super) fn new() -> Self {
        Self {
            reporter: HealthReporter::new(),
            serving: Arc::new(AtomicBool::new(false)),
            draining: Arc::new(AtomicBool::new(false)),
        }
    }

    pub(super) fn service(&self) -> HealthServer<HealthService> {
        HealthServer::new(HealthService::from_health_reporter(self.reporter.clone()))
    }

    pub(super) async fn start(&self, names: &[&'static str]) {
        for name in names {
            self.reporter.set_service_status(name, ServingStatus::Serving).await;
        }
        self.set(true).await;
    }

    pub(super) async fn drain(&self) {
        self.draining.store(true, Ordering::SeqCst);
        self.set(false).await;
    }

    /// Whether this server as a whole can be called now; what is draining stays out.
    pub async fn set(&self, serving: bool) {
        let serving = serving && !self.draining.load(Ordering::SeqCst);
        self.serving.store(serving, Ordering::SeqCst);
        self.reporter.set_service_status(OVERALL, status(serving)).await;
    }

    /// Whether one gRPC service can be called now, by its full name (`NamedService::NAME`).
    pub async fn set_service(&self, name: &str, serving: bool) {
        let serving = serving && !self.draining.load(Ordering::SeqCst);
        self.reporter.set_service_status(name, status(serving)).await;
    }

    /// Whether this server as a whole can be called now.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        self.serving.load(Ordering::SeqCst)
    }
}

const fn status(serving: bool) -> ServingStatus {
    if serving { ServingStatus::Serving } else { ServingStatus::NotServing }
}
