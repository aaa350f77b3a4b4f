//! A charge explained: its rating from the charges before it, its payment by a replay of the journal.
//!
//! All is read in one transaction of one instant, as a tenant where an account is named. The catalogue belongs to
//! nobody, so it is read beside that, in between: a charge never changes, nor do the terms of its price. The team is
//! rolled forward to now, so a lot that started a moment ago has paid in the answer (D40).

use std::sync::Arc;

use drawdown_ledger_core::{
    Aggregation, Cycle, Explanation, JournalRow, Lot, Period, RatingStory, Settings, TakenBack, Team, Terms,
    explain, explain_correction, explain_rating, roll_forward,
};
use drawdown_service::{Code, Refusal, refusal};
use drawdown_types::{ChargeId, MeterSlug, MicroTokens, PriceId, Quantity, Timestamp};
use sqlx::PgConnection;
use tokio::sync::OwnedSemaphorePermit;

use crate::{
    catalogue::{self, Catalogue},
    error::Error,
    reason,
    reports::{Scope, check_rows_in_tx},
    service::{Ledger, connection},
    store::{
        catalog,
        charges::ChargeRead,
        explain::{PeriodCount, charge_in_tx, counts_in_tx},
        teams, verification,
    },
    tokens::Of,
};

/// Why a charge costs what it costs, and who paid it.
#[derive(Clone, Debug)]
pub(crate) struct Explained {
    /// The charge, with what is open of it at `at`.
    pub(crate) charge: ChargeRead,
    /// Its rating, where it has a price.
    pub(crate) rating: Option<Rated>,
    /// Its payment, where it moved anything.
    pub(crate) payment: Option<Explanation>,
    /// Of a correction, what it took back.
    pub(crate) taken_back: Vec<TakenBack>,
    /// The instant of the answer.
    pub(crate) at: Timestamp,
}

/// The rating of a charge.
#[derive(Clone, Debug)]
pub(crate) struct Rated {
    /// The meter.
    pub(crate) meter: MeterSlug,
    /// How it adds up.
    pub(crate) aggregation: Aggregation,
    /// The price.
    pub(crate) terms: Terms,
    /// The month of the state.
    pub(crate) cycle: Cycle,
    /// What the price made of the month.
    pub(crate) story: RatingStory,
    /// Of a meter that aggregates by period, the one of the charge.
    pub(crate) period: Option<PeriodCount>,
}

/// What a payment is explained from.
struct Replay {
    team: Team,
    /// All of them, closed ones too.
    lots: Vec<Lot>,
    /// From its first row.
    journal: Vec<JournalRow>,
    charge_id: ChargeId,
    at: Timestamp,
    until: Timestamp,
}

// === impl Ledger ===

impl Ledger {
    /// Explains a charge of a team.
    ///
    /// # Errors
    /// `CHARGE_UNKNOWN` where there is none; `MONTHS_ARCHIVED` where the first months of the team are;
    /// `JOURNAL_TOO_LONG`; `WHOLE_READS_EXHAUSTED`; where its journal is not what the allocator writes, or its amount
    /// not what its price makes of the charges before it.
    pub(crate) async fn explain(&self, of: Of, charge_id: ChargeId) -> Result<Explained, Error> {
        let _place = self.begin_whole_read()?;
        let found = charge_in_tx(&mut *self.pool.read_of(of.account).await?, of.team, charge_id).await?;
        let account_id = self.stored_team(of).await?.team.balance.account_id;
        // A charge that is archived is not told from one that never was, and the replay begins with the first row.
        let whose = Scope { account_id, team_id: Some(of.team) };
        check_rows_in_tx(&mut *self.pool.read_of(of.account).await?, whose, None).await?;
        let Some(mut charge) = found else {
            let why = format!("{charge_id} is no charge of the team");
            let refusal = Refusal::new(Code::NotFound, reason::CHARGE_UNKNOWN, "there is no such charge");
            return Err(refusal.violation("charge_id", why).into());
        };
        let catalogue = {
            let mut reader = self.pool.read().await?;
            let version = catalog::version_in_tx(&mut reader).await?;
            catalogue::read_in_tx(&mut reader, version).await?
        };
        let mut tx = self.pool.snapshot_of(of.account).await?;
        verification::limit_in_tx(connection(&mut tx), self.limits.reports.statement_timeout).await?;
        let rating = self.rating_in_tx(connection(&mut tx), of, &charge, &catalogue).await?;
        let (loaded, _) = teams::load_in_tx(connection(&mut tx), &[of.team], &[]).await?;
        let loaded = loaded.into_iter().next();
        let team = loaded.ok_or_else(|| Error::Broken("a charged team is not there".to_owned()))?.team;
        let now = self.clock.now();
        let at = team.balance.posted_at.map_or(now, |last| last.max(now));
        if charge.quantity >= 0 && charge.journal_seq == 0 {
            tx.rollback().await?;
            return Ok(Explained { charge, rating, payment: None, taken_back: Vec::new(), at });
        }
        self.check_length(&team)?;
        let journal = verification::journal_in_tx(connection(&mut tx), of.team, 0).await?;
        let lots = verification::lots_in_tx(connection(&mut tx), of.team).await?;
        tx.rollback().await?;
        let replay = Replay { team, lots, journal, charge_id, at, until: self.settled_until(at) };
        let settings = Arc::clone(&self.settings);
        let is_correction = charge.quantity < 0;
        // Replaying a long journal takes a while, in which other calls go on.
        let replayed = tokio::task::spawn_blocking(move || replay.run(is_correction, &settings)).await;
        let (payment, taken_back) =
            replayed.map_err(|error| Error::Broken(format!("a replay was given up: {error}")))??;
        charge.open_micros = payment.as_ref().map_or(0, |payment| payment.open.as_micros());
        Ok(Explained { charge, rating, payment, taken_back, at })
    }

