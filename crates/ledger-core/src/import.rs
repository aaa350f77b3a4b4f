//! Moving here from another platform (D61): lots as far as they are left, and what nobody had paid.
//!
//! | what comes | row | what stays of its past |
//! |---|---|---|
//! | what is left of a lot | `import`, issued → lot | its original size, which decides in the draw order (D4), and its original instants |
//! | an item of debt | `prior_debt`, uncharged → consumed | the window of the usage, its place in the queue |
//!
//! One import of a team is one transaction: lots, debts in their order, and then debts are paid as ever (D7,
//! D42), so no team ends with something available and something owed. What a lot had paid before is not
//! entered: the books begin at the cut-over. The caller says what the team must hold afterwards, and nothing is
//! planned where it would not ([`ImportFault::NotTied`]). It also guards that no usage of the windows concerned
//! is settled.

use std::cmp::max;

use drawdown_types::{LotId, MicroTokens, Timestamp};

use crate::{
    command::{LOT_MAX_TOKENS, can_issue, instant_of},
    journal::Kind,
    lot::{Lot, PoolKind},
    plan::Plan,
    posting::Posting,
    roll::bring_forward,
    settings::Settings,
    team::{Team, view},
};

/// A lot of another platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportedLot {
    /// Its name here.
    pub lot_id: LotId,
    /// Where it comes from.
    pub pool_kind: PoolKind,
    /// Its size when it was made.
    pub original: MicroTokens,
    /// What is left of it: above zero, at most its size.
    pub left: MicroTokens,
    /// When it was bought or granted; not in the future.
    pub purchased_at: Timestamp,
    /// First instant at which it may be drawn; rounded down to an edge.
    pub starts_at: Timestamp,
    /// First instant at which it may not; rounded up to an edge. It may lie in the past.
    pub expires_at: Timestamp,
    /// It does not pay older debts (D57).
    pub leaves_older_debts: bool,
}

/// Usage of another platform that nobody had paid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PriorDebt {
    /// What is owed, above zero.
    pub amount: MicroTokens,
    /// An instant of the window of the usage; not in the future.
    pub used_at: Timestamp,
}

/// What a team must hold after an import (D52).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holdings {
    /// Left in open lots.
    pub available: MicroTokens,
    /// Left in lots that did not start yet.
    pub scheduled: MicroTokens,
    /// Left in lots that are expired but not closed.
    pub closing: MicroTokens,
    /// Open debt.
    pub uncharged: MicroTokens,
}

/// Everything that moves here of one team.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Import {
    /// Its lots.
    pub lots: Vec<ImportedLot>,
    /// Its debts, the oldest first: the order in which they are paid.
    pub debts: Vec<PriorDebt>,
    /// Since when it has been below zero (D48); where it is absent, the instant of the import. Not in the future.
    pub negative_since: Option<Timestamp>,
    /// What it must hold afterwards.
    pub expected: Holdings,
}

