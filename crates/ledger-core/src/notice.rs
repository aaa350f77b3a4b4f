//! Facts that others react to, and when each of them is one (D30, D32, D48, D52).
//!
//! A notice is sent once a crossing. What was told is kept beside the team as a [`Watch`]: two values
//! that every writer loads and stores with the balance, under its lock. So it does not matter which
//! writer comes first, a posting or a job, nor how often a job runs: whoever holds the lock tells what
//! is due by then, with the instant at which it became true.
//!
//! | fact | comes from | its instant |
//! |---|---|---|
//! | lot added, debt netted, lot closed, below zero, at zero again | a transaction | posting instant |
//! | lot expiring, lot expired | time | the instant itself, whoever told it and when |
//! | level reached | either | the same as its cause |
//! | budget reached | a transaction | posting instant |
//!
//! Levels have a memory with a margin. A level is told when the part that is left of the open lots falls
//! to it or below, be it for one row inside a transaction. It is armed again by the end of a transaction,
//! or a lot's start or expiry, that leaves more than the level and `rearm_points`, so that tokens which
//! holds take and give back do not tell it again and again. A lot that comes arms every level below what
//! is left, without the margin: whoever buys wants to hear of it when that is used up too.

use std::time::Duration;

use drawdown_types::{AccountId, AppId, BudgetId, LotId, MicroTokens, TeamId, Timestamp, WindowSize};
use serde::{Deserialize, Serialize};

use crate::lot::PoolKind;

/// The highest level, in percent.
pub const LEVEL_MAX_PERCENT: u8 = 99;
/// The most days ahead of an expiry that can be told.
pub const EXPIRING_DAYS_MAX: u16 = 3660;

/// What is told, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoticeRules {
    levels: Vec<u8>,
    rearm_points: u8,
    expiring_days: Vec<u16>,
    grace: Duration,
}

/// Rules that can not be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoticeRulesError {
    /// A level above the highest, or not above the one before.
    #[error("levels must ascend and lie between 0 and {LEVEL_MAX_PERCENT} percent")]
    Levels,
    /// A margin that no level could ever pass.
    #[error("a level is armed again at most {LEVEL_MAX_PERCENT} points above itself")]
    Margin,
    /// Zero days, too many, or not more than the number before.
    #[error("days must ascend and lie between 1 and {EXPIRING_DAYS_MAX}")]
    Days,
}

impl Default for NoticeRules {
    fn default() -> Self {
        Self {
            levels: vec![0, 10, 20, 50],
            rearm_points: 5,
            expiring_days: vec![7, 30, 90],
            grace: Duration::from_secs(14 * 86_400),
        }
    }
}

fn ascends<T: PartialOrd>(values: &[T]) -> bool {
    values.iter().zip(values.iter().skip(1)).all(|(one, next)| one < next)
}

impl NoticeRules {
    /// `levels` in percent of what the open lots were granted, `expiring_days` before an expiry, both
    /// ascending; `grace` is how long a team may stay below zero (D21).
    ///
    /// # Errors
    /// [`NoticeRulesError`], the first that applies.
    pub fn new(
        levels: &[u8],
        rearm_points: u8,
        expiring_days: &[u16],
        grace: Duration,
    ) -> Result<Self, NoticeRulesError> {
        if !ascends(levels) || levels.iter().any(|level| *level > LEVEL_MAX_PERCENT) {
            return Err(NoticeRulesError::Levels);
        }
        if rearm_points > LEVEL_MAX_PERCENT {
            return Err(NoticeRulesError::Margin);
        }
        if !ascends(expiring_days) || expiring_days.iter().any(|days| !(1..=EXPIRING_DAYS_MAX).contains(days))
        {
            return Err(NoticeRulesError::Days);
        }
        let (levels, expiring_days) = (levels.to_vec(), expiring_days.to_vec());
        Ok(Self { levels, rearm_points, expiring_days, grace })
    }

    /// Levels in percent, ascending.
    #[must_use]
    pub fn levels(&self) -> &[u8] {
        &self.levels
    }

    /// Percentage points above a level that arm it again.
    #[must_use]
    pub const fn rearm_points(&self) -> u8 {
        self.rearm_points
    }

    /// Days before an expiry, ascending.
    #[must_use]
    pub fn expiring_days(&self) -> &[u16] {
        &self.expiring_days
    }

    /// How long a team may stay below zero.
    #[must_use]
    pub const fn grace(&self) -> Duration {
        self.grace
    }

    /// When the grace of a team ends that is below zero since an instant, an edge (D48).
    #[must_use]
    pub fn deadline(&self, since: Timestamp, size: WindowSize) -> Timestamp {
        size.ceil(since.checked_add(self.grace).unwrap_or(Timestamp::MAX))
    }
}

/// What a team was told, kept beside its balance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watch {
    /// The lowest level, in percent, that was told and is not armed again; every higher one is not
    /// either. Absent: all are armed. A team without tokens has nothing to fall from: it begins at 0.
    pub told_percent: Option<u8>,
    /// The next instant at which time alone makes something true: a lot starts, is near its expiry, or
    /// expires. What lies before it was told.
    pub due: Option<Timestamp>,
}

impl Default for Watch {
    fn default() -> Self {
        Self { told_percent: Some(0), due: None }
    }
}

/// A fact about a team.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The billed account.
    pub account_id: AccountId,
    /// The team.
    pub team_id: TeamId,
    /// When it became true.
    pub occurred_at: Timestamp,
    /// The last journal sequence of the team at that moment.
    pub seq: i64,
    /// What became true.
    pub fact: Fact,
}

