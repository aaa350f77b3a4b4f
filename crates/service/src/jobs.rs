//! What a service does beside its calls: loops that run from its start until its calls are drained.

use std::future::Future;

use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::Context;

/// Jobs that run, each by what it does.
#[derive(Debug)]
pub struct Jobs {
    stop: CancellationToken,
    running: Vec<(&'static str, JoinHandle<()>)>,
}

/// A job that panicked.
#[derive(Debug, thiserror::Error)]
#[error("the job that {what} failed")]
pub struct JobFailed {
    what: &'static str,
    #[source]
    source: JoinError,
}

impl Jobs {
    /// None yet. The context's signal to stop is one for them, too.
    #[must_use]
    pub fn of(context: &Context) -> Self {
        Self { stop: context.shutdown.child_token(), running: Vec::new() }
    }

    /// Starts one, which must end soon after the signal that it is given. `what` goes on as in "the job that …".
    pub fn start<F>(&mut self, what: &'static str, job: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.running.push((what, tokio::spawn(job(self.stop.clone()))));
    }

    /// Tells all to stop and waits for each of them.
    ///
    /// # Errors
    /// The first of them that panicked.
    pub async fn end(self) -> Result<(), JobFailed> {
        self.stop.cancel();
        let mut ended = Ok(());
        for (what, job) in self.running {
            if let Err(source) = job.await {
                ended = ended.and(Err(JobFailed { what, source }));
            }
        }
        ended
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use drawdown_types::SystemClock;

    use super::*;
    use crate::{Telemetry, refusal};

    fn context() -> Context {
        let telemetry = Telemetry::detached("ledger").unwrap();
        Context::new(telemetry, Arc::new(SystemClock), CancellationToken::new()).0
    }

    #[tokio::test]
    async fn all_are_waited_for_also_beside_one_that_panicked() {
        let ended = Arc::new(AtomicUsize::new(0));
        let (context, count) = (context(), Arc::clone(&ended));
        let counts = |stop: CancellationToken| async move {
            stop.cancelled().await;
            count.fetch_add(1, Ordering::SeqCst);
        };
        let mut jobs = Jobs::of(&context);
        jobs.start("panics", |_| async { panic!("wrong") });
        jobs.start("counts", counts.clone());
        jobs.start("counts again", counts);
        let failed = jobs.end().await.unwrap_err();
        assert_eq!(ended.load(Ordering::SeqCst), 2);
        assert!(refusal::chain(&failed.into()).starts_with("the job that panics failed: "));
        assert!(!context.shutdown.is_cancelled(), "calls go on without them");
    }

    #[tokio::test]
    async fn the_signal_of_the_service_is_one_for_them() {
        let context = context();
        let mut jobs = Jobs::of(&context);
        let (sender, stopped) = tokio::sync::oneshot::channel();
        jobs.start("waits", |stop| async move {
            stop.cancelled().await;
            sender.send(()).unwrap();
        });
        context.shutdown.cancel();
        stopped.await.unwrap();
        jobs.end().await.unwrap();
    }
}
