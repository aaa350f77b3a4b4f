//! Registering meters and publishing prices: each raises the version of the catalogue in its own
//! transaction and waits for the postings that read the one before.

use drawdown_ledger_core::{CardVersion, NewVersion, PublishFault};
use drawdown_service::{Code, Refusal, Violations};
use drawdown_types::{PriceId, Timestamp};
use sqlx::{Postgres, Transaction};

use crate::{
    audited,
    catalogue::{self, Catalogue},
    error::Error,
    reason,
    service::{Ledger, connection},
    store::{
        audit,
        catalog::{self, Meter},
        settlement,
    },
};

/// A version as decoded.
#[derive(Clone, Debug)]
pub(crate) struct Publication {
    /// The version; without an instant it begins as soon as one may.
    pub(crate) version: NewVersion,
    /// No instant was given.
    pub(crate) at_once: bool,
    /// The instant may lie in the past (D61).
    pub(crate) set_up: bool,
}

impl Ledger {
    /// Registers a meter. The same meter again is no fault.
    pub(crate) async fn create_meter(&self, meter: &Meter) -> Result<Transaction<'static, Postgres>, Error> {
        let mut tx = self.begin().await?;
        let at = connection(&mut tx);
        catalog::lock_in_tx(at).await?;
        let now = self.clock.now();
        if catalog::insert_meter_in_tx(at, meter, now).await? {
            let line = audit::Line {
                action: "meter.create",
                subject: meter.slug.to_string(),
                detail: serde_json::json!({}),
                before: None,
                after: serde_json::json!({ "meter": audited::meter(meter) }),
            };
            audit::note_in_tx(at, now, line).await?;
            return Ok(tx);
        }
        let stored = catalog::meters_in_tx(at).await?;
        if stored.iter().any(|stored| stored == meter) {
            return Ok(tx);
        }
        let why = format!("meter {} exists with another unit, aggregation, dimensions or limit", meter.slug);
        Err(Refusal::new(Code::AlreadyExists, reason::METER_EXISTS, why.clone())
            .violation("meter.slug", why)
            .into())
    }

    /// Publishes a version of a rate card (D12).
    pub(crate) async fn publish(
        &self,
        publication: &Publication,
    ) -> Result<(Transaction<'static, Postgres>, CardVersion), Error> {
        let mut tx = self.begin().await?;
        let at = connection(&mut tx);
        // From here on no posting is under way, and the next one reads what is committed here.
        let version = catalog::lock_in_tx(at).await?;
        let now = self.clock.now();
        let catalogue = catalogue::read_in_tx(at, version).await?;
        let mut new = publication.version.clone();
        let size = self.settings.window_size;
        let earliest = size.ceil(now.checked_add(self.limits.change_lead).unwrap_or(Timestamp::MAX));
        if publication.at_once {
            new.effective_from = earliest;
        }
        let edge = size.ceil(new.effective_from);
        if publication.set_up && settlement::any_usage_in_tx(at, edge).await? {
            let why = format!("usage of windows from {edge} on is settled already");
            return Err(Refusal::new(Code::FailedPrecondition, reason::WINDOW_SETTLED, why.clone())
                .violation("rate_card.effective_from", why)
                .into());
        }
        let bound = (!publication.set_up).then_some(earliest);
        let meters: Vec<_> = new.prices.iter().map(|(meter, _)| meter.clone()).collect();
        let published = catalogue.prices.publish(new, bound, size, PriceId::generate);
        let card = check(&catalogue, &meters, published)?;
        catalog::insert_card_in_tx(at, &card, publication.set_up, now).await?;
        audit::note_in_tx(at, now, line(&catalogue, &card, publication.set_up)).await?;
        Ok((tx, card))
    }
}

/// A version with the one that it follows: versions of a card are appended only, so that is in force until then.
fn line(catalogue: &Catalogue, card: &CardVersion, set_up: bool) -> audit::Line {
    let kind = card.contract_kind;
    let earlier = catalogue.prices.versions().iter();
    let earlier = earlier.filter(|earlier| earlier.contract_kind == kind && earlier.name == card.name);
    let earlier = earlier.max_by_key(|earlier| earlier.effective_from);
    let shows = |card: &CardVersion| serde_json::json!({ "rate_card": audited::card(card) });
    audit::Line {
        action: "rate_card.publish",
        subject: card.rate_card_id.to_string(),
        detail: serde_json::json!({ "name": card.name, "contract_kind": kind.as_str(), "set_up": set_up }),
        before: earlier.map(shows),
        after: shows(card),
    }
}

/// Everything that is wrong with a version, at once.
fn check(
    catalogue: &Catalogue,
    meters: &[drawdown_types::MeterSlug],
    published: Result<CardVersion, Vec<PublishFault>>,
) -> Result<CardVersion, Error> {
    let mut violations = Violations::new();
    let field = |meter: &drawdown_types::MeterSlug| {
        // A meter that the version leaves out has no place in it.
        let index = meters.iter().rposition(|candidate| candidate == meter);
        index
            .map_or_else(|| "rate_card.prices".to_owned(), |index| format!("rate_card.prices[{index}].meter"))
    };
    for meter in meters.iter().filter(|meter| !catalogue.meters.contains_key(*meter)) {
        violations.push_as(reason::METER_UNKNOWN, &field(meter), format!("meter {meter} is not registered"));
    }
    let (card, faults) = match published {
        Ok(card) => (Some(card), Vec::new()),
        Err(faults) => (None, faults),
    };
    for fault in &faults {
        let (reason, field) = match fault {
            PublishFault::NotAfterLatest { .. } => {
                (reason::RATE_CARD_OUT_OF_ORDER, "rate_card.effective_from".to_owned())
            }
            PublishFault::TooEarly { .. } => {
                (reason::RATE_CARD_TOO_EARLY, "rate_card.effective_from".to_owned())
            }
            PublishFault::DuplicateMeter(meter) => (reason::REQUEST_INVALID, field(meter)),
            PublishFault::InsideMonth { meter, .. } => (reason::PRICE_INSIDE_MONTH, field(meter)),
            PublishFault::PricedElsewhere { meter, .. } => (reason::METER_PRICED_ELSEWHERE, field(meter)),
        };
        violations.push_as(reason, &field, fault);
    }
    Ok(violations.finish(reason::REQUEST_INVALID, card)?)
}
