//! The packed blob: one flush of one instance, as one entry of a batch's list in Redis.
//!
//! **Entry** = index (4 bytes, big endian) ++ blob. The index is *not* part of the blob: Redis puts it
//! in front at the append (index := n), because several instances append to one batch and none of them
//! knows n before. The blob ends with its checksum (xxh3, 8 bytes, big endian), which the instance sends
//! beside it, and `apply` extends the batch's fingerprint with it, by what a script can compute exactly:
//! `f(0) = "0"`, `f(n+1) = sha1hex(f(n) ++ ":" ++ checksum as 16 hex digits)`. Order and number of the
//! blobs are inside the fingerprint, so an index that was changed disagrees with the place of its entry.
//!
//! **Names.** A series has a number in its blob's dictionary: a random 64-bit id of one instance. Its name
//! (the canonical bytes) is written in the first blob of an open batch that uses it. [`NameBook`] trusts
//! its names only after [`NameBook::commit`], that is after `apply` said OK: encoding again without it, or
//! for another generation or batch, takes the fresh id that the caller passes and names everything anew.
//! So a late or lost answer can never book units to another series.
//!
//! **Versions.** `DDb1` can say that a series is summed or counted. `DDb2` can also say that the largest quantity is
//! kept, or that the series is a value (of the dimension at a place, one byte more). A blob is of the first version
//! wherever that can say it, so that a worker which knows no other is stopped only by what it can not merge.
//!
//! Layout, integers as varints unless a width is given: `DDb1` or `DDb2` · generation (8) · batch · shard · dictionary (8) ·
//! first · names (aggregation (1), place (1) of a value, canonical bytes) · lanes (producer (16), map version, epoch, from, events − 1,
//! chain before (8), chain after (8)) · clamped · refused (reason, events) · events · quantity (16) · window pairs ·
//! counters (name, pair, events, quantity) · checksum (8). Bytes once written must be read for ever.

mod decode;
mod encode;

pub use decode::{Counter, Decoded, Fault, Name};
pub use encode::{Blob, NameBook};

/// Bytes of the index that Redis puts before a blob.
pub const INDEX_BYTES: usize = 4;

/// The fingerprint of a batch without blobs.
pub const FINGERPRINT_START: &str = "0";

const MAGIC_1: &[u8; 4] = b"DDb1";
const MAGIC_2: &[u8; 4] = b"DDb2";
const CHECKSUM_BYTES: usize = 8;

/// The fingerprint after one more blob.
#[must_use]
pub fn fingerprint_next(before: &str, checksum: u64) -> String {
    let mut hash = sha1_smol::Sha1::new();
    hash.update(before.as_bytes());
    hash.update(format!(":{checksum:016x}").as_bytes());
    hash.digest().to_string()
}

/// An entry as Redis makes it from an index and a blob.
#[must_use]
pub fn entry(index: u32, blob: &[u8]) -> Vec<u8> {
    [&index.to_be_bytes(), blob].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_computes_the_same_fingerprint() {
        // redis.sha1hex('0:00000000000000ff'), and once more with 2.
        let first = fingerprint_next(FINGERPRINT_START, 255);
        assert_eq!(first, "d66ded361b35ed9f47f646f59964eebbbe9a86f3");
        assert_eq!(fingerprint_next(&first, 2), "1b16f5c8babdfb851ccd0b34cf016e0424bb4509");
    }
}
