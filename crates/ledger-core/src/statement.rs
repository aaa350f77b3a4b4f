//! Statements: opening balance + movements = closing balance, per book and per lot, or an error.
//!
//! A statement is made of sums of journal rows, never of rows: the caller adds a team's rows up by kind,
//! books and lot ([`MovementSum`]), for any part of the journal, and this adds the parts up. Opening and
//! closing come from two sides (what was before, and what is now less what came after), so that a row that
//! is missing or counted twice on either side shows as a difference ([`StatementError::NotTied`]).
//!
//! What belongs to a period is decided by `posted_at` (D54). A row that takes effect before the period is
//! in it all the same, marked `earlier`. What a lot holds is shown by what its dates make it at each end:
//! the rest of a lot that has expired is *closing* until the row of its close is posted.

use std::collections::{BTreeMap, BTreeSet};

use drawdown_types::{LotId, MicroTokens, Timestamp};

use crate::{
    journal::{Book, Kind},
    lot::{Lot, LotState},
    team::Balance,
};

/// Rows of one kind between the same books that concern the same lot, added up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MovementSum {
    /// What happened.
    pub kind: Kind,
    /// The book that gives. A reversal has the books of its kind swapped.
    pub debit: Book,
    /// The book that takes.
    pub credit: Book,
    /// The lot, where one is a side.
    pub lot_id: Option<LotId>,
    /// The rows take effect before the period in which they were posted.
    pub earlier: bool,
    /// How many rows.
    pub rows: i64,
    /// Their sum; above zero.
    pub amount: MicroTokens,
}

/// What a team's books hold, each as the sum of what it took less what it gave: `issued` and `uncharged`
/// are at or below zero, all others but `moved` at or above.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BookSums {
    amounts: [MicroTokens; Book::ALL.len()],
}

/// What became of everything that one lot received in a team:
/// received = remaining + held + used + expired + void + moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LotSums {
    /// Bought, granted, adjusted, moved in.
    pub received: MicroTokens,
    /// Left.
    pub remaining: MicroTokens,
    /// Set aside by holds.
    pub held: MicroTokens,
    /// Paid: charges and debts.
    pub used: MicroTokens,
    /// Forfeited.
    pub expired: MicroTokens,
    /// Taken back.
    pub void: MicroTokens,
    /// Moved to other teams.
    pub moved: MicroTokens,
}

/// The books and lots of a team at one place of its journal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// The books.
    pub books: BookSums,
    /// The lots that the team ever had, by id.
    pub lots: BTreeMap<LotId, LotSums>,
}

/// A balance at one end of a statement (D52).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StatementBalance {
    /// available − uncharged.
    pub balance: MicroTokens,
    /// Left in open lots.
    pub available: MicroTokens,
    /// Left in lots that did not start yet.
    pub scheduled: MicroTokens,
    /// Left in lots that are expired but not closed.
    pub closing: MicroTokens,
    /// Open debt.
    pub uncharged: MicroTokens,
    /// The books behind it.
    pub books: BookSums,
}

/// A lot in a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LotStatement {
    /// The lot, for what never changes of it.
    pub lot: Lot,
    /// At the beginning of the period; nothing where the lot came later.
    pub opening: LotSums,
    /// What its dates make it at the beginning.
    pub opening_state: LotState,
    /// At the end of the period.
    pub closing: LotSums,
    /// What its dates make it at the end.
    pub closing_state: LotState,
}

/// A statement of one team.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// At the first instant of the period.
    pub opening: StatementBalance,
    /// Movements by kind and books, earlier ones apart, in order of their kind.
    pub movements: Vec<MovementSum>,
    /// At the first instant after the period.
    pub closing: StatementBalance,
    /// Lots that held something at the beginning or moved in the period, by expiry, then by id.
    pub lots: Vec<LotStatement>,
}

/// Why there is no statement: the stored rows do not fit each other. Nothing of it is a caller's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StatementError {
    /// A sum does not fit 64 bits.
    #[error("a sum of {what} does not fit 64 bits")]
    Overflow {
        /// Of what.
        what: &'static str,
    },
    /// A row names a lot that the team has not.
    #[error("lot {0} is not there")]
    UnknownLot(LotId),
    /// Opening and movements do not give the closing.
    #[error("{what} do not tie: opening and movements give {expected}, the closing has {found}")]
    NotTied {
        /// A book, or a lot.
        what: String,
        /// What opening and movements give, in micro-tokens.
        expected: i128,
        /// What is there, in micro-tokens.
        found: i128,
    },
}

