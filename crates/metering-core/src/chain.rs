//! The chain of a lane: 64 bits that every frame extends by one hash over its bytes.
//!
//! It is what detects a cloned disk, a live clone or a restored log, where the same sequence holds
//! other events. Never changed: logs, Redis and Postgres all hold values of it.

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The chain before the first frame.
pub const START: u64 = 0;

/// The chain after `body`, where `previous` is the chain before it. One pass over the bytes.
#[must_use]
pub fn next(previous: u64, body: &[u8]) -> u64 {
    xxh3_64_with_seed(body, previous)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chain_depends_on_every_frame_and_their_order() {
        let (a, b) = (next(START, b"a"), next(START, b"b"));
        assert_ne!(next(a, b"b"), next(b, b"a"));
        assert_ne!(next(a, b""), a);
    }

    #[test]
    fn the_hash_is_fixed_for_ever() {
        assert_eq!(next(START, b""), 0x2d06_8005_38d3_94c2);
        // By another implementation of xxh3.
        assert_eq!(next(next(START, b"first frame"), b"second frame"), 0x6147_2535_feb8_72f8);
    }
}
