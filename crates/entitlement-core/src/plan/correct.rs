//! Correcting which team an app had in a past, and taking scheduled changes back (D23).
//!
//! A history keeps its changes, so a correction of `[from, to)` voids the changes inside of it, adds one at its
//! beginning and, where no other change is there, one at its end that restores what held from then on. Before and after
//! the interval every answer stays. It asks for settled usage first: what was charged is corrected in the ledger.
//! The ledger knows the last settled window of a client id, so usage after the interval refuses a correction too.

use drawdown_types::{AccountId, AppId, TeamId, Timestamp};

use super::{Proof, UsageAnswer, UsageQuestion, UsageScope};
use crate::{Change, History, Rules};

/// What is known, read under the lock of the app.
#[derive(Clone, Copy, Debug)]
pub struct CorrectionFacts<'a> {
    /// The present instant.
    pub now: Timestamp,
    /// The app.
    pub app_id: AppId,
    /// Its account, before it changed its owner.
    pub app_account: AccountId,
    /// Its accounts since then.
    pub later_accounts: &'a History<AccountId>,
    /// The team that it has had in truth.
    pub team_id: TeamId,
    /// The account of that team.
    pub team_account: AccountId,
    /// Since when there is that team.
    pub team_created_at: Timestamp,
    /// The teams of the app so far.
    pub history: &'a History<TeamId>,
    /// The ledger was told of the app's first team (D49).
    pub first_team_told: bool,
    /// The ledger's answer, where it was asked.
    pub answer: Option<UsageAnswer>,
}

/// What to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Correction {
    /// The instants of the changes that are void from now on.
    pub voided: Vec<Timestamp>,
    /// The changes that are added.
    pub added: Vec<Change<TeamId>>,
    /// The app has another first team, or has it from another edge on.
    pub changes_first: bool,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CorrectionPlan {
    /// Nothing: the app has had this team.
    Unchanged,
    /// Ask the ledger, then plan again.
    Ask(UsageQuestion),
    /// Write this.
    Write(Correction),
}

/// Why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CorrectionRefusal {
    /// What lies ahead is changed, not corrected.
    #[error("the edge {edge} does not lie in the past")]
    NotPast {
        /// The edge asked for.
        edge: Timestamp,
    },
    /// The interval ends before it begins.
    #[error("the interval would end at {to}, not after {from}")]
    Empty {
        /// Its beginning.
        from: Timestamp,
        /// Its end.
        to: Timestamp,
    },
    /// The app and the team belonged to different accounts.
    #[error("app and team belonged to different accounts")]
    AppAndTeamDiffer,
    /// Before there was such a team.
    #[error("the edge {edge} lies before the team was created at {created_at}")]
    BeforeTeam {
        /// The edge asked for.
        edge: Timestamp,
        /// When the team was created.
        created_at: Timestamp,
    },
    /// The app had no team at the end of the interval, which no change can say.
    #[error("the app had no team at {0}: let the correction reach to the next change")]
    LeavesGap(Timestamp),
    /// Usage from before the first team is with it (D49).
    #[error("the ledger was told of the app's first team, which would change")]
    FirstTeamTold,
    /// Usage of the app is settled in a window from the edge on.
    #[error("usage of the app from the edge {edge} on is settled")]
    SettledUsage {
        /// The edge asked for.
        edge: Timestamp,
    },
}

/// Why a scheduled change stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the change takes effect at {from}, and could be taken back until {edge} only")]
pub struct TooLate {
    /// When it takes effect.
    pub from: Timestamp,
    /// The first edge that a change can take now.
    pub edge: Timestamp,
}

/// Whether a change that takes effect at `from` can be taken back at `now`: that is a change too, and takes the same
/// time (D51).
///
/// # Errors
/// [`TooLate`].
pub fn plan_cancellation(now: Timestamp, from: Timestamp, rules: &Rules) -> Result<(), TooLate> {
    let edge = rules.first_edge_after(now);
    if from < edge { Err(TooLate { from, edge }) } else { Ok(()) }
}

