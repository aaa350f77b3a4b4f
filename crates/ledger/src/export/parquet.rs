//! Apache Parquet, by columns: texts as dictionaries, whole numbers as 64 bits, the day as a date.
//!
//! Lines are kept until there is a group of them, then written column by column; the file's own index of
//! groups comes last. What is in memory is one group.

use std::{io, mem, sync::Arc};

use parquet::{
    data_type::{ByteArray, ByteArrayType, Int32Type, Int64Type},
    errors::ParquetError,
    file::{properties::WriterProperties, writer::SerializedFileWriter},
    schema::parser::parse_message_type,
};

use drawdown_types::Timestamp;

use super::UsageLine;

const SCHEMA: &str = "
    message usage {
        required int32 day (DATE);
        optional int32 corrected_in (DATE);
        required binary account_id (STRING);
        required binary team_id (STRING);
        required binary app_id (STRING);
        required binary client_id (STRING);
        required binary meter (STRING);
        required binary unit (STRING);
        required binary outcome (STRING);
        required binary dimensions (JSON);
        required int64 charges;
        required int64 events;
        required int64 quantity;
        required int64 amount_micros;
        required int64 charged_micros;
        required int64 uncharged_micros;
    }";

const DAY_MICROS: i64 = 86_400_000_000;

/// A group of lines by columns, in the order of the schema.
#[derive(Default)]
struct Group {
    days: Vec<i32>,
    /// Those that there are, and for each line whether it has one.
    corrected: (Vec<i32>, Vec<i16>),
    texts: [Vec<ByteArray>; 8],
    numbers: [Vec<i64>; 6],
}

pub(super) struct Writer {
    file: SerializedFileWriter<Vec<u8>>,
    group: Group,
    group_rows: usize,
}

fn failed(error: ParquetError) -> io::Error {
    io::Error::other(error)
}

/// Days since 1970.
fn day(at: Timestamp) -> io::Result<i32> {
    i32::try_from(at.as_micros().div_euclid(DAY_MICROS)).map_err(io::Error::other)
}

// === impl Writer ===

impl Writer {
    pub(super) fn new(group_rows: usize) -> io::Result<Self> {
        let schema = Arc::new(parse_message_type(SCHEMA).map_err(failed)?);
        let properties = Arc::new(WriterProperties::builder().set_created_by("drawdown".to_owned()).build());
        let file = SerializedFileWriter::new(Vec::new(), schema, properties).map_err(failed)?;
        Ok(Self { file, group: Group::default(), group_rows: group_rows.max(1) })
    }

    pub(super) fn write(&mut self, account: &str, line: &UsageLine) -> io::Result<()> {
        self.group.days.push(day(line.day)?);
        self.group.corrected.1.push(i16::from(line.corrected_in.is_some()));
        if let Some(month) = line.corrected_in {
            self.group.corrected.0.push(day(month)?);
        }
        let texts = [
            account,
            &line.team_id,
            &line.app_id,
            &line.client_id,
            &line.meter,
            &line.unit,
            line.outcome(),
            &line.dimensions,
        ];
        self.group.texts.iter_mut().zip(texts).for_each(|(column, text)| column.push(ByteArray::from(text)));
        let numbers = [
            line.charges,
            line.events,
            line.quantity,
            line.amount_micros,
            line.charged_micros(),
            line.open_micros,
        ];
        self.group.numbers.iter_mut().zip(numbers).for_each(|(column, number)| column.push(number));
        if self.group.days.len() >= self.group_rows { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        let group = mem::take(&mut self.group);
        if group.days.is_empty() {
            return Ok(());
        }
        let mut rows = self.file.next_row_group().map_err(failed)?;
        let missing = || io::Error::other("the schema has fewer columns than a line");
        let mut column = rows.next_column().map_err(failed)?.ok_or_else(missing)?;
        column.typed::<Int32Type>().write_batch(&group.days, None, None).map_err(failed)?;
        column.close().map_err(failed)?;
        let (months, given) = &group.corrected;
        let mut column = rows.next_column().map_err(failed)?.ok_or_else(missing)?;
        column.typed::<Int32Type>().write_batch(months, Some(given), None).map_err(failed)?;
        column.close().map_err(failed)?;
        for texts in &group.texts {
            let mut column = rows.next_column().map_err(failed)?.ok_or_else(missing)?;
            column.typed::<ByteArrayType>().write_batch(texts, None, None).map_err(failed)?;
            column.close().map_err(failed)?;
        }
        for numbers in &group.numbers {
            let mut column = rows.next_column().map_err(failed)?.ok_or_else(missing)?;
            column.typed::<Int64Type>().write_batch(numbers, None, None).map_err(failed)?;
            column.close().map_err(failed)?;
        }
        rows.close().map_err(failed)?;
        Ok(())
    }

    /// The file counts its places by itself, so what is taken is not missed.
    pub(super) fn take(&mut self, least: usize) -> Option<Vec<u8>> {
        let written = self.file.inner_mut();
        (written.len() >= least).then(|| mem::take(written))
    }

    pub(super) fn finish(mut self) -> io::Result<Vec<u8>> {
        self.flush()?;
        self.file.into_inner().map_err(failed)
    }
}
