//! Why a charge costs what it costs and was paid as it was: the state that was priced, the lots looked at in the order
//! of the draw with what each gave or why it gave nothing, what became debt, and which lots paid that debt later.
//!
//! Nothing of this is stored. The journal is replayed through the allocator up to the charge, so what is told is what
//! the allocator does, and a journal that it would not write is told as a [`Violation`] instead. Cost: that of a
//! replay up to the charge, and a look at the rows after it. The rating is the same: from the quantities before and
//! after, by the functions that charged them.

use drawdown_types::{ChargeId, HoldId, LotId, MicroTokens, PriceId, Quantity, Timestamp};

use crate::{
    journal::{Book, DebtInterval, JournalRow, Kind},
    lot::{Lot, LotState, draw_order},
    replay::{Violation, replay_before},
    settings::Settings,
    standing::standing_of,
    team::Team,
    terms::Terms,
};

/// What became of a charge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The charge.
    pub charge_id: ChargeId,
    /// Its price.
    pub price_id: Option<PriceId>,
    /// The hold that paid for it, where one paid anything.
    pub hold_id: Option<HoldId>,
    /// Start of the window of its usage: the instant at which lots must be valid (D9).
    pub window: Option<Timestamp>,
    /// The instant of its transaction: what the states of lots are of (D40).
    pub posted_at: Timestamp,
    /// The first and the last of its journal rows.
    pub rows: (i64, i64),
    /// What it costs, paid or not.
    pub amount: MicroTokens,
    /// Every lot the team had then, in the order of the draw (D4).
    pub lots: Vec<Considered>,
    /// What of it was ever owed: what no lot covered, and what chargebacks of lots made owed again.
    pub debts: Vec<OwedPart>,
    /// What of it is owed still.
    pub open: MicroTokens,
    /// A correction charged it: what that gave back paid first, whatever the state and validity of its lot (D41). The
    /// lots are told as they were before the correction.
    pub charged_again: bool,
    /// What corrections took back of it since, by sequence.
    pub taken_back: Vec<TakenBack>,
}

/// A part of a charge that a correction took back (D43).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TakenBack {
    /// The journal row.
    pub seq: i64,
    /// When.
    pub posted_at: Timestamp,
    /// The correction.
    pub correction_id: Option<ChargeId>,
    /// The lot that got it back; none where it was owed still.
    pub lot_id: Option<LotId>,
    /// How much.
    pub amount: MicroTokens,
}

/// A lot as it was when the charge was posted, and what it gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Considered {
    /// The lot before the charge.
    pub lot: Lot,
    /// What it gave, or why it gave nothing.
    pub verdict: Verdict,
}

/// What a lot gave, or the first reason why it gave nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It paid.
    Paid {
        /// How much.
        amount: MicroTokens,
        /// How much of that the hold of the usage had set aside before (D41, D45).
        held: MicroTokens,
    },
    /// It had moved to another team.
    Moved,
    /// It was closed.
    Closed,
    /// It had not started when the charge was posted.
    Scheduled,
    /// It starts after the window of the usage.
    StartsLater,
    /// It came to the team after the window of the usage (D9).
    CameLater,
    /// It had expired at the window of the usage.
    Expired,
    /// It had nothing left that was not set aside by holds.
    Empty,
    /// Lots before it had covered everything.
    NotNeeded,
}

/// A part of a charge that was owed, as a part of the team's running debt (D7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwedPart {
    /// The journal row that opened it.
    pub seq: i64,
    /// When.
    pub posted_at: Timestamp,
    /// The lot whose payment was taken back, where a chargeback opened it (D44); none where no lot covered it.
    pub taken_back: Option<LotId>,
    /// Where it lies in the running debt.
    pub debt: DebtInterval,
    /// What paid it since, in order.
    pub netted: Vec<Netted>,
    /// What of it is owed still.
    pub open: MicroTokens,
}

/// A part of a charge's debt that a lot paid later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Netted {
    /// The journal row.
    pub seq: i64,
    /// When.
    pub posted_at: Timestamp,
    /// Which lot.
    pub lot_id: Option<LotId>,
    /// How much of this charge; the row may have paid more, of others.
    pub amount: MicroTokens,
}

/// Why a charge can not be explained.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExplainError {
    /// It has no journal row: it cost nothing, or is not of this team.
    #[error("charge {0} moved nothing in this journal")]
    NotInJournal(ChargeId),
    /// The journal is not what the allocator writes.
    #[error("the journal can not be replayed up to the charge")]
    Journal(#[from] Violation),
}

