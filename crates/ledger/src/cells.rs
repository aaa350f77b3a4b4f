//! Accounts on several servers: each *cell* is one database with one ledger in front of it, and an account lives in
//! one of them for ever.
//!
//! The cell with number 0 leads. A sealed batch is posted to it first, with the lines of the other cells, and the
//! transaction that settles the batch there keeps these lines: from then on it is decided for ever which line goes
//! where, whatever is resolved later and whatever becomes of Redis. Every other cell then takes each batch from what
//! the leading one keeps, in the order of their numbers: all lane ranges and its own lines. It compares all that the
//! leading cell does but the generation, which it takes over, and it learns of producers and lost ranges this way.
//! Where there is but one cell nothing of this happens.

use std::{collections::BTreeSet, time::Duration};

/// Which cell a ledger is, and what it knows of the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cells {
    /// The number of this one; 0 for the only or the leading one.
    pub number: u8,
    /// In the leading one: all others.
    pub others: BTreeSet<u8>,
    /// How long parts of other cells are kept after the next batch is settled.
    pub parts_keep: Duration,
}

// === impl Cells ===

impl Cells {
    /// It decides what a batch is; the others follow.
    #[must_use]
    pub const fn leads(&self) -> bool {
        self.number == 0
    }

    /// It is this one, or one that this one leads.
    #[must_use]
    pub fn knows(&self, cell: u8) -> bool {
        cell == self.number || self.others.contains(&cell)
    }
}
