//! Keeps the directory in memory current: looks when the database says that something changed, and now and then in
//! any case. This process's own acts look by themselves, before they answer.

use std::{sync::Arc, time::Duration};

use sqlx::{PgPool, postgres::PgListener};
use tokio_util::sync::CancellationToken;

use crate::memory::Memory;

/// The channel that the audit log's trigger notifies.
const CHANNEL: &str = "entitlement_audit";

/// The job.
pub(crate) struct DirectoryFeed {
    pub(crate) memory: Arc<Memory>,
    /// A pool of one connection, where the database is to say what changed.
    pub(crate) listen: Option<PgPool>,
    pub(crate) interval: Duration,
}

impl DirectoryFeed {
    /// Runs until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(self.interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut listener: Option<PgListener> = None;
        loop {
            let woken = async {
                match &mut listener {
                    None => {
                        ticks.tick().await;
                        true
                    }
                    Some(listener) => tokio::select! {
                        _ = ticks.tick() => true,
                        heard = listener.recv() => heard.is_ok(),
                    },
                }
            };
            match stop.run_until_cancelled(woken).await {
                None => break,
                Some(true) => {}
                // it is opened again below; until then the ticks do
                Some(false) => listener = None,
            }
            if listener.is_none() {
                listener = self.listener().await;
            }
            if let Err(error) = self.memory.catch_up().await {
                let error = anyhow::Error::from(error);
                tracing::warn!(error.chain = %drawdown_service::refusal::chain(&error), "the directory can not be read again");
            }
        }
    }

    async fn listener(&self) -> Option<PgListener> {
        let pool = self.listen.as_ref()?;
        let listen = async {
            let mut listener = PgListener::connect_with(pool).await?;
            listener.listen(CHANNEL).await?;
            Ok::<_, sqlx::Error>(listener)
        };
        match listen.await {
            Ok(listener) => Some(listener),
            Err(error) => {
                tracing::warn!(error = %error, "the database can not be listened to; it is asked instead");
                None
            }
        }
    }
}