/// Why a team does not move here. All are permanent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImportFault {
    /// No lot and no debt.
    #[error("nothing is to be imported")]
    Nothing,
    /// Nothing is left of a lot.
    #[error("{left} tokens are left, which is not above zero: a lot that is empty stays behind")]
    LotEmpty {
        /// Which lot.
        lot: usize,
        /// What is left.
        left: MicroTokens,
    },
    /// More is left than there ever was.
    #[error("{left} tokens are left of a lot of {original}")]
    LotLeftAboveOriginal {
        /// Which lot.
        lot: usize,
        /// What is left.
        left: MicroTokens,
        /// Its size.
        original: MicroTokens,
    },
    /// More than one lot may hold (D53).
    #[error("{original} tokens are more than {LOT_MAX_TOKENS}, the most that one lot may hold")]
    LotTooLarge {
        /// Which lot.
        lot: usize,
        /// Its size.
        original: MicroTokens,
    },
    /// The lot was never valid.
    #[error("expiry {expires_at} does not lie after the start {starts_at}")]
    LotExpiryNotAfterStart {
        /// Which lot.
        lot: usize,
        /// The start, an edge.
        starts_at: Timestamp,
        /// The expiry, an edge.
        expires_at: Timestamp,
    },
    /// The lot was made in the future.
    #[error("the original instant {purchased_at} lies after {now}")]
    LotInFuture {
        /// Which lot.
        lot: usize,
        /// The original instant.
        purchased_at: Timestamp,
        /// The instant of the import.
        now: Timestamp,
    },
    /// A debt of nothing, or less.
    #[error("a debt of {amount} tokens is not above zero")]
    DebtNotPositive {
        /// Which debt.
        debt: usize,
        /// How much.
        amount: MicroTokens,
    },
    /// A debt of usage in the future.
    #[error("the usage at {used_at} lies after {now}")]
    DebtInFuture {
        /// Which debt.
        debt: usize,
        /// When.
        used_at: Timestamp,
        /// The instant of the import.
        now: Timestamp,
    },
    /// A debt is older than the one before it.
    #[error(
        "the usage at {used_at} lies before {before}, that of the debt before it: the oldest comes first"
    )]
    DebtOutOfOrder {
        /// Which debt.
        debt: usize,
        /// When.
        used_at: Timestamp,
        /// When that before it.
        before: Timestamp,
    },
    /// The team has been below zero since an instant in the future.
    #[error("below zero since {negative_since}, which lies after {now}")]
    SinceInFuture {
        /// Since when.
        negative_since: Timestamp,
        /// The instant of the import.
        now: Timestamp,
    },
    /// The team would not be below zero, and is said to have been.
    #[error("the team would not be below zero, so it can not have been since {0}")]
    NotNegative(Timestamp),
    /// The sums of the team would not fit (D53).
    #[error("the sums of the team would not fit")]
    Overflow,
    /// The team would hold something else than it must.
    #[error("{what} would be {found} tokens, expected are {expected}")]
    NotTied {
        /// Which of its holdings: a field of [`Holdings`].
        what: &'static str,
        /// What was expected.
        expected: MicroTokens,
        /// What it would be.
        found: MicroTokens,
    },
}

/// Moves lots and debts of another platform into `team`, at `now` or its last posting if that is later.
///
/// # Errors
/// Every [`ImportFault`] at once, sums only where all else is right; `team` is unchanged then.
pub fn import(
    team: &mut Team,
    import: &Import,
    now: Timestamp,
    settled_until: Timestamp,
    settings: &Settings,
) -> Result<Plan, Vec<ImportFault>> {
    let at = instant_of(team, now);
    let faults = faults(import, at, settings);
    if !faults.is_empty() {
        return Err(faults);
    }
    if !fits(team, import) {
        return Err(vec![ImportFault::Overflow]);
    }
    let mut changed = team.clone();
    let mut plan = Plan { instant: Some(at), ..Plan::default() };
    let mut posting = Posting::new(&mut changed, &mut plan, settings);
    bring_forward(&mut posting, at, settled_until);
    posting.begin(at);
    for lot in &import.lots {
        posting.add_lot(arriving(posting.team(), lot, settings), Kind::Import, lot.left);
    }
    for debt in &import.debts {
        let window = settings.window_size.floor(debt.used_at);
        posting.owe_prior(debt.amount, window, import.negative_since.unwrap_or(at));
    }
    posting.net();
    posting.end();
    // A lot may be past its close already.
    bring_forward(&mut posting, at, settled_until);
    posting.finish();
    let faults = not_tied(&changed, import, at);
    if !faults.is_empty() {
        return Err(faults);
    }
    *team = changed;
    Ok(plan)
}

