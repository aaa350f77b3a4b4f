//! The writer: one thread that owns the log and makes groups durable, one after another.
//!
//! A thread of its own because it does nothing but block on the disk. While it waits for one fsync the
//! next group fills; so the slower the disk, the larger the groups. Order in a commit: the receipt is
//! taken, frames get their sequences and chains, the record is written and synced; only then the index
//! learns of the frames (and the sender may send them), and then everybody who waits.

use std::{collections::BTreeMap, sync::Arc};

use drawdown_metering_core::shard::{Lane, Position};
use drawdown_types::ProducerId;

use super::{
    log::{GroupBuilder, Log, LogError, Positions},
    pending::{CutFrame, Group},
    shared::{Next, Shared},
};

pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) log: Log,
    pub(super) producer: ProducerId,
}

impl Writer {
    /// Until the producer is closed or the log fails.
    pub(super) fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        shared.with_pending(|pending| pending.set_log_bytes(self.log.bytes()));
        if let Err(error) = self.work() {
            shared.fail_log(error);
        }
        // The directory is released before anybody hears that it is.
        drop(self);
        shared.status.send_modify(|status| status.closed = true);
    }

    fn work(&mut self) -> Result<(), LogError> {
        let mut body = Vec::new();
        loop {
            match self.shared.next() {
                Next::Write(group) => {
                    self.commit(group, &mut body)?;
                    self.maintain()?;
                }
                Next::Maintain => self.maintain()?,
                Next::Close => return self.log.close(),
            }
        }
    }

    fn commit(&mut self, group: Group, body: &mut Vec<u8>) -> Result<(), LogError> {
        let Group { frames, first_series, series, marks, shed, through, events } = group;
        let received_at_ms = self.shared.clock.now().as_millis();
        let mut record = GroupBuilder::begin(shed, &marks, first_series, &series)?;
        let mut ends: BTreeMap<Lane, Position> = BTreeMap::new();
        let mut builders = Vec::with_capacity(frames.len());
        for CutFrame { map_version, shard, mut builder } in frames {
            let lane = Lane { producer: self.producer, map_version, shard };
            let before = match ends.get(&lane).or_else(|| self.log.lanes().get(&lane)) {
                Some(position) => *position,
                None => Position::START,
            };
            let last = before.sequence.saturating_add(u64::from(builder.events()));
            body.clear();
            builder.finish_into(lane, before.sequence.saturating_add(1), received_at_ms, body);
            ends.insert(lane, record.push(lane, before, last, body)?);
            builders.push(builder);
        }
        let written = self.log.append(record, shed, marks.clone(), series.clone())?;
        self.shared.with_index(|index| index.publish(written.frames, &series, marks));
        let log_bytes = self.log.bytes();
        self.shared.with_pending(|pending| pending.done(events, log_bytes, builders));
        self.shared.status.send_modify(|status| {
            status.durable_operations = through;
            status.changes = status.changes.wrapping_add(1);
        });
        Ok(())
    }

    /// Deletes what is settled and old enough, or in the way.
    fn maintain(&mut self) -> Result<(), LogError> {
        if !self.log.may_be_freed() {
            return Ok(());
        }
        let settled: Positions = self.shared.settled();
        let freed = self.log.free(&settled, self.shared.clock.now())?;
        if freed.early > 0 {
            tracing::warn!(segments = freed.early, "settled segments were deleted early, the log is crowded");
        }
        if let Some(through) = freed.through {
            self.shared.with_index(|index| index.free(&through));
            let log_bytes = self.log.bytes();
            self.shared.with_pending(|pending| pending.set_log_bytes(log_bytes));
            self.shared.changed();
        }
        Ok(())
    }
}
