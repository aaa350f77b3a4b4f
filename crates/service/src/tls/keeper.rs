//! What was made of the files, and the task that looks at them again.

use std::sync::{Arc, Weak};

use drawdown_tls::{ALPN_HTTP1, ALPN_HTTP2, Broken, Reloaded, Reloading, rustls::ServerConfig};
use tokio::time::MissedTickBehavior;

use super::{
    metrics::{self, Metrics},
    options::TlsConfig,
};
use crate::{Context, refusal};

/// One certificate and trust bundle, for the port of a service.
#[derive(Debug)]
pub struct Tls {
    pub(super) config: TlsConfig,
    pub(super) metrics: Metrics,
    configs: Reloading<Arc<ServerConfig>>,
}

impl Tls {
    /// Reads the files, and again at the configured interval for as long as somebody holds this. Blocks for the first
    /// reading; needs a runtime.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn start(config: &TlsConfig, context: &Context) -> Result<Arc<Self>, Broken> {
        let clients = config.clients;
        let configs =
            Reloading::new(config.files.clone(), move |set| set.server(clients, &[ALPN_HTTP2, ALPN_HTTP1]))?;
        let meter = context.telemetry.meter();
        let tls = Arc::new(Self { config: config.clone(), metrics: Metrics::new(&meter), configs });
        metrics::watch(&meter, &Arc::downgrade(&tls), Arc::clone(&context.clock));
        tokio::spawn(look_again(Arc::downgrade(&tls), config.reload_interval));
        Ok(tls)
    }

    /// When the certificate in use expires, in seconds since 1970.
    #[must_use]
    pub fn not_after(&self) -> Option<i64> {
        self.configs.not_after()
    }

    /// Whether the files are of no use and an older set stays in use.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.configs.is_broken()
    }

    /// Looks at the files now. Blocks.
    pub fn look(&self) {
        match self.configs.look() {
            Reloaded::Unchanged | Reloaded::StillBroken => {}
            Reloaded::Changed => {
                self.metrics.reloaded("used");
                tracing::info!("certificates changed; the next handshake uses them");
            }
            Reloaded::Broken(broken) => {
                self.metrics.reloaded("broken");
                let error = refusal::chain(&broken.into());
                tracing::error!(%error, "changed certificates are of no use: the old ones stay");
            }
        }
    }

    pub(super) fn current(&self) -> Arc<ServerConfig> {
        self.configs.current()
    }
}

async fn look_again(tls: Weak<Tls>, interval: std::time::Duration) {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(tls) = tls.upgrade() else { return };
        // a look that panics is the last one of its kind: the next tick tries again
        drop(tokio::task::spawn_blocking(move || tls.look()).await);
    }
}
