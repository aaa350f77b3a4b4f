//! The attacher: asks the ledger where lanes stand, for all lanes that want it in one call.
//!
//! A lane that is not in its shard's cursor has never settled: it stands at 0, if its producer is registered;
//! an unknown producer is refused, because "new, start at 0" would count a forgotten lane twice.
//!
//! What must not be reordered: the head's roll is known before the ledger is asked, and goes with its answer. Lanes that
//! have been idle for long leave the head; an answer from before that would set such a lane back.

use std::collections::{BTreeSet, HashMap};

use drawdown_metering_core::{
    look::Cursor,
    shard::{Lane, Position},
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Instance, retry::Retry, seat::Found};
use crate::{
    peer::{self, LanesOf},
    redis::Roll,
};

/// Shards and producers of one question.
const ASKED_MAX: usize = 1024;

impl Instance {
    /// Answers lanes until the signal to stop.
    pub(crate) async fn attach(&self, stop: CancellationToken) {
        let (first, longest) =
            (self.config.flush.retry_pause_ms.duration(), self.config.flush.retry_pause_max_ms.duration());
        let mut retry = Retry::new(first, longest);
        loop {
            let lanes = self.wanted_lanes();
            let wait = async {
                if lanes.is_empty() {
                    self.wanted.notified().await;
                } else if let Some(until) = retry.until() {
                    tokio::time::sleep_until(until).await;
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = wait => {}
            }
            if lanes.is_empty() {
                continue;
            }
            match self.ask(&lanes).await {
                Ok(()) => retry.succeeded(),
                Err(error) => {
                    self.metrics.peer_error(error.peer());
                    let chain = drawdown_service::refusal::chain(&error.into());
                    tracing::warn!(error = %chain, "lanes wait because the ledger does not answer");
                    retry.failed(Instant::now());
                }
            }
        }
    }

    fn wanted_lanes(&self) -> Vec<(Lane, Roll)> {
        let mut lanes = Vec::new();
        let mut producers = BTreeSet::new();
        for (lane, roll) in self.shards.iter().flat_map(super::Shard::wanted) {
            producers.insert(lane.producer);
            if producers.len() > ASKED_MAX {
                break;
            }
            lanes.push((lane, roll));
        }
        lanes
    }

    async fn ask(&self, lanes: &[(Lane, Roll)]) -> Result<(), peer::Error> {
        let shards: BTreeSet<u32> = lanes.iter().map(|(lane, _)| lane.shard).collect();
        let theirs = LanesOf::producers(lanes.iter().map(|(lane, _)| lane.producer));
        let shards: Vec<u32> = shards.into_iter().collect();
        let answer = self.cells.shards(&shards, &theirs).await?;
        let told: HashMap<u32, Cursor> =
            answer.shards.iter().map(|(shard, standing)| (*shard, standing.told())).collect();
        for (lane, roll) in lanes {
            let Some(shard) = self.shard(lane.shard) else { continue };
            let settled = |cursor: Option<&Cursor>| {
                cursor
                    .and_then(|cursor| cursor.lanes.get(lane))
                    .map_or(Position::START, |known| known.settled)
            };
            let found = Found {
                settled: settled(answer.shards.get(&lane.shard).map(|standing| &standing.leading)),
                told: settled(told.get(&lane.shard)),
            };
            shard.found(lane, *roll, found, answer.producers.get(&lane.producer).copied());
        }
        self.wake_flusher();
        Ok(())
    }
}