/// Explains a charge of `stored`, which must hold every lot of the team, by its whole `journal`.
///
/// # Errors
/// [`ExplainError`].
pub fn explain(
    stored: &Team,
    journal: &[JournalRow],
    charge_id: ChargeId,
    settings: &Settings,
) -> Result<Explanation, ExplainError> {
    let unknown = || ExplainError::NotInJournal(charge_id);
    // What a chargeback took back later names the charge too, but takes nothing for it.
    let of_charge = |row: &&JournalRow| row.charge_id == Some(charge_id) && row.credit == Book::Consumed;
    let rows: Vec<&JournalRow> = journal.iter().filter(of_charge).collect();
    let (first, last) = rows.first().zip(rows.last()).ok_or_else(unknown)?;
    let mut before = replay_before(stored, journal, first.seq, settings)?;
    before.lots.sort_by(|a, b| draw_order(&settings.pool_order, a, b));
    // An empty lot closes without a row, so a replay does not see it; what is stored knows.
    for lot in &mut before.lots {
        let closed =
            stored.lots.iter().find(|other| other.lot_id == lot.lot_id).and_then(|lot| lot.closed_at);
        lot.closed_at = closed.filter(|closed_at| *closed_at <= first.posted_at);
    }
    let standing = standing_of(journal, charge_id);
    let considered = |lot: &Lot| Considered { lot: lot.clone(), verdict: verdict(lot, &rows, first) };
    let opened = |row: &&JournalRow| row.charge_id == Some(charge_id) && row.debit == Book::Uncharged;
    let debts = journal.iter().filter(opened).filter_map(|row| owed(row, journal, &standing.open));
    let debts: Vec<OwedPart> = debts.collect();
    Ok(Explanation {
        charge_id,
        price_id: first.price_id,
        hold_id: rows.iter().find_map(|row| row.hold_id),
        window: first.window,
        posted_at: first.posted_at,
        rows: (first.seq, last.seq),
        amount: sum(rows.iter().map(|row| row.amount)),
        lots: before.lots.iter().map(considered).collect(),
        open: sum(debts.iter().map(|part| part.open)),
        charged_again: is_charged_again(journal, first),
        taken_back: taken_back(journal, &rows, &debts),
        debts,
    })
}

fn verdict(lot: &Lot, rows: &[&JournalRow], first: &JournalRow) -> Verdict {
    let of_lot = || rows.iter().filter(|row| row.lot_id == Some(lot.lot_id));
    let amount = sum(of_lot().map(|row| row.amount));
    let window = first.window.unwrap_or(first.posted_at);
    if amount > MicroTokens::ZERO {
        let held = sum(of_lot().filter(|row| row.kind == Kind::Capture).map(|row| row.amount));
        return Verdict::Paid { amount, held };
    }
    match lot.state_at(first.posted_at) {
        LotState::Closed => Verdict::Closed,
        LotState::Moved => Verdict::Moved,
        LotState::Scheduled => Verdict::Scheduled,
        LotState::Open | LotState::Closing if window < lot.starts_at => Verdict::StartsLater,
        LotState::Open | LotState::Closing if window < lot.valid_from => Verdict::CameLater,
        LotState::Open | LotState::Closing if window >= lot.expires_at => Verdict::Expired,
        LotState::Open | LotState::Closing if lot.remaining == MicroTokens::ZERO => Verdict::Empty,
        LotState::Open | LotState::Closing => Verdict::NotNeeded,
    }
}

/// The part of the running debt that `row` opened, what paid it, and which of `open` parts lie in it.
fn owed(row: &JournalRow, journal: &[JournalRow], open: &[DebtInterval]) -> Option<OwedPart> {
    let debt = row.debt?;
    let open = sum(open.iter().filter_map(|open| open.common(debt)).map(DebtInterval::length));
    let paying = journal.iter().filter(|row| row.kind == Kind::Netting);
    let part = |row: &JournalRow| {
        let amount = row.debt?.common(debt)?.length();
        Some(Netted { seq: row.seq, posted_at: row.posted_at, lot_id: row.lot_id, amount })
    };
    let netted = paying.filter_map(part).collect();
    Some(OwedPart { seq: row.seq, posted_at: row.posted_at, taken_back: row.lot_id, debt, netted, open })
}

/// Rows of a correction stand before the charge that it made, in the same transaction.
fn is_charged_again(journal: &[JournalRow], first: &JournalRow) -> bool {
    let same = journal.iter().filter(|row| row.transaction == first.transaction && row.seq < first.seq);
    same.into_iter().any(|row| matches!(row.kind, Kind::Reversal | Kind::Cancellation | Kind::MoveIn))
}

