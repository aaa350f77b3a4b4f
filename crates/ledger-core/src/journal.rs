//! The journal: one row moves one positive amount from one book to another, so an unbalanced entry
//! cannot be written. Rows are only ever added.

use std::str::FromStr;

use drawdown_types::{AccountId, ChargeId, HoldId, LotId, MicroTokens, PriceId, TeamId, Timestamp};

use crate::lot::LotState;

/// A stored name that no value has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no {what}")]
pub struct UnknownName {
    /// What was looked for.
    pub what: &'static str,
    /// What was given, at most 64 characters of it.
    pub text: String,
}

impl UnknownName {
    pub(crate) fn find<T: Copy>(
        what: &'static str,
        text: &str,
        all: &[T],
        name: impl Fn(T) -> &'static str,
    ) -> Result<T, Self> {
        let found = all.iter().copied().find(|candidate| name(*candidate) == text);
        found.ok_or_else(|| Self { what, text: text.chars().take(64).collect() })
    }
}

/// A book of a team. A row takes its amount from the debit book and adds it to the credit book.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Book {
    /// Where tokens come from.
    Issued,
    /// What is left in lots that are not closed.
    Lot,
    /// Reserved by holds.
    Held,
    /// Used.
    Consumed,
    /// Forfeited.
    Expired,
    /// Owed: below zero by what is open.
    Uncharged,
    /// Moved to or from other teams of the account.
    Moved,
    /// Taken back.
    Void,
}

impl Book {
    /// Every book.
    pub const ALL: [Self; 8] = [
        Self::Issued,
        Self::Lot,
        Self::Held,
        Self::Consumed,
        Self::Expired,
        Self::Uncharged,
        Self::Moved,
        Self::Void,
    ];

    /// As stored.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Issued => "issued",
            Self::Lot => "lot",
            Self::Held => "held",
            Self::Consumed => "consumed",
            Self::Expired => "expired",
            Self::Uncharged => "uncharged",
            Self::Moved => "moved",
            Self::Void => "void",
        }
    }
}

impl FromStr for Book {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        UnknownName::find("book", text, &Self::ALL, Self::as_str)
    }
}

/// What a row records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A bought lot: issued → lot.
    Purchase,
    /// A granted lot: issued → lot.
    Grant,
    /// A lot made larger by an admin: issued → lot.
    Adjustment,
    /// What was left of a lot of another platform when it moved here: issued → lot (D61).
    Import,
    /// Usage of before a platform moved here that nobody had paid: uncharged → consumed (D61). It opens an
    /// interval of the running debt; it has no charge and no price.
    PriorDebt,
    /// A lot leaves for another team of the account: lot → moved.
    MoveOut,
    /// A lot arrives from another team of the account: moved → lot.
    MoveIn,
    /// What is left of a lot is taken back: lot → void.
    Void,
    /// What a lot had forfeited is taken back: expired → void.
    VoidExpired,
    /// What a lot had paid is taken back and owed again: uncharged → void. It opens an interval of
    /// the running debt.
    Chargeback,
    /// Tokens are set aside for a hold: lot → held.
    Hold,
    /// Tokens of a hold go back to their lot: held → lot.
    Release,
    /// A lot pays usage: lot → consumed.
    Charge,
    /// A hold pays usage: held → consumed.
    Capture,
    /// Usage that no lot covered: uncharged → consumed. It opens an interval of the running debt.
    Uncharged,
    /// A lot pays debt: lot → uncharged. It covers an interval of the running debt.
    Netting,
    /// A lot closes, or gets something back when it is closed: lot → expired.
    Expiry,
    /// What a lot paid for usage that a correction takes back: consumed → lot.
    Reversal,
    /// What was still owed for usage that a correction takes back: consumed → uncharged. It settles an
    /// interval of the running debt.
    Cancellation,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 19] = [
        Self::Purchase,
        Self::Grant,
        Self::Adjustment,
        Self::Import,
        Self::PriorDebt,
        Self::MoveOut,
        Self::MoveIn,
        Self::Void,
        Self::VoidExpired,
        Self::Chargeback,
        Self::Hold,
        Self::Release,
        Self::Charge,
        Self::Capture,
        Self::Uncharged,
        Self::Netting,
        Self::Expiry,
        Self::Reversal,
        Self::Cancellation,
    ];

    /// As stored.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Purchase => "purchase",
            Self::Grant => "grant",
            Self::Adjustment => "adjustment",
            Self::Import => "import",
            Self::PriorDebt => "prior_debt",
            Self::MoveOut => "move_out",
            Self::MoveIn => "move_in",
            Self::Void => "void",
            Self::VoidExpired => "void_expired",
            Self::Chargeback => "chargeback",
            Self::Hold => "hold",
            Self::Release => "release",
            Self::Charge => "charge",
            Self::Capture => "capture",
            Self::Uncharged => "uncharged",
            Self::Netting => "netting",
            Self::Expiry => "expiry",
            Self::Reversal => "reversal",
            Self::Cancellation => "cancellation",
        }
    }

    /// The debit and the credit book of rows of this kind.
    #[must_use]
    pub const fn books(self) -> (Book, Book) {
        match self {
            Self::Purchase | Self::Grant | Self::Adjustment | Self::Import => (Book::Issued, Book::Lot),
            Self::MoveOut => (Book::Lot, Book::Moved),
            Self::MoveIn => (Book::Moved, Book::Lot),
            Self::Void => (Book::Lot, Book::Void),
            Self::VoidExpired => (Book::Expired, Book::Void),
            Self::Chargeback => (Book::Uncharged, Book::Void),
            Self::Hold => (Book::Lot, Book::Held),
            Self::Release => (Book::Held, Book::Lot),
            Self::Charge => (Book::Lot, Book::Consumed),
            Self::Capture => (Book::Held, Book::Consumed),
            Self::Uncharged | Self::PriorDebt => (Book::Uncharged, Book::Consumed),
            Self::Netting => (Book::Lot, Book::Uncharged),
            Self::Expiry => (Book::Lot, Book::Expired),
            Self::Reversal => (Book::Consumed, Book::Lot),
            Self::Cancellation => (Book::Consumed, Book::Uncharged),
        }
    }
}

