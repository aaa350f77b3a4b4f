//! The writer: one thread that makes groups durable, or keeps them in memory, one after another.
//!
//! A thread of its own because with a log it does nothing but block on the disk. While it waits for one fsync the
//! next group fills, and where that takes long a group waits longer for its events ([`Linger`]); so the slower the disk,
//! the larger the groups. Order in a commit: the receipt is
//! taken, frames get their sequences and chains, the record is written and synced; only then the index
//! learns of the frames (and the sender may send them), and then everybody who waits. Without a log
//! ([`Memory`]) the order is the same and nothing is written.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use drawdown_metering_core::shard::{Lane, Position};
use drawdown_types::ProducerId;

use super::{
    log::{GroupBuilder, Log, LogError, Positions},
    memory::Memory,
    metrics::GroupCommit,
    options::ProducerOptions,
    pending::{CutFrame, Group},
    shared::{Next, Shared},
};

/// Where groups go.
pub(super) enum Keeper {
    Log(Box<LogWriter>),
    Memory(Memory),
}

pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) keeper: Keeper,
}

/// Makes groups durable.
pub(super) struct LogWriter {
    log: Log,
    producer: ProducerId,
    body: Vec<u8>,
}

impl Keeper {
    fn bytes(&self) -> u64 {
        match self {
            Self::Log(writer) => writer.log.bytes(),
            Self::Memory(memory) => memory.bytes(),
        }
    }

    fn commit(&mut self, group: Group, shared: &Shared) -> Result<(), LogError> {
        match self {
            Self::Log(writer) => writer.commit(group, shared),
            Self::Memory(memory) => {
                memory.commit(group, shared);
                Ok(())
            }
        }
    }

    /// Commits a group and tells the hook for metrics of it; answers how long it took.
    fn measured_commit(&mut self, group: Group, shared: &Shared) -> Result<Duration, LogError> {
        let (events, frames) = (group.events, u64::try_from(group.frames.len()).unwrap_or(u64::MAX));
        let began = Instant::now();
        self.commit(group, shared)?;
        let took = began.elapsed();
        shared.measure(|metrics| {
            metrics.committed(&GroupCommit { events, frames, took, kept_bytes: self.bytes() });
        });
        Ok(took)
    }

    fn maintain(&mut self, shared: &Shared) -> Result<(), LogError> {
        let before = self.bytes();
        match self {
            Self::Log(writer) => writer.maintain(shared)?,
            Self::Memory(memory) => memory.maintain(shared),
        }
        let after = self.bytes();
        if after < before {
            shared.measure(|metrics| metrics.freed(after));
        }
        shared.measure_refusals();
        Ok(())
    }

    fn close(&mut self, shared: &Shared) -> Result<(), LogError> {
        match self {
            Self::Log(writer) => writer.log.close(),
            Self::Memory(_) => {
                let events = shared.with_index(|index| index.totals().unsettled());
                if events > 0 {
                    tracing::warn!(
                        events,
                        "events that were kept in memory only and are not settled are lost"
                    );
                }
                Ok(())
            }
        }
    }
}

impl Writer {
    /// Until the producer is closed or the log fails.
    pub(super) fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        shared.with_pending(|pending| pending.set_kept_bytes(self.keeper.bytes()));
        if let Err(error) = self.work() {
            shared.fail_log(error);
        }
        // The directory is released before anybody hears that it is.
        drop(self);
        shared.status.send_modify(|status| status.closed = true);
    }

    fn work(&mut self) -> Result<(), LogError> {
        let mut linger = Linger::new(&self.shared.options);
        loop {
            match self.shared.next(linger.now()) {
                Next::Write(group) => {
                    linger.took(self.keeper.measured_commit(group, &self.shared)?);
                    self.keeper.maintain(&self.shared)?;
                }
                Next::Maintain => self.keeper.maintain(&self.shared)?,
                Next::Close => {
                    self.shared.measure_refusals();
                    return self.keeper.close(&self.shared);
                }
            }
        }
    }
}

/// How long an event waits for others: the longer, the longer groups take to commit. A group costs a flush of the disk and its
/// frames a header and an answer each, whatever they hold; where many producers share a disk or the processors,
/// small groups are what each of them has too much of.
struct Linger {
    least: Duration,
    most: Duration,
    /// What the last groups took, on average.
    usual: Duration,
}

impl Linger {
    /// The writer commits for at most about a fifth of its time.
    const COMMITS: u32 = 4;
    /// The last group has this part in the average: one hiccup of a disk does not make anything wait for long.
    const OF_LAST: u32 = 8;

