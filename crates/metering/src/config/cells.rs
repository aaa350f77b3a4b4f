//! `[[metering.cells]]`: the ledgers of other cells, where accounts are spread over several.

use std::collections::BTreeMap;

use drawdown_client::ChannelOptions;
use drawdown_service::{config::Problems, tls};
use serde::Deserialize;

/// Another cell.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CellOptions {
    /// Its number, from 1, as its own ledger says too.
    pub number: u8,
    /// How its ledger is reached.
    pub ledger: ChannelOptions,
}

pub(super) fn checked(
    problems: &mut Problems,
    options: &[CellOptions],
    files: Option<&tls::Files>,
) -> BTreeMap<u8, ChannelOptions> {
    let mut cells = BTreeMap::new();
    for (at, cell) in options.iter().enumerate() {
        let field = format!("cells[{at}].number");
        problems.ensure(cell.number != 0, &field, "is 0, which is the leading cell");
        let ledger = cell.ledger.clone().or_files(files);
        for problem in ledger.problems() {
            problems.push(&format!("cells[{at}].ledger.{}", problem.field), problem.problem);
        }
        let known = cells.insert(cell.number, ledger);
        problems.ensure(known.is_none(), &field, "is the number of another cell as well");
    }
    cells
}
