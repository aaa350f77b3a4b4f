//! One query: reads what it needs, and forgets it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use drawdown_metering_core::{
    cells::LEADING,
    look::Head,
    meter::Aggregation,
    settle::{LineView, Merging, Seal},
};
use drawdown_types::Timestamp;

use super::{Error, Filter, Live, Standing, Usage};
use crate::peer::LanesOf;

/// How often a shard is read again because it moved on while it was read.
const READS_MAX: usize = 5;
/// Blobs that are merged in one go: some ten milliseconds.
const BLOBS_AT_ONCE: usize = 16;

/// What a query finds.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Sorted by series and window, then by shard, batch and receipt.
    pub(crate) usage: Vec<Usage>,
    /// One for each shard that was read.
    pub(crate) standings: Vec<Standing>,
    /// What was acknowledged before is in the answer, or settled.
    pub(crate) complete_up_to: Timestamp,
}

/// Canonical bytes of the series, window, and of usage by batch its part.
type Key = (Vec<u8>, Timestamp, Option<(u32, u64, Timestamp)>);

/// One series in one window, with its distinct values.
struct Sum {
    usage: Usage,
    values: BTreeSet<Arc<str>>,
}

type Sums = BTreeMap<Key, Sum>;

/// The batches of one shard that are not retired; `None` where one went away while it was read.
type Batches = Option<Vec<(u64, Merging)>>;

struct Query<'a> {
    live: &'a Live,
    filter: &'a Filter,
    by_batch: bool,
    /// Blobs that may still be read.
    budget: u64,
    /// Lines and distinct values that are held of this reading.
    merged: usize,
    sums: Sums,
    standings: Vec<Standing>,
}

/// Usage that is applied and not settled; by series and window, or by batch as it will be settled.
pub(crate) async fn query(live: &Live, filter: &Filter, by_batch: bool) -> Result<Answer, Error> {
    let _query = live.queries.try_acquire().map_err(|_| Error::Busy)?;
    // Before the first read: what is acknowledged later may be missing.
    let complete_up_to = live.instance.clock.now();
    let budget = u64::try_from(live.instance.config.usage.blobs_max.get()).unwrap_or(u64::MAX);
    let (sums, standings) = (Sums::new(), Vec::new());
    let mut query = Query { live, filter, by_batch, budget, merged: 0, sums, standings };
    let mut shards = live.shards_of(filter);
    let mut reads = 0;
    while !shards.is_empty() {
        if reads == READS_MAX {
            return Err(Error::Moving(shards.first().copied().unwrap_or_default()));
        }
        reads += 1;
        shards = query.read(&shards).await?;
    }
    query.standings.sort_unstable_by_key(|standing| standing.shard);
    let usage = query.sums.into_values().map(|sum| sum.usage).collect();
    let usage = live.resolve(filter, usage).await?;
    Ok(Answer { usage, standings: query.standings, complete_up_to })
}

impl Query<'_> {
    /// Reads shards; says which of them have to be read again.
    async fn read(&mut self, shards: &[u32]) -> Result<Vec<u32>, Error> {
        let instance = &self.live.instance;
        self.merged = 0;
        let mut read = Vec::new();
        for (shard, head) in shards.iter().zip(instance.store.look(shards).await?) {
            let head = head.map_err(|_| Error::Resetting(*shard))?;
            read.push((*shard, self.batches(*shard, &head).await?, head));
        }
        let cursors = instance.ledger().shards(shards, &LanesOf::NOBODY, LEADING).await?.cursors;
        let mut moving = Vec::new();
        for (shard, batches, head) in read {
            match (batches, cursors.get(&shard)) {
                (Some(batches), Some(cursor)) if cursor.generation == head.generation => {
                    let (generation, settled) = (head.generation, cursor.last_batch);
                    let open = head.open.max(settled);
                    self.standings.push(Standing { shard, generation, settled, open });
                    for (batch, merging) in batches.iter().filter(|(batch, _)| *batch > settled) {
                        self.add(shard, *batch, merging)?;
                    }
                }
                _ => moving.push(shard),
            }
        }
        Ok(moving)
    }

    async fn batches(&mut self, shard: u32, head: &Head) -> Result<Batches, Error> {
        let mut batches = Vec::new();
        let sealed =
            head.sealed.iter().filter_map(|(batch, seal)| Some((*batch, seal.parse::<Seal>().ok()?.count)));
        for (batch, count) in sealed.chain([(head.open, head.blobs)]) {
            let too_large = || Error::TooLarge(format!("reading {count} blobs more"));
            self.budget = self.budget.checked_sub(count).ok_or_else(too_large)?;
            let entries = self.live.instance.store.entries(shard, head.generation, batch, count).await?;
            let mut merging = Merging::new(shard, head.generation, batch);
            if u64::try_from(entries.len()) != Ok(count) {
                return Ok(None);
            }
            for entries in entries.chunks(BLOBS_AT_ONCE) {
                if entries.iter().any(|entry| merging.push(entry).is_err()) {
                    return Ok(None);
                }
                let merged = self.merged.saturating_add(merging.weight());
                if merged > self.live.instance.config.usage.query_lines_max.get() {
                    return Err(Error::TooLarge(format!("more than {merged} lines that are not settled")));
                }
                // Streams wait for the same threads.
                tokio::task::yield_now().await;
            }
            self.merged = self.merged.saturating_add(merging.weight());
            batches.push((batch, merging));
        }
        Ok(Some(batches))
    }

    fn add(&mut self, shard: u32, batch: u64, merging: &Merging) -> Result<(), Error> {
        let lines_max = self.live.instance.config.usage.answer_lines_max.get();
        for line in merging.keys().filter_map(|key| merging.line(&key)) {
            if !self.filter.takes(line.series) {
                continue;
            }
            let part = self.by_batch.then_some((shard, batch, line.received_window_start));
            let key = (line.series.encode(), line.window_start, part);
            self.sums.entry(key).or_insert_with(|| Sum::new(&line, part)).add(&line);
            if self.sums.len() > lines_max {
                return Err(Error::TooLarge(format!("an answer of more than {lines_max} lines")));
            }
        }
        Ok(())
    }
}

impl Sum {
    fn new(line: &LineView<'_>, part: Option<(u32, u64, Timestamp)>) -> Self {
        let usage = Usage {
            series: Arc::clone(line.series),
            aggregation: line.aggregation,
            window_start: line.window_start,
            events: 0,
            quantity: 0,
            part,
            app_id: None,
        };
        Self { usage, values: BTreeSet::new() }
    }

    /// Partial states merge as the meter aggregates (D19).
    fn add(&mut self, line: &LineView<'_>) {
        let usage = &mut self.usage;
        usage.events = usage.events.saturating_add(line.events);
        match line.aggregation {
            Aggregation::Sum | Aggregation::Count => {
                usage.quantity = usage.quantity.saturating_add(line.quantity);
            }
            Aggregation::Max => usage.quantity = usage.quantity.max(line.quantity),
            Aggregation::Unique => {
                self.values.extend(line.values.into_iter().flatten().cloned());
                usage.quantity = i64::try_from(self.values.len()).unwrap_or(i64::MAX);
            }
        }
    }
}