/// What rows of corrections took of the payments and debts of a charge.
fn taken_back(journal: &[JournalRow], rows: &[&JournalRow], debts: &[OwedPart]) -> Vec<TakenBack> {
    let of_debts = |row: &JournalRow| {
        let parts = debts.iter().filter_map(|part| Some(part.debt.common(row.debt?)?.length()));
        sum(parts)
    };
    let part = |row: &JournalRow| {
        let pays = |paid: &&JournalRow| Some(paid.seq) == row.reverses;
        let amount = match row.kind {
            Kind::Cancellation => of_debts(row),
            Kind::Reversal if row.debt.is_some() => of_debts(row),
            Kind::Reversal if rows.iter().any(pays) => row.amount,
            _ => MicroTokens::ZERO,
        };
        let (seq, posted_at) = (row.seq, row.posted_at);
        (amount > MicroTokens::ZERO).then_some(TakenBack {
            seq,
            posted_at,
            correction_id: row.charge_id,
            lot_id: row.lot_id,
            amount,
        })
    };
    journal.iter().filter_map(part).collect()
}

/// What a correction took back itself, by sequence, whichever charges had cost it.
#[must_use]
pub fn explain_correction(journal: &[JournalRow], correction_id: ChargeId) -> Vec<TakenBack> {
    let own = journal.iter().filter(|row| row.charge_id == Some(correction_id));
    let own = own.filter(|row| matches!(row.kind, Kind::Reversal | Kind::Cancellation));
    own.map(|row| TakenBack {
        seq: row.seq,
        posted_at: row.posted_at,
        correction_id: row.charge_id,
        lot_id: row.lot_id,
        amount: row.amount,
    })
    .collect()
}

/// Parts of one checked amount: their sum fits.
fn sum(amounts: impl Iterator<Item = MicroTokens>) -> MicroTokens {
    amounts.fold(MicroTokens::ZERO, |sum, amount| sum.checked_add(amount).unwrap_or(sum))
}

// === the rating ===

/// The price of a state, before and after a charge (D14).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RatingStory {
    /// Everything used at the price in the month, before the charge.
    pub month_before: Quantity,
    /// The same after it.
    pub month_after: Quantity,
    /// What the price looks at, before: what lies above the month's quota; of charged units that of all months (D15).
    pub priced_before: Quantity,
    /// The same after it.
    pub priced_after: Quantity,
    /// What that costs, before.
    pub cost_before: MicroTokens,
    /// What that costs, after; the difference is the charge.
    pub cost_after: MicroTokens,
    /// Where the price has tiers: what of the charge lies in each (D17).
    pub tiers: Vec<TierPart>,
}

/// A part of a charge inside one tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TierPart {
    /// Where the tier begins, in base units of a month above the quota; 0 for the first.
    pub above: i64,
    /// Micro-tokens for the price's base units.
    pub micros: i64,
    /// Base units of the charge in it.
    pub units: i64,
}

/// Rates a charge anew: `month` is what its month held before and after it, `other_months` what every other month held
/// by then, which matters to charged units alone. `None` where it does not fit 64 bits, which no stored state does.
#[must_use]
pub fn explain_rating(
    terms: &Terms,
    (before, after): (Quantity, Quantity),
    other_months: &[Quantity],
) -> Option<RatingStory> {
    let others = if terms.charged_unit().is_some() { other_months } else { &[] };
    let mut carried = others.iter().map(|month| terms.above_quota(*month));
    let carried = carried.try_fold(Quantity::ZERO, Quantity::checked_add)?;
    let priced_before = carried.checked_add(terms.above_quota(before))?;
    let priced_after = carried.checked_add(terms.above_quota(after))?;
    Some(RatingStory {
        month_before: before,
        month_after: after,
        priced_before,
        priced_after,
        cost_before: terms.price_above_quota(priced_before)?,
        cost_after: terms.price_above_quota(priced_after)?,
        tiers: tiers(terms, priced_before.as_units(), priced_after.as_units()),
    })
}

fn tiers(terms: &Terms, from: i64, to: i64) -> Vec<TierPart> {
    if terms.tiers().is_empty() {
        return Vec::new();
    }
    let begins = [(0, terms.micros())].into_iter();
    let begins: Vec<_> = begins.chain(terms.tiers().iter().map(|tier| (tier.above, tier.micros))).collect();
    let ends = begins.iter().skip(1).map(|(above, _)| *above).chain([i64::MAX]);
    let part = |((above, micros), end): ((i64, i64), i64)| {
        let units = to.min(end).saturating_sub(from.max(above));
        (units > 0).then_some(TierPart { above, micros, units })
    };
    begins.iter().copied().zip(ends).filter_map(part).collect()
}
