//! What the commands print, through one writer.
//!
//! Answers of the services are turned into protobuf's own JSON once, by the contracts themselves; with
//! `--json` that is printed as it is (names as in the contracts, 64-bit integers as numbers), else columns
//! of it as a table. So nothing is spelled out twice, and a new field of a contract shows up by itself.

use std::io::Write;

use anyhow::{Context, Result};
use drawdown_types::MicroTokens;
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};
use serde::Serialize;
use serde_json::Value;

/// Prints to the standard output.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    json: bool,
}

/// A column of a table.
pub(crate) struct Column {
    title: &'static str,
    /// Dotted path into a row.
    path: &'static str,
    form: Form,
}

/// How a value is written.
#[derive(Clone, Copy)]
enum Form {
    Text,
    Number,
    /// Micro-tokens as tokens.
    Tokens,
    /// The name of an enum's value without the enum's own.
    Name(&'static str),
}

/// A column of text.
pub(crate) const fn text(title: &'static str, path: &'static str) -> Column {
    Column { title, path, form: Form::Text }
}

/// A column of numbers.
pub(crate) const fn number(title: &'static str, path: &'static str) -> Column {
    Column { title, path, form: Form::Number }
}

/// A column of micro-tokens, written as tokens.
pub(crate) const fn tokens(title: &'static str, path: &'static str) -> Column {
    Column { title, path, form: Form::Tokens }
}

/// A column of an enum's values, without the prefix that all of them have.
pub(crate) const fn name(title: &'static str, path: &'static str, prefix: &'static str) -> Column {
    Column { title, path, form: Form::Name(prefix) }
}

impl Output {
    pub(crate) const fn new(json: bool) -> Self {
        Self { json }
    }

    /// An answer in words, or as JSON.
    pub(crate) fn story(self, answer: &Value, words: &str) -> Result<()> {
        if self.json { Self::print_json(answer) } else { print(words) }
    }

    /// Words beside a table; nothing beside JSON.
    pub(crate) fn beside(self, words: &str) -> Result<()> {
        if self.json { Ok(()) } else { print(words) }
    }

    /// Rows of a list, or the whole answer as JSON.
    pub(crate) fn table(self, answer: &Value, list: &str, columns: &[Column]) -> Result<()> {
        if self.json {
            return Self::print_json(answer);
        }
        let none = Vec::new();
        let rows = at(answer, list).and_then(Value::as_array).unwrap_or(&none);
        print(&render_table(rows, columns))
    }

    /// One thing, a line for each of its values, or the whole answer as JSON.
    pub(crate) fn record(self, answer: &Value, path: &str, columns: &[Column]) -> Result<()> {
        if self.json {
            return Self::print_json(answer);
        }
        print(&render_record(at(answer, path).unwrap_or(answer), columns))
    }

    /// One row of something that goes on: a line of JSON, or of columns without a head.
    pub(crate) fn row(self, row: &Value, columns: &[Column]) -> Result<()> {
        if self.json {
            return print(&format!("{row}\n"));
        }
        let cells: Vec<String> = columns.iter().map(|column| cell(row, column)).collect();
        print(&format!("{}\n", cells.join("  ")))
    }

    /// A line for people; nothing with `--json`.
    pub(crate) fn line(self, line: &str) -> Result<()> {
        if self.json { Ok(()) } else { print(&format!("{line}\n")) }
    }

    /// Any value with `--json`, else a line for people.
    pub(crate) fn value_or_line<T: Serialize>(self, value: &T, line: &str) -> Result<()> {
        if self.json { Self::print_json(&serde_json::to_value(value)?) } else { print(&format!("{line}\n")) }
    }

    fn print_json(value: &Value) -> Result<()> {
        print(&format!("{}\n", serde_json::to_string_pretty(value)?))
    }
}

/// Writes to the standard output. A reader that went away (`| head`) ends the command without an error.
pub(crate) fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("can not write to the standard output"),
    }
}

/// Writes to the standard error.
pub(crate) fn complain(text: &str) {
    // Nothing is left to do where even this can not be written.
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

/// An answer as the contracts write it in JSON; `name` is the message's full name.
pub(crate) fn json_of<M: Message>(name: &str, message: &M) -> Result<Value> {
    let pool =
        DescriptorPool::decode(drawdown_proto::FILE_DESCRIPTOR_SET).context("the contracts do not decode")?;
    let descriptor = pool.get_message_by_name(name).with_context(|| format!("no message {name}"))?;
    let message = DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice())?;
    let options = SerializeOptions::new()
        .use_proto_field_name(true)
        .skip_default_fields(false)
        .stringify_64_bit_integers(false);
    Ok(message.serialize_with_options(serde_json::value::Serializer, &options)?)
}