// === impl BookSums ===

impl BookSums {
    /// Made of the sum of each book.
    #[must_use]
    pub fn of(sum: impl Fn(Book) -> MicroTokens) -> Self {
        Self { amounts: Book::ALL.map(sum) }
    }

    /// What a book took less what it gave.
    #[must_use]
    pub fn get(&self, book: Book) -> MicroTokens {
        Book::ALL.iter().zip(self.amounts).find(|(b, _)| **b == book).map_or(MicroTokens::ZERO, |(_, a)| a)
    }

    fn change(&mut self, book: Book, by: Change) -> Result<(), StatementError> {
        let place = Book::ALL.iter().zip(&mut self.amounts).find(|(b, _)| **b == book);
        place.map_or(Ok(()), |(_, amount)| by.apply(amount, "a book"))
    }
}

/// An amount that is added or taken away.
#[derive(Clone, Copy)]
enum Change {
    Plus(MicroTokens),
    Minus(MicroTokens),
}

impl Change {
    fn apply(self, to: &mut MicroTokens, what: &'static str) -> Result<(), StatementError> {
        let changed = match self {
            Self::Plus(by) => to.checked_add(by),
            Self::Minus(by) => to.checked_sub(by),
        };
        *to = changed.ok_or(StatementError::Overflow { what })?;
        Ok(())
    }

    const fn inverse(self) -> Self {
        match self {
            Self::Plus(by) => Self::Minus(by),
            Self::Minus(by) => Self::Plus(by),
        }
    }
}

// === impl LotSums ===

impl LotSums {
    /// The sums of a lot as stored.
    #[must_use]
    pub const fn of(lot: &Lot) -> Self {
        Self {
            received: lot.granted,
            remaining: lot.remaining,
            held: lot.held,
            used: lot.consumed,
            expired: lot.expired,
            void: lot.void,
            moved: lot.moved,
        }
    }

    /// The part that a side of a row changes. What a lot paid is one, whether of a charge or of a debt.
    const fn part(&mut self, book: Book) -> Option<&mut MicroTokens> {
        match book {
            Book::Issued => None,
            Book::Lot => Some(&mut self.remaining),
            Book::Held => Some(&mut self.held),
            Book::Consumed | Book::Uncharged => Some(&mut self.used),
            Book::Expired => Some(&mut self.expired),
            Book::Void => Some(&mut self.void),
            Book::Moved => Some(&mut self.moved),
        }
    }

    fn change(&mut self, sum: &MovementSum, direction: Direction) -> Result<(), StatementError> {
        let (plus, minus) = direction.of(sum.amount);
        match sum.debit {
            // What was made, or came from another team, was received.
            Book::Issued | Book::Moved => plus.apply(&mut self.received, "a lot")?,
            book => self.part(book).map_or(Ok(()), |part| minus.apply(part, "a lot"))?,
        }
        match self.part(sum.credit) {
            Some(part) => plus.apply(part, "a lot"),
            None => minus.apply(&mut self.received, "a lot"),
        }
    }

    fn parts(&self) -> [MicroTokens; 6] {
        [self.remaining, self.held, self.used, self.expired, self.void, self.moved]
    }

    const fn is_empty(&self) -> bool {
        self.remaining.as_micros() == 0 && self.held.as_micros() == 0
    }
}

#[derive(Clone, Copy)]
enum Direction {
    Forward,
    Back,
}

impl Direction {
    const fn of(self, amount: MicroTokens) -> (Change, Change) {
        let (plus, minus) = (Change::Plus(amount), Change::Minus(amount));
        match self {
            Self::Forward => (plus, minus),
            Self::Back => (plus.inverse(), minus.inverse()),
        }
    }
}

// === impl Position ===

impl Position {
    /// The position that a balance and all lots of its team, closed ones too, say they are at.
    #[must_use]
    pub fn stored(balance: &Balance, lots: &[Lot]) -> Self {
        let below = |amount: MicroTokens| MicroTokens::ZERO.checked_sub(amount).unwrap_or_default();
        let books = BookSums::of(|book| match book {
            Book::Issued => below(balance.issued),
            Book::Lot => balance.lot,
            Book::Consumed => balance.consumed,
            Book::Expired => balance.expired,
            Book::Uncharged => below(balance.uncharged()),
            Book::Held => balance.held,
            Book::Void => balance.void,
            Book::Moved => balance.moved_out.checked_sub(balance.moved_in).unwrap_or_default(),
        });
        Self { books, lots: lots.iter().map(|lot| (lot.lot_id, LotSums::of(lot))).collect() }
    }

