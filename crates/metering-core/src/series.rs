//! Series: what is aggregated together, and the numbers that stand for one in frames.
//!
//! A key is checked once, from its parts, with every violation named; from then on it is only
//! compared, encoded and decoded. Values must survive every store on the way (a zero byte would
//! stop Postgres, and with it the shard), so control characters are refused here.
//! The canonical bytes name a series in blobs and digests: they are never changed.

use std::{fmt, num::NonZeroU32, sync::Arc};

use drawdown_types::{ClientId, DimensionName, HoldId, MeterSlug, NameError};

use crate::{
    fault::FieldFault,
    wire::{Reader, put_len, put_prefixed},
};

/// The most dimensions of one series.
pub const DIMENSIONS_MAX: usize = 8;
/// The most bytes of one dimension's value.
pub const DIMENSION_VALUE_BYTES_MAX: usize = 128;

/// The value that stands for all values of a dimension beyond what a meter may have of it. Who sends it is counted
/// there too.
pub const OTHER: &str = "~other";

/// How the metered job ended (D18).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// It did what it was asked to.
    Succeeded,
    /// It did not.
    Failed,
}

impl Outcome {
    /// As in the contract's enum.
    #[must_use]
    pub const fn as_wire(self) -> u8 {
        match self {
            Self::Succeeded => 1,
            Self::Failed => 2,
        }
    }

    /// From the contract's enum; unspecified is read as succeeded.
    #[must_use]
    pub const fn from_wire(value: u64) -> Option<Self> {
        match value {
            0 | 1 => Some(Self::Succeeded),
            2 => Some(Self::Failed),
            _ => None,
        }
    }
}

/// The number of a series in one producer's log, from 1, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeriesNumber(NonZeroU32);

impl SeriesNumber {
    /// The number, unless it is 0.
    #[must_use]
    pub const fn new(number: u32) -> Option<Self> {
        match NonZeroU32::new(number) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// As written in frames.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0.get()
    }
}

/// The parts of a series as they came, unchecked.
#[derive(Clone, Debug, Default)]
pub struct SeriesParts<'a> {
    /// The public half of a credential.
    pub client_id: &'a [u8],
    /// The meter's slug.
    pub meter: &'a [u8],
    /// The outcome as in the contract's enum.
    pub outcome: u64,
    /// Names and values, in the order they came.
    pub dimensions: Vec<(&'a [u8], &'a [u8])>,
    /// `hold_…`, or empty.
    pub hold_id: &'a [u8],
}

/// What is aggregated together: (client id, meter, outcome, dimensions, hold id).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SeriesKey {
    client_id: ClientId,
    meter: MeterSlug,
    outcome: Outcome,
    dimensions: Vec<(DimensionName, Arc<str>)>,
    hold_id: Option<HoldId>,
}

