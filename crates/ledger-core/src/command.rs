//! New lots: purchases and grants.
//!
//! A new lot that is open pays the team's debts in the same transaction (D42). With an original
//! instant in the past (set-up, D61) a lot counts as valid from that instant; the caller guards
//! that no usage of those windows is settled.

use std::cmp::{max, min};

use drawdown_types::{LotId, MicroTokens, Timestamp};

use crate::{
    calendar,
    journal::Kind,
    lot::{Lot, PoolKind},
    plan::Plan,
    posting::Posting,
    roll::bring_forward,
    settings::Settings,
    team::{Balance, Team},
};

/// The most that one lot may hold: 10^9 tokens (D53).
pub const LOT_MAX_TOKENS: i64 = 1_000_000_000;

/// A purchase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Purchase {
    /// The lot's name.
    pub lot_id: LotId,
    /// Whole tokens (D1).
    pub tokens: i64,
    /// The original instant of a purchase that is set up (D61); absent for one made now.
    pub purchased_at: Option<Timestamp>,
}

/// Why nothing is bought. All are permanent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PurchaseError {
    /// Less than the minimum (D1).
    #[error("{tokens} tokens are fewer than {min}, the least that one purchase buys")]
    BelowMinimum {
        /// What was asked for.
        tokens: i64,
        /// What it must be at least.
        min: i64,
    },
    /// More than one lot may hold (D53).
    #[error("{tokens} tokens are more than {max}, the most that one lot may hold")]
    AboveLotMax {
        /// What was asked for.
        tokens: i64,
        /// What it may be at most.
        max: i64,
    },
    /// The original instant lies in the future.
    #[error("the original instant {purchased_at} lies after {now}")]
    SetUpInFuture {
        /// The original instant.
        purchased_at: Timestamp,
        /// The instant of the command.
        now: Timestamp,
    },
    /// The lot would expire after the year 9999.
    #[error("the lot would expire after the year 9999")]
    CalendarEnd,
    /// The team's sums would not fit (D53).
    #[error("the sum of all lots of the team would not fit")]
    Overflow,
}

/// A grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The lot's name.
    pub lot_id: LotId,
    /// Its size, at least 1 micro-token.
    pub amount: MicroTokens,
    /// Any kind but flex.
    pub pool_kind: PoolKind,
    /// First instant, rounded down to an edge; absent for the present instant.
    pub starts_at: Option<Timestamp>,
    /// First instant at which it is expired; rounded up to an edge.
    pub expires_at: Timestamp,
    /// The grant is set up with its original instants (D61): it counts as valid from its start, and
    /// may be expired already. Without it a grant pays windows from now on only (D9).
    pub set_up: bool,
    /// It does not pay older debts (D57).
    pub leaves_older_debts: bool,
}

/// Why nothing is granted. All are permanent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GrantError {
    /// Nothing, or less.
    #[error("a grant of {0} tokens is not above zero")]
    NotPositive(MicroTokens),
    /// More than one lot may hold (D53).
    #[error("{amount} tokens are more than {max}, the most that one lot may hold")]
    AboveLotMax {
        /// What was asked for.
        amount: MicroTokens,
        /// What it may be at most, in tokens.
        max: i64,
    },
    /// Flex is bought, not granted.
    #[error("flex tokens are bought, not granted")]
    Flex,
    /// The lot would never be valid.
    #[error("expiry {expires_at} does not lie after the start {starts_at}")]
    ExpiryNotAfterStart {
        /// The start, an edge.
        starts_at: Timestamp,
        /// The expiry, an edge.
        expires_at: Timestamp,
    },
    /// The lot is expired already.
    #[error("expiry {expires_at} does not lie after {now}")]
    AlreadyExpired {
        /// The expiry, an edge.
        expires_at: Timestamp,
        /// The instant of the command.
        now: Timestamp,
    },
    /// The team's sums would not fit (D53).
    #[error("the sum of all lots of the team would not fit")]
    Overflow,
}

/// Buys tokens for `team` at `now` (D1, D2), or at its last posting if that is later. The lot expires
/// one calendar year after the purchase, same date and time; the start is rounded down and the
/// expiry up to a window's edge.
///
/// # Errors
/// [`PurchaseError`]; `team` is unchanged then.
pub fn purchase(
    team: &mut Team,
    purchase: &Purchase,
    now: Timestamp,
    settled_until: Timestamp,
    settings: &Settings,
) -> Result<Plan, PurchaseError> {
    let at = instant_of(team, now);
    let (tokens, min) = (purchase.tokens, settings.purchase_min_tokens);
    if tokens < max(min, 1) {
        return Err(PurchaseError::BelowMinimum { tokens, min: max(min, 1) });
    }
    if tokens > LOT_MAX_TOKENS {
        return Err(PurchaseError::AboveLotMax { tokens, max: LOT_MAX_TOKENS });
    }
    let purchased_at = purchase.purchased_at.unwrap_or(at);
    if purchased_at > at {
        return Err(PurchaseError::SetUpInFuture { purchased_at, now: at });
    }
    let granted = MicroTokens::from_tokens(tokens).ok_or(PurchaseError::Overflow)?;
    if !can_issue(team, granted) {
        return Err(PurchaseError::Overflow);
    }
    let one_year_later = calendar::one_year_after(purchased_at).ok_or(PurchaseError::CalendarEnd)?;
    let starts_at = settings.window_size.floor(purchased_at);
    let terms = LotTerms {
        leaves_older_debts: false,
        lot_id: purchase.lot_id,
        pool_kind: PoolKind::Flex,
        granted,
        purchased_at,
        starts_at,
        valid_from: starts_at,
        expires_at: settings.window_size.ceil(one_year_later),
    };
    Ok(add(team, &terms, Kind::Purchase, at, settled_until, settings))
}

