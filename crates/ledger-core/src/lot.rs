//! Lots: batches of tokens with their own start and end, and the order in which they are drawn.
//!
//! The state of a lot is never stored but for its close: scheduled, open and closing follow from
//! the instant, so an expiry needs no job to be true (D3).

use std::{cmp::Ordering, str::FromStr};

use drawdown_types::{AccountId, LotId, MicroTokens, TeamId, Timestamp};

use crate::{journal::UnknownName, settings::PoolOrder};

/// Where a lot comes from, which decides when it is drawn (D4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PoolKind {
    /// Tokens granted free.
    Free,
    /// Enterprise agreement.
    Enterprise,
    /// Cloud credits.
    Credit,
    /// A promotion.
    Promotional,
    /// Bought.
    Flex,
}

impl PoolKind {
    /// Every kind, in the default order of the draw.
    pub const ALL: [Self; 5] = [Self::Free, Self::Enterprise, Self::Credit, Self::Promotional, Self::Flex];

    /// As stored.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Enterprise => "enterprise",
            Self::Credit => "credit",
            Self::Promotional => "promotional",
            Self::Flex => "flex",
        }
    }
}

impl FromStr for PoolKind {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        UnknownName::find("pool kind", text, &Self::ALL, Self::as_str)
    }
}

/// What a lot is at an instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LotState {
    /// Not started yet.
    Scheduled,
    /// May be drawn.
    Open,
    /// Expired; still pays for usage inside its validity that is settled late (D3).
    Closing,
    /// Done; what was left is journaled as expired.
    Closed,
    /// It lives in another team of the account now; what it paid before stays in this one's history.
    Moved,
}

impl LotState {
    /// Every state, in the order of a lot's life.
    pub const ALL: [Self; 5] = [Self::Scheduled, Self::Open, Self::Closing, Self::Closed, Self::Moved];

    /// As stored.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Open => "open",
            Self::Closing => "closing",
            Self::Closed => "closed",
            Self::Moved => "moved",
        }
    }
}

impl FromStr for LotState {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        UnknownName::find("lot state", text, &Self::ALL, Self::as_str)
    }
}

/// A batch of tokens in a team, as stored. At every moment granted = remaining + held + consumed +
/// expired + void + moved. A lot that moved has one such row in each team it lived in (D46).
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Lot {
    /// Its name.
    pub lot_id: LotId,
    /// The billed account.
    pub account_id: AccountId,
    /// Whose tokens they are.
    pub team_id: TeamId,
    /// Where it comes from.
    pub pool_kind: PoolKind,
    /// Its size when it was made, which decides in the draw order; never changes, not by a move either.
    pub original: MicroTokens,
    /// Everything it ever received in this team: its size, adjustments, what moved in.
    pub granted: MicroTokens,
    /// What is left.
    pub remaining: MicroTokens,
    /// What holds have set aside.
    pub held: MicroTokens,
    /// What it paid: charges and debts.
    pub consumed: MicroTokens,
    /// What it forfeited when it closed.
    pub expired: MicroTokens,
    /// What was taken back.
    pub void: MicroTokens,
    /// What left for other teams.
    pub moved: MicroTokens,
    /// When it was bought or granted (its original instant where it was set up, D61).
    pub purchased_at: Timestamp,
    /// First instant at which it may be drawn; an edge.
    pub starts_at: Timestamp,
    /// The first window whose usage it may pay other than as debt (D9); an edge, never before the start.
    pub valid_from: Timestamp,
    /// First instant at which it may not be drawn; an edge.
    pub expires_at: Timestamp,
    /// When it may close: expiry plus the lateness limit.
    pub closes_at: Timestamp,
    /// When it closed (posting instant); absent until then.
    pub closed_at: Option<Timestamp>,
    /// The team in which it lives now, where that is another one.
    pub moved_to: Option<TeamId>,
    /// It pays no usage of windows before it came to the team, not as debt either (D57); a property of its offer.
    pub leaves_older_debts: bool,
}

impl Lot {
    /// What it is at `at`.
    #[must_use]
    pub fn state_at(&self, at: Timestamp) -> LotState {
        if self.moved_to.is_some() {
            LotState::Moved
        } else if self.closed_at.is_some() {
            LotState::Closed
        } else if at < self.starts_at {
            LotState::Scheduled
        } else if at < self.expires_at {
            LotState::Open
        } else {
            LotState::Closing
        }
    }

    /// It lives in its team and is not closed.
    #[must_use]
    pub const fn is_live(&self) -> bool {
        self.closed_at.is_none() && self.moved_to.is_none()
    }

    /// It may pay debt for usage of the window that starts at `window`: of any, unless it is expired or leaves older
    /// debts; then of its validity only (D42, D57).
    #[must_use]
    pub fn pays_debt_of(&self, window: Timestamp, at: Timestamp) -> bool {
        let any = self.state_at(at) == LotState::Open && !self.leaves_older_debts;
        any || self.is_valid_for(window)
    }

    /// It may pay usage of the window that starts at `window`, other than as debt (D9).
    #[must_use]
    pub fn is_valid_for(&self, window: Timestamp) -> bool {
        self.valid_from <= window && window < self.expires_at
    }
}

/// The order in which the lots of a team are drawn (D4): pool kind, then earliest expiry, then
/// smaller original size, then purchase time, then lot id. It never depends on what is left, so an
/// array that is sorted once stays sorted.
#[must_use]
pub fn draw_order(pools: &PoolOrder, a: &Lot, b: &Lot) -> Ordering {
    (pools.rank(a.pool_kind).cmp(&pools.rank(b.pool_kind)))
        .then_with(|| a.expires_at.cmp(&b.expires_at))
        .then_with(|| a.original.cmp(&b.original))
        .then_with(|| a.purchased_at.cmp(&b.purchased_at))
        .then_with(|| a.lot_id.cmp(&b.lot_id))
}
