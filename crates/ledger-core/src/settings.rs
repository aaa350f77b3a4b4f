//! What an installation may set, checked once.

use std::time::Duration;

use drawdown_types::WindowSize;

use crate::lot::PoolKind;

/// Settings that decide about money. The same values must be used for the life of a ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The length of every window.
    pub window_size: WindowSize,
    /// How long after its window's end usage may be received and still be charged (D9).
    pub lateness_limit: Duration,
    /// The least whole tokens that one purchase buys (D1).
    pub purchase_min_tokens: i64,
    /// The most distinct values that a team's month of one price may have (D19).
    pub unique_values_max: i64,
    /// Which kind of lot is drawn first (D4).
    pub pool_order: PoolOrder,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            window_size: WindowSize::MINUTE,
            lateness_limit: Duration::from_secs(86_400),
            purchase_min_tokens: 100,
            unique_values_max: 100_000,
            pool_order: PoolOrder::default(),
        }
    }
}

/// The order of pool kinds in a draw: every kind exactly once (D4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolOrder([PoolKind; PoolKind::ALL.len()]);

/// A list of pool kinds that does not name each exactly once.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a pool order names each of free, enterprise, credit, promotional and flex exactly once")]
pub struct PoolOrderError;

impl Default for PoolOrder {
    fn default() -> Self {
        Self(PoolKind::ALL)
    }
}

impl PoolOrder {
    /// From first drawn to last drawn.
    ///
    /// # Errors
    /// [`PoolOrderError`] where a kind is missing or named twice.
    pub fn new(kinds: &[PoolKind]) -> Result<Self, PoolOrderError> {
        let order: [PoolKind; PoolKind::ALL.len()] = kinds.try_into().map_err(|_| PoolOrderError)?;
        if PoolKind::ALL.iter().all(|kind| order.contains(kind)) {
            Ok(Self(order))
        } else {
            Err(PoolOrderError)
        }
    }

    /// From first drawn to last drawn.
    #[must_use]
    pub fn kinds(&self) -> &[PoolKind] {
        &self.0
    }

    /// The place of `kind`: the smaller, the earlier drawn.
    #[must_use]
    pub fn rank(&self, kind: PoolKind) -> usize {
        self.0.iter().position(|candidate| *candidate == kind).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_order_names_each_kind_once() {
        let reversed: Vec<_> = PoolKind::ALL.into_iter().rev().collect();
        assert_eq!(PoolOrder::new(&reversed).map(|order| order.rank(PoolKind::Flex)), Ok(0));
        assert_eq!(PoolOrder::default().rank(PoolKind::Flex), 4);
        assert_eq!(PoolOrder::new(&reversed[1..]), Err(PoolOrderError));
        assert_eq!(PoolOrder::new(&[PoolKind::Free; 5]), Err(PoolOrderError));
    }
}
