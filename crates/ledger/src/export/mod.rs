//! Files of usage: one line for each UTC day, team, app, client id, meter, outcome and set of dimensions, and
//! for corrections (D11) the month in which they were posted.
//!
//! Pure: lines in, bytes out. An encoder is given line after line and hands over what it has written so far
//! whenever it is asked to, so a file of any size passes through a small buffer; when it is asked changes no
//! byte of the file. Whole numbers stay whole numbers; nothing is rounded.

mod csv;
mod focus;
mod parquet;

use std::io;

use drawdown_types::{AccountId, Timestamp};

pub use focus::{FocusSettings, TokenPrice};

/// One line of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageLine {
    /// Start of the UTC day.
    pub day: Timestamp,
    /// For corrections, which may be below zero, and what is charged instead: start of the UTC month in which they were posted.
    pub corrected_in: Option<Timestamp>,
    /// `team_…`.
    pub team_id: String,
    /// `app_…`.
    pub app_id: String,
    /// The client id as metered.
    pub client_id: String,
    /// The meter's slug.
    pub meter: String,
    /// The meter's base unit.
    pub unit: String,
    /// The metered jobs failed.
    pub failed: bool,
    /// Dimensions as a JSON object of texts.
    pub dimensions: String,
    /// Charges.
    pub charges: i64,
    /// Events.
    pub events: i64,
    /// Quantity in the base unit.
    pub quantity: i64,
    /// Prices in micro-tokens, paid or not.
    pub amount_micros: i64,
    /// What of it is still uncharged.
    pub open_micros: i64,
}

impl UsageLine {
    /// Paid by lots by now.
    #[must_use]
    pub const fn charged_micros(&self) -> i64 {
        self.amount_micros.saturating_sub(self.open_micros)
    }

    /// How the metered jobs ended.
    #[must_use]
    pub const fn outcome(&self) -> &'static str {
        if self.failed { "failed" } else { "succeeded" }
    }
}

/// The form of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Format {
    /// RFC 4180.
    Csv,
    /// Apache Parquet.
    Parquet,
    /// FOCUS 1.2, as CSV.
    Focus(FocusSettings),
}

impl Format {
    /// What the file is, as in `Content-Type`.
    #[must_use]
    pub const fn content_type(&self) -> &'static str {
        match self {
            Self::Csv | Self::Focus(_) => "text/csv; charset=utf-8; header=present",
            Self::Parquet => "application/vnd.apache.parquet",
        }
    }
}

/// Writes a file, line by line.
pub struct Encoder {
    account: String,
    form: Form,
}

enum Form {
    Csv(csv::Writer),
    Focus(FocusSettings, csv::Writer),
    Parquet(Box<parquet::Writer>),
}

impl Encoder {
    /// The beginning of a file about usage of `account`. A Parquet file is cut into groups of at most
    /// `group_rows` lines, which is what it holds in memory.
    ///
    /// # Errors
    /// Where the head can not be written, which memory does not do.
    pub fn new(account: AccountId, format: Format, group_rows: usize) -> io::Result<Self> {
        let form = match format {
            Format::Csv => Form::Csv(csv::Writer::new(csv::COLUMNS)?),
            Format::Focus(settings) => Form::Focus(settings, csv::Writer::new(focus::head())?),
            Format::Parquet => Form::Parquet(Box::new(parquet::Writer::new(group_rows)?)),
        };
        Ok(Self { account: account.to_string(), form })
    }

    /// Adds a line.
    ///
    /// # Errors
    /// Where a Parquet file can not take it, or its dimensions are no JSON object.
    pub fn write(&mut self, line: &UsageLine) -> io::Result<()> {
        match &mut self.form {
            Form::Csv(writer) => writer.line(csv::usage(&self.account, line)),
            Form::Focus(settings, writer) => writer.line(focus::usage(&self.account, settings, line)?),
            Form::Parquet(writer) => writer.write(&self.account, line),
        }
    }

    /// What was written since the last time, if it is at least `least` bytes.
    pub fn take(&mut self, least: usize) -> Option<Vec<u8>> {
        match &mut self.form {
            Form::Csv(writer) | Form::Focus(_, writer) => writer.take(least),
            Form::Parquet(writer) => writer.take(least),
        }
    }

    /// The end of the file: everything not handed over yet.
    ///
    /// # Errors
    /// Where a Parquet file can not be ended.
    pub fn finish(self) -> io::Result<Vec<u8>> {
        match self.form {
            Form::Csv(writer) | Form::Focus(_, writer) => writer.finish(),
            Form::Parquet(writer) => writer.finish(),
        }
    }
}

#[cfg(test)]
mod tests;
