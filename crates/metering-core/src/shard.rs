//! Shards, lanes and positions: where an event belongs, for ever.
//!
//! A lane (producer, map version, shard) is fixed when an event is appended to its log and never
//! computed again: placing old events anew on a resend would count them twice.

use std::{fmt, num::NonZeroU32, str::FromStr};

use drawdown_types::ProducerId;
use xxhash_rust::xxh3::xxh3_64;

use crate::chain;

/// The highest sequence of a lane: the largest integer that Redis' scripts compare exactly.
pub const SEQUENCE_MAX: u64 = (1 << 53) - 1;

/// The shard of a client id: its xxh3 hash modulo the number of shards of the map.
#[must_use]
pub fn shard_of(client_id: &str, shard_count: NonZeroU32) -> u32 {
    let rest = xxh3_64(client_id.as_bytes()).checked_rem(u64::from(shard_count.get())).unwrap_or_default();
    u32::try_from(rest).unwrap_or_default()
}

/// How client ids are spread over shards, under one version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardMap {
    /// The version, from 1.
    pub version: u32,
    /// The number of shards; fixed for the version.
    pub shard_count: NonZeroU32,
}

impl ShardMap {
    /// The shard of a client id under this map.
    #[must_use]
    pub fn shard_of(self, client_id: &str) -> u32 {
        shard_of(client_id, self.shard_count)
    }
}

/// One gapless sequence of events of one producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lane {
    /// Whose log.
    pub producer: ProducerId,
    /// The map version it was written under.
    pub map_version: u32,
    /// The shard.
    pub shard: u32,
}

/// The text is no lane.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a lane of the form prod_…/map version/shard")]
pub struct LaneError(pub String);

impl fmt::Display for Lane {
    /// `prod_…/1/3`: producer, map version, shard.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.producer, self.map_version, self.shard)
    }
}

impl FromStr for Lane {
    type Err = LaneError;

    fn from_str(text: &str) -> Result<Self, LaneError> {
        let parse = || {
            let (producer, rest) = text.split_once('/')?;
            let (map_version, shard) = rest.split_once('/')?;
            Some(Self {
                producer: producer.parse().ok()?,
                map_version: map_version.parse().ok()?,
                shard: shard.parse().ok()?,
            })
        };
        parse().ok_or_else(|| LaneError(text.chars().take(128).collect()))
    }
}

/// A position in a lane: after an event, or before the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Position {
    /// The last event's sequence; 0 before the first.
    pub sequence: u64,
    /// The chain after the frame that ends there.
    pub chain: u64,
}

impl Position {
    /// Before the first event.
    pub const START: Self = Self { sequence: 0, chain: chain::START };
}

impl Default for Position {
    fn default() -> Self {
        Self::START
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use drawdown_types::ProducerId;

    #[test]
    fn lanes_survive_their_text() {
        let lane = Lane { producer: ProducerId::generate(), map_version: 7, shard: 255 };
        assert_eq!(lane.to_string().parse(), Ok(lane));
        for text in ["", "prod_x/1/2", "1/2", "prod_01j2gv5gynfsfrn6rc3mq3yjjv/1", "a/b/c/d"] {
            assert!(text.parse::<Lane>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_placement_is_fixed_for_ever() {
        let count = NonZeroU32::new(16).unwrap();
        // By another implementation of xxh3.
        for (client_id, shard) in [("", 2), ("client_a", 4), ("client_b", 6), ("client_c", 4)] {
            assert_eq!(shard_of(client_id, count), shard, "{client_id}");
        }
    }
}
