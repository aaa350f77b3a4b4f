//! Replay: an access log through a producer, once.
//!
//! Shape: a blocking task reads batches of lines; this task parses, maps and appends them, and waits
//! where the producer has no room, so nothing piles up. Every line moves the source's mark in the
//! producer's log, together with its event if it gave one: a replay that is killed goes on at the line
//! after the last durable event, and its counts are those of the whole source.
//!
//! Fixed by the first run, before its first event is durable: the shift. A replay that goes on keeps it,
//! or the same log would be spread over two periods.

use std::{collections::BTreeMap, fmt, path::PathBuf, sync::Arc, time::Duration};

use drawdown_client::producer::{AppendError, Appended, Mark, Outcome, Usage, WaitError};
use drawdown_types::{Clock, Timestamp};
use tokio::time::Instant;

use crate::{
    position::{Position, Tally},
    progress::{Step, Watcher},
    rules::{Mapped, Rules},
    sink::Sink,
    source::{Batch, Input, Left, Line, Source, SourceError},
};

/// Malformed lines that are told with their number and kept for the summary; all are counted.
pub const MALFORMED_TOLD_MAX: usize = 20;
/// Waiting for less than this is not worth a timer.
const PACE_GRAIN: Duration = Duration::from_millis(2);
/// How often a watcher hears of settlement.
const WATCH_INTERVAL: Duration = Duration::from_millis(200);

/// How fast a log is replayed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Speed {
    /// As fast as the producer takes it.
    #[default]
    Max,
    /// So many seconds of the log in one second.
    Times(std::num::NonZeroU32),
}

/// Where the log's last instant is moved to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShiftEnd {
    /// To the present.
    Now,
    /// To this instant.
    At(Timestamp),
}

/// What to replay, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where lines come from.
    pub input: Input,
    /// The source's name, instead of its first line.
    pub source: Option<String>,
    /// Which line is whose usage.
    pub rules: Rules,
    /// How fast.
    pub speed: Speed,
    /// Moves every instant so that the log's last one is this. Needs a file.
    pub shift_end: Option<ShiftEnd>,
    /// Counts what was counted before once more.
    pub from_start: bool,
    /// Waits until everything is settled.
    pub wait: bool,
    /// Where the summary is written as JSON, besides being returned.
    pub summary: Option<PathBuf>,
}

impl Options {
    /// At full speed, unshifted, waiting until everything is settled.
    #[must_use]
    pub const fn new(input: Input, rules: Rules) -> Self {
        Self {
            input,
            source: None,
            rules,
            speed: Speed::Max,
            shift_end: None,
            from_start: false,
            wait: true,
            summary: None,
        }
    }
}

/// A line that could not be used.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct MalformedLine {
    /// Its number, from 1.
    pub line: u64,
    /// What is wrong with it.
    pub problem: String,
}

/// What came of a replay.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct ReplaySummary {
    /// The source as the producer's log knows it; empty for a source without a line.
    pub source: String,
    /// Lines of the source by what became of them, over all runs since it was counted from its start.
    #[serde(flatten)]
    pub tally: Tally,
    /// The same for this run alone.
    pub this_run: Tally,
    /// The first malformed lines of this run.
    pub first_malformed: Vec<MalformedLine>,
    /// What was added to every instant, in ms.
    pub shift_ms: i64,
    /// The shift was fixed by an earlier run, whatever was asked of this one.
    pub shift_kept: bool,
    /// Events of this run that were shed because the log was full.
    pub shed: u64,
    /// Events that metering refused, by reason, as far as this run was told.
    pub refused: BTreeMap<String, u64>,
    /// Events of the producer's whole log that are settled, refused ones among them.
    pub settled: u64,
    /// Events of the producer's whole log that are not settled yet.
    pub unsettled: u64,
    /// From the first event of this run until everything was settled, in ms; absent where it was not
    /// waited for or nothing was new.
    pub first_event_to_settled_ms: Option<u64>,
}

