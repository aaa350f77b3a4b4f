//! Files of JSON lines that an import reads: one line is what must be written together.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use drawdown_service::Problem;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};

use crate::failure::BadConfiguration;

/// A file that was read.
pub(super) struct Lines {
    path: PathBuf,
    text: String,
}

impl Lines {
    /// Reads a file.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("can not read {}", path.display()))?;
        Ok(Self { path: path.to_owned(), text })
    }

    /// Every line; all that can not be read are told at once. Empty lines are passed over.
    pub(super) fn parse<T: DeserializeOwned>(&self) -> Result<Vec<T>> {
        let mut parsed = Vec::new();
        let mut problems = Vec::new();
        for (number, line) in self.text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            match serde_json::from_str(line) {
                Ok(value) => parsed.push(value),
                Err(error) => {
                    let place = format!("{} line {}", self.path.display(), number.saturating_add(1));
                    problems.push(Problem::new(place, error));
                }
            }
        }
        if problems.is_empty() { Ok(parsed) } else { Err(BadConfiguration(problems).into()) }
    }

    /// The same file is the same import.
    pub(super) fn request_id(&self) -> String {
        let digest = Sha256::digest(self.text.as_bytes());
        let digest: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        format!("import-{digest}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Lines {
        Lines { path: PathBuf::from("old.jsonl"), text: text.to_owned() }
    }

    #[test]
    fn lines_that_can_not_be_read_are_all_told_with_their_places() {
        let read = lines("1\n\nnonsense\n2\n{}\n").parse::<u32>().unwrap_err();
        let Some(BadConfiguration(problems)) = read.downcast_ref() else { panic!("{read}") };
        let places: Vec<_> = problems.iter().map(|problem| problem.field.as_str()).collect();
        assert_eq!(places, ["old.jsonl line 3", "old.jsonl line 5"]);
        assert_eq!(lines("1\n\n2\n").parse::<u32>().unwrap(), [1, 2]);
    }

    #[test]
    fn the_same_file_is_the_same_import() {
        assert_eq!(lines("a\n").request_id(), lines("a\n").request_id());
        assert_ne!(lines("a\n").request_id(), lines("a").request_id());
    }
}
