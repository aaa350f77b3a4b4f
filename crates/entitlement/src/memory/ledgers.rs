//! What each ledger told of everything that is of no team: how far it was heard, the debt limit, and its meters.
//!
//! All of them are one array that is exchanged as a whole, so that answers to one message share one pointer. Where there
//! is one cell, it has one entry.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use arc_swap::{ArcSwap, Guard};
use drawdown_entitlement_core::access::{Heard, Meter};

/// The cell that leads, and the only one where there are no others.
pub(super) const LEADING: u8 = 0;

/// The meters of a catalogue.
pub(crate) type Catalogue = HashMap<Box<str>, Meter>;

/// A ledger.
#[derive(Clone, Debug)]
pub(super) struct OneLedger {
    pub(super) cell: u8,
    pub(super) heard: Option<Heard>,
    pub(super) catalogue: Option<Arc<Catalogue>>,
}

/// All ledgers that are followed.
#[derive(Debug)]
pub(super) struct Ledgers(ArcSwap<Box<[OneLedger]>>);

/// The ledger of a cell; none where it is not followed.
pub(super) fn of(ledgers: &[OneLedger], cell: u8) -> Option<&OneLedger> {
    // few, and nearly always the first
    ledgers.iter().find(|ledger| ledger.cell == cell)
}

// === impl Ledgers ===

impl Ledgers {
    /// The leading one and others, none of which was heard.
    pub(super) fn of_cells(others: &BTreeSet<u8>) -> Self {
        let cells: BTreeSet<u8> = [LEADING].into_iter().chain(others.iter().copied()).collect();
        let unheard = |cell| OneLedger { cell, heard: None, catalogue: None };
        Self(ArcSwap::from_pointee(cells.into_iter().map(unheard).collect()))
    }

    pub(super) fn load(&self) -> Guard<Arc<Box<[OneLedger]>>> {
        self.0.load()
    }

    pub(super) fn load_full(&self) -> Arc<Box<[OneLedger]>> {
        self.0.load_full()
    }

    /// Changes one; the others may be changed at the same time.
    pub(super) fn change(&self, cell: u8, change: impl Fn(&mut OneLedger)) {
        self.0.rcu(|ledgers| {
            let mut ledgers = Box::clone(ledgers);
            ledgers.iter_mut().filter(|ledger| ledger.cell == cell).for_each(&change);
            ledgers
        });
    }
}