impl fmt::Display for ReplaySummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tally { lines, events, malformed, ignored } = self.tally;
        if self.this_run.lines == 0 {
            write!(f, "nothing new: all {lines} lines were replayed before")?;
        } else {
            write!(f, "{} new lines", self.this_run.lines)?;
        }
        write!(f, "; in all {lines} lines: {events} events, {malformed} malformed, {ignored} ignored")?;
        write!(f, "; log: {} settled, {} on their way", self.settled, self.unsettled)?;
        for (reason, count) in &self.refused {
            write!(f, "; {count} refused: {reason}")?;
        }
        if self.shed > 0 {
            write!(f, "; {} shed", self.shed)?;
        }
        Ok(())
    }
}

/// Why a replay ended early. What it had appended is in the producer's log and goes on its way.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The source can not be read or continued.
    #[error("the source can not be replayed")]
    Source(#[source] SourceError),
    /// A shift needs the log's last instant before its first line is sent.
    #[error("--shift-end needs a file, standard input can not be read twice")]
    ShiftNeedsFile,
    /// The producer's log holds a position that this version can not read.
    #[error("the log's position in this source was written by another version")]
    PositionUnreadable,
    /// The producer takes no more events.
    #[error("the producer takes no more events")]
    Append(#[source] AppendError),
    /// Something that was waited for will not come.
    #[error("the producer will not get there")]
    Wait(#[source] WaitError),
    /// The summary could not be written.
    #[error("the summary can not be written to {}", path.display())]
    Summary {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A task was interrupted.
    #[error("reading was interrupted")]
    Interrupted(#[source] tokio::task::JoinError),
}

/// Replays a log.
///
/// # Errors
/// [`ReplayError`]. Malformed lines and refused events are none; they are in the summary.
pub async fn replay<S: Sink>(
    options: Options,
    producer: &S,
    clock: Arc<dyn Clock>,
    watcher: &mut dyn Watcher,
) -> Result<ReplaySummary, ReplayError> {
    let (input, name) = (options.input.clone(), options.source.clone());
    let source = blocking(move || Source::open(&input, name.as_deref())).await?;
    let Some(identity) = source.identity.clone() else {
        watcher.end();
        let summary = summarized(ReplaySummary::default(), producer);
        write_summary(&summary, options.summary.as_ref())?;
        return Ok(summary);
    };
    let known = producer.mark_of(&identity).filter(|_| !options.from_start);
    let known =
        known.map(|mark| Position::decode(&mark).ok_or(ReplayError::PositionUnreadable)).transpose()?;
    let position = match known {
        Some(position) => position,
        None => Position::start(shift(&options, &*clock).await?),
    };
    let (source, grown) = blocking(move || {
        let mut source = source;
        let grown = source.skip(position.left)?;
        Ok((source, grown))
    })
    .await?;
    if grown {
        watcher.note(format_args!("line {}: has grown since it was counted", position.left.line));
    }
    if known.is_none() {
        // The shift is durable before any event that it moved.
        let position = position.encode();
        producer.mark(Mark { source: &identity, position: &position }).map_err(ReplayError::Append)?;
        producer.flush().await.map_err(ReplayError::Wait)?;
    }
    let bytes = source.bytes;
    let mut run = Run {
        producer,
        watcher,
        rules: &options.rules,
        pace: Pace { speed: options.speed, start: None },
        identity,
        bytes,
        position,
        at_start: position.tally,
        first_event: None,
        summary: ReplaySummary {
            shift_kept: known.is_some() && position.shifted,
            ..ReplaySummary::default()
        },
    };
    let outcome = run.all(source, options.wait).await;
    run.watcher.end();
    outcome?;
    let summary = run.finish();
    write_summary(&summary, options.summary.as_ref())?;
    Ok(summary)
}

/// What to add to every instant; `None` where the log is not shifted.
async fn shift(options: &Options, clock: &dyn Clock) -> Result<Option<i64>, ReplayError> {
    let Some(shift_end) = options.shift_end else { return Ok(None) };
    let Input::File(path) = options.input.clone() else { return Err(ReplayError::ShiftNeedsFile) };
    let format = options.rules.format;
    let last = blocking(move || {
        let mut last: Option<Timestamp> = None;
        Source::scan(&path, |line| {
            if let Ok(entry) = format.read(line.text) {
                last = last.max(Some(entry.at));
            }
        })?;
        Ok(last)
    })
    .await?;
    let end = match shift_end {
        ShiftEnd::Now => clock.now(),
        ShiftEnd::At(end) => end,
    };
    Ok(Some(last.map_or(0, |last| end.as_micros().saturating_sub(last.as_micros()))))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SourceError> + Send + 'static,
) -> Result<T, ReplayError> {
    tokio::task::spawn_blocking(work).await.map_err(ReplayError::Interrupted)?.map_err(ReplayError::Source)
}

fn write_summary(summary: &ReplaySummary, path: Option<&PathBuf>) -> Result<(), ReplayError> {
    let Some(path) = path else { return Ok(()) };
    let failed = |source| ReplayError::Summary { path: path.clone(), source };
    let json = serde_json::to_vec_pretty(summary).map_err(|error| failed(error.into()))?;
    std::fs::write(path, json).map_err(failed)
}

fn summarized(summary: ReplaySummary, producer: &impl Sink) -> ReplaySummary {
    let progress = producer.progress();
    ReplaySummary {
        refused: progress.refused,
        settled: progress.settled,
        unsettled: progress.appended.saturating_sub(progress.settled),
        ..summary
    }
}

/// When a line is due.
#[derive(Debug)]
struct Pace {
    speed: Speed,
    /// The first instant of this run and when it was sent.
    start: Option<(Timestamp, Instant)>,
}

impl Pace {
    /// How long to wait before an event of instant `at`; lines that go back in time are due at once.
    fn wait(&mut self, at: Timestamp, now: Instant) -> Option<Duration> {
        let Speed::Times(times) = self.speed else { return None };
        let (first, started) = *self.start.get_or_insert((at, now));
        let due = at.saturating_since(first).checked_div(times.get()).unwrap_or_default();
        due.checked_sub(now.saturating_duration_since(started)).filter(|wait| *wait >= PACE_GRAIN)
    }
}

struct Run<'a, S> {
    producer: &'a S,
    watcher: &'a mut dyn Watcher,
    rules: &'a Rules,
    pace: Pace,
    identity: Vec<u8>,
    bytes: Option<u64>,
    position: Position,
    at_start: Tally,
    first_event: Option<Instant>,
    summary: ReplaySummary,
}

impl<S: Sink> Run<'_, S> {
    async fn all(&mut self, source: Source, wait: bool) -> Result<(), ReplayError> {
        let read = self.read(source).await;
        // Also after a fault: what was read is counted, and the log says so.
        self.producer.flush().await.map_err(ReplayError::Wait)?;
        read?;
        if wait { self.settle().await } else { Ok(()) }
    }

    async fn read(&mut self, source: Source) -> Result<(), ReplayError> {
        let mut batches = source.into_batches();
        while let Some(batch) = batches.recv().await {
            self.batch(&batch.map_err(ReplayError::Source)?).await?;
            self.show();
        }
        Ok(())
    }

    async fn batch(&mut self, batch: &Batch) -> Result<(), ReplayError> {
        for line in batch.lines() {
            self.line(&line).await?;
        }
        Ok(())
    }

    async fn line(&mut self, line: &Line<'_>) -> Result<(), ReplayError> {
        let number = self.position.left.line.saturating_add(1);
        self.position.left =
            Left { offset: line.end, line: number, line_hash: line.hash(), terminated: line.terminated };
        self.position.tally.lines = self.position.tally.lines.saturating_add(1);
        let rules = self.rules;
        let entry = match rules.format.read(line.text) {
            Ok(entry) => entry,
            Err(error) => return self.malformed(&error.to_string()).await,
        };
        let usage = match rules.map(&entry) {
            Mapped::Usage(usage) => usage,
            Mapped::Ignored => {
                self.position.tally.ignored = self.position.tally.ignored.saturating_add(1);
                return self.mark().await;
            }
            Mapped::Unusable { field, needed } => {
                return self.malformed(&format!("field {field} is not {needed}")).await;
            }
        };
        let shifted = entry.at.as_micros().checked_add(self.position.shift_micros);
        let Some(at) = shifted.and_then(|micros| Timestamp::from_micros(micros).ok()) else {
            return self.malformed("the shifted instant lies outside the years 0001 to 9999").await;
        };
        if let Some(wait) = self.pace.wait(entry.at, Instant::now()) {
            self.show();
            tokio::time::sleep(wait).await;
        }
        let dimensions: Vec<(&str, &str)> =
            usage.dimensions.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let outcome = if usage.failed { Outcome::Failed } else { Outcome::Succeeded };
        self.append(&Usage {
            client_id: usage.client_id,
            meter: usage.meter.as_str(),
            quantity: usage.quantity,
            at,
            outcome,
            dimensions: &dimensions,
            hold_id: None,
        })
        .await
    }

    async fn append(&mut self, usage: &Usage<'_>) -> Result<(), ReplayError> {
        self.position.tally.events = self.position.tally.events.saturating_add(1);
        let position = self.position.encode();
        loop {
            let mark = Mark { source: &self.identity, position: &position };
            match self.producer.append(usage, mark) {
                Ok(appended) => {
                    let shed = u64::from(appended == Appended::Shed);
                    self.summary.shed = self.summary.shed.saturating_add(shed);
                    self.first_event.get_or_insert_with(Instant::now);
                    return Ok(());
                }
                Err(AppendError::Invalid(faults)) => {
                    self.position.tally.events = self.position.tally.events.saturating_sub(1);
                    let faults: Vec<_> = faults.iter().map(ToString::to_string).collect();
                    return self.malformed(&faults.join("; ")).await;
                }
                Err(error) if error.is_transient() => {
                    self.show();
                    self.producer.ready().await.map_err(ReplayError::Wait)?;
                }
                Err(error) => return Err(ReplayError::Append(error)),
            }
        }
    }

    async fn malformed(&mut self, problem: &str) -> Result<(), ReplayError> {
        self.position.tally.malformed = self.position.tally.malformed.saturating_add(1);
        if self.summary.first_malformed.len() < MALFORMED_TOLD_MAX {
            let line = self.position.left.line;
            self.watcher.note(format_args!("line {line}: {problem}"));
            self.summary.first_malformed.push(MalformedLine { line, problem: problem.to_owned() });
        }
        self.mark().await
    }

    /// Moves the source's position past a line that gave no event.
    async fn mark(&self) -> Result<(), ReplayError> {
        let position = self.position.encode();
        self.producer
            .mark(Mark { source: &self.identity, position: &position })
            .map_err(ReplayError::Append)?;
        // A log of nothing but such lines would never let the runtime do anything else.
        tokio::task::consume_budget().await;
        Ok(())
    }

    fn show(&mut self) {
        let progress = self.producer.progress();
        self.watcher.step(&Step {
            offset: self.position.left.offset,
            bytes: self.bytes,
            tally: self.position.tally,
            settled: progress.settled,
            unsettled: progress.appended.saturating_sub(progress.settled),
        });
    }

    async fn settle(&mut self) -> Result<(), ReplayError> {
        let producer = self.producer;
        let settled = producer.await_settled();
        tokio::pin!(settled);
        let mut interval = tokio::time::interval(WATCH_INTERVAL);
        loop {
            tokio::select! {
                outcome = &mut settled => {
                    outcome.map_err(ReplayError::Wait)?;
                    break;
                }
                _ = interval.tick() => self.show(),
            }
        }
        self.summary.first_event_to_settled_ms =
            self.first_event.map(|first| u64::try_from(first.elapsed().as_millis()).unwrap_or(u64::MAX));
        Ok(())
    }

    fn finish(self) -> ReplaySummary {
        let summary = ReplaySummary {
            source: String::from_utf8_lossy(&self.identity).into_owned(),
            tally: self.position.tally,
            this_run: self.position.tally.since(&self.at_start),
            shift_ms: self.position.shift_micros.checked_div(1000).unwrap_or_default(),
            ..self.summary
        };
        summarized(summary, self.producer)
    }
}

#[cfg(test)]
mod tests;
