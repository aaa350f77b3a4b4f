//! An event by id, checked by itself; every flaw is named at once.
//!
//! Its content is what decides about usage: series, quantity and time, as the caller gave them. How it came (a message
//! of ours, a `CloudEvent` in whatever mode) and attributes beside it (traces, say) are no part of it, so a retry by
//! another way is the same event.

use drawdown_metering_core::{
    fault::FieldFault,
    series::{SeriesKey, SeriesParts},
};
use drawdown_types::{EventId, EventName, EventSource, Quantity, Timestamp};
use sha2::{Digest as _, Sha256};

use crate::reason;

/// Begins the bytes that a digest is of: another form of content would have another one.
const CONTENT_FORM: &[u8] = b"drawdown event 1\0";

/// An event as it was sent, in whatever form.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sent<'a> {
    /// Who gave the id.
    pub(crate) source: &'a str,
    /// The id.
    pub(crate) id: &'a str,
    /// What is metered.
    pub(crate) series: SeriesParts<'a>,
    /// In base units.
    pub(crate) quantity: u64,
    /// When it happened, if the caller said so.
    pub(crate) time: Option<Timestamp>,
}

/// Where the parts of an event stand in its form, for what is told of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fields {
    pub(crate) series: &'static str,
    pub(crate) client_id: &'static str,
    pub(crate) meter: &'static str,
    pub(crate) quantity: &'static str,
}

/// A checked event.
#[derive(Clone, Debug)]
pub(crate) struct Checked {
    /// Its name.
    pub(crate) name: EventName,
    /// What is metered.
    pub(crate) series: SeriesKey,
    /// In base units, at most [`Quantity::EVENT_MAX`].
    pub(crate) quantity: i64,
    /// When it happened, if the caller said so.
    pub(crate) time: Option<Timestamp>,
    /// SHA-256 over its content.
    pub(crate) content: [u8; 32],
}

/// What is wrong with an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Flaws {
    /// The stable reason.
    pub(crate) reason: &'static str,
    /// The fields, at least one.
    pub(crate) fields: Vec<FieldFault>,
}

impl Fields {
    /// In messages of ours.
    pub(crate) const OURS: Self =
        Self { series: "series", client_id: "series.client_id", meter: "series.meter", quantity: "quantity" };
    /// In `CloudEvents`.
    pub(crate) const CLOUD: Self =
        Self { series: "data", client_id: "subject", meter: "type", quantity: "data.quantity" };

    fn name(&self, fault: FieldFault) -> FieldFault {
        let field = match fault.field.as_str() {
            "series.client_id" => self.client_id.to_owned(),
            "series.meter" => self.meter.to_owned(),
            other => other.replacen("series", self.series, 1),
        };
        FieldFault { field, ..fault }
    }
}

impl Flaws {
    /// Of fields.
    pub(crate) fn of_fields(fields: Vec<FieldFault>) -> Self {
        Self { reason: reason::EVENT_INVALID, fields }
    }

    /// The meter of a series does not take it.
    pub(super) fn of_meter(reason: &'static str, series: &SeriesKey) -> Self {
        let why = format!("meter {} does not take the event", series.meter());
        Self { reason, fields: vec![FieldFault::new("meter", why)] }
    }
}

impl Sent<'_> {
    /// Checks all of it; `flaws` were found on the way here.
    pub(crate) fn check(self, fields: Fields, mut flaws: Vec<FieldFault>) -> Result<Checked, Flaws> {
        let mut named = |field: &str, error: drawdown_types::NameError| {
            flaws.push(FieldFault::new(field, error.to_string()))
        };
        let source = EventSource::new(self.source).map_err(|error| named("source", error)).ok();
        let id = EventId::new(self.id).map_err(|error| named("id", error)).ok();
        let series = SeriesKey::from_parts(&self.series, "series")
            .map_err(|faults| flaws.extend(faults.into_iter().map(|fault| fields.name(fault))))
            .ok();
        let quantity = Quantity::of_event(self.quantity)
            .map_err(|error| flaws.push(FieldFault::new(fields.quantity, error.to_string())))
            .ok();
        match (source.zip(id), series, quantity) {
            (Some((source, id)), Some(series), Some(quantity)) if flaws.is_empty() => {
                let content = content(&series, quantity, self.time);
                let (name, quantity) = (EventName { source, id }, quantity.as_units());
                Ok(Checked { name, series, quantity, time: self.time, content })
            }
            _ => Err(Flaws::of_fields(flaws)),
        }
    }
}

fn content(series: &SeriesKey, quantity: Quantity, time: Option<Timestamp>) -> [u8; 32] {
    let mut content = Sha256::new_with_prefix(CONTENT_FORM);
    let series = series.encode();
    content.update(u64::try_from(series.len()).unwrap_or(u64::MAX).to_be_bytes());
    content.update(series);
    content.update(quantity.as_units().to_be_bytes());
    match time {
        None => content.update([0]),
        Some(time) => {
            content.update([1]);
            content.update(time.as_micros().to_be_bytes());
        }
    }
    content.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent() -> Sent<'static> {
        let series = SeriesParts { client_id: b"app", meter: b"web.call", ..SeriesParts::default() };
        Sent { source: "/eu", id: "1", series, quantity: 2, time: Some(Timestamp::EPOCH) }
    }

    fn digest(sent: Sent<'_>) -> String {
        let content = sent.check(Fields::OURS, Vec::new()).unwrap().content;
        content.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn a_content_is_what_decides_about_usage() {
        let first = digest(sent());
        // Written down: another digest would make a conflict of every event that is recorded.
        assert_eq!(first, "39354a77c483e35fd8b35e65dfc519a94707ffaa23a8a5d66e84a05ce49890a6");
        assert_eq!(digest(Sent { source: "/us", id: "2", ..sent() }), first);
        let dimensions = vec![(&b"region"[..], &b"eu"[..])];
        let others = [
            Sent { quantity: 3, ..sent() },
            Sent { time: None, ..sent() },
            Sent { time: Some(Timestamp::from_micros(1).unwrap()), ..sent() },
            Sent { series: SeriesParts { outcome: 2, ..sent().series }, ..sent() },
            Sent { series: SeriesParts { dimensions, ..sent().series }, ..sent() },
            Sent { series: SeriesParts { client_id: b"other", ..sent().series }, ..sent() },
        ];
        let mut digests: Vec<_> = others.map(digest).into_iter().chain([first]).collect();
        digests.sort();
        digests.dedup();
        assert_eq!(digests.len(), 7);
    }

    #[test]
    fn every_flaw_is_named_by_the_words_of_its_form() {
        let wrong = || Sent {
            source: "",
            id: "a\0b",
            series: SeriesParts {
                client_id: b"no client",
                meter: b"\xff",
                outcome: 9,
                dimensions: vec![(b"Region", b"eu")],
                hold_id: b"hold",
            },
            quantity: (1 << 48) + 1,
            time: None,
        };
        let fields = |fields| {
            let flaws = wrong().check(fields, vec![FieldFault::new("time", "is wrong")]).unwrap_err();
            assert_eq!(flaws.reason, "EVENT_INVALID");
            flaws.fields.into_iter().map(|flaw| flaw.field).collect::<Vec<_>>().join(" ")
        };
        let ours = "time source id series.client_id series.meter series.outcome series.dimensions[0].name series.hold_id quantity";
        assert_eq!(fields(Fields::OURS), ours);
        let cloud =
            "time source id subject type data.outcome data.dimensions[0].name data.hold_id data.quantity";
        assert_eq!(fields(Fields::CLOUD), cloud);
    }
}
