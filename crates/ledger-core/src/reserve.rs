//! Reserving tokens ahead of use, extending and releasing holds (D45). Usage draws on a hold when it is
//! posted: a line that names it ([`crate::Line::hold_id`]) is paid by its parts first.

use drawdown_types::{AppId, HoldId, MicroTokens, Timestamp};

use crate::{
    command::instant_of,
    hold::{Hold, HoldEnd},
    plan::Plan,
    posting::Posting,
    roll::bring_forward,
    settings::Settings,
    team::Team,
};

/// Tokens to set aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// The hold's name.
    pub hold_id: HoldId,
    /// The app whose usage it is for, if for one only.
    pub app_id: Option<AppId>,
    /// How much, at least 1 micro-token.
    pub amount: MicroTokens,
    /// The least that will do; absent where all of it is needed.
    pub at_least: Option<MicroTokens>,
    /// The first instant at which it is over by itself.
    pub expires_at: Timestamp,
}

/// Why a hold is not made, extended or released. All are permanent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HoldError {
    /// Nothing, or less.
    #[error("a hold of {0} tokens is not above zero")]
    NotPositive(MicroTokens),
    /// The least is not between 1 and the amount.
    #[error("at least {at_least} is not between one micro-token and {amount}")]
    LeastOutOfRange {
        /// The least.
        at_least: MicroTokens,
        /// The amount.
        amount: MicroTokens,
    },
    /// The open lots hold less.
    #[error("{wanted} tokens are more than the {available} that can be set aside")]
    Insufficient {
        /// What was asked for at least.
        wanted: MicroTokens,
        /// What there is.
        available: MicroTokens,
    },
    /// It would be over before it begins, or sooner than it is now.
    #[error("time-out {expires_at} does not lie after {earliest}")]
    TooEarly {
        /// What was asked for.
        expires_at: Timestamp,
        /// What it must lie after.
        earliest: Timestamp,
    },
    /// With all extensions a hold lasts at most the lateness limit, and no longer than its lots do.
    #[error("time-out {expires_at} lies after {latest}, the latest that is possible")]
    TooLate {
        /// What was asked for.
        expires_at: Timestamp,
        /// The latest.
        latest: Timestamp,
    },
    /// The team has no such hold.
    #[error("the team has no hold {0}")]
    Unknown(HoldId),
    /// The hold has ended.
    #[error("hold {hold_id} ended at {at}: {}", .end.as_str())]
    Over {
        /// The hold.
        hold_id: HoldId,
        /// When.
        at: Timestamp,
        /// How.
        end: HoldEnd,
    },
}

/// Sets tokens of open lots aside, in draw order, all or nothing unless less will do; at `now` or at the
/// team's last posting, if that is later. Its usage belongs to the window of that instant.
///
/// # Errors
/// [`HoldError`]; `team` is unchanged then.
pub fn reserve(
    team: &mut Team,
    wish: &Reservation,
    now: Timestamp,
    settled_until: Timestamp,
    settings: &Settings,
) -> Result<Plan, HoldError> {
    act(team, now, settled_until, settings, |posting| {
        let (at, amount) = (posting.at(), wish.amount);
        if amount <= MicroTokens::ZERO {
            return Err(HoldError::NotPositive(amount));
        }
        let least = wish.at_least.unwrap_or(amount);
        if least <= MicroTokens::ZERO || least > amount {
            return Err(HoldError::LeastOutOfRange { at_least: least, amount });
        }
        check_end(wish.expires_at, at, at, settings)?;
        let window = settings.window_size.floor(at);
        let taken = fitting(posting, window, amount, least)?;
        posting.add_hold(Hold {
            hold_id: wish.hold_id,
            team_id: posting.team().balance.team_id,
            app_id: wish.app_id,
            window,
            made_at: at,
            expires_at: wish.expires_at,
            parts: Vec::new(),
            ended: None,
        });
        posting.take(wish.hold_id, taken);
        check_lots(posting, wish.hold_id, wish.expires_at)
    })
}

