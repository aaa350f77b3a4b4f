//! Stable reasons that this crate refuses with. Callers match on them: they are never renamed.

/// A frame has no events.
pub const FRAME_EMPTY: &str = "FRAME_EMPTY";
/// A frame has more bytes or events than the service takes.
pub const FRAME_TOO_LARGE: &str = "FRAME_TOO_LARGE";
/// A frame's bytes are no frame of its form, or its columns disagree.
pub const FRAME_MALFORMED: &str = "FRAME_MALFORMED";
/// A frame was changed on its way: its chain is not the one that its producer has.
pub const FRAME_DAMAGED: &str = "FRAME_DAMAGED";
/// A frame uses a series number that the stream has not defined.
pub const SERIES_UNKNOWN: &str = "SERIES_UNKNOWN";
/// A series number was defined again as another series.
pub const SERIES_CONFLICT: &str = "SERIES_CONFLICT";
/// A definition of a series does not hold.
pub const SERIES_INVALID: &str = "SERIES_INVALID";
/// A stream defines more series than the service takes.
pub const SERIES_TOO_MANY: &str = "SERIES_TOO_MANY";
/// A client id belongs to another shard than its frame's lane.
pub const SHARD_MISMATCH: &str = "SHARD_MISMATCH";
/// A frame's receipt lies too far ahead of the service's clock.
pub const RECEIPT_IN_FUTURE: &str = "RECEIPT_IN_FUTURE";
/// A frame does not start where its lane ends.
pub const LANE_OUT_OF_SEQUENCE: &str = "LANE_OUT_OF_SEQUENCE";
/// A frame's lane was not attached.
pub const LANE_UNKNOWN: &str = "LANE_UNKNOWN";
/// The same sequence holds other events than those known: a cloned or restored log.
pub const DIVERGED: &str = "DIVERGED";
/// A newer epoch of the producer is known.
pub const FENCED: &str = "FENCED";
/// An event's meter is not in the catalogue.
pub const METER_UNKNOWN: &str = "METER_UNKNOWN";
/// An event's meter aggregates in a way that this version can not: its usage would be counted wrongly.
pub const AGGREGATION_UNSUPPORTED: &str = "AGGREGATION_UNSUPPORTED";
/// An event's series names a dimension that its meter does not allow.
pub const DIMENSION_UNKNOWN: &str = "DIMENSION_UNKNOWN";
/// An event's series lacks the dimension whose distinct values its meter counts.
pub const DIMENSION_MISSING: &str = "DIMENSION_MISSING";
/// A line would have more distinct values than one may.
pub const VALUES_TOO_MANY: &str = "VALUES_TOO_MANY";
/// An event carries more than 2^48 base units.
pub const QUANTITY_TOO_LARGE: &str = "QUANTITY_TOO_LARGE";
/// A sum would pass 64 bits with this event.
pub const QUANTITY_OVERFLOW: &str = "QUANTITY_OVERFLOW";
/// An event's time lies too far ahead of its receipt.
pub const EVENT_TIME_IN_FUTURE: &str = "EVENT_TIME_IN_FUTURE";
/// An event's time lies too far before its receipt.
pub const EVENT_TIME_TOO_OLD: &str = "EVENT_TIME_TOO_OLD";
