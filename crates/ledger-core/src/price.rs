//! Rate cards: versions by effective date and contract kind, and the price in force at a window.
//!
//! Versions of a card are only appended, in order of time, so publishing never changes what was in
//! force (D12). A price keeps its id for as long as the terms of its meter stay the same without a gap
//! (D47); the id is part of the key of the usage state, so an unchanged price goes on with its state.
//! A price that counts by the month, by its terms or by its meter's aggregation, begins, changes and
//! ends only where a month begins: a month never has two quotas.

use std::{
    collections::{HashMap, HashSet},
    str::FromStr,
    time::Duration,
};

use drawdown_types::{MeterSlug, PriceId, RateCardId, Slug, Timestamp, WindowSize};

use crate::{
    calendar,
    journal::UnknownName,
    meter::{Aggregation, Period},
    terms::Terms,
};

/// The kind of contract of an account; it picks the price (D57).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ContractKind {
    /// Buys tokens as it goes.
    Flex,
    /// Enterprise agreement.
    Enterprise,
}

impl ContractKind {
    /// Every kind.
    pub const ALL: [Self; 2] = [Self::Flex, Self::Enterprise];

    /// As stored.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Flex => "flex",
            Self::Enterprise => "enterprise",
        }
    }
}

impl FromStr for ContractKind {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        UnknownName::find("contract kind", text, &Self::ALL, Self::as_str)
    }
}

/// The price of one meter in one version of a card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Price {
    /// The meter.
    pub meter: MeterSlug,
    /// Its name, kept while the terms stay the same (D47).
    pub price_id: PriceId,
    /// What it costs.
    pub terms: Terms,
}

/// One version of a rate card, as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CardVersion {
    /// Its id.
    pub rate_card_id: RateCardId,
    /// The card's name; versions of one name and contract kind follow one another.
    pub name: Slug,
    /// Whom it is for.
    pub contract_kind: ContractKind,
    /// First instant; an edge. It ends where the next version begins.
    pub effective_from: Timestamp,
    /// Its prices, each meter once.
    pub prices: Vec<Price>,
}

/// A version to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewVersion {
    /// Its id.
    pub rate_card_id: RateCardId,
    /// The card's name.
    pub name: Slug,
    /// Whom it is for.
    pub contract_kind: ContractKind,
    /// First instant; rounded up to an edge.
    pub effective_from: Timestamp,
    /// What its meters cost. A meter that an earlier version had and this one lacks has no price
    /// from here on.
    pub prices: Vec<(MeterSlug, Terms)>,
}

/// Why a version is not published.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishFault {
    /// The version does not come after the last one of its name.
    #[error("effective from {at}, not after {latest}, the version before it")]
    NotAfterLatest {
        /// When it would begin.
        at: Timestamp,
        /// When the last one begins.
        latest: Timestamp,
    },
    /// The version begins too early (D51).
    #[error("effective from {at}, before {earliest}, the earliest edge that is possible")]
    TooEarly {
        /// When it would begin.
        at: Timestamp,
        /// When it may begin.
        earliest: Timestamp,
    },
    /// A meter appears twice.
    #[error("meter {0} has two prices")]
    DuplicateMeter(MeterSlug),
    /// A price that counts by the month would begin, change or end inside one (D47).
    #[error(
        "the price of meter {meter} counts by the month and can not change at {at}, inside one; the next \
         month begins at {next}"
    )]
    InsideMonth {
        /// The meter.
        meter: MeterSlug,
        /// When it would change.
        at: Timestamp,
        /// When the next month begins.
        next: Timestamp,
    },
    /// A meter is priced by another card of the same contract kind at the same time.
    #[error("meter {meter} is priced by card {name} at that time")]
    PricedElsewhere {
        /// The meter.
        meter: MeterSlug,
        /// The other card.
        name: Slug,
    },
}

/// The price of a meter at some windows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InForce {
    /// Its name.
    pub price_id: PriceId,
    /// What the meter costs.
    pub terms: Terms,
    /// The meter's period, where it aggregates by one (D19).
    pub period: Option<Period>,
}

#[derive(Clone, Debug)]
struct Span {
    from: Timestamp,
    /// `None` where the meter has no price from `from` on.
    price: Option<InForce>,
}

