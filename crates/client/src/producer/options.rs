//! Limits of a producer, each with its unit.

use std::path::{Path, PathBuf};

use drawdown_types::ProducerId;

use crate::channel::OptionProblem;

/// The least bytes of a frame's body that a producer can work with: one event with its definition.
pub(super) const FRAME_BYTES_MIN: u32 = 8 << 10;
/// Bytes kept free in a frame for one more event and the definition of its series, at most.
pub(super) const EVENT_BYTES_MAX: usize = 4 << 10;
/// The least room for events in memory that a producer can work with.
const MEMORY_BYTES_MIN: u64 = 16 << 10;

/// Where events are kept until the ledger has settled them. There is no default but a log whose directory has to
/// be named: whoever keeps events in memory only has to say so.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Keep {
    /// In a durable log in this directory, which belongs to one producer and is never copied. What is durable is
    /// counted once, whatever dies.
    Log(PathBuf),
    /// **In the memory of this process only.** Whatever is not settled when the process ends, is killed or loses
    /// its machine is lost, also where it was flushed or applied; nobody can say what it was. Nothing is ever
    /// counted twice. An id that is used like this is never used with a log as well.
    Memory {
        /// Most bytes of events that are not settled. Their buffers can take about as much again while they wait
        /// for their lane.
        bytes_max: u64,
    },
}

impl Keep {
    /// Whether what is kept survives the process.
    #[must_use]
    pub const fn is_durable(&self) -> bool {
        matches!(self, Self::Log(_))
    }

    pub(super) fn dir(&self) -> Option<&Path> {
        match self {
            Self::Log(dir) => Some(dir),
            Self::Memory { .. } => None,
        }
    }
}

/// What happens to an event for which there is no room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenFull {
    /// It is refused, and so should be the work that it meters (fail closed).
    #[default]
    Refuse,
    /// It is shed and counted, exactly and as durably as events are kept (fail open).
    Shed,
}

/// How a producer keeps and sends events.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProducerOptions {
    /// Where events are kept until they are settled.
    pub keep: Keep,
    /// Who this is: needed for a new log and without a log, checked against an old log where given.
    pub producer_id: Option<ProducerId>,
    /// How long an event may wait for others before a frame is cut and made durable (or kept), in ms.
    pub linger_ms: u64,
    /// How long it may wait where making groups durable takes long (a slow disk, or one that many producers share), in ms:
    /// four times as long as the last groups took, so that what they cost is shared by more events. Not more than
    /// `linger_ms`: as long as that at any time.
    pub linger_max_ms: u64,
    /// A group of frames is made durable at once when it has as many bytes.
    pub group_bytes_max: usize,
    /// Most events in memory that are not durable yet; more are refused for the moment.
    pub pending_events_max: u64,
    /// Most bytes of the log on disk. [`Keep::Memory`] has a limit of its own.
    pub log_bytes_max: u64,
    /// A segment file that has as many bytes is followed by a new one.
    pub segment_bytes: u64,
    /// How long settled segments are kept for a restored ledger, in ms. They go earlier when the log
    /// would be full otherwise.
    pub retain_after_settled_ms: u64,
    /// Most bytes on disk, beside the log, for where the frames of deleted segments ended (12 a frame): what a
    /// ledger restored to before them can be told to have lost. Older ones are forgotten, and then in doubt.
    pub freed_bytes_max: u64,
    /// What happens when the log, or the memory for events, is full.
    pub when_full: WhenFull,
    /// Most events of one frame; metering may allow fewer.
    pub frame_events_max: u32,
    /// Most bytes of one frame's body; metering may allow fewer.
    pub frame_bytes_max: u32,
    /// Most series of this log, in its whole life.
    pub series_max: u32,
    /// Most sources whose marks the log keeps, in its whole life.
    pub sources_max: usize,
    /// Most bytes of frames kept in memory until they are sent; others are read back from the log.
    pub unsent_bytes_max: usize,
    /// Compress what is sent with zstd: worth it where the network is slower than a processor. The log is not.
    pub compress: bool,
    /// The first pause before connecting again, in ms; each next one doubles, with jitter.
    pub reconnect_min_ms: u64,
    /// The longest such pause, in ms.
    pub reconnect_max_ms: u64,
    /// A lane that metering stopped for want of room, or because an older stream of this producer or an operator has it in
    /// hand, is tried again on another stream after so long, in ms.
    pub lane_retry_ms: u64,
    /// How long a new log, or a producer without one, waits for metering to register it, in ms.
    pub register_timeout_ms: u64,
    /// How long a producer without a log waits until everything that the process before it had on its way is
    /// settled, in ms; then it says which lane still waits. It goes on waiting.
    pub adopt_timeout_ms: u64,
}

impl Default for ProducerOptions {
    fn default() -> Self {
        Self {
            keep: Keep::Log(PathBuf::new()),
            producer_id: None,
            linger_ms: 5,
            linger_max_ms: 100,
            group_bytes_max: 4 << 20,
            pending_events_max: 1 << 20,
            log_bytes_max: 4 << 30,
            segment_bytes: 64 << 20,
            retain_after_settled_ms: 600_000,
            freed_bytes_max: 1 << 30,
            when_full: WhenFull::Refuse,
            frame_events_max: 8_192,
            frame_bytes_max: 512 << 10,
            series_max: 1_000_000,
            sources_max: 4_096,
            unsent_bytes_max: 32 << 20,
            compress: false,
            reconnect_min_ms: 50,
            reconnect_max_ms: 5_000,
            lane_retry_ms: 60_000,
            register_timeout_ms: 30_000,
            adopt_timeout_ms: 30_000,
        }
    }
}

