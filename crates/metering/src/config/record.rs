//! The section `[metering.record]`: callers without a log, whose events have ids.

use drawdown_service::config::{Count, Millis, Problems};
use serde::Deserialize;

/// More events in one call to the ledger than it may take.
const EVENTS_PER_POST_MAX: usize = 10_000;

/// Limits of events by id. Memory: `events_waiting_max` × the bytes of an event (about 2 KiB at most), and the calls in hand, which
/// read take up to 25 × `call_bytes_max` each: an empty member of an event takes two bytes as sent and fifty here. Events are
/// counted before any is read.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordOptions {
    /// Events of one call.
    pub events_per_call_max: Count,
    /// Events of one call to the ledger.
    pub events_per_post_max: Count,
    /// Events that wait for the ledger, of all calls.
    pub events_waiting_max: Count,
    /// Calls that wait in one slot, and so many more for each other cell.
    pub calls_per_slot_max: Count,
    /// How long a call waits for its answers, in ms.
    pub wait_max_ms: Millis,
    /// Bytes of a call: of a body over HTTP or a message of gRPC.
    pub call_bytes_max: Count,
    /// HTTP calls in hand at once.
    pub http_calls_max: Count,
}

impl Default for RecordOptions {
    fn default() -> Self {
        Self {
            events_per_call_max: Count::of(1000),
            events_per_post_max: Count::of(2000),
            events_waiting_max: Count::of(20_000),
            calls_per_slot_max: Count::of(20_000),
            wait_max_ms: Millis::from_millis(10_000),
            call_bytes_max: Count::of(2 << 20),
            http_calls_max: Count::of(512),
        }
    }
}

impl RecordOptions {
    pub(super) fn check(&self, problems: &mut Problems) {
        let (call, post) = (self.events_per_call_max, self.events_per_post_max);
        problems.ensure(call <= post, "record.events_per_post_max", "is below events_per_call_max");
        let fits = post.get() <= EVENTS_PER_POST_MAX;
        problems.ensure(fits, "record.events_per_post_max", format!("is above {EVENTS_PER_POST_MAX}"));
        let room = self.events_waiting_max >= call;
        problems.ensure(room, "record.events_waiting_max", "is below events_per_call_max");
    }
}
