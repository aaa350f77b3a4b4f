//! Moving a lot whole to another team of its account (D5, D46).
//!
//! What is left moves through the book `moved`, which sums to zero over an account; what the lot paid
//! stays in the old team's history. Name, expiry, original size and purchase time travel with it. In
//! its new team it counts as valid from the window in which it arrives (D9), before that it pays debt
//! only, and that at once.

use std::cmp::max;

use drawdown_types::{LotId, MicroTokens, TeamId, Timestamp};

use crate::{
    command::{can_issue, instant_of},
    journal::Kind,
    lot::{Lot, LotState},
    plan::Plan,
    posting::Posting,
    roll::bring_forward,
    settings::Settings,
    team::Team,
};

/// Why a lot does not move. All but the last are the caller's to act on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MoveError {
    /// The lot would move to where it is.
    #[error("the lot lives in team {0} already")]
    SameTeam(TeamId),
    /// Tokens never cross accounts.
    #[error("the teams belong to different accounts")]
    OtherAccount,
    /// The lot does not live in the team.
    #[error("lot {lot_id} does not live in team {team_id}")]
    LotUnknown {
        /// The lot.
        lot_id: LotId,
        /// The team.
        team_id: TeamId,
    },
    /// Only open and scheduled lots move.
    #[error("lot {lot_id} is {}: only open and scheduled lots move", .state.as_str())]
    NotMovable {
        /// The lot.
        lot_id: LotId,
        /// What it is.
        state: LotState,
    },
    /// Nothing is left of it.
    #[error("nothing is left of lot {0}")]
    Empty(LotId),
    /// Holds have set aside a part of it.
    #[error("holds have set aside {held} tokens of lot {lot_id}")]
    Held {
        /// The lot.
        lot_id: LotId,
        /// How much.
        held: MicroTokens,
    },
    /// The sums of the new team would not fit (D53).
    #[error("the sum of all lots of the team would not fit")]
    Overflow,
}

/// Moves lot `lot_id` from `from` to `to`, at `now` or the last posting of either, if that is later. Both
/// teams are rolled forward first; `to` pays its debts with what arrives.
///
/// # Errors
/// [`MoveError`]; both teams are unchanged then.
pub fn move_lot(
    from: &mut Team,
    to: &mut Team,
    lot_id: LotId,
    now: Timestamp,
    settled_until: Timestamp,
    settings: &Settings,
) -> Result<Plan, MoveError> {
    let (team_id, new_home) = (from.balance.team_id, to.balance.team_id);
    if team_id == new_home {
        return Err(MoveError::SameTeam(team_id));
    }
    if from.balance.account_id != to.balance.account_id {
        return Err(MoveError::OtherAccount);
    }
    let at = max(instant_of(from, now), instant_of(to, now));
    let (mut left, mut right) = (from.clone(), to.clone());
    let mut plan = Plan { instant: Some(at), ..Plan::default() };
    let mut posting = Posting::new(&mut left, &mut plan, settings);
    bring_forward(&mut posting, at, settled_until);
    posting.begin(at);
    let place = posting.place_of(lot_id).filter(|index| lot_at(&posting, *index).is_some_and(Lot::is_here));
    let place = place.ok_or(MoveError::LotUnknown { lot_id, team_id })?;
    let lot = lot_at(&posting, place).cloned().ok_or(MoveError::LotUnknown { lot_id, team_id })?;
    check(&lot, at)?;
    posting.change_lot(place, Kind::MoveOut, lot.remaining, at);
    posting.send_away(place, new_home);
    posting.end();
    posting.finish();
    let mut posting = Posting::new(&mut right, &mut plan, settings);
    bring_forward(&mut posting, at, settled_until);
    posting.begin(at);
    if !can_issue(posting.team(), lot.remaining) {
        return Err(MoveError::Overflow);
    }
    let amount = lot.remaining;
    let valid_from = max(lot.starts_at, settings.window_size.floor(at));
    posting.add_lot(lot.arriving(new_home, valid_from), Kind::MoveIn, amount);
    posting.net();
    posting.end();
    posting.finish();
    (*from, *to) = (left, right);
    Ok(plan)
}

fn lot_at<'a>(posting: &'a Posting<'_>, index: usize) -> Option<&'a Lot> {
    posting.team().lots.get(index)
}

fn check(lot: &Lot, at: Timestamp) -> Result<(), MoveError> {
    let lot_id = lot.lot_id;
    match lot.state_at(at) {
        LotState::Open | LotState::Scheduled => {}
        state @ (LotState::Closing | LotState::Closed | LotState::Moved) => {
            return Err(MoveError::NotMovable { lot_id, state });
        }
    }
    if lot.held > MicroTokens::ZERO {
        return Err(MoveError::Held { lot_id, held: lot.held });
    }
    if lot.remaining == MicroTokens::ZERO {
        return Err(MoveError::Empty(lot_id));
    }
    Ok(())
}

impl Lot {
    /// It lives in its team, closed or not.
    pub(crate) const fn is_here(&self) -> bool {
        self.moved_to.is_none()
    }

    /// The lot as it comes to `team`: the row of its arrival fills it.
    pub(crate) fn arriving(&self, team_id: TeamId, valid_from: Timestamp) -> Self {
        Self {
            team_id,
            valid_from,
            granted: MicroTokens::ZERO,
            remaining: MicroTokens::ZERO,
            held: MicroTokens::ZERO,
            consumed: MicroTokens::ZERO,
            expired: MicroTokens::ZERO,
            void: MicroTokens::ZERO,
            moved: MicroTokens::ZERO,
            closed_at: None,
            moved_to: None,
            ..self.clone()
        }
    }
}
