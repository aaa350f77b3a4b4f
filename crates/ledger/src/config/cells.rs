//! The section `[ledger.cells]`: which of several ledgers this is, where accounts are spread over them.

use std::{collections::BTreeSet, time::Duration};

use drawdown_service::{
    Problem,
    config::{Millis, Problems},
};
use serde::Deserialize;

use crate::cells::Cells;

/// The section as read.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CellOptions {
    /// Which cell this ledger is: 0 for the only or the leading one. Never changed once there is data.
    pub number: u8,
    /// Of the leading cell: the numbers of all others. One that was added is never left out again.
    pub others: Vec<u8>,
    /// How long the leading cell keeps what it has for another cell after the next batch is settled, in ms: so old
    /// may the state be to which another cell is restored.
    pub parts_keep_ms: Millis,
}

impl Default for CellOptions {
    fn default() -> Self {
        Self { number: 0, others: Vec::new(), parts_keep_ms: Millis::from_millis(3_600_000) }
    }
}

impl CellOptions {
    /// Checks all values.
    ///
    /// # Errors
    /// Every problem, by the path inside the section.
    pub fn validate(&self) -> Result<Cells, Vec<Problem>> {
        let mut problems = Problems::new();
        let others: BTreeSet<u8> = self.others.iter().copied().collect();
        problems.ensure(others.len() == self.others.len(), "others", "names one cell twice");
        problems.ensure(!others.contains(&0), "others", "names 0, which is the leading cell");
        let leads = self.number == 0 || others.is_empty();
        problems.ensure(leads, "others", "is for the leading cell, whose number is 0");
        let parts_keep: Duration = self.parts_keep_ms.duration();
        problems.finish(Some(Cells { number: self.number, others, parts_keep }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_named_once_and_by_the_leading_one() {
        for (number, others) in [(0, vec![1, 1]), (0, vec![0, 1]), (1, vec![2])] {
            let problems = CellOptions { number, others, ..Default::default() }.validate().unwrap_err();
            assert_eq!(problems.iter().map(|p| p.field.as_str()).collect::<Vec<_>>(), ["others"]);
        }
        assert!(CellOptions { others: vec![2, 1], ..Default::default() }.validate().is_ok());
        assert!(CellOptions { number: 255, ..Default::default() }.validate().is_ok());
    }
}
