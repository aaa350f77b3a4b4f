//! Rolling a team forward: what was due is posted in order of time, each step as a transaction at
//! its own instant, as if a job had run on time (D40). At one instant holds time out before lots
//! close, and lots close before lots start.
//!
//! An expiry is no step: a lot leaves the balance by the instant alone. A step is a hold that times out
//! (what is left of it goes back to its lots), a lot that closes (its rest is journaled as expired), or
//! a lot that starts while the team owes (it pays at once).

use std::cmp::{max, min};

use drawdown_types::{MicroTokens, Timestamp};

use crate::{
    hold::{Hold, HoldEnd},
    lot::Lot,
    plan::Plan,
    posting::Posting,
    settings::Settings,
    team::Team,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    TimeOut,
    Close,
    Start,
}

/// Rolls `teams` forward to `to`. Lots close at their `closes_at`, but only once everything
/// received before it is settled: `settled_until` (D55). The due steps of a team that lie before its
/// last posting are posted at that instant.
pub fn roll_forward(
    teams: &mut [Team],
    to: Timestamp,
    settled_until: Timestamp,
    settings: &Settings,
) -> Plan {
    let mut plan = Plan::default();
    for team in teams {
        let mut posting = Posting::new(team, &mut plan, settings);
        bring_forward(&mut posting, to, settled_until);
        posting.finish();
    }
    plan
}

pub(crate) fn bring_forward(posting: &mut Posting<'_>, to: Timestamp, settled_until: Timestamp) {
    let closable = min(to, settled_until);
    for (at, step) in steps(posting.team(), to, closable) {
        posting.begin(at);
        match step {
            Step::TimeOut => {
                let over =
                    posting.team().holds.iter().filter(|hold| hold.ended.is_none() && hold.expires_at <= at);
                let mut over: Vec<_> = over.map(|hold| hold.hold_id).collect();
                over.sort_unstable();
                over.into_iter().for_each(|hold_id| posting.end_hold(hold_id, HoldEnd::TimedOut));
            }
            Step::Close => posting.close(|lot| lot.closes_at <= min(at, closable)),
            Step::Start => posting.net(),
        }
        posting.end();
    }
}

/// What is due, in order of time, at one instant closes before starts. Lots that start at one
/// instant are one step: together they pay in draw order (D42).
fn steps(team: &Team, to: Timestamp, closable: Timestamp) -> Vec<(Timestamp, Step)> {
    let last = team.balance.posted_at.unwrap_or(Timestamp::MIN);
    let closes = unclosed(team).filter(|lot| lot.closes_at <= closable);
    let starts = starting(team, last).filter(|lot| lot.starts_at <= to);
    let mut steps: Vec<_> = closes.map(|lot| (max(lot.closes_at, last), Step::Close)).collect();
    let over = open_holds(team).filter(|hold| hold.expires_at <= to);
    steps.extend(over.map(|hold| (max(hold.expires_at, last), Step::TimeOut)));
    steps.extend(starts.map(|lot| (lot.starts_at, Step::Start)));
    steps.sort_unstable();
    steps.dedup();
    steps
}

fn unclosed(team: &Team) -> impl Iterator<Item = &Lot> {
    team.lots.iter().filter(|lot| lot.is_live())
}

fn open_holds(team: &Team) -> impl Iterator<Item = &Hold> {
    team.holds.iter().filter(|hold| hold.ended.is_none())
}

/// Lots that will pay debt when they start. What started at or before the last posting has paid then.
fn starting(team: &Team, last: Timestamp) -> impl Iterator<Item = &Lot> {
    let waits = move |lot: &&Lot| last < lot.starts_at && lot.remaining > MicroTokens::ZERO;
    unclosed(team).filter(waits).filter(|lot| team.owes_to(lot))
}

/// When a job should roll `team` forward next: the earliest close of a lot, time-out of a hold,
/// or start of a lot that will pay debt. Nothing waits for that job to be true.
#[must_use]
pub fn next_due(team: &Team) -> Option<Timestamp> {
    let last = team.balance.posted_at.unwrap_or(Timestamp::MIN);
    let closes = unclosed(team).map(|lot| lot.closes_at);
    let time_outs = open_holds(team).map(|hold| hold.expires_at);
    closes.chain(time_outs).chain(starting(team, last).map(|lot| lot.starts_at)).min()
}
