//! Writing: groups into the active segment, a new segment when it is full, old ones deleted when free.
//!
//! One owner (the writer's thread) holds the log; frames are read back by anybody through a
//! [`FrameReader`], which needs no lock because durable bytes never change.

use std::{
    collections::VecDeque,
    fs::{File, OpenOptions},
    io::Write as _,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use drawdown_metering_core::{chain, series::SeriesKey};
use drawdown_types::{ProducerId, Timestamp};

use super::{
    LogError, Marks, Positions,
    freed::{self, FreedFrames},
    meta::{DirectoryLock, sync_directory},
    record::{GroupBuilder, Head, closed},
    recover::{Body, FrameRef, Recovered, Segment, Spot, segment_path},
};

/// Bounds of the log on disk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogLimits {
    /// A segment that has as many bytes is followed by a new one.
    pub(crate) segment_bytes: u64,
    /// From here on, settled segments are deleted before their time.
    pub(crate) crowded_bytes: u64,
    /// How long settled segments are kept for a restored ledger.
    pub(crate) retain: Duration,
    /// Most bytes of what is remembered of deleted segments.
    pub(crate) freed_bytes: u64,
}

/// The open log.
#[derive(Debug)]
pub(crate) struct Log {
    dir: PathBuf,
    producer: ProducerId,
    limits: LogLimits,
    file: File,
    /// Oldest first; the last is the active one.
    segments: VecDeque<Segment>,
    next_record: u64,
    lanes: Positions,
    series: Vec<Arc<SeriesKey>>,
    marks: Marks,
    shed: u64,
    poisoned: bool,
    // Declared last: the directory is released after everything else is closed.
    _lock: DirectoryLock,
}

/// A group that is durable.
#[derive(Debug)]
pub(crate) struct Written {
    /// Its frames with their bodies, in order.
    pub(crate) frames: Vec<(FrameRef, Bytes)>,
}

/// What was deleted.
#[derive(Debug, Default)]
pub(crate) struct Freed {
    /// Where every lane stood at the end of the last deleted segment; `None` if none was.
    pub(crate) through: Option<Positions>,
    /// Segments that were deleted before `retain` had passed, to make room.
    pub(crate) early: u64,
}

impl Log {
    /// Goes on where `recovered` ends.
    pub(crate) fn open(
        dir: &Path,
        lock: DirectoryLock,
        producer: ProducerId,
        limits: LogLimits,
        recovered: Recovered,
    ) -> Result<Self, LogError> {
        let Recovered { segments, lanes, series, marks, shed, next_record, .. } = recovered;
        let last = segments.back().map_or(0, |segment| segment.number);
        let mut log = Self {
            file: open_directory(dir)?,
            dir: dir.to_owned(),
            producer,
            limits,
            segments,
            next_record,
            lanes,
            series,
            marks,
            shed,
            poisoned: false,
            _lock: lock,
        };
        if log.segments.is_empty() {
            log.start_segment(1)?;
        } else {
            let path = segment_path(dir, last);
            log.file =
                OpenOptions::new().append(true).open(&path).map_err(LogError::io("open for append", path))?;
        }
        Ok(log)
    }

