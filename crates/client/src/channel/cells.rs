//! The ledgers of other cells, where accounts are spread over several: `cells` in the section of a service that calls them.

use std::collections::BTreeMap;

use drawdown_tls::Files;

use super::ChannelOptions;

/// Another cell than the leading one, which is number 0.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CellOptions {
    /// Its number, from 1, as its own ledger says too.
    pub number: u8,
    /// How its ledger is reached.
    pub ledger: ChannelOptions,
}

impl CellOptions {
    /// How each ledger is reached, by number; with the files of the service where none are named. `wrong` hears of every
    /// problem, by the path of its option inside of the list.
    pub fn checked(
        cells: &[Self],
        files: Option<&Files>,
        mut wrong: impl FnMut(String, String),
    ) -> BTreeMap<u8, ChannelOptions> {
        let mut checked = BTreeMap::new();
        for (at, cell) in cells.iter().enumerate() {
            let number = format!("[{at}].number");
            if cell.number == 0 {
                wrong(number.clone(), "is 0, which is the leading cell".to_owned());
            }
            let ledger = cell.ledger.clone().or_files(files);
            for problem in ledger.problems() {
                wrong(format!("[{at}].ledger.{}", problem.field), problem.problem);
            }
            if checked.insert(cell.number, ledger).is_some() {
                wrong(number, "is the number of another cell as well".to_owned());
            }
        }
        checked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_of_every_cell_is_told() {
        let cell = |number, endpoint: &str| CellOptions { number, ledger: ChannelOptions::to(endpoint) };
        let reached = "http://127.0.0.1:1";
        let check = |cells: &[CellOptions]| {
            let mut fields = Vec::new();
            let checked = CellOptions::checked(cells, None, |field, _| fields.push(field));
            (checked.into_keys().collect::<Vec<_>>(), fields)
        };
        assert_eq!(check(&[cell(2, reached), cell(1, reached)]), (vec![1, 2], Vec::new()));
        let (_, fields) = check(&[cell(0, reached), cell(3, "nowhere"), cell(3, reached)]);
        assert_eq!(fields, ["[0].number", "[1].ledger.endpoint", "[2].number"]);
    }
}