impl FromStr for Kind {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        UnknownName::find("kind of journal row", text, &Self::ALL, Self::as_str)
    }
}

/// A part `[from, to)` of a team's running debt: the sum of everything that was ever uncharged, in
/// posting order. Which lot paid which item is a comparison of such intervals (D7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct DebtInterval {
    /// Where it begins.
    pub from: MicroTokens,
    /// Where it ends; greater than `from`.
    pub to: MicroTokens,
}

impl DebtInterval {
    /// The part that lies in `other`; `None` where nothing does.
    #[must_use]
    pub fn common(self, other: Self) -> Option<Self> {
        let (from, to) = (self.from.max(other.from), self.to.min(other.to));
        (from < to).then_some(Self { from, to })
    }

    /// What of it lies in none of `taken`, in order.
    pub(crate) fn without(self, taken: impl IntoIterator<Item = Self>) -> Vec<Self> {
        taken.into_iter().fold(vec![self], |left, taken| {
            let parts = left.into_iter().flat_map(|part| {
                let before = Self { from: part.from, to: part.to.min(taken.from) };
                let after = Self { from: part.from.max(taken.to), to: part.to };
                if part.common(taken).is_some() {
                    [before, after]
                } else {
                    [part, Self { to: part.from, ..part }]
                }
            });
            parts.filter(|part| part.from < part.to).collect()
        })
    }

    /// The last `length` of it; all of it where it is no longer.
    pub(crate) fn last(self, length: MicroTokens) -> Self {
        Self { from: self.to.checked_sub(length).map_or(self.from, |from| from.max(self.from)), ..self }
    }

    /// How long it is.
    #[must_use]
    pub fn length(self) -> MicroTokens {
        self.to.checked_sub(self.from).unwrap_or_default()
    }
}

/// One row of the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalRow {
    /// The billed account.
    pub account_id: AccountId,
    /// Whose journal.
    pub team_id: TeamId,
    /// Gapless per team, from 1.
    pub seq: i64,
    /// The number of its transaction, per team, from 1. A due step has its own (D40).
    pub transaction: i64,
    /// What happened.
    pub kind: Kind,
    /// The book that gives.
    pub debit: Book,
    /// The book that takes; never the one that gives.
    pub credit: Book,
    /// Above zero.
    pub amount: MicroTokens,
    /// The lot, where one is a side.
    pub lot_id: Option<LotId>,
    /// What that lot was at that instant, after the row.
    pub lot_state: Option<LotState>,
    /// The charge that caused the row, or the correction of one; none for netting, whose items follow from
    /// the interval.
    pub charge_id: Option<ChargeId>,
    /// The price of that charge.
    pub price_id: Option<PriceId>,
    /// The hold whose tokens the row moves.
    pub hold_id: Option<HoldId>,
    /// The row that this one takes back a part of, by its sequence.
    pub reverses: Option<i64>,
    /// The interval of the running debt that the row opens or settles, or whose payment it takes back; as
    /// long as the amount.
    pub debt: Option<DebtInterval>,
    /// Start of the window of the usage; of a lot that is made or arrives, the first window it may pay.
    pub window: Option<Timestamp>,
    /// The instant of its transaction (D40).
    pub posted_at: Timestamp,
    /// When it takes effect: the window of usage, the expiry of a lot, its original purchase.
    pub effective_at: Timestamp,
}
