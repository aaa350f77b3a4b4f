//! Lanes that have been idle for long leave the head of their shard; those that streams have stay.
//!
//! Shape: now and then the worker that has the lease names the lanes that its last look found at rest, with the roll of that
//! look; Redis drops those that have been for long by its own clock. Each instance notes a few times in that span that
//! the lanes of its streams are in use. Whatever of this is late, lost or done twice costs a call or an attach: which
//! lanes may go is compared in Redis, and where a lane goes on is the ledger's word (`drawdown_metering_core::idle`).

use drawdown_metering_core::idle::at_rest;
use tokio::time::Instant;

use super::{
    settle::{Seen, Worker},
    work::{Failed, Work},
};
use crate::redis::{LanesRetired, RetireLanes, Roll};

/// How often lanes in use are noted in the time after which an idle one may go.
const NOTES: u32 = 4;

impl Worker {
    /// Retires lanes that have been idle for long; `seen` is any look at the shard.
    pub(super) async fn retire_lanes(&self, work: &mut Work, shard: u32, seen: &Seen) -> Result<(), Failed> {
        let settle = &self.instance.config.settle;
        let every = settle.lanes_interval_ms.duration();
        if work.rested_at.is_some_and(|at| at.elapsed() < every) || !self.has_lease(shard) {
            return Ok(());
        }
        let Ok(head) = &seen.head else { return Ok(()) };
        let lanes: Vec<_> = at_rest(&seen.standing.leading, head).collect();
        let (mut roll, mut retired) = (Roll { generation: head.generation, number: head.roll }, 0_u64);
        for part in lanes.chunks(settle.lanes_per_call_max.get()) {
            let (next, idle) = (rand::random(), settle.lanes_idle_ms.duration());
            let retire = RetireLanes { shard, roll, next, idle, lanes: part.to_vec() };
            match self.instance.store.retire_lanes(&retire).await? {
                LanesRetired::Ok(0) => {}
                LanesRetired::Ok(count) => {
                    roll.number = next;
                    retired = retired.saturating_add(count);
                }
                // Another worker was faster, or the shard was reset.
                LanesRetired::Refused(_) => break,
            }
        }
        work.rested_at = Some(Instant::now());
        if retired > 0 {
            tracing::debug!(shard, lanes = retired, "idle lanes have left the head");
            self.instance.metrics.lanes_retired(retired);
        }
        Ok(())
    }

    /// Notes that the lanes of this instance's streams are in use, where it was not done for a while.
    pub(super) async fn keep_lanes(&self, kept_at: &mut Option<Instant>) -> Result<(), Failed> {
        let every = self.instance.config.settle.lanes_idle_ms.duration() / NOTES;
        if kept_at.is_some_and(|at| at.elapsed() < every) {
            return Ok(());
        }
        let lanes = self.instance.live_lanes();
        if !lanes.is_empty() {
            self.instance.store.keep_lanes(&lanes).await?;
        }
        *kept_at = Some(Instant::now());
        Ok(())
    }
}