/// What became true. The names of kinds and fields are stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Fact {
    /// A lot came to the team: bought, granted or moved in.
    LotAdded {
        /// The lot.
        lot_id: LotId,
        /// Where it comes from.
        pool: PoolKind,
        /// What it brings, in micro-tokens.
        amount: MicroTokens,
        /// First instant at which it may be drawn.
        starts_at: Timestamp,
        /// First instant at which it may not.
        expires_at: Timestamp,
        /// It came from another team of the account (D46).
        moved: bool,
    },
    /// What is left of the open lots fell to a level (D30).
    LevelReached {
        /// The level, in percent.
        percent: u8,
        /// Left in open lots at the lowest point, in micro-tokens.
        available: MicroTokens,
        /// What these lots were granted, in micro-tokens.
        granted: MicroTokens,
    },
    /// A lot with something left expires in so many days.
    LotExpiring {
        /// The lot.
        lot_id: LotId,
        /// The days.
        days: u16,
        /// What is left of it then, without what holds have set aside, in micro-tokens.
        left: MicroTokens,
        /// When it expires.
        expires_at: Timestamp,
    },
    /// A lot left the balance with what was left of it. It pays for usage of its validity until it closes (D3).
    LotExpired {
        /// The lot.
        lot_id: LotId,
        /// What left the balance with it, in micro-tokens.
        left: MicroTokens,
        /// When it closes at the earliest.
        closes_at: Timestamp,
    },
    /// A lot closed and forfeited the rest (D3), or what came back to a closed one was forfeited at once.
    LotClosed {
        /// The lot.
        lot_id: LotId,
        /// What it forfeited, in micro-tokens.
        forfeited: MicroTokens,
        /// When it expired: the instant from which the forfeit counts.
        expired_at: Timestamp,
    },
    /// The balance fell below zero.
    BelowZero {
        /// The lowest point inside the transaction, in micro-tokens.
        lowest: MicroTokens,
        /// Where the transaction ended, in micro-tokens.
        balance: MicroTokens,
        /// When the grace ends, an edge. Absent where the transaction ended at or above zero: then no
        /// clock was started (D48).
        deadline: Option<Timestamp>,
    },
    /// The balance is at or above zero again and the grace clock is cleared.
    BackAtZero {
        /// Where the transaction ended, in micro-tokens.
        balance: MicroTokens,
        /// When the clock was started.
        since: Timestamp,
    },
    /// A lot paid a part of the running debt (D7).
    DebtNetted {
        /// The lot.
        lot_id: LotId,
        /// Where that part begins, in micro-tokens since the beginning.
        from: MicroTokens,
        /// Where it ends.
        to: MicroTokens,
        /// What is still owed when the transaction ends, in micro-tokens.
        owed: MicroTokens,
    },
    /// The usage of a month reached a level of a budget, or its cap (D59).
    BudgetReached {
        /// The budget.
        budget_id: BudgetId,
        /// The app it is of; absent for the team's.
        app_id: Option<AppId>,
        /// First instant of the month, which is one of UTC.
        month: Timestamp,
        /// The level, in percent of the cap; 100 is the cap.
        percent: u16,
        /// Used in that month, in micro-tokens.
        used: MicroTokens,
        /// The cap, in micro-tokens.
        cap: MicroTokens,
        /// Usage is refused from there on.
        hard: bool,
        /// The month was over already: late usage, which is charged all the same.
        late: bool,
    },
}

impl Fact {
    /// Every kind, as stored.
    pub const KINDS: [&'static str; 9] = [
        "lot_added",
        "level_reached",
        "lot_expiring",
        "lot_expired",
        "lot_closed",
        "below_zero",
        "back_at_zero",
        "debt_netted",
        "budget_reached",
    ];

    /// Its kind, as stored.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        let [added, level, expiring, expired, closed, below, back, netted, budget] = Self::KINDS;
        match self {
            Self::LotAdded { .. } => added,
            Self::LevelReached { .. } => level,
            Self::LotExpiring { .. } => expiring,
            Self::LotExpired { .. } => expired,
            Self::LotClosed { .. } => closed,
            Self::BelowZero { .. } => below,
            Self::BackAtZero { .. } => back,
            Self::DebtNetted { .. } => netted,
            Self::BudgetReached { .. } => budget,
        }
    }
}

impl Notice {
    /// What makes it one among the notices of its team: the same fact has the same key, whoever finds it
    /// and how often.
    #[must_use]
    pub fn key(&self) -> String {
        let (kind, seq, at) = (self.fact.kind(), self.seq, self.occurred_at.as_micros());
        match &self.fact {
            // Time makes these true once in the life of a lot.
            Fact::LotExpiring { lot_id, days, .. } => format!("{kind}/{lot_id}/{days}"),
            Fact::LotExpired { lot_id, .. } => format!("{kind}/{lot_id}"),
            Fact::LotAdded { lot_id, .. } | Fact::LotClosed { lot_id, .. } => {
                format!("{kind}/{lot_id}/{seq}")
            }
            Fact::DebtNetted { lot_id, from, .. } => format!("{kind}/{lot_id}/{}/{seq}", from.as_micros()),
            Fact::LevelReached { percent, .. } => format!("{kind}/{percent}/{at}/{seq}"),
            Fact::BelowZero { .. } | Fact::BackAtZero { .. } => format!("{kind}/{seq}"),
            Fact::BudgetReached { budget_id, month, percent, used, .. } => {
                format!("{kind}/{budget_id}/{}/{percent}/{at}/{}", month.as_micros(), used.as_micros())
            }
        }
    }
}