    /// A place among the reads that begin at the beginning.
    pub(crate) fn begin_whole_read(&self) -> Result<OwnedSemaphorePermit, Error> {
        Arc::clone(&self.whole_reads).try_acquire_owned().map_err(|_| {
            let most = self.limits.reports.whole_reads_max;
            let why = format!("{most} explanations and what-ifs are running, which is the most");
            Refusal::new(Code::ResourceExhausted, reason::WHOLE_READS_EXHAUSTED, why)
                .retry_after(refusal::RETRY_AFTER_DEFAULT)
                .into()
        })
    }

    /// The journal of a team has as many rows as its balance counts.
    fn check_length(&self, team: &Team) -> Result<(), Error> {
        let (rows, most) = (team.balance.version, self.limits.reports.explain_rows_max);
        if rows <= most {
            return Ok(());
        }
        let why = format!("the team has {rows} journal rows, and a charge is explained from at most {most}");
        Err(Refusal::new(Code::FailedPrecondition, reason::JOURNAL_TOO_LONG, why).into())
    }

    async fn rating_in_tx(
        &self,
        tx: &mut PgConnection,
        of: Of,
        charge: &ChargeRead,
        catalogue: &Catalogue,
    ) -> Result<Option<Rated>, Error> {
        let Some(price_id) = charge.price_id.map(PriceId::from_uuid) else { return Ok(None) };
        let meter = MeterSlug::new(&charge.meter).map_err(|e| Error::stored("meter slug")(e.into()))?;
        let mut prices = catalogue.prices.versions().iter().flat_map(|card| &card.prices);
        let price = prices.find(|price| price.price_id == price_id);
        let terms = price.map(|price| price.terms.clone());
        let (terms, aggregation) = terms
            .zip(catalogue.meters.get(&meter).copied())
            .ok_or_else(|| Error::Broken(format!("{price_id} or its meter {meter} is in no catalogue")))?;
        let counts = counts_in_tx(tx, of.team, price_id, charge.seq, aggregation).await?;
        let window = charge.window_start.0;
        let cycle = Cycle::of(window);
        let (own, others): (Vec<PeriodCount>, Vec<PeriodCount>) =
            counts.iter().copied().partition(|count| Cycle::of(count.start) == cycle);
        let before = quantity(own.iter().map(|count| count.before))?;
        let after = quantity(own.iter().map(|count| count.after))?;
        let mut months: Vec<(Cycle, Vec<i64>)> = Vec::new();
        for count in others {
            let month = Cycle::of(count.start);
            match months.last_mut() {
                Some((last, counts)) if *last == month => counts.push(count.before),
                _ => months.push((month, vec![count.before])),
            }
        }
        let months: Result<Vec<_>, _> =
            months.into_iter().map(|(_, counts)| quantity(counts.into_iter())).collect();
        let story = explain_rating(&terms, (before, after), &months?)
            .filter(|story| cost(story) == Some(charge.amount_micros))
            .ok_or_else(|| {
                Error::Broken(format!("charge {} is not what its price makes of it", charge.seq))
            })?;
        let start = aggregation.period().map(|period| Period::start(period, window));
        let period = start.and_then(|start| counts.iter().find(|count| count.start == start).copied());
        Ok(Some(Rated { meter, aggregation, terms, cycle, story, period }))
    }
}

// === impl Replay ===

impl Replay {
    /// Who paid the charge; of a correction, what it took back.
    fn run(
        self,
        is_correction: bool,
        settings: &Settings,
    ) -> Result<(Option<Explanation>, Vec<TakenBack>), Error> {
        let Self { team, lots, mut journal, charge_id, at, until } = self;
        if is_correction {
            return Ok((None, explain_correction(&journal, charge_id)));
        }
        journal.extend(roll_forward(&mut [team.clone()], at, until, settings).journal);
        let team = Team { lots, ..team };
        let explained = explain(&team, &journal, charge_id, settings);
        let explained = explained.map_err(|error| Error::stored("journal of the charge")(error.into()))?;
        Ok((Some(explained), Vec::new()))
    }
}

fn cost(story: &RatingStory) -> Option<i64> {
    story.cost_after.checked_sub(story.cost_before).map(MicroTokens::as_micros)
}

fn quantity(mut counts: impl Iterator<Item = i64>) -> Result<Quantity, Error> {
    let sum = counts.try_fold(0_i64, i64::checked_add);
    let sum = sum.ok_or_else(|| Error::Broken("the counts of a month do not fit".to_owned()))?;
    Quantity::new(sum).map_err(|error| Error::stored("counts of a month")(error.into()))
}
