//! Charging usage of a hold at once, without a batch: for callers that do not stream their usage (D45).
//!
//! A line that is charged directly ([`super::direct`]).

use drawdown_ledger_core::{Aggregation, Attribution, Balance, Book, Hold, HoldEnd, Line, Payer, Usage};
use drawdown_types::{AppId, ChargeId, ClientId, HoldId, MeterSlug, Quantity, TeamId, Timestamp};
use sqlx::{Postgres, Transaction};

use super::{
    LineDetail, Poster,
    direct::{Content, Written},
};
use crate::{catalogue::Catalogue, directory::TeamFacts, error::Error, store::teams};

/// Usage to charge.
#[derive(Clone, Debug)]
pub(crate) struct Capture {
    /// The hold.
    pub(crate) hold_id: HoldId,
    /// What is known of who pays.
    pub(crate) facts: TeamFacts,
    /// The team.
    pub(crate) team_id: TeamId,
    /// The app.
    pub(crate) app_id: AppId,
    /// The client id.
    pub(crate) client_id: ClientId,
    /// The meter.
    pub(crate) meter: MeterSlug,
    /// In base units; of a meter that counts, the events.
    pub(crate) quantity: Quantity,
    /// The job failed.
    pub(crate) failed: bool,
    /// The hold ends with it.
    pub(crate) last: bool,
}

/// What became of it.
pub(crate) enum Captured {
    /// It is charged; the transaction is open.
    Charged {
        /// To be committed with the answer.
        tx: Transaction<'static, Postgres>,
        /// The charge.
        charge_id: ChargeId,
        /// Its price.
        amount: i64,
        /// What the hold paid of it.
        from_hold: i64,
        /// What no lot covered of it.
        uncharged: i64,
        /// The instant.
        at: Timestamp,
        /// The hold as it was.
        before: Box<Hold>,
        /// The team before and after.
        books: Box<[Balance; 2]>,
    },
    /// The team has no such hold.
    HoldUnknown,
    /// The hold was released or captured before.
    HoldOver(Timestamp, HoldEnd),
    /// The hold is for another app.
    OtherApp,
    /// There is no such meter, or it does not add up single quantities.
    MeterUnfit,
    /// Sums of the team would not fit (D53).
    Overflow,
}

impl Poster {
    /// Charges usage of a hold. After a time-out the same usage is ordinary usage; after a release or the
    /// last capture it is refused.
    pub(crate) async fn capture(&self, capture: &Capture) -> Result<Captured, Error> {
        let mut direct = self.begin_direct(capture.facts.account_id, capture.team_id).await?;
        let holds = teams::holds_in_tx(&mut direct.tx, &[capture.hold_id]).await?;
        let named = match own(capture, &holds) {
            Ok(named) => named,
            Err(refused) => return Ok(refused),
        };
        let window = self.settings.window_size.floor(direct.now);
        // What decides about price and trial is the hold's window while it is open, and that of ordinary usage then.
        let decides = if named.is_open_at(direct.now) { named.window } else { window };
        let payer = capture.facts.payer(capture.team_id, capture.app_id, decides);
        let Some(line) = line((capture, payer), &direct.catalogue, window) else {
            return Ok(Captured::MeterUnfit);
        };
        let content = Content {
            lines: &[line],
            details: &[LineDetail { dimensions: "{}".to_owned() }],
            holds: &holds,
            last_of_holds: if capture.last { &[capture.hold_id] } else { &[] },
        };
        let Written { plan, books, held, .. } = self.charge_direct(&mut direct, &content).await?;
        let Some(charge) = plan.charges.first() else { return Ok(Captured::Overflow) };
        let paid = plan.journal.iter().filter(|row| {
            row.debit == Book::Held && row.credit == Book::Consumed && row.charge_id == Some(charge.charge_id)
        });
        Ok(Captured::Charged {
            charge_id: charge.charge_id,
            amount: charge.amount.as_micros(),
            from_hold: paid.fold(0, |sum, row| sum.saturating_add(row.amount.as_micros())),
            uncharged: charge.uncharged.as_micros(),
            at: charge.posted_at,
            // One that is over is not loaded with its team, and nothing remains of it.
            before: Box::new(held.into_iter().next().unwrap_or_else(|| named.clone())),
            books,
            tx: direct.tx,
        })
    }
}

/// The hold, or why its usage is refused.
fn own<'a>(capture: &Capture, holds: &'a [Hold]) -> Result<&'a Hold, Captured> {
    let own = |hold: &&Hold| hold.hold_id == capture.hold_id && hold.team_id == capture.team_id;
    let hold = holds.iter().find(own).ok_or(Captured::HoldUnknown)?;
    if hold.app_id.is_some_and(|app_id| app_id != capture.app_id) {
        return Err(Captured::OtherApp);
    }
    match hold.ended {
        Some((at, end @ (HoldEnd::Released | HoldEnd::Captured))) => Err(Captured::HoldOver(at, end)),
        Some((_, HoldEnd::TimedOut)) | None => Ok(hold),
    }
}

fn line((capture, payer): (&Capture, Payer), catalogue: &Catalogue, window: Timestamp) -> Option<Line> {
    let (events, usage) = match catalogue.meters.get(&capture.meter)? {
        Aggregation::Sum => (1, Usage::Sum(capture.quantity)),
        Aggregation::Count => (u64::try_from(capture.quantity.as_units()).ok()?, Usage::Count),
        // Their quantities are no part of a sum: they come by batches.
        Aggregation::Max(_) | Aggregation::Unique(_) => return None,
    };
    Some(Line {
        client_id: capture.client_id.clone(),
        meter: capture.meter.clone(),
        failed: capture.failed,
        series: Vec::new(),
        window,
        received_window: window,
        events,
        usage,
        hold_id: Some(capture.hold_id),
        attribution: Attribution::Payer(payer),
    })
}
