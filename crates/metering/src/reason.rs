//! Stable reasons that this service answers with, beside those of `drawdown-metering-core`.
//! Each is listed in `proto/README.md`.

/// A stream began without a hello.
pub const HELLO_MISSING: &str = "HELLO_MISSING";
/// A stream said hello twice.
pub const HELLO_REPEATED: &str = "HELLO_REPEATED";
/// A message carries nothing, or a field that has to be there is not.
pub const REQUEST_INVALID: &str = "REQUEST_INVALID";
/// A message's bytes are no single request of the contract.
pub const MESSAGE_MALFORMED: &str = "MESSAGE_MALFORMED";
/// A message has more bytes than this instance takes, as sent or when decompressed.
pub const MESSAGE_TOO_LARGE: &str = "MESSAGE_TOO_LARGE";
/// An id is not of the form `prefix_…`.
pub const ID_MALFORMED: &str = "ID_MALFORMED";
/// The ledger does not know the producer.
pub const PRODUCER_UNKNOWN: &str = "PRODUCER_UNKNOWN";
/// No map has this version, or its shards do not reach so far.
pub const MAP_VERSION_UNKNOWN: &str = "MAP_VERSION_UNKNOWN";
/// A newer epoch of the producer is registered.
pub const FENCED: &str = "FENCED";
/// This instance has as many streams as it takes.
pub const STREAMS_EXHAUSTED: &str = "STREAMS_EXHAUSTED";
/// A stream, or a shard, has as many lanes as this instance takes.
pub const LANES_EXHAUSTED: &str = "LANES_EXHAUSTED";
/// Another stream of the same producer took the lane.
pub const LANE_TAKEN: &str = "LANE_TAKEN";
/// The ledger refuses the lane's usage whenever it comes alone: an operator has to look.
pub const LANE_SET_ASIDE: &str = "LANE_SET_ASIDE";
/// As many watch live usage at this instance as may.
pub const WATCHERS_EXHAUSTED: &str = "WATCHERS_EXHAUSTED";
/// As many queries of live usage are under way at this instance as may.
pub const QUERIES_EXHAUSTED: &str = "QUERIES_EXHAUSTED";
/// A query or a watcher asks for more than one answer may have, or read.
pub const USAGE_TOO_LARGE: &str = "USAGE_TOO_LARGE";
/// Fields of an event by id are wrong.
pub const EVENT_INVALID: &str = "EVENT_INVALID";
/// The id of an event is recorded with another content.
pub const EVENT_ID_CONFLICT: &str = "EVENT_ID_CONFLICT";
/// A call has more events than it may, or none.
pub const EVENTS_COUNT: &str = "EVENTS_COUNT";
/// As many events by id wait as may.
pub const EVENTS_WAITING: &str = "EVENTS_WAITING";
/// A body over HTTP is of a type that is not taken.
pub const CONTENT_TYPE_UNKNOWN: &str = "CONTENT_TYPE_UNKNOWN";
