//! What a balance will be if nothing is posted: what a gate keeps, so that it need not ask again (D21, D48, D58).
//!
//! A balance changes by time alone where a lot starts or expires and where a hold times out, and nowhere else: what a
//! lot loses when it closes left the balance at its expiry (D3). So a few steps tell all of the future, each computed by
//! the writer's own rolling forward (D40), and whoever has them computes what the ledger would answer at any instant.
//!
//! Cost: one copy of the team, and one rolling forward a step.

use drawdown_types::{MicroTokens, Timestamp, WindowSize};

use crate::{
    notice::NoticeRules,
    roll::roll_forward,
    settings::Settings,
    team::{Team, view},
};

/// A balance from an instant on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BalanceStep {
    /// From when.
    pub from: Timestamp,
    /// Left in open lots.
    pub available: MicroTokens,
    /// Open debt.
    pub uncharged: MicroTokens,
    /// Set aside by holds.
    pub held: MicroTokens,
    /// Since when the team is below zero (D48).
    pub negative_since: Option<Timestamp>,
}

/// A team's balance now and later, if nothing is posted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ahead {
    /// In order of time, at least one; each holds until the next one.
    pub steps: Vec<BalanceStep>,
    /// From this instant on nothing is told; absent where the last step holds for ever.
    pub until: Option<Timestamp>,
}

/// The balance of `team` from `at` on, or from its last posting where that is later, in at most `steps_max` steps.
/// `settled_until` tells for an instant what [`crate::balance_at`] is given for it.
#[must_use]
pub fn ahead(
    team: &Team,
    at: Timestamp,
    settled_until: impl Fn(Timestamp) -> Timestamp,
    steps_max: usize,
    settings: &Settings,
) -> Ahead {
    let begin = team.balance.posted_at.map_or(at, |posted_at| posted_at.max(at));
    let mut teams = [team.clone()];
    let mut step_at = |from: Timestamp| {
        roll_forward(&mut teams, from, settled_until(from), settings);
        let [team] = &teams;
        let view = view(team, from);
        let (available, uncharged, held) = (view.available, view.uncharged, view.held);
        BalanceStep { from, available, uncharged, held, negative_since: view.row.negative_since }
    };
    let mut last = step_at(begin);
    let mut steps = vec![last];
    for from in changes(team, begin) {
        let step = step_at(from);
        if (BalanceStep { from: last.from, ..step }) == last {
            continue;
        }
        if steps.len() >= steps_max {
            return Ahead { steps, until: Some(from) };
        }
        steps.push(step);
        last = step;
    }
    Ahead { steps, until: None }
}

/// The instants after `begin` at which time alone may change the balance, in order.
fn changes(team: &Team, begin: Timestamp) -> Vec<Timestamp> {
    let lots = team.lots.iter().filter(|lot| lot.is_live());
    let lots = lots.flat_map(|lot| [lot.starts_at, lot.expires_at]);
    let holds = team.holds.iter().filter(|hold| hold.ended.is_none()).map(|hold| hold.expires_at);
    let mut changes: Vec<_> = lots.chain(holds).filter(|at| *at > begin).collect();
    changes.sort_unstable();
    changes.dedup();
    changes
}

// === impl Ahead ===

impl Ahead {
    /// The step that holds at `at`; the first one before its time. None where nothing is told.
    #[must_use]
    pub fn at(&self, at: Timestamp) -> Option<&BalanceStep> {
        if self.until.is_some_and(|until| until <= at) {
            return None;
        }
        let after = self.steps.partition_point(|step| step.from <= at);
        self.steps.get(after.saturating_sub(1))
    }

    /// When the team is past its deadline: from when, and until when if something but a posting ends it.
    fn past_deadline(
        &self,
        rules: &NoticeRules,
        size: WindowSize,
    ) -> impl Iterator<Item = (Timestamp, Option<Timestamp>)> {
        let nexts = self.steps.iter().skip(1).map(|step| Some(step.from)).chain([None]);
        self.steps.iter().zip(nexts).filter_map(move |(step, next)| {
            let from = rules.deadline(step.negative_since?, size).max(step.from);
            next.is_none_or(|next| from < next).then_some((from, next))
        })
    }
}

/// When no team of an account has grace, because one of them is past its deadline (D48): in order of time, apart from
/// each other. Without an end where only a posting ends it.
#[must_use]
pub fn no_grace<'a>(
    teams: impl IntoIterator<Item = &'a Ahead>,
    rules: &NoticeRules,
    size: WindowSize,
) -> Vec<(Timestamp, Option<Timestamp>)> {
    let times = teams.into_iter().flat_map(|team| team.past_deadline(rules, size));
    let mut times: Vec<_> = times.collect();
    times.sort_unstable_by_key(|(from, _)| *from);
    let mut joined: Vec<(Timestamp, Option<Timestamp>)> = Vec::with_capacity(times.len());
    for (from, to) in times {
        match joined.last_mut() {
            Some((_, end)) if end.is_none_or(|end| from <= end) => {
                *end = end.zip(to).map(|(end, to)| end.max(to));
            }
            Some(_) | None => joined.push((from, to)),
        }
    }
    joined
}
