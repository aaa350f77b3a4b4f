//! What a transaction writes.

use drawdown_types::{LotId, TeamId, Timestamp};

use crate::{
    batch::{Charge, Unattributed},
    hold::Hold,
    journal::JournalRow,
    lot::Lot,
    rating::{Periods, UsageKey, UsageState},
    team::Balance,
};

/// Rows to write, all of one database transaction. Rows of a team are in posting order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The instant of the command (D40): never earlier than the last posting of any of its teams.
    /// Absent where there was no command but a rolling forward.
    pub instant: Option<Timestamp>,
    /// New charges, in posting order of each team.
    pub charges: Vec<Charge>,
    /// New journal rows, in order of sequence of each team.
    pub journal: Vec<JournalRow>,
    /// Lots that are new or changed, as they are afterwards, each once.
    pub lots: Vec<Lot>,
    /// Those of them that are new in their team.
    pub new_lots: Vec<(TeamId, LotId)>,
    /// Holds that are new or changed, as they are afterwards, each once.
    pub holds: Vec<Hold>,
    /// Balances that changed, as they are afterwards, each team once.
    pub balances: Vec<Balance>,
    /// Usage states that changed, as they are afterwards, each key once.
    pub states: Vec<UsageState>,
    /// The keys of those of them that were not stored, in order.
    pub new_states: Vec<UsageKey>,
    /// States of periods that changed, as they are afterwards, and the values that are new in them.
    pub periods: Periods,
    /// Lines that no team is charged for, in the order of the input.
    pub unattributed: Vec<Unattributed>,
}