fn faults(import: &Import, now: Timestamp, settings: &Settings) -> Vec<ImportFault> {
    let mut faults = Vec::new();
    if import.lots.is_empty() && import.debts.is_empty() {
        faults.push(ImportFault::Nothing);
    }
    for (lot, imported) in import.lots.iter().enumerate() {
        let ImportedLot { original, left, purchased_at, .. } = *imported;
        if left <= MicroTokens::ZERO {
            faults.push(ImportFault::LotEmpty { lot, left });
        }
        if left > original {
            faults.push(ImportFault::LotLeftAboveOriginal { lot, left, original });
        }
        if MicroTokens::from_tokens(LOT_MAX_TOKENS).is_none_or(|max| original > max) {
            faults.push(ImportFault::LotTooLarge { lot, original });
        }
        let (starts_at, expires_at) = life(imported, settings);
        if expires_at <= starts_at {
            faults.push(ImportFault::LotExpiryNotAfterStart { lot, starts_at, expires_at });
        }
        if purchased_at > now {
            faults.push(ImportFault::LotInFuture { lot, purchased_at, now });
        }
    }
    let mut before = Timestamp::MIN;
    for (debt, PriorDebt { amount, used_at }) in import.debts.iter().copied().enumerate() {
        if amount <= MicroTokens::ZERO {
            faults.push(ImportFault::DebtNotPositive { debt, amount });
        }
        if used_at > now {
            faults.push(ImportFault::DebtInFuture { debt, used_at, now });
        }
        if used_at < before {
            faults.push(ImportFault::DebtOutOfOrder { debt, used_at, before });
        }
        before = max(before, used_at);
    }
    if let Some(negative_since) = import.negative_since.filter(|since| *since > now) {
        faults.push(ImportFault::SinceInFuture { negative_since, now });
    }
    faults
}

/// D53.
fn fits(team: &Team, import: &Import) -> bool {
    let sum = |mut amounts: Box<dyn Iterator<Item = MicroTokens> + '_>| {
        amounts.try_fold(MicroTokens::ZERO, MicroTokens::checked_add)
    };
    let left = sum(Box::new(import.lots.iter().map(|lot| lot.left)));
    let owed = sum(Box::new(import.debts.iter().map(|debt| debt.amount)));
    let owes = |owed: MicroTokens| {
        let balance = &team.balance;
        balance.consumed.checked_add(owed).is_some() && balance.debt_opened.checked_add(owed).is_some()
    };
    left.is_some_and(|left| can_issue(team, left)) && owed.is_some_and(owes)
}

fn life(lot: &ImportedLot, settings: &Settings) -> (Timestamp, Timestamp) {
    (settings.window_size.floor(lot.starts_at), settings.window_size.ceil(lot.expires_at))
}

/// The lot as it is before its row fills it. It counts as valid from its original instant (D9, D61).
fn arriving(team: &Team, lot: &ImportedLot, settings: &Settings) -> Lot {
    let (starts_at, expires_at) = life(lot, settings);
    Lot {
        lot_id: lot.lot_id,
        account_id: team.balance.account_id,
        team_id: team.balance.team_id,
        pool_kind: lot.pool_kind,
        original: lot.original,
        granted: MicroTokens::ZERO,
        remaining: MicroTokens::ZERO,
        held: MicroTokens::ZERO,
        consumed: MicroTokens::ZERO,
        expired: MicroTokens::ZERO,
        void: MicroTokens::ZERO,
        moved: MicroTokens::ZERO,
        purchased_at: lot.purchased_at,
        starts_at,
        valid_from: max(starts_at, settings.window_size.floor(lot.purchased_at)),
        expires_at,
        closes_at: expires_at.checked_add(settings.lateness_limit).unwrap_or(Timestamp::MAX),
        closed_at: None,
        moved_to: None,
        leaves_older_debts: lot.leaves_older_debts,
    }
}

fn not_tied(team: &Team, import: &Import, at: Timestamp) -> Vec<ImportFault> {
    let view = view(team, at);
    let Holdings { available, scheduled, closing, uncharged } = import.expected;
    let pairs = [
        ("available", available, view.available),
        ("scheduled", scheduled, view.scheduled),
        ("closing", closing, view.closing),
        ("uncharged", uncharged, view.uncharged),
    ];
    let differing = pairs.into_iter().filter(|(_, expected, found)| expected != found);
    let mut faults: Vec<_> =
        differing.map(|(what, expected, found)| ImportFault::NotTied { what, expected, found }).collect();
    if let Some(since) = import.negative_since.filter(|_| team.balance.negative_since.is_none()) {
        faults.push(ImportFault::NotNegative(since));
    }
    faults
}