/// Lets a hold last longer (a heartbeat), with `more` tokens or none: what is added is a new part at the
/// first window.
///
/// # Errors
/// [`HoldError`]; `team` is unchanged then.
pub fn extend_hold(
    team: &mut Team,
    hold_id: HoldId,
    expires_at: Timestamp,
    more: MicroTokens,
    now: Timestamp,
    settled_until: Timestamp,
    settings: &Settings,
) -> Result<Plan, HoldError> {
    act(team, now, settled_until, settings, |posting| {
        let hold = open(posting, hold_id)?;
        let (window, made_at, current) = (hold.window, hold.made_at, hold.expires_at);
        if expires_at < current {
            return Err(HoldError::TooEarly { expires_at, earliest: current });
        }
        check_end(expires_at, posting.at(), made_at, settings)?;
        if more < MicroTokens::ZERO {
            return Err(HoldError::NotPositive(more));
        }
        if more > MicroTokens::ZERO {
            fitting(posting, window, more, more)?;
            posting.take(hold_id, more);
        }
        posting.extend(hold_id, expires_at);
        check_lots(posting, hold_id, expires_at)
    })
}

/// Ends a hold: what is left of it goes back to its lots at once.
///
/// # Errors
/// [`HoldError::Unknown`], [`HoldError::Over`]; `team` is unchanged then.
pub fn release_hold(
    team: &mut Team,
    hold_id: HoldId,
    now: Timestamp,
    settled_until: Timestamp,
    settings: &Settings,
) -> Result<Plan, HoldError> {
    act(team, now, settled_until, settings, |posting| {
        open(posting, hold_id)?;
        posting.end_hold(hold_id, HoldEnd::Released);
        Ok(())
    })
}

fn act(
    team: &mut Team,
    now: Timestamp,
    settled_until: Timestamp,
    settings: &Settings,
    act: impl FnOnce(&mut Posting<'_>) -> Result<(), HoldError>,
) -> Result<Plan, HoldError> {
    let at = instant_of(team, now);
    let mut changed = team.clone();
    let mut plan = Plan { instant: Some(at), ..Plan::default() };
    let mut posting = Posting::new(&mut changed, &mut plan, settings);
    bring_forward(&mut posting, at, settled_until);
    posting.begin(at);
    act(&mut posting)?;
    posting.end();
    posting.finish();
    *team = changed;
    Ok(plan)
}

fn open<'a>(posting: &'a Posting<'_>, hold_id: HoldId) -> Result<&'a Hold, HoldError> {
    let hold = posting.team().holds.iter().find(|hold| hold.hold_id == hold_id);
    let hold = hold.ok_or(HoldError::Unknown(hold_id))?;
    match hold.ended {
        Some((at, end)) => Err(HoldError::Over { hold_id, at, end }),
        None => Ok(hold),
    }
}

fn check_end(
    expires_at: Timestamp,
    at: Timestamp,
    made_at: Timestamp,
    settings: &Settings,
) -> Result<(), HoldError> {
    if expires_at <= at {
        return Err(HoldError::TooEarly { expires_at, earliest: at });
    }
    let latest = made_at.checked_add(settings.lateness_limit).unwrap_or(Timestamp::MAX);
    if expires_at > latest {
        return Err(HoldError::TooLate { expires_at, latest });
    }
    Ok(())
}

/// A lot closes with nothing held (D3), so a hold lasts no longer than its lots do. The lateness limit that a lot was
/// made under decides when it closes, and today's may be a longer one.
fn check_lots(posting: &Posting<'_>, hold_id: HoldId, expires_at: Timestamp) -> Result<(), HoldError> {
    match posting.first_close(hold_id).filter(|latest| expires_at > *latest) {
        Some(latest) => Err(HoldError::TooLate { expires_at, latest }),
        None => Ok(()),
    }
}

/// As much of `amount` as can be set aside, if that is at least `least`.
fn fitting(
    posting: &Posting<'_>,
    window: Timestamp,
    amount: MicroTokens,
    least: MicroTokens,
) -> Result<MicroTokens, HoldError> {
    let available = posting.holdable(window);
    if available < least {
        return Err(HoldError::Insufficient { wanted: least, available });
    }
    Ok(amount.min(available))
}
