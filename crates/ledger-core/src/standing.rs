//! What stands of a charge: which part of it is still owed, and which row of which lot paid the rest. Nothing
//! of this is stored; it follows from the journal by comparing positions of the running debt (D7), less
//! what was taken back since.

use std::collections::HashMap;

use drawdown_types::{ChargeId, LotId, MicroTokens};

use crate::journal::{Book, DebtInterval, JournalRow, Kind};

/// The rows of one team that decide what stands of some charges. Others do no harm.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChargeJournal {
    /// By sequence: every row of the charges that pays them or opens a debt; every netting and every
    /// cancellation of such a debt; every row that takes back one of these.
    pub rows: Vec<JournalRow>,
}

/// A payment that stands, of one row or of a gapless part of a netting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StandingPayment {
    /// The row that paid.
    pub seq: i64,
    /// The lot.
    pub lot_id: LotId,
    /// What of it stands.
    pub amount: MicroTokens,
    /// Of a netting, the part of the running debt.
    pub debt: Option<DebtInterval>,
}

/// What stands of a charge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// What is owed, by position.
    pub open: Vec<DebtInterval>,
    /// What is paid, in the order in which it was.
    pub paid: Vec<StandingPayment>,
}

impl Standing {
    /// Everything that the charge still costs.
    #[must_use]
    pub fn amount(&self) -> MicroTokens {
        let parts =
            (self.open.iter().map(|open| open.length())).chain(self.paid.iter().map(|paid| paid.amount));
        MicroTokens::from_micros(parts.fold(0, |sum, part| sum.saturating_add(part.as_micros())))
    }
}

impl ChargeJournal {
    /// What stands of `charge_id`. Cost: O(rows · rows of the charge).
    #[must_use]
    pub fn standing(&self, charge_id: ChargeId) -> Standing {
        standing_of(&self.rows, charge_id)
    }
}

/// What stands of `charge_id` by rows as [`ChargeJournal`] has them.
pub(crate) fn standing_of(rows: &[JournalRow], charge_id: ChargeId) -> Standing {
    let mut taken: HashMap<i64, Vec<&JournalRow>> = HashMap::new();
    for row in rows {
        if let Some(reverses) = row.reverses {
            taken.entry(reverses).or_default().push(row);
        }
    }
    let mut standing = Standing::default();
    for row in rows.iter().filter(|row| row.charge_id == Some(charge_id)) {
        match (row.kind, row.debt, row.lot_id) {
            (Kind::Charge | Kind::Capture, _, Some(lot_id)) => {
                let amount = left_of(row, taken.get(&row.seq));
                if amount > MicroTokens::ZERO {
                    standing.paid.push(StandingPayment { seq: row.seq, lot_id, amount, debt: None });
                }
            }
            (Kind::Uncharged | Kind::Chargeback, Some(debt), _) => item(rows, debt, &taken, &mut standing),
            _ => {}
        }
    }
    standing.open.sort_unstable_by_key(|open| open.from);
    standing.paid.sort_unstable_by_key(|paid| (paid.seq, paid.debt.map(|debt| debt.from)));
    standing
}

/// An item of the debt: parts of it were netted or cancelled, the rest is open.
fn item(
    rows: &[JournalRow],
    item: DebtInterval,
    taken: &HashMap<i64, Vec<&JournalRow>>,
    standing: &mut Standing,
) {
    let settling = rows.iter().filter(|row| row.credit == Book::Uncharged);
    let settling = settling.filter_map(|row| Some((row, row.debt?.common(item)?)));
    for (row, part) in settling.clone() {
        let Some(lot_id) = row.lot_id else { continue };
        let paid = netted(part, taken.get(&row.seq)).into_iter();
        standing.paid.extend(paid.map(|debt| StandingPayment {
            seq: row.seq,
            lot_id,
            amount: debt.length(),
            debt: Some(debt),
        }));
    }
    standing.open.extend(item.without(settling.map(|(_, part)| part)));
}

/// What stands of a row that paid a charge, less the rows that took parts of it back.
pub(crate) fn left_of(row: &JournalRow, taken: Option<&Vec<&JournalRow>>) -> MicroTokens {
    let taken = taken.into_iter().flatten();
    taken.fold(row.amount, |left, row| left.checked_sub(row.amount).unwrap_or_default())
}

/// What stands of the part of a netting that lies in one item. A chargeback takes back all that stands of
/// its lot's nettings; a correction names the part.
pub(crate) fn netted(part: DebtInterval, taken: Option<&Vec<&JournalRow>>) -> Vec<DebtInterval> {
    let mut taken = taken.into_iter().flatten();
    if taken.clone().any(|row| row.kind == Kind::Chargeback) {
        return Vec::new();
    }
    part.without(taken.by_ref().filter_map(|row| row.debt))
}
