//! Series as frames of both forms spell them.

use std::{fmt, sync::Arc};

use crate::{
    fault::{FieldFault, FrameFault},
    frame::number,
    reason,
    series::{SeriesKey, SeriesNumber, SeriesParts},
    wire::{Field, Reader},
};

/// A series that a frame defines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    /// Its number in the producer's log.
    pub number: SeriesNumber,
    /// The series.
    pub key: Arc<SeriesKey>,
}

/// Faults of one message that are described: what is refused must not cost more than what is taken.
pub(super) const FAULTS_MAX: usize = 64;

/// Reads a `DefineSeries`.
///
/// # Errors
/// `SERIES_INVALID`, with every offending field up to some.
pub fn read_definitions(message: &[u8]) -> Result<Vec<Definition>, FrameFault> {
    let broken = || FrameFault::one(reason::SERIES_INVALID, "definitions", "are no definitions of series");
    let mut list = List::default();
    let mut reader = Reader::new(message);
    while !reader.is_empty() && !list.is_hopeless() {
        match reader.field().ok_or_else(broken)? {
            (number::DEFINE_DEFINITIONS, Field::Bytes(bytes)) => list.add(bytes),
            (number::DEFINE_DEFINITIONS, _) => return Err(broken()),
            _ => {}
        }
    }
    list.finish()
}

/// Dimensions of one series that are read at all; fewer are allowed.
const DIMENSIONS_READ_MAX: usize = 1024;

pub(super) fn definitions(raw: &[&[u8]]) -> Result<Vec<Definition>, FrameFault> {
    let mut list = List::default();
    for bytes in raw {
        if list.is_hopeless() {
            break;
        }
        list.add(bytes);
    }
    list.finish()
}

#[derive(Default)]
struct List {
    definitions: Vec<Definition>,
    faults: Vec<FieldFault>,
    place: usize,
}

impl List {
    fn add(&mut self, bytes: &[u8]) {
        match definition(bytes, format_args!("definitions[{}]", self.place)) {
            Ok(definition) => self.definitions.push(definition),
            Err(found) => self.faults.extend(found),
        }
        self.place = self.place.saturating_add(1);
    }

    fn is_hopeless(&self) -> bool {
        self.faults.len() >= FAULTS_MAX
    }

    fn finish(self) -> Result<Vec<Definition>, FrameFault> {
        if self.faults.is_empty() {
            Ok(self.definitions)
        } else {
            Err(FrameFault::new(reason::SERIES_INVALID, self.faults))
        }
    }
}

fn definition(bytes: &[u8], path: fmt::Arguments<'_>) -> Result<Definition, Vec<FieldFault>> {
    let malformed = || vec![FieldFault::new(path.to_string(), "is no definition of a series")];
    let mut series = SeriesParts::default();
    let mut number: u64 = 0;
    let mut reader = Reader::new(bytes);
    while !reader.is_empty() {
        match reader.field().ok_or_else(malformed)? {
            (number::DEFINITION_NUMBER, Field::Varint(value)) => number = value,
            (number::DEFINITION_SERIES, Field::Bytes(bytes)) => {
                read_series(bytes, &mut series).ok_or_else(malformed)?;
            }
            (number::DEFINITION_NUMBER | number::DEFINITION_SERIES, _) => return Err(malformed()),
            _ => {}
        }
    }
    let mut faults = Vec::new();
    let number = u32::try_from(number).ok().and_then(SeriesNumber::new);
    if number.is_none() {
        faults.push(FieldFault::new(format!("{path}.number"), format!("is not between 1 and {}", u32::MAX)));
    }
    match SeriesKey::from_parts(&series, format_args!("{path}.series")) {
        Ok(key) => number.map(|number| Definition { number, key: Arc::new(key) }).ok_or(faults),
        Err(found) => {
            faults.extend(found);
            Err(faults)
        }
    }
}

/// The series that these bytes spell, which stand at `path`.
pub(super) fn series_key(bytes: &[u8], path: &str) -> Result<SeriesKey, Vec<FieldFault>> {
    let mut parts = SeriesParts::default();
    match read_series(bytes, &mut parts) {
        Some(()) => SeriesKey::from_parts(&parts, path),
        None => Err(vec![FieldFault::new(path, "is no series")]),
    }
}

fn read_series<'a>(bytes: &'a [u8], parts: &mut SeriesParts<'a>) -> Option<()> {
    let mut reader = Reader::new(bytes);
    while !reader.is_empty() {
        match reader.field()? {
            (number::SERIES_CLIENT_ID, Field::Bytes(bytes)) => parts.client_id = bytes,
            (number::SERIES_METER, Field::Bytes(bytes)) => parts.meter = bytes,
            (number::SERIES_OUTCOME, Field::Varint(value)) => parts.outcome = value,
            (number::SERIES_DIMENSIONS, Field::Bytes(bytes))
                if parts.dimensions.len() < DIMENSIONS_READ_MAX =>
            {
                parts.dimensions.push(read_dimension(bytes)?);
            }
            (number::SERIES_HOLD_ID, Field::Bytes(bytes)) => parts.hold_id = bytes,
            (number::SERIES_CLIENT_ID..=number::SERIES_HOLD_ID, _) => return None,
            _ => {}
        }
    }
    Some(())
}

fn read_dimension(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (mut name, mut value) = (&[][..], &[][..]);
    let mut reader = Reader::new(bytes);
    while !reader.is_empty() {
        match reader.field()? {
            (number::DIMENSION_NAME, Field::Bytes(bytes)) => name = bytes,
            (number::DIMENSION_VALUE, Field::Bytes(bytes)) => value = bytes,
            (number::DIMENSION_NAME | number::DIMENSION_VALUE, _) => return None,
            _ => {}
        }
    }
    Some((name, value))
}