    /// Bytes of all segments.
    pub(crate) fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).fold(0, u64::saturating_add)
    }

    /// Whether there is anything that could be deleted.
    pub(crate) fn may_be_freed(&self) -> bool {
        self.segments.len() > 1 || self.bytes() >= self.limits.crowded_bytes
    }

    /// Where every lane ends.
    pub(crate) const fn lanes(&self) -> &Positions {
        &self.lanes
    }

    /// Writes a group and makes it durable; answers its frames.
    pub(crate) fn append(
        &mut self,
        group: GroupBuilder,
        shed: u64,
        marks: Marks,
        series: Vec<Arc<SeriesKey>>,
    ) -> Result<Written, LogError> {
        let full = |active: &Segment, limit: u64| {
            active.bytes >= limit.max(active.head_bytes.saturating_mul(2).saturating_add(1))
        };
        let active = self.segments.back().map_or(0, |active| {
            if full(active, self.limits.segment_bytes) { active.number.saturating_add(1) } else { 0 }
        });
        if active > 0 {
            self.start_segment(active)?;
        }
        let (record, spans) = group.finish(self.next_record)?;
        let (segment, offset) = self.write(&record)?;
        self.shed = shed;
        self.marks.extend(marks);
        self.series.extend(series);
        let frames = spans.into_iter().map(|span| {
            self.lanes.insert(span.lane, span.end);
            let spot = Spot {
                segment,
                offset: offset.saturating_add(u64::try_from(span.body.start).unwrap_or(u64::MAX)),
                len: span.body.len(),
            };
            let (lane, first_sequence, end) = (span.lane, span.first_sequence, span.end);
            let frame = FrameRef { lane, first_sequence, end, body: Body::Stored(spot) };
            (frame, record.slice(span.body))
        });
        let frames: Vec<_> = frames.collect();
        if let Some(active) = self.segments.back_mut() {
            for (frame, _) in &frames {
                active.ends.insert(frame.lane, frame.end);
            }
        }
        Ok(Written { frames })
    }

    /// Says that nothing durable may be missing from here back. Called once, last.
    pub(crate) fn close(&mut self) -> Result<(), LogError> {
        let record = closed(self.next_record)?;
        self.write(&record).map(drop)
    }

    /// Appends a record to the active segment; answers where it stands.
    fn write(&mut self, record: &[u8]) -> Result<(u64, u64), LogError> {
        if self.poisoned {
            return Err(LogError::Poisoned);
        }
        let Some(active) = self.segments.back_mut() else { return Err(LogError::Poisoned) };
        let path = segment_path(&self.dir, active.number);
        // Until both have succeeded nobody knows what is on disk: a failed fsync may have dropped the
        // pages, and asking again would succeed for bytes that are gone.
        self.poisoned = true;
        self.file.write_all(record).map_err(LogError::io("write", &path))?;
        self.file.sync_data().map_err(LogError::io("sync", &path))?;
        self.poisoned = false;
        let offset = active.bytes;
        active.bytes = offset.saturating_add(u64::try_from(record.len()).unwrap_or(u64::MAX));
        self.next_record = self.next_record.saturating_add(1);
        Ok((active.number, offset))
    }

    fn start_segment(&mut self, number: u64) -> Result<(), LogError> {
        if self.poisoned {
            return Err(LogError::Poisoned);
        }
        let head = Head {
            producer: self.producer,
            segment: number,
            shed: self.shed,
            lanes: self.lanes.clone(),
            series: self.series.clone(),
            marks: self.marks.clone(),
        };
        let record = head.encode(self.next_record)?;
        let path = segment_path(&self.dir, number);
        self.poisoned = true;
        let mut file = OpenOptions::new()
            .create_new(true)
            .append(true)
            .open(&path)
            .map_err(LogError::io("create", &path))?;
        file.write_all(&record).map_err(LogError::io("write", &path))?;
        file.sync_all().map_err(LogError::io("sync", &path))?;
        sync_directory(&self.dir)?;
        self.poisoned = false;
        self.file = file;
        self.next_record = self.next_record.saturating_add(1);
        let bytes = u64::try_from(record.len()).unwrap_or(u64::MAX);
        let ends = self.lanes.clone();
        self.segments.push_back(Segment { number, bytes, head_bytes: bytes, ends, settled_at: None });
        Ok(())
    }

    /// Deletes segments in which everything is settled: after `retain`, or at once when it is crowded. `frames` tells
    /// where the frames up to some positions ended, which is written down first.
    pub(crate) fn free(
        &mut self,
        settled: &Positions,
        now: Timestamp,
        frames: impl FnOnce(&Positions) -> Vec<FreedFrames>,
    ) -> Result<Freed, LogError> {
        for segment in &mut self.segments {
            let all_settled = segment
                .ends
                .iter()
                .all(|(lane, end)| end.sequence <= settled.get(lane).copied().unwrap_or_default().sequence);
            // Cleared again where a restored ledger has taken back what it had settled.
            segment.settled_at = all_settled.then(|| segment.settled_at.unwrap_or(now));
        }
        // One large group may have filled the active segment far beyond its size; it can not be deleted
        // before there is another one to write to.
        let stuck = |active: &Segment| {
            active.settled_at.is_some() && active.bytes > active.head_bytes.saturating_mul(2)
        };
        if self.bytes() >= self.limits.crowded_bytes
            && let Some(number) =
                self.segments.back().filter(|active| stuck(active)).map(|active| active.number)
        {
            self.start_segment(number.saturating_add(1))?;
        }
        let due = self.due(now);
        let (Some(last), Some(through)) = (due.last, due.through) else { return Ok(Freed::default()) };
        freed::write(&self.dir, last, &frames(&through))?;
        while let Some(oldest) = self.segments.pop_front_if(|oldest| oldest.number <= last) {
            let path = segment_path(&self.dir, oldest.number);
            std::fs::remove_file(&path).map_err(LogError::io("remove", path))?;
        }
        freed::bound(&self.dir, self.limits.freed_bytes)?;
        Ok(Freed { through: Some(through), early: due.early })
    }

    /// Which segments may go now: the oldest, never the active one.
    fn due(&self, now: Timestamp) -> Due {
        let mut due = Due::default();
        let mut bytes = self.bytes();
        for segment in self.segments.iter().take(self.segments.len().saturating_sub(1)) {
            let crowded = bytes >= self.limits.crowded_bytes;
            let Some(since) = segment.settled_at else { break };
            let retained = now.saturating_since(since) >= self.limits.retain;
            if !retained && !crowded {
                break;
            }
            bytes = bytes.saturating_sub(segment.bytes);
            due.early = due.early.saturating_add(u64::from(!retained));
            (due.last, due.through) = (Some(segment.number), Some(segment.ends.clone()));
        }
        due
    }
}

