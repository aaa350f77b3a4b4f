//! RFC 4180: a head, lines that end with CR LF, quotes where a cell needs them and only there. Texts are
//! written as they are, in UTF-8.

use std::{io, mem};

use csv::{Terminator, WriterBuilder};

use super::UsageLine;

pub(super) const COLUMNS: [&str; 16] = [
    "day",
    "corrected_in",
    "account_id",
    "team_id",
    "app_id",
    "client_id",
    "meter",
    "unit",
    "outcome",
    "dimensions",
    "charges",
    "events",
    "quantity",
    "amount_micros",
    "charged_micros",
    "uncharged_micros",
];

/// Lines, of which those that were taken are forgotten.
pub(super) struct Writer(csv::Writer<Vec<u8>>);

fn empty() -> csv::Writer<Vec<u8>> {
    WriterBuilder::new().terminator(Terminator::CRLF).from_writer(Vec::new())
}

impl Writer {
    pub(super) fn new<'a>(head: impl IntoIterator<Item = &'a str>) -> io::Result<Self> {
        let mut writer = Self(empty());
        writer.line(head)?;
        Ok(writer)
    }

    pub(super) fn line<T: AsRef<[u8]>>(&mut self, cells: impl IntoIterator<Item = T>) -> io::Result<()> {
        self.0.write_record(cells).map_err(io::Error::from)?;
        // What is in the library's own buffer would not count.
        self.0.flush()
    }

    pub(super) fn take(&mut self, least: usize) -> Option<Vec<u8>> {
        if self.0.get_ref().len() < least {
            return None;
        }
        mem::replace(&mut self.0, empty()).into_inner().ok()
    }

    pub(super) fn finish(self) -> io::Result<Vec<u8>> {
        self.0.into_inner().map_err(|error| error.into_error())
    }
}

/// The first ten characters of an instant.
fn day(at: drawdown_types::Timestamp) -> String {
    at.to_string().chars().take(10).collect()
}

pub(super) fn usage(account: &str, usage: &UsageLine) -> [String; 16] {
    [
        day(usage.day),
        usage.corrected_in.map(day).unwrap_or_default(),
        account.to_owned(),
        usage.team_id.clone(),
        usage.app_id.clone(),
        usage.client_id.clone(),
        usage.meter.clone(),
        usage.unit.clone(),
        usage.outcome().to_owned(),
        usage.dimensions.clone(),
        usage.charges.to_string(),
        usage.events.to_string(),
        usage.quantity.to_string(),
        usage.amount_micros.to_string(),
        usage.charged_micros().to_string(),
        usage.open_micros.to_string(),
    ]
}