    /// The position after these rows.
    ///
    /// # Errors
    /// [`StatementError::Overflow`].
    pub fn after(mut self, sums: &[MovementSum]) -> Result<Self, StatementError> {
        sums.iter().try_for_each(|sum| self.change(sum, Direction::Forward))?;
        Ok(self)
    }

    /// The position before these rows.
    ///
    /// # Errors
    /// [`StatementError::Overflow`].
    pub fn before(mut self, sums: &[MovementSum]) -> Result<Self, StatementError> {
        sums.iter().try_for_each(|sum| self.change(sum, Direction::Back))?;
        Ok(self)
    }

    fn change(&mut self, sum: &MovementSum, direction: Direction) -> Result<(), StatementError> {
        let (plus, minus) = direction.of(sum.amount);
        self.books.change(sum.debit, minus)?;
        self.books.change(sum.credit, plus)?;
        match sum.lot_id {
            Some(lot_id) => self.lots.entry(lot_id).or_default().change(sum, direction),
            None => Ok(()),
        }
    }

    /// The position without lots that received nothing.
    fn trimmed(&self) -> BTreeMap<LotId, LotSums> {
        let used = self.lots.iter().filter(|(_, sums)| **sums != LotSums::default());
        used.map(|(lot_id, sums)| (*lot_id, *sums)).collect()
    }

    /// Both positions are the same, per book and per lot.
    fn ties_with(&self, found: &Self) -> Result<(), StatementError> {
        for book in Book::ALL {
            tie(|| format!("sums of book {}", book.as_str()), self.books.get(book), found.books.get(book))?;
        }
        let (ours, theirs) = (self.trimmed(), found.trimmed());
        for lot_id in ours.keys().chain(theirs.keys()) {
            let (ours, theirs) = (ours.get(lot_id), theirs.get(lot_id));
            let (ours, theirs) = (ours.copied().unwrap_or_default(), theirs.copied().unwrap_or_default());
            tie(|| format!("sums of lot {lot_id}"), ours.received, theirs.received)?;
            for (ours, theirs) in ours.parts().into_iter().zip(theirs.parts()) {
                tie(|| format!("sums of lot {lot_id}"), ours, theirs)?;
            }
        }
        Ok(())
    }

    /// The books add up to nothing, each lot to what it received, and the lots to the books (D52).
    fn ties_in_itself(&self) -> Result<(), StatementError> {
        let book = |book| micros(self.books.get(book));
        tie_micros(|| "the books".to_owned(), 0, total(self.books.amounts))?;
        for (lot_id, lot) in &self.lots {
            tie_micros(|| format!("parts of lot {lot_id}"), micros(lot.received), total(lot.parts()))?;
        }
        let lots = |part: fn(&LotSums) -> MicroTokens| total(self.lots.values().map(part));
        let paid = book(Book::Consumed).saturating_add(book(Book::Uncharged));
        for (what, lots, books) in [
            ("remaining of lots", lots(|lot| lot.remaining), book(Book::Lot)),
            ("held of lots", lots(|lot| lot.held), book(Book::Held)),
            ("used of lots", lots(|lot| lot.used), paid),
            ("expired of lots", lots(|lot| lot.expired), book(Book::Expired)),
        ] {
            tie_micros(|| what.to_owned(), lots, books)?;
        }
        // What moved in is in `received` and leaves the book `moved` below what the lots moved out.
        let moved_in = lots(|lot| lot.received).saturating_add(book(Book::Issued));
        let moved = lots(|lot| lot.moved).saturating_sub(moved_in);
        tie_micros(|| "moved of lots".to_owned(), moved, book(Book::Moved))
    }

    fn balance(
        &self,
        facts: &BTreeMap<LotId, &Lot>,
        at: Timestamp,
    ) -> Result<StatementBalance, StatementError> {
        let mut balance = StatementBalance { books: self.books, ..StatementBalance::default() };
        for (lot_id, sums) in &self.lots {
            let lot = facts.get(lot_id).ok_or(StatementError::UnknownLot(*lot_id))?;
            let part = match state_at(lot, at) {
                LotState::Scheduled => &mut balance.scheduled,
                LotState::Open => &mut balance.available,
                LotState::Closing | LotState::Closed | LotState::Moved => &mut balance.closing,
            };
            Change::Plus(sums.remaining).apply(part, "lots")?;
        }
        Change::Minus(self.books.get(Book::Uncharged)).apply(&mut balance.uncharged, "debts")?;
        balance.balance = balance
            .available
            .checked_sub(balance.uncharged)
            .ok_or(StatementError::Overflow { what: "a balance" })?;
        Ok(balance)
    }
}