/// Segments that may be deleted.
#[derive(Debug, Default)]
struct Due {
    /// The number of the last one.
    last: Option<u64>,
    /// Where every lane stood at its end.
    through: Option<Positions>,
    /// How many of them had not been retained long enough.
    early: u64,
}

fn open_directory(dir: &Path) -> Result<File, LogError> {
    File::open(dir).map_err(LogError::io("open", dir))
}

/// Reads frames back that have left memory; keeps the last file open.
#[derive(Debug)]
pub(crate) struct FrameReader {
    dir: PathBuf,
    open: Option<(u64, File)>,
}

impl FrameReader {
    pub(crate) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), open: None }
    }

    /// The frame's body, checked against its chain.
    pub(crate) fn read(&mut self, frame: &FrameRef, chain_before: u64) -> Result<Bytes, LogError> {
        let spot = match &frame.body {
            Body::Held(body) => return Ok(body.clone()),
            Body::Stored(spot) => *spot,
        };
        let path = segment_path(&self.dir, spot.segment);
        let file = match self.open.take() {
            Some((segment, file)) if segment == spot.segment => file,
            _ => File::open(&path).map_err(LogError::io("open", &path))?,
        };
        let mut body = vec![0; spot.len];
        file.read_exact_at(&mut body, spot.offset).map_err(LogError::io("read", &path))?;
        self.open = Some((spot.segment, file));
        if chain::next(chain_before, &body) != frame.end.chain {
            let offset = usize::try_from(spot.offset).unwrap_or(usize::MAX);
            return Err(LogError::corrupt(path, offset, "a frame's chain does not hold"));
        }
        Ok(Bytes::from(body))
    }
}
