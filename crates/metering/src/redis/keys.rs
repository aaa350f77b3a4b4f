//! All key and field formats, in one place.
//!
//! Every key of a shard carries the same hash tag, so that the two keys of a write share a slot.

use std::fmt::Write as _;

use drawdown_metering_core::shard::Lane;
use drawdown_types::ProducerId;
use uuid::Uuid;

/// Between the fixed parts of a key and the number of the shard.
const HEAD_SUFFIX: &str = ":h";

/// What all keys of an installation begin with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace(String);

/// A text that can not begin keys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} must have 1 to {max} characters of a-z, A-Z, 0-9, '-' and '_'", max = Namespace::LENGTH_MAX)]
pub struct NamespaceError(String);

impl Namespace {
    /// Most characters.
    pub const LENGTH_MAX: usize = 64;

    /// Checks `text`: a brace or a glob character in it would break hash tags and sweeps.
    pub fn new(text: &str) -> Result<Self, NamespaceError> {
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if text.is_empty() || text.len() > Self::LENGTH_MAX || !text.chars().all(fits) {
            return Err(NamespaceError(text.chars().take(Self::LENGTH_MAX).collect()));
        }
        Ok(Self(text.to_owned()))
    }
}

/// Makes keys.
#[derive(Clone, Debug)]
pub struct Keys {
    namespace: Namespace,
}

impl Keys {
    /// Keys of `namespace`.
    pub const fn new(namespace: Namespace) -> Self {
        Self { namespace }
    }

    /// The head of a shard.
    pub fn head(&self, shard: u32) -> String {
        format!("{}:{{{shard}}}{HEAD_SUFFIX}", self.namespace.0)
    }

    /// The list of blobs of a batch.
    pub fn batch(&self, shard: u32, generation: u64, batch: u64) -> String {
        format!("{}:{{{shard}}}:b:{}:{batch}", self.namespace.0, hex(generation))
    }

    /// Matches the lists of all batches of a shard.
    pub fn batches_pattern(&self, shard: u32) -> String {
        format!("{}:{{{shard}}}:b:*", self.namespace.0)
    }

    /// The lease of a shard.
    pub fn lease(&self, shard: u32) -> String {
        format!("{}:{{{shard}}}:w", self.namespace.0)
    }

    /// The workers that are there.
    pub fn workers(&self) -> String {
        format!("{}:{{w}}:w", self.namespace.0)
    }

    /// Generation and batch of a key that [`Keys::batch`] made for that shard.
    pub fn parse_batch(&self, shard: u32, key: &str) -> Option<(u64, u64)> {
        let rest = key.strip_prefix(&format!("{}:{{{shard}}}:b:", self.namespace.0))?;
        let (generation, batch) = rest.split_once(':')?;
        Some((parse_hex(generation)?, batch.parse().ok()?))
    }
}

/// A lane inside its shard, as the head names it: `<map version>.<producer>`.
pub(super) fn encode_lane(lane: Lane) -> String {
    format!("{}.{}", lane.map_version, lane.producer.as_uuid().simple())
}

/// The lane of a shard that [`encode_lane`] named.
pub(super) fn decode_lane(shard: u32, text: &str) -> Option<Lane> {
    let (map_version, producer) = text.split_once('.')?;
    let producer = ProducerId::from_uuid(Uuid::try_parse(producer).ok()?);
    let lane = Lane { producer, map_version: map_version.parse().ok()?, shard };
    // A second spelling of a lane would hide the first.
    (encode_lane(lane) == text).then_some(lane)
}

/// 16 lower-case hex digits: how a number that Lua can not hold exactly is stored.
pub(super) fn hex(number: u64) -> String {
    let mut text = String::with_capacity(16);
    push_hex(&mut text, number);
    text
}

/// Appends what [`hex`] makes.
pub(super) fn push_hex(text: &mut String, number: u64) {
    // Writing to a String does not fail.
    let _ = write!(text, "{number:016x}");
}

/// Reads what [`hex`] made.
pub(super) fn parse_hex(text: &str) -> Option<u64> {
    let plain = text.len() == 16 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if plain { u64::from_str_radix(text, 16).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_keys_of_a_shard_share_one_hash_tag() {
        let keys = Keys::new(Namespace::new("m").unwrap());
        assert_eq!(keys.head(7), "m:{7}:h");
        assert_eq!(keys.lease(7), "m:{7}:w");
        assert_eq!(keys.batch(7, 0xabc, 12), "m:{7}:b:0000000000000abc:12");
        assert_eq!(keys.parse_batch(7, "m:{7}:b:0000000000000abc:12"), Some((0xabc, 12)));
        for other in
            ["m:{8}:b:0000000000000abc:12", "m:{7}:b:abc:12", "m:{7}:b:0000000000000ABC:12", "m:{7}:h"]
        {
            assert_eq!(keys.parse_batch(7, other), None, "{other}");
        }
    }

    #[test]
    fn a_lane_reads_back() {
        let lane = Lane { producer: ProducerId::generate(), map_version: 3, shard: 9 };
        assert_eq!(decode_lane(9, &encode_lane(lane)), Some(lane));
        for text in ["3", "x.00000000000000000000000000000000", "3.00000000-0000-0000-0000-000000000000"] {
            assert_eq!(decode_lane(9, text), None, "{text}");
        }
    }

    #[test]
    fn a_namespace_has_no_braces_and_no_globs() {
        for text in ["", "a{b}", "a*", "a:b", &"a".repeat(65)] {
            assert!(Namespace::new(text).is_err(), "{text}");
        }
    }
}