    fn new(options: &ProducerOptions) -> Self {
        let (least, most) = (options.linger_ms, options.linger_max_ms.max(options.linger_ms));
        let [least, most] = [least, most].map(Duration::from_millis);
        Self { least, most, usual: Duration::ZERO }
    }

    fn now(&self) -> Duration {
        self.usual.saturating_mul(Self::COMMITS).clamp(self.least, self.most)
    }

    fn took(&mut self, last: Duration) {
        let rest = self.usual.saturating_mul(Self::OF_LAST.saturating_sub(1));
        self.usual = rest.saturating_add(last) / Self::OF_LAST;
    }
}

impl LogWriter {
    pub(super) const fn new(log: Log, producer: ProducerId) -> Self {
        Self { log, producer, body: Vec::new() }
    }

    fn commit(&mut self, group: Group, shared: &Shared) -> Result<(), LogError> {
        let Group { frames, first_series, series, marks, shed, through, events } = group;
        let received_at_ms = shared.clock.now().as_millis();
        let frame_bytes =
            frames.iter().fold(0_usize, |sum, frame| sum.saturating_add(frame.builder.bytes_at_most()));
        let mut record = GroupBuilder::begin(frame_bytes, shed, &marks, first_series, &series)?;
        let mut ends: BTreeMap<Lane, Position> = BTreeMap::new();
        let mut builders = Vec::with_capacity(frames.len());
        for CutFrame { map_version, shard, mut builder } in frames {
            let lane = Lane { producer: self.producer, map_version, shard };
            let before = match ends.get(&lane).or_else(|| self.log.lanes().get(&lane)) {
                Some(position) => *position,
                None => Position::START,
            };
            let last = before.sequence.saturating_add(u64::from(builder.events()));
            self.body.clear();
            builder.finish_into(lane, before.sequence.saturating_add(1), received_at_ms, &mut self.body);
            ends.insert(lane, record.push(lane, before, last, &self.body)?);
            builders.push(builder);
        }
        let written = self.log.append(record, shed, marks.clone(), series.clone())?;
        shared.with_index(|index| index.publish(written.frames, &series, marks));
        let kept_bytes = self.log.bytes();
        shared.with_pending(|pending| pending.done(events, kept_bytes, builders));
        shared.status.send_modify(|status| {
            status.kept_operations = through;
            status.changes = status.changes.wrapping_add(1);
        });
        Ok(())
    }

    /// Deletes what is settled and old enough, or in the way.
    fn maintain(&mut self, shared: &Shared) -> Result<(), LogError> {
        if !self.log.may_be_freed() {
            return Ok(());
        }
        let settled: Positions = shared.settled();
        let frames = |through: &Positions| shared.with_index(|index| index.frames_through(through));
        let freed = self.log.free(&settled, shared.clock.now(), frames)?;
        if freed.early > 0 {
            tracing::warn!(segments = freed.early, "settled segments were deleted early, the log is crowded");
        }
        if let Some(through) = freed.through {
            shared.with_index(|index| index.free(&through));
            let kept_bytes = self.log.bytes();
            shared.with_pending(|pending| pending.set_kept_bytes(kept_bytes));
            shared.changed();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn groups_that_take_long_wait_longer_for_their_events() {
        let options = ProducerOptions { linger_ms: 5, linger_max_ms: 60, ..ProducerOptions::at("log") };
        let mut linger = Linger::new(&options);
        assert_eq!(linger.now(), ms(5));
        linger.took(ms(8));
        assert_eq!(linger.now(), ms(5), "one slow group is none");
        (0..100).for_each(|_| linger.took(ms(8)));
        assert!((ms(30)..ms(33)).contains(&linger.now()), "{:?}", linger.now());
        (0..100).for_each(|_| linger.took(ms(800)));
        assert_eq!(linger.now(), ms(60), "at most what is allowed");
        (0..100).for_each(|_| linger.took(ms(1)));
        assert_eq!(linger.now(), ms(5), "and no longer when they are fast again");
    }

    #[test]
    fn a_producer_may_say_that_nothing_waits_longer() {
        let options = ProducerOptions { linger_ms: 5, linger_max_ms: 0, ..ProducerOptions::at("log") };
        let mut linger = Linger::new(&options);
        (0..100).for_each(|_| linger.took(ms(800)));
        assert_eq!(linger.now(), ms(5));
    }
}
