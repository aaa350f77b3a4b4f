//! Files of JSON lines that an import reads: one line is what must be written together. They go out in requests of up to
//! [`REQUEST_LINES_MAX`] lines, one after the other, or all at once, and a refusal is told with the lines that it is about.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use drawdown_service::Problem;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};
use tonic::{Response, Status};
use tonic_types::StatusExt as _;

use crate::failure::BadConfiguration;

/// Lines of one request: as many as the services take by default.
const REQUEST_LINES_MAX: usize = 100;

/// How lines become requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Requests {
    /// As many as it takes, of up to [`REQUEST_LINES_MAX`] lines.
    Bounded,
    /// One with all lines.
    One,
}

/// A file that was read.
pub(super) struct Lines {
    path: PathBuf,
    text: String,
}

/// What stands in a line of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line<T> {
    /// From 1 on, empty lines counted.
    number: usize,
    value: T,
}

impl Lines {
    /// Reads a file.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("can not read {}", path.display()))?;
        Ok(Self { path: path.to_owned(), text })
    }

    /// Every line; all that can not be read are told at once. Empty lines are passed over.
    pub(super) fn parse<T: DeserializeOwned>(&self) -> Result<Vec<Line<T>>> {
        let mut parsed = Vec::new();
        let mut problems = Vec::new();
        for (index, line) in self.text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let number = index.saturating_add(1);
            match serde_json::from_str(line) {
                Ok(value) => parsed.push(Line { number, value }),
                Err(error) => {
                    problems.push(Problem::new(format!("{} line {number}", self.path.display()), error));
                }
            }
        }
        if problems.is_empty() { Ok(parsed) } else { Err(BadConfiguration(problems).into()) }
    }

    /// Hands the lines to `call`, request by request, each with its id, and gives all answers. Ends with the first request that
    /// is refused: what went before it is written. `list` is the field of the request in which the lines are.
    pub(super) async fn send<T, M: From<T>, A>(
        &self,
        (list, requests): (&str, Requests),
        import_id: Option<String>,
        mut lines: Vec<Line<T>>,
        mut call: impl AsyncFnMut(Vec<M>, String) -> Result<Response<A>, Status>,
    ) -> Result<Vec<A>> {
        let import_id = import_id.unwrap_or_else(|| self.request_id());
        let mut answers = Vec::new();
        while !lines.is_empty() {
            let lines_max = match requests {
                Requests::Bounded => REQUEST_LINES_MAX,
                Requests::One => lines.len(),
            };
            let rest = lines.split_off(lines.len().min(lines_max));
            let request: Vec<_> = std::mem::replace(&mut lines, rest);
            let (numbers, messages): (Vec<_>, Vec<_>) =
                request.into_iter().map(|line| (line.number, M::from(line.value))).unzip();
            let answer = call(messages, format!("{import_id}-{}", answers.len())).await;
            let answer = answer.map_err(|status| {
                let places = format!("{} {}", self.path.display(), places(&status, list, &numbers));
                anyhow::Error::from(status).context(places)
            })?;
            answers.push(answer.into_inner());
        }
        Ok(answers)
    }

    /// The same file is the same import.
    fn request_id(&self) -> String {
        let digest = Sha256::digest(self.text.as_bytes());
        let digest: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        format!("import-{digest}")
    }
}

/// The lines of a request, and which of them each item is that a refusal names.
fn places(status: &Status, list: &str, numbers: &[usize]) -> String {
    let (first, last) = (numbers.first().copied(), numbers.last().copied());
    let all = format!("lines {} to {}", first.unwrap_or_default(), last.unwrap_or_default());
    let details = status.get_error_details();
    let violations = details.bad_request().map(|bad| bad.field_violations.as_slice()).unwrap_or_default();
    let mut named: Vec<usize> =
        violations.iter().filter_map(|violation| index(&violation.field, list)).collect();
    named.sort_unstable();
    named.dedup();
    let named = named.into_iter().filter_map(|index| Some((index, numbers.get(index)?)));
    let named: Vec<_> = named.map(|(index, number)| format!("{list}[{index}] is line {number}")).collect();
    if named.is_empty() { all } else { format!("{all} ({})", named.join(", ")) }
}

