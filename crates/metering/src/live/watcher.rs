//! One watcher: what it was told, and what is new since.

use std::sync::Arc;

use drawdown_types::Timestamp;
use tokio::sync::watch;

use super::{
    Error, Filter, Live, Standing, Usage, Watching,
    state::{Changes, Mark, TooMany},
};

/// What is new in one shard.
#[derive(Debug)]
pub(crate) struct News {
    pub(crate) standing: Standing,
    pub(crate) complete_up_to: Timestamp,
    /// All there is, instead of what has changed.
    pub(crate) snapshot: bool,
    pub(crate) usage: Vec<Usage>,
}

/// A watcher.
pub(crate) struct Watcher {
    watching: Watching,
    filter: Filter,
    rounds: watch::Receiver<()>,
    /// By the shards that are watched.
    marks: Vec<Mark>,
}

impl Watcher {
    /// `None` where as many watch as may.
    pub(crate) fn new(live: &Arc<Live>, filter: Filter) -> Option<Self> {
        let watching = live.watch(&filter)?;
        let marks = vec![Mark::default(); watching.shards.len()];
        Some(Self { rounds: live.rounds.subscribe(), watching, filter, marks })
    }

    /// How many shards it watches.
    pub(crate) const fn shards(&self) -> usize {
        self.marks.len()
    }

    /// Waits for a round of the reader that ended after the last one that was waited for.
    pub(crate) async fn round(&mut self) {
        // The sender is part of what `watching` holds.
        let _ = self.rounds.changed().await;
    }

    /// What is new in one of its shards.
    pub(crate) async fn look(&mut self, at: usize) -> Result<Option<News>, Error> {
        let live = &self.watching.live;
        let lines_max = live.instance.config.usage.answer_lines_max.get();
        let (Some(shard), Some(mark)) = (self.watching.shards.get(at), self.marks.get_mut(at)) else {
            return Ok(None);
        };
        let changes = match live.shard(*shard) {
            Some(shard) => shard.since(mark, lines_max, |line| self.filter.takes(line.series)),
            None => Ok(None),
        };
        let too_many = |TooMany(most)| Error::TooLarge(format!("more than {most} lines of shard {shard}"));
        let Some(Changes { standing, complete_up_to, snapshot, usage }) = changes.map_err(too_many)? else {
            return Ok(None);
        };
        let usage = live.resolve(&self.filter, usage).await?;
        Ok(Some(News { standing, complete_up_to, snapshot, usage }))
    }

    /// What was acknowledged before is told, or settled, in all of its shards; `None` until all were read.
    pub(crate) fn complete_up_to(&self) -> Option<Timestamp> {
        let live = &self.watching.live;
        let of = |shard: &u32| live.shard(*shard)?.complete_up_to();
        let mut all = self.watching.shards.iter().map(of);
        all.try_fold(Timestamp::MAX, |earliest, of| Some(earliest.min(of?)))
    }
}