fn at<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    if path.is_empty() {
        return Some(value);
    }
    path.split('.').try_fold(value, |value, key| value.get(key))
}

fn cell(row: &Value, column: &Column) -> String {
    let Some(value) = at(row, column.path) else { return String::new() };
    match (column.form, value) {
        (_, Value::Null) => String::new(),
        (Form::Tokens, value) => {
            value.as_i64().map(|micros| MicroTokens::from_micros(micros).to_string()).unwrap_or_default()
        }
        (Form::Name(prefix), Value::String(name)) => match name.strip_prefix(prefix).unwrap_or(name) {
            "UNSPECIFIED" => String::new(),
            name => name.to_ascii_lowercase().replace('_', " "),
        },
        (_, Value::String(text)) => text.clone(),
        (_, Value::Array(values)) => values.iter().map(plain).collect::<Vec<_>>().join(" "),
        (_, other) => other.to_string(),
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn render_table(rows: &[Value], columns: &[Column]) -> String {
    let cells: Vec<Vec<String>> =
        rows.iter().map(|row| columns.iter().map(|column| cell(row, column)).collect()).collect();
    let widths: Vec<usize> = columns
        .iter()
        .enumerate()
        .map(|(index, column)| {
            let widest = cells.iter().filter_map(|row| row.get(index)).map(|cell| cell.chars().count()).max();
            widest.unwrap_or_default().max(column.title.chars().count())
        })
        .collect();
    let titles = columns.iter().map(|column| column.title.to_owned()).collect();
    let lines: Vec<String> =
        std::iter::once(&titles).chain(&cells).map(|row| line(row, columns, &widths)).collect();
    lines.concat()
}

fn line(row: &[String], columns: &[Column], widths: &[usize]) -> String {
    let mut line = String::new();
    for ((cell, column), width) in row.iter().zip(columns).zip(widths) {
        let padded = match column.form {
            Form::Number | Form::Tokens => format!("{cell:>width$}  "),
            Form::Text | Form::Name(_) => format!("{cell:<width$}  "),
        };
        line.push_str(&padded);
    }
    format!("{}\n", line.trim_end())
}

fn render_record(record: &Value, columns: &[Column]) -> String {
    let width = columns.iter().map(|column| column.title.chars().count()).max().unwrap_or_default();
    columns.iter().map(|column| format!("{:<width$}  {}\n", column.title, cell(record, column))).collect()
}

#[cfg(test)]
mod tests {
    use drawdown_proto::ledger::v1::{ListLotsResponse, Lot, LotState};

    use super::*;

    fn answer() -> Value {
        let lot = |id: &str, micros: i64, state: LotState| Lot {
            lot_id: id.to_owned(),
            granted_micros: micros,
            state: state.into(),
            expires_at: Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 0 }),
            ..Lot::default()
        };
        let lots = vec![lot("lot_a", 1_500_000, LotState::Open), lot("lot_bb", i64::MAX, LotState::Closed)];
        json_of(
            "drawdown.ledger.v1.ListLotsResponse",
            &ListLotsResponse { lots, ..ListLotsResponse::default() },
        )
        .unwrap()
    }

    const COLUMNS: [Column; 4] = [
        text("lot", "lot_id"),
        tokens("granted", "granted_micros"),
        text("expires", "expires_at"),
        name("state", "state", "LOT_STATE_"),
    ];

    #[test]
    fn a_table_has_aligned_columns() {
        let answer = answer();
        insta::assert_snapshot!(render_table(answer["lots"].as_array().unwrap(), &COLUMNS), @r"
        lot                  granted  expires               state
        lot_a                    1.5  2023-11-14T22:13:20Z  open
        lot_bb  9223372036854.775807  2023-11-14T22:13:20Z  closed
        ");
    }

    #[test]
    fn a_record_has_a_line_for_each_value() {
        insta::assert_snapshot!(render_record(&answer()["lots"][0], &COLUMNS), @r"
        lot      lot_a
        granted  1.5
        expires  2023-11-14T22:13:20Z
        state    open
        ");
    }

    #[test]
    fn json_is_the_contracts_own() {
        let lot = &answer()["lots"][1];
        assert_eq!(lot["granted_micros"], i64::MAX);
        assert_eq!(lot["state"], "LOT_STATE_CLOSED");
        assert_eq!(lot["expires_at"], "2023-11-14T22:13:20Z");
    }
}
