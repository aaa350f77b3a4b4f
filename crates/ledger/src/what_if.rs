//! A past month by other prices: read in one transaction of one instant, priced by the core, told.

use std::collections::{HashMap, HashSet};

use drawdown_ledger_core::{
    ContractKind, Cycle, Price, PriceBook, PriceSpan, Quote, SpanUsage, Terms, what_if,
};
use drawdown_service::{Code, Refusal};
use drawdown_types::{AccountId, MeterSlug, PriceId, Quantity, RateCardId, TeamId, Timestamp};

use crate::{
    catalogue,
    error::Error,
    reason,
    service::{Ledger, connection},
    store::{
        catalog, verification,
        what_if::{self as store, MeterSpan, UsageRead},
    },
};

/// Whose usage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// One team.
    Team(TeamId),
    /// Every team of an account.
    Account(AccountId),
}

/// By which prices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum By {
    /// Those of one published version.
    Card(RateCardId),
    /// These.
    Draft(HashMap<MeterSlug, Terms>),
    /// Those that were in force for a contract kind.
    InForce(ContractKind),
}

/// A month to price otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MonthQuestion {
    /// Whose usage.
    pub(crate) scope: Scope,
    /// Any instant of the month.
    pub(crate) month: Timestamp,
    /// By which prices.
    pub(crate) by: By,
}

/// A meter of a team.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MeterQuote {
    /// The team.
    pub(crate) team_id: TeamId,
    /// The meter.
    pub(crate) meter: MeterSlug,
    /// What it cost, and would have.
    pub(crate) quote: Quote,
    /// Whole units are charged by the other price.
    pub(crate) carries: bool,
}

/// The other price of a meter in a part of the month, if it has one there.
struct Other<'a> {
    from: Timestamp,
    to: Timestamp,
    terms: Option<&'a Terms>,
    /// Of a published one: the name of its states.
    price_id: Option<PriceId>,
}

type Others<'a> = HashMap<&'a MeterSlug, Vec<Other<'a>>>;

// === impl Ledger ===

impl Ledger {
    /// Prices a month otherwise.
    ///
    /// # Errors
    /// `RATE_CARD_UNKNOWN`, `WHOLE_READS_EXHAUSTED`, or where the database does not play along.
    pub(crate) async fn price_month(&self, question: &MonthQuestion) -> Result<Vec<MeterQuote>, Error> {
        let _place = self.begin_whole_read()?;
        let mut tx = self.pool.snapshot().await?;
        let at = connection(&mut tx);
        verification::limit_in_tx(at, self.limits.reports.statement_timeout).await?;
        let version = catalog::version_in_tx(at).await?;
        let book = catalogue::read_in_tx(at, version).await?.prices;
        let cycle = Cycle::of(question.month);
        let (from, to) = (cycle.start(), cycle.end());
        let others = others(&book, &question.by, from, to)?;
        let (account, team) = match question.scope {
            Scope::Account(account) => (account, None),
            Scope::Team(team) => match store::account_in_tx(at, team).await? {
                Some(account) => (account, Some(team)),
                None => return Ok(Vec::new()),
            },
        };
        let whose = crate::reports::Scope { account_id: account, team_id: team };
        crate::reports::check_rows_in_tx(&mut *at, whose, Some(from)).await?;
        let spans = others.iter().flat_map(|(meter, others)| {
            others.iter().map(|other| MeterSpan { meter: (*meter).clone(), from: other.from, to: other.to })
        });
        let usage = store::usage_in_tx(at, account, team, (from, to), &spans.collect::<Vec<_>>()).await?;
        let carrying = others.values().flatten();
        let carrying =
            carrying.filter(|other| other.terms.is_some_and(|terms| terms.charged_unit().is_some()));
        let prices: HashSet<PriceId> = carrying.filter_map(|other| other.price_id).collect();
        let prices: Vec<PriceId> = prices.into_iter().collect();
        let earlier = store::earlier_months_in_tx(at, account, team, from, &prices).await?;
        tx.rollback().await?;
        let meters = usage.chunk_by(|a, b| (a.team_id, &a.meter) == (b.team_id, &b.meter));
        Ok(meters.filter_map(|spans| quote(spans, &others, &earlier)).collect())
    }
}

/// The other prices of each meter that may have any, in order of time.
fn others<'a>(book: &'a PriceBook, by: &'a By, from: Timestamp, to: Timestamp) -> Result<Others<'a>, Error> {
    let all_month = |terms, price_id| vec![Other { from, to, terms: Some(terms), price_id }];
    match by {
        By::Draft(prices) => {
            Ok(prices.iter().map(|(meter, terms)| (meter, all_month(terms, None))).collect())
        }
        By::Card(card_id) => {
            let card =
                book.versions().iter().find(|card| card.rate_card_id == *card_id).ok_or_else(|| {
                    let why = format!("{card_id} is not known");
                    Refusal::new(Code::NotFound, reason::RATE_CARD_UNKNOWN, "there is no such rate card")
                        .violation("rate_card_id", why)
                })?;
            let prices = card.prices.iter();
            let other = |price: &'a Price| (&price.meter, all_month(&price.terms, Some(price.price_id)));
            Ok(prices.map(other).collect())
        }
        By::InForce(kind) => {
            let other = |span: PriceSpan<'a>| Other {
                from: span.from,
                to: span.to,
                terms: span.price.map(|price| &price.terms),
                price_id: span.price.map(|price| price.price_id),
            };
            let spans = |meter| book.spans(*kind, meter, from, to).into_iter().map(other).collect();
            Ok(book.meters().keys().map(|meter| (meter, spans(meter))).collect())
        }
    }
}

/// Prices the spans of one meter of one team.
fn quote(
    spans: &[UsageRead],
    others: &Others<'_>,
    earlier: &HashMap<(TeamId, PriceId), Vec<Quantity>>,
) -> Option<MeterQuote> {
    let first = spans.first()?;
    let none = Vec::new();
    let others = others.get(&first.meter).unwrap_or(&none);
    let other = |from: Timestamp| others.iter().find(|other| other.from == from);
    let priced: Vec<(Option<&Terms>, SpanUsage)> =
        spans.iter().map(|span| (other(span.from).and_then(|other| other.terms), span.usage)).collect();
    // At most one price of charged units is in force in a month: it changes where a month begins (D47).
    let carrying =
        others.iter().find(|other| other.terms.is_some_and(|terms| terms.charged_unit().is_some()));
    let carried = carrying.and_then(|other| {
        let months = earlier.get(&(first.team_id, other.price_id?))?;
        let above = |month: &Quantity| other.terms.map(|terms| terms.above_quota(*month));
        let sum = months.iter().filter_map(above).try_fold(Quantity::ZERO, Quantity::checked_add);
        // The sum is what the state without a month holds, less later months, so it fits.
        Some(sum.unwrap_or_default())
    });
    let quote = what_if(&priced, carried.unwrap_or_default());
    let carries = carrying.is_some();
    Some(MeterQuote { team_id: first.team_id, meter: first.meter.clone(), quote, carries })
}
