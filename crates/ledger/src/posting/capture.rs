//! Charging usage of a hold at once, without a batch: for callers that do not stream their usage (D45).
//!
//! The same fold and the same statements as a batch of one line, under the same locks in the same order
//! (catalogue, balance); only the cursor and the lanes are not concerned. The charge names batch 0.

use drawdown_ledger_core::{
    Aggregation, Attribution, Book, Hold, HoldEnd, Line, Payer, Periods, Usage, usage_keys,
};
use drawdown_types::{ChargeId, ClientId, HoldId, MeterSlug, Quantity, Timestamp};
use sqlx::{Postgres, Transaction};

use super::{LineDetail, Poster, SealedBatch, rows};
use crate::{
    catalogue::Catalogue,
    error::Error,
    noting,
    store::{catalog, settlement, teams, teams::Wanted, write},
};

/// Usage to charge.
#[derive(Clone, Debug)]
pub(crate) struct Capture {
    /// The hold.
    pub(crate) hold_id: HoldId,
    /// Who pays.
    pub(crate) payer: Payer,
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
        let mut tx = self.pool.begin().await?;
        let version = catalog::share_in_tx(&mut tx).await?;
        let catalogue = self.catalogue.of_version(&mut tx, version).await?;
        let payer = capture.payer;
        teams::lock_in_tx(&mut tx, vec![(payer.account_id, payer.team_id)]).await?;
        let now = self.clock.now();
        let holds = teams::holds_in_tx(&mut tx, &[capture.hold_id]).await?;
        if let Some(refused) = refuse(capture, &holds) {
            return Ok(refused);
        }
        let Some(line) = line(capture, &catalogue, self.settings.window_size.floor(now)) else {
            return Ok(Captured::MeterUnfit);
        };
        let lines = [line];
        let keys = usage_keys(&catalogue.prices, &lines, &holds);
        let months = noting::months(&lines, &holds);
        let wanted = Wanted { keys: &keys, months: &months, lot: None };
        let (mut stored, states) = teams::load_wanted_in_tx(&mut tx, &[payer.team_id], &wanted).await?;
        let last: &[HoldId] = if capture.last { &[capture.hold_id] } else { &[] };
        let (plan, noted) =
            self.fold(&lines, last, &mut stored, (&states, &Periods::default()), &catalogue, now)?;
        let Some(charge) = plan.charges.first() else { return Ok(Captured::Overflow) };
        let batch = single(&lines);
        let rows = rows::Rows::new(&batch, &lines, &plan, &stored, now)?;
        let usage = rows.usage(&stored);
        let plan_rows = write::PlanRows {
            batch: (batch.shard, batch.number),
            charges: rows.charges(),
            plan: &plan,
            balances: &usage,
            noted: &noted,
            note: &write::LotNote::default(),
            sub_batch: self.sub_batch_lines,
        };
        write::write_in_tx(&mut tx, &plan_rows).await?;
        settlement::note_client_in_tx(&mut tx, capture.client_id.as_str(), charge.window).await?;
        let paid = plan.journal.iter().filter(|row| {
            row.debit == Book::Held && row.credit == Book::Consumed && row.charge_id == Some(charge.charge_id)
        });
        Ok(Captured::Charged {
            charge_id: charge.charge_id,
            amount: charge.amount.as_micros(),
            from_hold: paid.fold(0, |sum, row| sum.saturating_add(row.amount.as_micros())),
            uncharged: charge.uncharged.as_micros(),
            at: charge.posted_at,
            tx,
        })
    }
}

fn refuse(capture: &Capture, holds: &[Hold]) -> Option<Captured> {
    let own = |hold: &&Hold| hold.hold_id == capture.hold_id && hold.team_id == capture.payer.team_id;
    let Some(hold) = holds.iter().find(own) else { return Some(Captured::HoldUnknown) };
    if hold.app_id.is_some_and(|app_id| app_id != capture.payer.app_id) {
        return Some(Captured::OtherApp);
    }
    match hold.ended {
        Some((at, end @ (HoldEnd::Released | HoldEnd::Captured | HoldEnd::Void))) => {
            Some(Captured::HoldOver(at, end))
        }
        Some((_, HoldEnd::TimedOut)) | None => None,
    }
}

fn line(capture: &Capture, catalogue: &Catalogue, window: Timestamp) -> Option<Line> {
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
        attribution: Attribution::Payer(capture.payer),
    })
}

/// The line as a batch of no shard.
fn single(lines: &[Line]) -> SealedBatch {
    SealedBatch {
        shard: 0,
        generation: 0,
        number: 0,
        digest: Vec::new(),
        lanes: Vec::new(),
        events: 0,
        refused: Vec::new(),
        totals: Vec::new(),
        lines: lines.to_vec(),
        details: vec![LineDetail { dimensions: "{}".to_owned() }],
    }
}