/// Grants tokens to `team` at `now` (D5), or at its last posting if that is later.
///
/// # Errors
/// [`GrantError`]; `team` is unchanged then.
pub fn grant(
    team: &mut Team,
    grant: &Grant,
    now: Timestamp,
    settled_until: Timestamp,
    settings: &Settings,
) -> Result<Plan, GrantError> {
    let at = instant_of(team, now);
    let size = settings.window_size;
    let starts_at = size.floor(grant.starts_at.unwrap_or(at));
    let expires_at = size.ceil(grant.expires_at);
    check(team, grant, at, starts_at, expires_at)?;
    let (valid_from, purchased_at) = if grant.set_up {
        (starts_at, min(grant.starts_at.unwrap_or(at), at))
    } else {
        (max(starts_at, size.floor(at)), at)
    };
    let terms = LotTerms {
        leaves_older_debts: grant.leaves_older_debts,
        lot_id: grant.lot_id,
        pool_kind: grant.pool_kind,
        granted: grant.amount,
        purchased_at,
        starts_at,
        valid_from,
        expires_at,
    };
    Ok(add(team, &terms, Kind::Grant, at, settled_until, settings))
}

fn check(
    team: &Team,
    grant: &Grant,
    at: Timestamp,
    starts_at: Timestamp,
    expires_at: Timestamp,
) -> Result<(), GrantError> {
    if grant.amount <= MicroTokens::ZERO {
        return Err(GrantError::NotPositive(grant.amount));
    }
    if MicroTokens::from_tokens(LOT_MAX_TOKENS).is_none_or(|max| grant.amount > max) {
        return Err(GrantError::AboveLotMax { amount: grant.amount, max: LOT_MAX_TOKENS });
    }
    if grant.pool_kind == PoolKind::Flex {
        return Err(GrantError::Flex);
    }
    if expires_at <= starts_at {
        return Err(GrantError::ExpiryNotAfterStart { starts_at, expires_at });
    }
    if !grant.set_up && expires_at <= at {
        return Err(GrantError::AlreadyExpired { expires_at, now: at });
    }
    if !can_issue(team, grant.amount) {
        return Err(GrantError::Overflow);
    }
    Ok(())
}

/// What a new lot is to be.
struct LotTerms {
    leaves_older_debts: bool,
    lot_id: LotId,
    pool_kind: PoolKind,
    granted: MicroTokens,
    purchased_at: Timestamp,
    starts_at: Timestamp,
    valid_from: Timestamp,
    expires_at: Timestamp,
}

/// The instant of a command: the clock, or the last posting of its team if that is later (D40).
pub(crate) fn instant_of(team: &Team, now: Timestamp) -> Timestamp {
    team.balance.posted_at.map_or(now, |last| max(last, now))
}

pub(crate) fn can_issue(team: &Team, amount: MicroTokens) -> bool {
    let Balance { issued, moved_in, .. } = &team.balance;
    issued.checked_add(*moved_in).and_then(|sum| sum.checked_add(amount)).is_some()
}

fn add(
    team: &mut Team,
    terms: &LotTerms,
    kind: Kind,
    at: Timestamp,
    settled_until: Timestamp,
    settings: &Settings,
) -> Plan {
    let lot = Lot {
        lot_id: terms.lot_id,
        account_id: team.balance.account_id,
        team_id: team.balance.team_id,
        pool_kind: terms.pool_kind,
        original: terms.granted,
        granted: MicroTokens::ZERO,
        remaining: MicroTokens::ZERO,
        held: MicroTokens::ZERO,
        consumed: MicroTokens::ZERO,
        expired: MicroTokens::ZERO,
        void: MicroTokens::ZERO,
        moved: MicroTokens::ZERO,
        purchased_at: terms.purchased_at,
        starts_at: terms.starts_at,
        valid_from: terms.valid_from,
        expires_at: terms.expires_at,
        closes_at: terms.expires_at.checked_add(settings.lateness_limit).unwrap_or(Timestamp::MAX),
        closed_at: None,
        moved_to: None,
        leaves_older_debts: terms.leaves_older_debts,
    };
    let mut plan = Plan { instant: Some(at), ..Plan::default() };
    let mut posting = Posting::new(team, &mut plan, settings);
    bring_forward(&mut posting, at, settled_until);
    posting.begin(at);
    posting.add_lot(lot, kind, terms.granted);
    posting.net();
    posting.end();
    // A lot that is set up may be past its close already.
    bring_forward(&mut posting, at, settled_until);
    posting.finish();
    plan
}
