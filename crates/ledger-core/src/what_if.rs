//! What a past month would have cost by other prices. Pure, and without any effect: nothing is rated,
//! paid or kept.
//!
//! What a month is priced from is its quantity, not its lines: sums, or the sum over the periods of a
//! meter that has them (D19). So any terms can be put to it, and the terms that were in force give
//! exactly what was charged (D14). One thing is not a matter of the month alone: an unfinished charged
//! unit is brought in from the months before (D15). It is counted in order of the windows here, while
//! charges follow the posting; only usage of a month that was posted after usage of a later one can
//! make a difference, of units between those months, never in sum.

use drawdown_types::{MeterSlug, MicroTokens, Quantity, Timestamp};

use crate::{
    price::{ContractKind, InForce, PriceBook},
    terms::Terms,
};

/// Part of a month in which a meter has one price, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PriceSpan<'a> {
    /// First instant.
    pub from: Timestamp,
    /// The instant after the last.
    pub to: Timestamp,
    /// The price.
    pub price: Option<&'a InForce>,
}

/// What was used of one meter by one team in a span, the trial apart, and what it has cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpanUsage {
    /// Quantity of all lines.
    pub all: Quantity,
    /// Quantity of the lines that did not fail: what is charged where failed jobs are free (D18).
    pub succeeded: Quantity,
    /// What was charged for it.
    pub cost: MicroTokens,
}

/// What a meter cost a team in a month, and what it would have cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quote {
    /// Quantity of all lines, the trial apart.
    pub quantity: Quantity,
    /// What was charged.
    pub cost: MicroTokens,
    /// What it would have cost; absent where that does not fit 64 bits.
    pub would_cost: Option<MicroTokens>,
    /// Some of it was used where the other prices have none for the meter.
    pub unpriced: bool,
    /// What lay above the quota in the months before, under the same price of charged units.
    pub carried: Quantity,
}

impl PriceBook {
    /// The prices of a meter between two instants, in order of time; neighbours differ.
    #[must_use]
    pub fn spans(
        &self,
        kind: ContractKind,
        meter: &MeterSlug,
        from: Timestamp,
        to: Timestamp,
    ) -> Vec<PriceSpan<'_>> {
        let edges = self.versions().iter().filter(|card| card.contract_kind == kind);
        let edges = edges.map(|card| card.effective_from).filter(|edge| from < *edge && *edge < to);
        let mut spans: Vec<PriceSpan<'_>> = Vec::new();
        for edge in std::iter::once(from).chain(edges) {
            let price = self.in_force(kind, meter, edge);
            let name = |price: Option<&InForce>| price.map(|price| price.price_id);
            match spans.last_mut() {
                Some(last) if last.from == edge || name(last.price) == name(price) => {}
                last => {
                    if let Some(last) = last {
                        last.to = edge;
                    }
                    spans.push(PriceSpan { from: edge, to, price });
                }
            }
        }
        spans
    }
}

/// Prices a month's usage of one meter of one team: each span with its terms, `None` where it has no
/// price. `carried` is what lay above the quota in the months before, where the price is one of
/// charged units that the team has used already.
#[must_use]
pub fn what_if(spans: &[(Option<&Terms>, SpanUsage)], carried: Quantity) -> Quote {
    let mut quote = Quote { would_cost: Some(MicroTokens::ZERO), ..Quote::default() };
    for (terms, usage) in spans {
        let quantity = quote.quantity.as_units().saturating_add(usage.all.as_units());
        quote.quantity = Quantity::new(quantity).unwrap_or_default();
        let cost = quote.cost.as_micros().saturating_add(usage.cost.as_micros());
        quote.cost = MicroTokens::from_micros(cost);
        let Some(terms) = terms else {
            quote.unpriced |= usage.all > Quantity::ZERO;
            continue;
        };
        let used = if terms.failed_is_free() { usage.succeeded } else { usage.all };
        let above = terms.above_quota(used);
        let price = match terms.charged_unit() {
            None => terms.price_above_quota(above),
            Some(_) => {
                quote.carried = carried;
                after_carried(terms, carried, above)
            }
        };
        quote.would_cost = quote.would_cost.zip(price).and_then(|(sum, price)| sum.checked_add(price));
    }
    quote
}

/// What units above the quota cost on top of those carried over.
fn after_carried(terms: &Terms, carried: Quantity, above: Quantity) -> Option<MicroTokens> {
    let all = carried.checked_add(above)?;
    terms.price_above_quota(all)?.checked_sub(terms.price_above_quota(carried)?)
}