/// All versions of all cards, indexed for rating. Lookup: two hashes and a binary search.
#[derive(Clone, Debug, Default)]
pub struct PriceBook {
    versions: Vec<CardVersion>,
    meters: HashMap<MeterSlug, Aggregation>,
    timelines: HashMap<ContractKind, HashMap<MeterSlug, Vec<Span>>>,
}

impl PriceBook {
    /// From the stored versions, in any order; every meter simply adds up.
    #[must_use]
    pub fn new(versions: impl IntoIterator<Item = CardVersion>) -> Self {
        Self::with_meters(versions, HashMap::new())
    }

    /// From the stored versions, in any order, and how meters aggregate; a meter that is not named
    /// simply adds up.
    #[must_use]
    pub fn with_meters(
        versions: impl IntoIterator<Item = CardVersion>,
        meters: HashMap<MeterSlug, Aggregation>,
    ) -> Self {
        let mut versions: Vec<_> = versions.into_iter().collect();
        versions.sort_by(|a, b| (a.effective_from, &a.name).cmp(&(b.effective_from, &b.name)));
        let mut book = Self { versions, meters, timelines: HashMap::new() };
        for index in 0..book.versions.len() {
            book.index_version(index);
        }
        book
    }

    /// Appends spans; versions come in order of time. A drop gives way to a price that another card
    /// sets at the same edge, so a meter may pass from card to card whatever the order of their names.
    fn index_version(&mut self, index: usize) {
        let Some(version) = self.versions.get(index) else { return };
        let before = self.versions.get(..index).unwrap_or_default();
        let previous = before
            .iter()
            .rfind(|other| other.name == version.name && other.contract_kind == version.contract_kind);
        let timelines = self.timelines.entry(version.contract_kind).or_default();
        for dropped in previous.iter().flat_map(|card| &card.prices) {
            if version.prices.iter().all(|price| price.meter != dropped.meter)
                && let Some(spans) = timelines.get_mut(&dropped.meter)
                && spans.last().is_some_and(|last| last.from < version.effective_from)
            {
                spans.push(Span { from: version.effective_from, price: None });
            }
        }
        for price in &version.prices {
            let in_force = InForce {
                price_id: price.price_id,
                terms: price.terms.clone(),
                period: self.meters.get(&price.meter).and_then(|aggregation| aggregation.period()),
            };
            let span = Span { from: version.effective_from, price: Some(in_force) };
            timelines.entry(price.meter.clone()).or_default().push(span);
        }
    }

    /// Every version, by instant, then name.
    #[must_use]
    pub fn versions(&self) -> &[CardVersion] {
        &self.versions
    }

    /// How meters aggregate, as far as named.
    #[must_use]
    pub const fn meters(&self) -> &HashMap<MeterSlug, Aggregation> {
        &self.meters
    }

    /// The price in force for usage of the window that starts at `window`.
    #[must_use]
    pub fn in_force(&self, kind: ContractKind, meter: &MeterSlug, window: Timestamp) -> Option<&InForce> {
        let spans = self.timelines.get(&kind)?.get(meter)?;
        let after = spans.partition_point(|span| span.from <= window);
        spans.get(after.checked_sub(1)?)?.price.as_ref()
    }

    /// What a meter costs in windows from `from` on, as far as published: the price in force there, if there is one, and
    /// each later change; without a price from an instant on where it has none.
    #[must_use]
    pub fn course(
        &self,
        kind: ContractKind,
        meter: &MeterSlug,
        from: Timestamp,
    ) -> Vec<(Timestamp, Option<&InForce>)> {
        let spans =
            self.timelines.get(&kind).and_then(|meters| meters.get(meter)).map_or(&[][..], Vec::as_slice);
        let first = spans.partition_point(|span| span.from <= from).saturating_sub(1);
        spans.iter().skip(first).map(|span| (span.from, span.price.as_ref())).collect()
    }

    /// The price of that name, whatever versions hold it, with its meter.
    #[must_use]
    pub fn named(&self, price_id: PriceId) -> Option<(&MeterSlug, InForce)> {
        let mut prices = self.versions.iter().flat_map(|version| &version.prices);
        let Price { meter, terms, .. } = prices.find(|price| price.price_id == price_id)?;
        let period = self.meters.get(meter).and_then(|aggregation| aggregation.period());
        Some((meter, InForce { price_id, terms: terms.clone(), period }))
    }