/// The place in the list that a field names, such as 3 in `teams[3].lots[0]`.
fn index(field: &str, list: &str) -> Option<usize> {
    field.strip_prefix(list)?.strip_prefix('[')?.split_once(']')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use drawdown_service::{Code, Refusal};

    use super::*;
    use crate::failure::describe;

    fn lines(text: &str) -> Lines {
        Lines { path: PathBuf::from("old.jsonl"), text: text.to_owned() }
    }

    #[test]
    fn lines_that_can_not_be_read_are_all_told_with_their_places() {
        let read = lines("1\n\nnonsense\n2\n{}\n").parse::<u32>().unwrap_err();
        let Some(BadConfiguration(problems)) = read.downcast_ref() else { panic!("{read}") };
        let places: Vec<_> = problems.iter().map(|problem| problem.field.as_str()).collect();
        assert_eq!(places, ["old.jsonl line 3", "old.jsonl line 5"]);
        let read = lines("1\n\n2\n").parse::<u32>().unwrap();
        assert_eq!(read, [Line { number: 1, value: 1 }, Line { number: 3, value: 2 }]);
    }

    #[test]
    fn the_same_file_is_the_same_import() {
        assert_eq!(lines("a\n").request_id(), lines("a\n").request_id());
        assert_ne!(lines("a\n").request_id(), lines("a").request_id());
    }

    /// Each line but every third one, which is empty, has its number.
    fn numbers(count: usize) -> Lines {
        let line =
            |number: usize| if number.is_multiple_of(3) { "\n".to_owned() } else { format!("{number}\n") };
        lines(&(1..=count).map(line).collect::<String>())
    }

    #[tokio::test]
    async fn requests_are_bounded_and_have_ids_of_their_own() {
        let file = numbers(301);
        let read = file.parse::<usize>().unwrap();
        let answers = file.send(
            ("teams", Requests::Bounded),
            Some("mine".to_owned()),
            read,
            async |part: Vec<usize>, id| {
                Ok(Response::new((part.len(), part.first().copied(), part.last().copied(), id)))
            },
        );
        let of = |count, first, last, id: &str| (count, Some(first), Some(last), id.to_owned());
        let expected = [of(100, 1, 149, "mine-0"), of(100, 151, 299, "mine-1"), of(1, 301, 301, "mine-2")];
        assert_eq!(answers.await.unwrap(), expected);
        let whole = file.parse::<usize>().unwrap();
        let answers = file.send(
            ("teams", Requests::One),
            Some("mine".to_owned()),
            whole,
            async |all: Vec<usize>, id| {
                Ok(Response::new((all.len(), all.first().copied(), all.last().copied(), id)))
            },
        );
        assert_eq!(answers.await.unwrap(), [of(201, 1, 301, "mine-0")]);
        let nothing = lines("\n");
        let read = nothing.parse::<usize>().unwrap();
        let asked = nothing
            .send(("teams", Requests::Bounded), None, read, async |_: Vec<usize>, _| Ok(Response::new(())));
        assert_eq!(asked.await.unwrap().len(), 0);
    }

    #[tokio::test]
    async fn a_refusal_is_told_with_the_lines_that_it_names() {
        let file = numbers(301);
        let read = file.parse::<usize>().unwrap();
        let mut requests = 0;
        let sent = file.send(("teams", Requests::Bounded), None, read, async |_: Vec<usize>, id: String| {
            requests += 1;
            if id.ends_with("-0") {
                return Ok(Response::new(()));
            }
            let refusal = Refusal::new(Code::InvalidArgument, "REQUEST_INVALID", "3 fields are invalid");
            let refusal =
                refusal.violation("teams[0].lots[2].size", "is zero").violation("reason", "is empty");
            Err(refusal.violation("teams[3]", "is there twice").into())
        });
        let error = sent.await.unwrap_err();
        assert_eq!(requests, 2, "nothing is sent after a refusal");
        insta::assert_snapshot!(describe(&error), @r"
        drawdown: old.jsonl lines 151 to 299 (teams[0] is line 151, teams[3] is line 155): 3 fields are invalid (REQUEST_INVALID)
          teams[0].lots[2].size: is zero
          reason: is empty
          teams[3]: is there twice
        ");
        let status = Status::unavailable("gone");
        assert_eq!(places(&status, "teams", &[4, 6]), "lines 4 to 6");
    }
}
