//! Ids of a batch's charges: one is drawn, the others count on from it.
//!
//! A new UUIDv7 each would ask the system for random bits once a charge. The last 32 bits of the first one
//! are random and nothing else, and a batch counts through few of them (RFC 9562, section 6.2), so the ids
//! sort in posting order and those of two batches meet no sooner than two random ones would.

use drawdown_types::ChargeId;
use uuid::Uuid;

/// The bits behind version and variant.
const LAST_BITS: u128 = (1 << 62) - 1;

/// Makes the ids of one batch.
pub(super) fn charge_ids() -> impl FnMut() -> ChargeId {
    let mut next = ChargeId::generate().as_uuid().as_u128();
    move || {
        let id = ChargeId::from_uuid(Uuid::from_u128(next));
        next = (next & !LAST_BITS) | (next.wrapping_add(1) & LAST_BITS);
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_a_batch_are_different_and_of_version_7() {
        let mut new = charge_ids();
        let ids: Vec<_> = (0..100_000).map(|_| new()).collect();
        let different: std::collections::HashSet<_> = ids.iter().collect();
        assert_eq!(different.len(), ids.len());
        for id in [ids[0], ids[99_999]] {
            assert_eq!(id.as_uuid().get_version_num(), 7);
            assert_eq!(id.as_uuid().get_variant(), uuid::Variant::RFC4122);
        }
        assert_ne!(charge_ids()(), charge_ids()());
    }
}