impl SeriesKey {
    /// A series of checked values; dimensions are sorted here.
    ///
    /// # Errors
    /// Every violation: too many dimensions, one named twice, a value too long or with control characters.
    pub fn new(
        client_id: ClientId,
        meter: MeterSlug,
        outcome: Outcome,
        mut dimensions: Vec<(DimensionName, String)>,
        hold_id: Option<HoldId>,
    ) -> Result<Self, Vec<FieldFault>> {
        dimensions.sort();
        let hold_text = hold_id.map(|id| id.to_string()).unwrap_or_default();
        let parts = SeriesParts {
            client_id: client_id.as_str().as_bytes(),
            meter: meter.as_str().as_bytes(),
            outcome: u64::from(outcome.as_wire()),
            dimensions: dimensions
                .iter()
                .map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()))
                .collect(),
            hold_id: hold_text.as_bytes(),
        };
        Self::from_parts(&parts, "series")
    }

    /// Checks all parts; `path` is where the series stands in its message, spelled out for a fault only.
    ///
    /// # Errors
    /// Every violation at once, at least one.
    pub fn from_parts(
        parts: &SeriesParts<'_>,
        path: impl fmt::Display + Copy,
    ) -> Result<Self, Vec<FieldFault>> {
        let mut faults = Vec::new();
        let client_id = name(parts.client_id, || format!("{path}.client_id"), ClientId::new, &mut faults);
        let meter = name(parts.meter, || format!("{path}.meter"), MeterSlug::new, &mut faults);
        let outcome = Outcome::from_wire(parts.outcome);
        if outcome.is_none() {
            faults.push(FieldFault::new(
                format!("{path}.outcome"),
                format!("is {}, which is no outcome; 1 is succeeded, 2 is failed", parts.outcome),
            ));
        }
        let dimensions = dimensions(&parts.dimensions, path, &mut faults);
        let hold_id = hold(parts.hold_id, path, &mut faults);
        match (client_id, meter, outcome, hold_id) {
            (Some(client_id), Some(meter), Some(outcome), Some(hold_id)) if faults.is_empty() => {
                Ok(Self { client_id, meter, outcome, dimensions, hold_id })
            }
            _ => Err(faults),
        }
    }

    /// The public half of a credential.
    #[must_use]
    pub const fn client_id(&self) -> &ClientId {
        &self.client_id
    }

    /// The meter.
    #[must_use]
    pub const fn meter(&self) -> &MeterSlug {
        &self.meter
    }

    /// How the metered job ended.
    #[must_use]
    pub const fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// Dimensions, sorted by name, each name once.
    #[must_use]
    pub fn dimensions(&self) -> &[(DimensionName, Arc<str>)] {
        &self.dimensions
    }

    /// Where the usage was reserved ahead.
    #[must_use]
    pub const fn hold_id(&self) -> Option<HoldId> {
        self.hold_id
    }

    /// The series without the dimension at a place, and the value that it had; `None` where there is none.
    #[must_use]
    pub fn split(&self, at: u8) -> Option<(Self, Arc<str>)> {
        let (_, value) = self.dimensions.get(usize::from(at))?;
        let rest = self.dimensions.iter().enumerate().filter(|(place, _)| *place != usize::from(at));
        let dimensions = rest.map(|(_, dimension)| dimension.clone()).collect();
        Some((Self { dimensions, ..self.clone() }, Arc::clone(value)))
    }

    /// The series with [`OTHER`] for the value at each of these places.
    pub(crate) fn with_other(&self, mut is_other: impl FnMut(usize) -> bool) -> Self {
        let mut folded = self.clone();
        for (place, (_, value)) in folded.dimensions.iter_mut().enumerate() {
            if is_other(place) {
                *value = OTHER.into();
            }
        }
        folded
    }

    /// Appends the canonical bytes: equal series have equal bytes, others other ones.
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        put_prefixed(out, self.client_id.as_str().as_bytes());
        put_prefixed(out, self.meter.as_str().as_bytes());
        out.push(self.outcome.as_wire());
        match self.hold_id {
            None => out.push(0),
            Some(hold_id) => {
                out.push(1);
                out.extend_from_slice(hold_id.as_uuid().as_bytes());
            }
        }
        put_len(out, self.dimensions.len());
        for (name, value) in &self.dimensions {
            put_prefixed(out, name.as_str().as_bytes());
            put_prefixed(out, value.as_bytes());
        }
    }

    /// The canonical bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(96);
        self.encode_into(&mut out);
        out
    }

    /// From canonical bytes; `None` where they are not exactly that.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let client_id = reader.prefixed()?;
        let meter = reader.prefixed()?;
        let outcome = u64::from(reader.byte()?);
        let hold_id = match reader.byte()? {
            0 => String::new(),
            1 => HoldId::from_uuid(uuid_of(reader.array()?)).to_string(),
            _ => return None,
        };
        let count = reader.varint()?;
        let mut dimensions = Vec::new();
        for _ in 0..count {
            if dimensions.len() == DIMENSIONS_MAX {
                return None;
            }
            dimensions.push((reader.prefixed()?, reader.prefixed()?));
        }
        let parts = SeriesParts { client_id, meter, outcome, dimensions, hold_id: hold_id.as_bytes() };
        let key = Self::from_parts(&parts, "series").ok()?;
        // A second spelling of the same series (a longer varint, say) is not canonical.
        (reader.is_empty() && key.encode() == bytes).then_some(key)
    }
}

fn uuid_of(bytes: [u8; 16]) -> uuid::Uuid {
    uuid::Uuid::from_bytes(bytes)
}

/// Most parts hold, so where one stands is spelled out only for a fault.
fn text<'a>(bytes: &'a [u8], field: &impl Fn() -> String, faults: &mut Vec<FieldFault>) -> Option<&'a str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Some(text),
        Err(error) => {
            faults.push(FieldFault::new(field(), format!("is not UTF-8 at byte {}", error.valid_up_to())));
            None
        }
    }
}

fn name<T>(
    bytes: &[u8],
    field: impl Fn() -> String,
    check: impl Fn(&str) -> Result<T, NameError>,
    faults: &mut Vec<FieldFault>,
) -> Option<T> {
    let text = text(bytes, &field, faults)?;
    match check(text) {
        Ok(name) => Some(name),
        Err(error) => {
            faults.push(FieldFault::new(field(), error.to_string()));
            None
        }
    }
}

fn dimensions(
    parts: &[(&[u8], &[u8])],
    path: impl fmt::Display,
    faults: &mut Vec<FieldFault>,
) -> Vec<(DimensionName, Arc<str>)> {
    let mut checked: Vec<(DimensionName, Arc<str>)> = Vec::with_capacity(parts.len().min(DIMENSIONS_MAX));
    if parts.len() > DIMENSIONS_MAX {
        faults.push(FieldFault::new(
            format!("{path}.dimensions"),
            format!("has {} entries, at most {DIMENSIONS_MAX} are allowed", parts.len()),
        ));
        return checked;
    }
    for (at, (key, value)) in parts.iter().enumerate() {
        let name_field = || format!("{path}.dimensions[{at}].name");
        let key = name(key, name_field, DimensionName::new, faults);
        let value = dimension_value(value, || format!("{path}.dimensions[{at}].value"), faults);
        let (Some(key), Some(value)) = (key, value) else { continue };
        if checked.last().is_some_and(|(before, _)| *before >= key) {
            faults.push(FieldFault::new(
                name_field(),
                "is not after the one before it; names are sorted, each once",
            ));
        }
        checked.push((key, value.into()));
    }
    checked
}