const HOUR_MS: u64 = 3_600_000;
const WEEK_MS: u64 = 168 * HOUR_MS;

impl ProducerOptions {
    /// Defaults for the log in `dir`.
    #[must_use]
    pub fn at(dir: impl Into<PathBuf>) -> Self {
        Self { keep: Keep::Log(dir.into()), ..Self::default() }
    }

    /// Defaults for a producer that keeps its events [in memory only](Keep::Memory).
    #[must_use]
    pub fn in_memory_only(producer_id: ProducerId, bytes_max: u64) -> Self {
        Self { keep: Keep::Memory { bytes_max }, producer_id: Some(producer_id), ..Self::default() }
    }

    pub(super) const fn kept_bytes_max(&self) -> u64 {
        match self.keep {
            Keep::Log(_) => self.log_bytes_max,
            Keep::Memory { bytes_max } => bytes_max,
        }
    }

    /// Everything that is wrong with these options; empty when they can be used.
    #[must_use]
    pub fn problems(&self) -> Vec<OptionProblem> {
        let mut problems = Vec::new();
        if self.keep.dir().is_some_and(|dir| dir.as_os_str().is_empty()) {
            let problem = "is empty, must name a directory".to_owned();
            problems.push(OptionProblem { field: "keep.log", problem });
        }
        if !self.keep.is_durable() && self.producer_id.is_none() {
            let problem = "is missing, and there is no log that knows it".to_owned();
            problems.push(OptionProblem { field: "producer_id", problem });
        }
        if let Keep::Memory { bytes_max } = self.keep
            && bytes_max < MEMORY_BYTES_MIN
        {
            let problem = format!("is {bytes_max}, must be at least {MEMORY_BYTES_MIN}");
            problems.push(OptionProblem { field: "keep.memory.bytes_max", problem });
        }
        let wide = |value: usize| u64::try_from(value).unwrap_or(u64::MAX);
        for (field, value, min, max) in [
            ("linger_ms", self.linger_ms, 1, 10_000),
            ("linger_max_ms", self.linger_max_ms, 0, 10_000),
            ("group_bytes_max", wide(self.group_bytes_max), 64 << 10, 256 << 20),
            ("pending_events_max", self.pending_events_max, 1, 1 << 26),
            ("segment_bytes", self.segment_bytes, 4 << 10, 4 << 30),
            ("log_bytes_max", self.log_bytes_max, self.segment_bytes.saturating_mul(4), u64::MAX),
            ("retain_after_settled_ms", self.retain_after_settled_ms, 0, WEEK_MS),
            ("frame_events_max", u64::from(self.frame_events_max), 1, 1 << 20),
            ("frame_bytes_max", u64::from(self.frame_bytes_max), u64::from(FRAME_BYTES_MIN), 16 << 20),
            ("series_max", u64::from(self.series_max), 1, 1 << 26),
            ("sources_max", wide(self.sources_max), 1, 1 << 20),
            ("reconnect_min_ms", self.reconnect_min_ms, 1, HOUR_MS),
            ("reconnect_max_ms", self.reconnect_max_ms, self.reconnect_min_ms, HOUR_MS),
            ("lane_retry_ms", self.lane_retry_ms, 1, HOUR_MS),
            ("register_timeout_ms", self.register_timeout_ms, 1, HOUR_MS),
            ("adopt_timeout_ms", self.adopt_timeout_ms, 1, WEEK_MS),
        ] {
            if !(min..=max).contains(&value) {
                let problem = format!("is {value}, must lie between {min} and {max}");
                problems.push(OptionProblem { field, problem });
            }
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wrong_option_is_named_at_once() {
        assert!(ProducerOptions::at("log").problems().is_empty());
        let memory = ProducerOptions::in_memory_only(ProducerId::generate(), 1 << 20);
        assert!(memory.problems().is_empty());
        let wrong = ProducerOptions { producer_id: None, keep: Keep::Memory { bytes_max: 1 }, ..memory };
        let fields: Vec<_> = wrong.problems().iter().map(|problem| problem.field).collect();
        assert_eq!(fields, ["producer_id", "keep.memory.bytes_max"]);
        let wrong = ProducerOptions {
            linger_ms: 0,
            log_bytes_max: 1,
            frame_bytes_max: 100,
            reconnect_max_ms: 1,
            ..ProducerOptions::default()
        };
        let fields: Vec<_> = wrong.problems().iter().map(|problem| problem.field).collect();
        assert_eq!(fields, ["keep.log", "linger_ms", "log_bytes_max", "frame_bytes_max", "reconnect_max_ms"]);
    }

    #[test]
    fn memory_is_never_chosen_by_default() {
        let options: ProducerOptions = serde_json::from_str("{}").unwrap();
        assert_eq!(options, ProducerOptions::default());
        assert!(options.keep.is_durable() && !options.problems().is_empty(), "a directory has to be named");
        let asked = r#"{ "keep": { "memory": { "bytes_max": 65536 } } }"#;
        let options: ProducerOptions = serde_json::from_str(asked).unwrap();
        assert_eq!(options.keep, Keep::Memory { bytes_max: 1 << 16 });
    }
}