/// What the dates of a lot made it at `at`, as far as it was known by then: a close or a move that was
/// posted later is not.
fn state_at(lot: &Lot, at: Timestamp) -> LotState {
    if lot.closed_at.is_some_and(|closed_at| closed_at < at) {
        LotState::Closed
    } else if at < lot.starts_at {
        LotState::Scheduled
    } else if at < lot.expires_at {
        LotState::Open
    } else {
        LotState::Closing
    }
}

fn micros(amount: MicroTokens) -> i128 {
    amount.as_micros().into()
}

/// Fewer than 2^63 amounts of 64 bits: the sum fits.
fn total(amounts: impl IntoIterator<Item = MicroTokens>) -> i128 {
    amounts.into_iter().fold(0, |sum, amount| sum.saturating_add(micros(amount)))
}

fn tie(what: impl Fn() -> String, expected: MicroTokens, found: MicroTokens) -> Result<(), StatementError> {
    tie_micros(what, micros(expected), micros(found))
}

fn tie_micros(what: impl Fn() -> String, expected: i128, found: i128) -> Result<(), StatementError> {
    if expected == found { Ok(()) } else { Err(StatementError::NotTied { what: what(), expected, found }) }
}

/// The statement of the period `[from, to)`.
///
/// `opening` is the position before the first row that was posted in it, `sums` are the rows posted in it,
/// and `closing` is the position after the last of them as the other side knows it; none where there is no
/// other side. `lots` are the lots of the team as stored now.
///
/// Cost: O(sums + lots).
///
/// # Errors
/// [`StatementError`] where the sums do not tie.
pub fn statement(
    (from, to): (Timestamp, Timestamp),
    opening: &Position,
    sums: &[MovementSum],
    closing: Option<&Position>,
    lots: &[Lot],
) -> Result<Statement, StatementError> {
    let reached = opening.clone().after(sums)?;
    if let Some(closing) = closing {
        reached.ties_with(closing)?;
    }
    opening.ties_in_itself()?;
    reached.ties_in_itself()?;
    let facts: BTreeMap<LotId, &Lot> = lots.iter().map(|lot| (lot.lot_id, lot)).collect();
    let touched: BTreeSet<LotId> = sums.iter().filter_map(|sum| sum.lot_id).collect();
    let mut shown = Vec::new();
    for (lot_id, closing) in &reached.lots {
        let lot = facts.get(lot_id).copied().ok_or(StatementError::UnknownLot(*lot_id))?;
        let opening = opening.lots.get(lot_id).copied().unwrap_or_default();
        if !opening.is_empty() || touched.contains(lot_id) {
            let (opening_state, closing_state) = (state_at(lot, from), state_at(lot, to));
            shown.push(LotStatement {
                lot: lot.clone(),
                opening,
                opening_state,
                closing: *closing,
                closing_state,
            });
        }
    }
    shown.sort_by_key(|shown| (shown.lot.expires_at, shown.lot.lot_id));
    Ok(Statement {
        opening: opening.balance(&facts, from)?,
        movements: by_kind(sums)?,
        closing: reached.balance(&facts, to)?,
        lots: shown,
    })
}

/// The sums over all lots, in the order of the kinds.
fn by_kind(sums: &[MovementSum]) -> Result<Vec<MovementSum>, StatementError> {
    let place = |kind: Kind| Kind::ALL.iter().position(|other| *other == kind);
    let side = |book: Book| Book::ALL.iter().position(|other| *other == book);
    let mut found: BTreeMap<_, MovementSum> = BTreeMap::new();
    for sum in sums {
        let key = (place(sum.kind), side(sum.debit), side(sum.credit), sum.earlier);
        let entry = found.entry(key).or_insert_with(|| MovementSum {
            lot_id: None,
            rows: 0,
            amount: MicroTokens::ZERO,
            ..sum.clone()
        });
        entry.rows =
            entry.rows.checked_add(sum.rows).ok_or(StatementError::Overflow { what: "a number of rows" })?;
        Change::Plus(sum.amount).apply(&mut entry.amount, "movements")?;
    }
    Ok(found.into_values().collect())
}