fn dimension_value<'a>(
    value: &'a [u8],
    field: impl Fn() -> String,
    faults: &mut Vec<FieldFault>,
) -> Option<&'a str> {
    let text = text(value, &field, faults)?;
    let description = if text.len() > DIMENSION_VALUE_BYTES_MAX {
        format!("has {} bytes, at most {DIMENSION_VALUE_BYTES_MAX} are allowed", text.len())
    } else if let Some((at, _)) = text.char_indices().find(|(_, c)| c.is_control()) {
        format!("has a control character at byte {at}")
    } else {
        return Some(text);
    };
    faults.push(FieldFault::new(field(), description));
    None
}

/// The outer `None` is a violation.
#[expect(clippy::option_option, reason = "absent and violated are different things")]
fn hold(bytes: &[u8], path: impl fmt::Display, faults: &mut Vec<FieldFault>) -> Option<Option<HoldId>> {
    if bytes.is_empty() {
        return Some(None);
    }
    let field = || format!("{path}.hold_id");
    match text(bytes, &field, faults)?.parse() {
        Ok(id) => Some(Some(id)),
        Err(error) => {
            faults.push(FieldFault::new(field(), error.to_string()));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parts<'a>(client_id: &'a [u8], dimensions: Vec<(&'a [u8], &'a [u8])>) -> SeriesParts<'a> {
        SeriesParts { client_id, meter: b"web.call", outcome: 1, dimensions, hold_id: b"" }
    }

    fn fields(parts: &SeriesParts<'_>) -> Vec<String> {
        SeriesKey::from_parts(parts, "s").unwrap_err().into_iter().map(|fault| fault.field).collect()
    }

    #[test]
    fn every_violation_is_named_at_once() {
        let long = [b'x'; 129];
        let bad = SeriesParts {
            client_id: b"a\xff",
            meter: b"Web",
            outcome: 9,
            dimensions: vec![(b"region", b"eu"), (b"plan", &long), (b"a", b"nul\0"), (b"region", b"\xfe")],
            hold_id: b"hold_1",
        };
        assert_eq!(
            fields(&bad),
            [
                "s.client_id",
                "s.meter",
                "s.outcome",
                "s.dimensions[1].value",
                "s.dimensions[2].value",
                "s.dimensions[3].value",
                "s.hold_id"
            ]
        );
        assert_eq!(fields(&parts(b"a", vec![(b"b", b""), (b"a", b"")])), ["s.dimensions[1].name"]);
        assert_eq!(fields(&parts(b"a", vec![(b"b", b""), (b"b", b"")])), ["s.dimensions[1].name"]);
        assert_eq!(fields(&parts(b"a", vec![(b"b", b""); 9])), ["s.dimensions"]);
        assert_eq!(fields(&parts(b"", vec![])), ["s.client_id"]);
    }

    #[test]
    fn only_the_canonical_bytes_decode() {
        let key = SeriesKey::from_parts(&parts(b"client", vec![(b"region", b"eu")]), "s").unwrap();
        let bytes = key.encode();
        assert_eq!(SeriesKey::decode(&bytes), Some(key));
        let longer = [bytes.as_slice(), &[0]].concat();
        let other_spelling = [&[0x86, 0][..], &bytes[1..]].concat();
        assert_eq!((SeriesKey::decode(&longer), SeriesKey::decode(&other_spelling)), (None, None));
        assert_eq!(bytes, b"\x06client\x08web.call\x01\x00\x01\x06region\x02eu", "fixed for ever");
    }

    proptest! {
        #[test]
        fn every_series_survives_its_bytes(
            client in "[A-Za-z0-9_.~-]{1,64}",
            meter in "[a-z0-9][a-z0-9._-]{0,63}",
            failed in any::<bool>(),
            names in proptest::collection::btree_map("[a-z][a-z0-9]{0,9}", "[ -~é]{0,60}", 0..=8),
            hold in proptest::option::of(any::<u128>()),
        ) {
            let outcome = if failed { Outcome::Failed } else { Outcome::Succeeded };
            let key = SeriesKey::new(
                ClientId::new(&client).unwrap(),
                MeterSlug::new(&meter).unwrap(),
                outcome,
                names.into_iter().map(|(name, value)| (DimensionName::new(&name).unwrap(), value)).collect(),
                hold.map(|bits| HoldId::from_uuid(uuid::Uuid::from_u128(bits))),
            );
            let key = key.unwrap();
            prop_assert_eq!(SeriesKey::decode(&key.encode()), Some(key));
        }

        #[test]
        fn no_bytes_break_the_decoder(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Some(key) = SeriesKey::decode(&bytes) {
                prop_assert_eq!(key.encode(), bytes);
            }
        }
    }
}
