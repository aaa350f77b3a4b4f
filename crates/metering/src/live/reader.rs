//! The one reader for all watchers of this instance.

use std::{sync::Arc, time::Duration};

use drawdown_metering_core::{
    cells::LEADING,
    look::{Cursor, Head},
};
use drawdown_types::Timestamp;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Error, Live, state::Absorbed};
use crate::peer::LanesOf;

/// Between two rounds, also where a new watcher waits.
const ROUND_PAUSE: Duration = Duration::from_millis(20);

/// Reads what is watched, round by round, until the signal to stop. While nothing is watched it waits.
pub(crate) async fn read(live: Arc<Live>, stop: CancellationToken) {
    let pause = live.instance.config.usage.watch_interval_ms.duration();
    let mut next = Instant::now();
    loop {
        let shards = live.wanted_shards();
        tokio::select! {
            () = stop.cancelled() => return,
            () = live.wanted.notified() => tokio::time::sleep(ROUND_PAUSE).await,
            () = tokio::time::sleep_until(next), if !shards.is_empty() => {}
        }
        let shards = live.wanted_shards();
        if shards.is_empty() {
            continue;
        }
        if let Err(error) = live.round(&shards).await {
            // Watchers see that "complete up to" stands still.
            match &error {
                Error::Peer(error) => live.instance.metrics.peer_error(error.peer()),
                _ => live.instance.metrics.redis_error("live"),
            }
            tracing::warn!(error = %drawdown_service::refusal::chain(&error.into()), "live usage was not read");
        }
        live.rounds.send_replace(());
        next = Instant::now() + pause;
    }
}

impl Live {
    /// What is watched; what is not any more is forgotten.
    fn wanted_shards(&self) -> Vec<u32> {
        let watched: Vec<bool> = self.watched().iter().map(|watchers| *watchers > 0).collect();
        let mut wanted = Vec::new();
        for (number, is_watched) in (0..).zip(watched) {
            if is_watched {
                wanted.push(number);
            } else if let Some(mut shard) = self.shard(number)
                && shard.is_known()
            {
                shard.forget();
            }
        }
        wanted
    }

    async fn round(&self, shards: &[u32]) -> Result<(), Error> {
        let began = self.instance.clock.now();
        let mut read = Vec::new();
        for (shard, head) in shards.iter().zip(self.instance.store.look(shards).await?) {
            // A shard without a head is being reset: the next round meets another generation.
            let Ok(head) = head else { continue };
            match self.read_new(*shard, &head).await? {
                Some(short) => read.push((*shard, head, short)),
                None => tracing::debug!(shard, "live usage is read anew"),
            }
        }
        let cursors = self.instance.ledger().shards(shards, &LanesOf::NOBODY, LEADING).await?.cursors;
        for (shard, head, short) in read {
            if let Some(cursor) = cursors.get(&shard) {
                self.end_round(shard, &head, cursor, short, began);
            }
        }
        Ok(())
    }

    /// Reads what a head tells of and is not known; says which batch's list ended too early, as 0 for none. `None` where
    /// it is no use to go on in this round.
    async fn read_new(&self, shard: u32, head: &Head) -> Result<Option<u64>, Error> {
        let mut short = 0;
        if let Some(mut shard) = self.shard(shard) {
            shard.begin_round();
        }
        loop {
            let part = self.shard(shard).and_then(|mut shard| shard.next_part(head, short));
            let Some(part) = part else { return Ok(Some(short)) };
            let store = &self.instance.store;
            let entries =
                store.entries_from(shard, part.generation, part.batch, part.first, part.count).await?;
            self.instance.metrics.live_read(entries.len());
            match self.shard(shard).map(|mut shard| shard.absorb(part, &entries)) {
                Some(Absorbed::Taken) => {}
                Some(Absorbed::Short) => short = part.batch,
                Some(Absorbed::Forgotten | Absorbed::TooLarge) | None => return Ok(None),
            }
        }
    }

    /// A list that ended too early was either retired, and then is settled; or the shard has to be looked at again.
    fn end_round(&self, shard: u32, head: &Head, cursor: &Cursor, short: u64, began: Timestamp) {
        if short > cursor.last_batch || cursor.generation != head.generation {
            return;
        }
        if let Some(mut shard) = self.shard(shard) {
            shard.end_round(head, cursor, began);
        }
    }
}
