//! Holds: tokens set aside ahead of use (D45).
//!
//! A hold has parts, each of one lot, in the order in which they were taken; usage draws them in that
//! order. Its usage belongs to the window in which it was made. A hold ends once: by a release, by its
//! final capture, or by its time-out, which is a due step like the close of a lot (D40).

use drawdown_types::{AppId, HoldId, LotId, MicroTokens, TeamId, Timestamp};

use crate::journal::UnknownName;

/// Tokens of one lot in a hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct HoldPart {
    /// The lot.
    pub lot_id: LotId,
    /// What was taken from it.
    pub taken: MicroTokens,
    /// What is still held of that.
    pub remaining: MicroTokens,
}

/// How a hold ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum HoldEnd {
    /// Its owner let go of it.
    Released,
    /// Its last usage was captured.
    Captured,
    /// Nobody ended it in time.
    TimedOut,
}

impl HoldEnd {
    /// Every end.
    pub const ALL: [Self; 3] = [Self::Released, Self::Captured, Self::TimedOut];

    /// As stored.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Released => "released",
            Self::Captured => "captured",
            Self::TimedOut => "timed_out",
        }
    }
}

impl std::str::FromStr for HoldEnd {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        UnknownName::find("end of a hold", text, &Self::ALL, Self::as_str)
    }
}

/// A hold of a team, as stored.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Hold {
    /// Its name.
    pub hold_id: HoldId,
    /// The team.
    pub team_id: TeamId,
    /// The app whose usage it is for, where it is for one only.
    pub app_id: Option<AppId>,
    /// Start of the window in which it was made: lots and prices of its usage are those of this window.
    pub window: Timestamp,
    /// When it was made (posting instant).
    pub made_at: Timestamp,
    /// The first instant at which it is over by itself.
    pub expires_at: Timestamp,
    /// Its parts, in the order in which they are drawn.
    pub parts: Vec<HoldPart>,
    /// When and how it ended; absent while it is open.
    pub ended: Option<(Timestamp, HoldEnd)>,
}

impl Hold {
    /// What it still holds.
    #[must_use]
    pub fn remaining(&self) -> MicroTokens {
        sum(self.parts.iter().map(|part| part.remaining))
    }

    /// What was ever taken for it.
    #[must_use]
    pub fn taken(&self) -> MicroTokens {
        sum(self.parts.iter().map(|part| part.taken))
    }

    /// It is not over at `at`.
    #[must_use]
    pub fn is_open_at(&self, at: Timestamp) -> bool {
        self.ended.is_none() && at < self.expires_at
    }
}

/// Parts of a lot's amounts, which are checked: the sum fits.
fn sum(amounts: impl Iterator<Item = MicroTokens>) -> MicroTokens {
    MicroTokens::from_micros(amounts.fold(0, |sum, amount| sum.saturating_add(amount.as_micros())))
}