/// Plans that the app has had `facts.team_id` in `[from, to)`, or from `from` to the next change.
///
/// # Errors
/// [`CorrectionRefusal`].
pub fn plan_correction(
    facts: CorrectionFacts<'_>,
    from: Timestamp,
    to: Option<Timestamp>,
    rules: &Rules,
) -> Result<CorrectionPlan, CorrectionRefusal> {
    let from = rules.window.ceil(from);
    if from >= rules.first_edge_after(facts.now) {
        return Err(CorrectionRefusal::NotPast { edge: from });
    }
    let next = || facts.history.links().map(|link| link.from).find(|begins| *begins > from);
    let to = to.map(|to| rules.window.ceil(to)).or_else(next);
    if let Some(to) = to.filter(|to| *to <= from) {
        return Err(CorrectionRefusal::Empty { from, to });
    }
    check_team(facts, from, to, rules)?;
    let correction = correct(facts, from, to)?;
    if correction.voided.is_empty() && correction.added.is_empty() {
        return Ok(CorrectionPlan::Unchanged);
    }
    if correction.changes_first && facts.first_team_told {
        return Err(CorrectionRefusal::FirstTeamTold);
    }
    let question = UsageQuestion { scope: UsageScope::App(facts.app_id), from };
    match question.proof(facts.answer) {
        Proof::Missing => Ok(CorrectionPlan::Ask(question)),
        Proof::Settled => Err(CorrectionRefusal::SettledUsage { edge: from }),
        Proof::Clear => Ok(CorrectionPlan::Write(correction)),
    }
}

fn check_team(
    facts: CorrectionFacts<'_>,
    from: Timestamp,
    to: Option<Timestamp>,
    rules: &Rules,
) -> Result<(), CorrectionRefusal> {
    let account = facts.later_accounts.at(from).unwrap_or(&facts.app_account);
    let inside = |begins: Timestamp| from < begins && to.is_none_or(|to| begins < to);
    let moves =
        facts.later_accounts.links().any(|link| inside(link.from) && *link.value != facts.team_account);
    if *account != facts.team_account || moves {
        return Err(CorrectionRefusal::AppAndTeamDiffer);
    }
    if from < rules.window.floor(facts.team_created_at) {
        return Err(CorrectionRefusal::BeforeTeam { edge: from, created_at: facts.team_created_at });
    }
    Ok(())
}

/// The changes to void and to add; none where the history says so already.
fn correct(
    facts: CorrectionFacts<'_>,
    from: Timestamp,
    to: Option<Timestamp>,
) -> Result<Correction, CorrectionRefusal> {
    let CorrectionFacts { history, team_id, .. } = facts;
    let before = history.links().filter(|link| link.from < from).last().map(|link| *link.value);
    let inside = |begins: Timestamp| from <= begins && to.is_none_or(|to| begins < to);
    let held: Vec<Change<TeamId>> = history
        .links()
        .filter(|link| inside(link.from))
        .map(|link| Change { from: link.from, value: *link.value })
        .collect();
    let wanted = if before == Some(team_id) { None } else { Some(Change { from, value: team_id }) };
    let kept = held.iter().find(|change| Some(**change) == wanted);
    let mut voided: Vec<Timestamp> =
        held.iter().filter(|change| Some(**change) != wanted).map(|change| change.from).collect();
    let mut added: Vec<Change<TeamId>> = wanted.into_iter().filter(|_| kept.is_none()).collect();
    if let Some(to) = to {
        let then = history.at(to).copied().ok_or(CorrectionRefusal::LeavesGap(to))?;
        match history.links().any(|link| link.from == to) {
            // the team goes on: a change to itself would be none
            true if then == team_id => voided.push(to),
            false if then != team_id => added.push(Change { from: to, value: then }),
            true | false => {}
        }
    }
    let changes_first = before.is_none() && (wanted.is_some() && kept.is_none());
    Ok(Correction { voided, added, changes_first })
}

#[cfg(test)]
#[path = "correct_tests.rs"]
mod tests;