    /// The price that ends where another begins at `at`.
    fn until(&self, kind: ContractKind, meter: &MeterSlug, at: Timestamp) -> Option<&InForce> {
        self.in_force(kind, meter, at.checked_sub(Duration::from_micros(1))?)
    }

    /// The version to store for `new`. With `earliest` (absent in a set-up, D61) it may not begin
    /// before that instant.
    ///
    /// # Errors
    /// Every [`PublishFault`] at once.
    pub fn publish(
        &self,
        new: NewVersion,
        earliest: Option<Timestamp>,
        size: WindowSize,
        mut new_price_id: impl FnMut() -> PriceId,
    ) -> Result<CardVersion, Vec<PublishFault>> {
        let at = size.ceil(new.effective_from);
        let faults = self.faults(&new, at, earliest);
        if !faults.is_empty() {
            return Err(faults);
        }
        let kept = |meter: &MeterSlug, terms: &Terms| {
            let before = self.until(new.contract_kind, meter, at);
            before.filter(|before| before.terms == *terms).map(|before| before.price_id)
        };
        let prices = new.prices.into_iter().map(|(meter, terms)| {
            let price_id = kept(&meter, &terms).unwrap_or_else(&mut new_price_id);
            Price { meter, price_id, terms }
        });
        Ok(CardVersion {
            rate_card_id: new.rate_card_id,
            prices: prices.collect(),
            name: new.name,
            contract_kind: new.contract_kind,
            effective_from: at,
        })
    }

    fn faults(&self, new: &NewVersion, at: Timestamp, earliest: Option<Timestamp>) -> Vec<PublishFault> {
        let mut faults = Vec::new();
        if let Some(earliest) = earliest.filter(|earliest| at < *earliest) {
            faults.push(PublishFault::TooEarly { at, earliest });
        }
        let kind: Vec<_> =
            self.versions.iter().filter(|card| card.contract_kind == new.contract_kind).collect();
        let latest = kind.iter().filter(|card| card.name == new.name).max_by_key(|card| card.effective_from);
        if let Some(latest) = latest.map(|card| card.effective_from).filter(|latest| at <= *latest) {
            faults.push(PublishFault::NotAfterLatest { at, latest });
        }
        let mut named = HashSet::with_capacity(new.prices.len());
        for (meter, _) in &new.prices {
            if !named.insert(meter) {
                faults.push(PublishFault::DuplicateMeter(meter.clone()));
            }
            if let Some(card) = kind.iter().find(|card| clashes(card, &kind, new, meter, at)) {
                faults.push(PublishFault::PricedElsewhere { meter: meter.clone(), name: card.name.clone() });
            }
        }
        if let Some(next) = calendar::inside_month(at) {
            let dropped = latest.iter().flat_map(|card| &card.prices).map(|price| &price.meter);
            let dropped = dropped.filter(|meter| !named.contains(*meter)).map(|meter| (meter, None));
            let kept = new.prices.iter().map(|(meter, terms)| (meter, Some(terms)));
            for (meter, terms) in kept.chain(dropped) {
                if self.breaks_month(new.contract_kind, meter, terms, at) {
                    faults.push(PublishFault::InsideMonth { meter: meter.clone(), at, next });
                }
            }
        }
        faults
    }

    /// A price that counts by the month would be another from `at` on (D47).
    fn breaks_month(
        &self,
        kind: ContractKind,
        meter: &MeterSlug,
        terms: Option<&Terms>,
        at: Timestamp,
    ) -> bool {
        let before = self.until(kind, meter, at).map(|before| &before.terms);
        let by_period = self.meters.get(meter).is_some_and(|aggregation| aggregation.period().is_some());
        let monthly =
            by_period || before.is_some_and(Terms::is_monthly) || terms.is_some_and(Terms::is_monthly);
        before != terms && monthly
    }
}

/// Whether `card`, of another name than `new`, prices the meter at or after `at`.
fn clashes(
    card: &CardVersion,
    kind: &[&CardVersion],
    new: &NewVersion,
    meter: &MeterSlug,
    at: Timestamp,
) -> bool {
    let ended = || {
        kind.iter().any(|later| {
            later.name == card.name
                && later.effective_from > card.effective_from
                && later.effective_from <= at
        })
    };
    card.name != new.name && card.prices.iter().any(|price| price.meter == *meter) && !ended()
}
