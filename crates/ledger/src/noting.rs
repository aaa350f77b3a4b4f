//! What follows from a plan for others: every writer comes through here before it writes, so that no fact
//! is found twice or not at all. The teams are locked, and `stored` is as it was loaded under the lock.

use std::{borrow::Cow, collections::HashMap};

use drawdown_ledger_core::{
    Attribution, Hold, JournalRow, Line, Notice, NoticeRules, Plan, Settings, Spent, Team, Told, month_of,
    notices, spend,
};
use drawdown_types::{TeamId, Timestamp};

use crate::store::{teams::StoredTeam, write::Noted};

/// Puts `after`, the teams as the plan leaves them, in the place of `stored`, in the same order, and finds the
/// facts in between up to `to`, the instant of the writer.
pub(crate) fn advance(
    stored: &mut [StoredTeam],
    after: Vec<Team>,
    plan: &Plan,
    to: Timestamp,
    rules: &NoticeRules,
    settings: &Settings,
) -> Noted {
    let journal = rows_of_teams(plan);
    let mut found: Vec<Notice> = Vec::new();
    for (stored, after) in stored.iter_mut().zip(after) {
        let rows = journal.get(&after.balance.team_id).map(Cow::as_ref).unwrap_or_default();
        // Due steps from before the last posting are posted at that instant, which may lie after `to`.
        let to = after.balance.posted_at.map_or(to, |last| last.max(to));
        let Told { notices, watch } =
            notices(&stored.team, stored.watch, &after, rows, to, rules, settings.window_size);
        found.extend(notices);
        stored.watch = watch;
        stored.team = after;
    }
    Noted { notices: found, ..Noted::at(to) }
}

/// Counts the charges of `plan` in the budgets of their teams and finds what was reached (D59), after `taken_back`:
/// what a correction takes back counts as usage below zero.
pub(crate) fn count(
    noted: &mut Noted,
    stored: &mut [StoredTeam],
    lines: &[Line],
    plan: &Plan,
    taken_back: Option<Spent>,
) {
    let mut budgets: Vec<_> = stored.iter_mut().flat_map(|stored| stored.budgets.drain(..)).collect();
    let spent = plan.charges.iter().filter_map(|charge| {
        let line = lines.get(charge.line)?;
        let Attribution::Payer(payer) = line.attribution else { return None };
        let (team_id, app_id, window) = (charge.team_id, payer.app_id, charge.window);
        Some(Spent { team_id, app_id, window, amount: charge.amount.as_micros() })
    });
    let spent = taken_back.into_iter().chain(spent);
    let (changed, reached) = spend(&mut budgets, spent, noted.at);
    noted.notices.extend(reached);
    noted.budgets.extend(changed.into_iter().filter_map(|index| budgets.get(index).cloned()));
}

/// The months of the windows of `lines` and of the holds they name, each once, by its first instant.
pub(crate) fn months(lines: &[Line], holds: &[Hold]) -> Vec<Timestamp> {
    let mut months: Vec<(Timestamp, Timestamp)> = Vec::new();
    let windows = lines.iter().map(|line| line.window).chain(holds.iter().map(|hold| hold.window));
    for window in windows {
        if !months.iter().any(|(first, next)| *first <= window && window < *next) {
            months.push(month_of(window));
        }
    }
    months.into_iter().map(|(first, _)| first).collect()
}

/// The rows of each team, in order of sequence.
fn rows_of_teams(plan: &Plan) -> HashMap<TeamId, Cow<'_, [JournalRow]>> {
    let mut rows: HashMap<TeamId, Cow<'_, [JournalRow]>> = HashMap::new();
    for of_team in plan.journal.chunk_by(|a, b| a.team_id == b.team_id) {
        let Some(first) = of_team.first() else { continue };
        rows.entry(first.team_id)
            .and_modify(|earlier| earlier.to_mut().extend_from_slice(of_team))
            .or_insert(Cow::Borrowed(of_team));
    }
    rows
}
