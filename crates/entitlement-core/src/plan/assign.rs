//! Assigning an app to a team of its own account (D23, D51, D61).
//!
//! The edge: no instant given → the first edge at least [`Rules::lead`] from now; one in the future →
//! the first edge at or after it, but never before that same edge, since a change that takes effect
//! at once would cut windows that are being used; a past one → set-up, at the first edge at or after
//! it, once nobody has settled usage from there on.

use drawdown_types::{AccountId, AppId, TeamId, Timestamp};

use super::{Proof, UsageAnswer, UsageQuestion, UsageScope};
use crate::{Change, History, Rules};

/// What is known, read under the lock of the app.
#[derive(Clone, Copy, Debug)]
pub struct AssignFacts<'a> {
    /// The present instant.
    pub now: Timestamp,
    /// The app.
    pub app_id: AppId,
    /// Its account, before it changed its owner.
    pub app_account: AccountId,
    /// Its accounts since then: a transfer takes effect at an edge, as an assignment does (D26).
    pub later_accounts: &'a History<AccountId>,
    /// The team.
    pub team_id: TeamId,
    /// Its account.
    pub team_account: AccountId,
    /// Since when there is that team.
    pub team_created_at: Timestamp,
    /// The assignments of the app so far.
    pub history: &'a History<TeamId>,
    /// The ledger's answer, where it was asked.
    pub answer: Option<UsageAnswer>,
}

/// A new link; it ends the open one at its edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The app.
    pub app_id: AppId,
    /// The team.
    pub team_id: TeamId,
    /// The edge from which on it holds.
    pub from: Timestamp,
    /// It was entered for a past (D61).
    pub set_up: bool,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AssignPlan {
    /// Nothing: the open link says so already.
    Unchanged {
        /// Since when it holds.
        from: Timestamp,
    },
    /// Ask the ledger, then plan again.
    Ask(UsageQuestion),
    /// Write this link.
    Append(Assignment),
}

/// Why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AssignRefusal {
    /// The app and the team belong to different accounts.
    #[error("app and team belong to different accounts")]
    AppAndTeamDiffer,
    /// Further ahead than a change may be scheduled.
    #[error("the edge {edge} is later than {latest}, the latest that may be scheduled now")]
    TooFarAhead {
        /// The edge asked for.
        edge: Timestamp,
        /// The latest one allowed.
        latest: Timestamp,
    },
    /// Before there was such a team.
    #[error("the edge {edge} lies before the team was created at {created_at}")]
    BeforeTeam {
        /// The edge asked for.
        edge: Timestamp,
        /// When the team was created.
        created_at: Timestamp,
    },
    /// A link begins at or after the edge: it would be cut, or history rewritten.
    #[error("the app has an assignment that begins at {begins_at}, not before the edge {edge}")]
    Overlap {
        /// The edge asked for.
        edge: Timestamp,
        /// Where the other link begins.
        begins_at: Timestamp,
    },
    /// Usage of the app is settled in a window from the edge on.
    #[error("usage of the app from the edge {edge} on is settled")]
    SettledUsage {
        /// The edge asked for.
        edge: Timestamp,
    },
}

/// Plans an assignment from `from` on, or from the first possible edge on.
///
/// # Errors
/// [`AssignRefusal`].
pub fn plan_assign(
    facts: AssignFacts<'_>,
    from: Option<Timestamp>,
    rules: &Rules,
) -> Result<AssignPlan, AssignRefusal> {
    let first = rules.first_edge_after(facts.now);
    let edge = rules.edge(facts.now, from);
    if *facts.later_accounts.at(edge).unwrap_or(&facts.app_account) != facts.team_account {
        return Err(AssignRefusal::AppAndTeamDiffer);
    }
    let latest = rules.latest_edge(facts.now);
    if edge > latest {
        return Err(AssignRefusal::TooFarAhead { edge, latest });
    }
    if edge < rules.window.floor(facts.team_created_at) {
        return Err(AssignRefusal::BeforeTeam { edge, created_at: facts.team_created_at });
    }
    match facts.history.last() {
        Some(Change { from, value }) if *value == facts.team_id && *from <= edge => {
            return Ok(AssignPlan::Unchanged { from: *from });
        }
        Some(Change { from, .. }) if *from >= edge => {
            return Err(AssignRefusal::Overlap { edge, begins_at: *from });
        }
        Some(_) | None => {}
    }
    let set_up = edge < first;
    if set_up {
        let question = UsageQuestion { scope: UsageScope::App(facts.app_id), from: edge };
        match question.proof(facts.answer) {
            Proof::Missing => return Ok(AssignPlan::Ask(question)),
            Proof::Settled => return Err(AssignRefusal::SettledUsage { edge }),
            Proof::Clear => {}
        }
    }
    Ok(AssignPlan::Append(Assignment { app_id: facts.app_id, team_id: facts.team_id, from: edge, set_up }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: i64 = 1_767_268_800_000_000;
    const SECOND: i64 = 1_000_000;

    fn at(seconds_after_noon: i64) -> Timestamp {
        Timestamp::from_micros(NOON + seconds_after_noon * SECOND).unwrap()
    }

    struct Case {
        facts: AssignFacts<'static>,
    }

    fn case(history: &[(i64, TeamId)], now: i64) -> Case {
        let changes = history.iter().map(|(from, value)| Change { from: at(*from), value: *value });
        let account = AccountId::generate();
        let facts = AssignFacts {
            now: at(now),
            app_id: AppId::generate(),
            app_account: account,
            later_accounts: Box::leak(Box::default()),
            team_id: TeamId::generate(),
            team_account: account,
            team_created_at: at(-86_390),
            history: Box::leak(Box::new(History::from_changes(changes).unwrap())),
            answer: None,
        };
        Case { facts }
    }

    impl Case {
        fn plan(&self, from: Option<i64>) -> Result<AssignPlan, AssignRefusal> {
            plan_assign(self.facts, from.map(at), &Rules::default())
        }

        fn answered(&self, from: i64, edge: i64, settled: bool) -> Result<AssignPlan, AssignRefusal> {
            let question = UsageQuestion { scope: UsageScope::App(self.facts.app_id), from: at(edge) };
            let facts = AssignFacts { answer: Some(UsageAnswer { question, settled }), ..self.facts };
            plan_assign(facts, Some(at(from)), &Rules::default())
        }

        fn append(&self, edge: i64, set_up: bool) -> Result<AssignPlan, AssignRefusal> {
            let AssignFacts { app_id, team_id, .. } = self.facts;
            Ok(AssignPlan::Append(Assignment { app_id, team_id, from: at(edge), set_up }))
        }
    }

    #[test]
    fn the_edge_follows_the_instant_given() {
        for (now, from, edge) in [
            (0, None, 60),
            (55, None, 60),
            (56, None, 120),
            (0, Some(1), 60),
            (56, Some(57), 120),
            (0, Some(61), 120),
            (0, Some(120), 120),
            (30, Some(30), 60),
            (0, Some(3600), 3600),
        ] {
            let case = case(&[], now);
            assert_eq!(case.plan(from), case.append(edge, false), "now {now} from {from:?}");
        }
    }

    #[test]
    fn a_past_instant_is_set_up_and_asks_first() {
        for (now, from, edge) in [(0, -61, -60), (0, 0, 0), (56, 56, 60), (0, -3600, -3600)] {
            let case = case(&[], now);
            let question = UsageQuestion { scope: UsageScope::App(case.facts.app_id), from: at(edge) };
            assert_eq!(case.plan(Some(from)), Ok(AssignPlan::Ask(question)), "now {now} from {from}");
            assert_eq!(case.answered(from, edge, false), case.append(edge, true));
            assert_eq!(case.answered(from, edge, true), Err(AssignRefusal::SettledUsage { edge: at(edge) }));
            assert_eq!(case.answered(from, edge + 60, false), Ok(AssignPlan::Ask(question)), "other edge");
        }
    }

    #[test]
    fn links_are_added_at_the_end_only() {
        let old = TeamId::generate();
        let case = case(&[(-600, old), (300, old)], 0);
        for edge in [60, 240, 300] {
            assert_eq!(
                case.plan(Some(edge)),
                Err(AssignRefusal::Overlap { edge: at(edge), begins_at: at(300) })
            );
        }
        assert_eq!(case.plan(None), Err(AssignRefusal::Overlap { edge: at(60), begins_at: at(300) }));
        assert_eq!(case.plan(Some(301)), case.append(360, false));
    }

    #[test]
    fn the_same_team_again_changes_nothing() {
        let mut case = case(&[(-600, TeamId::generate())], 0);
        case.facts.team_id = case.facts.history.last().unwrap().value;
        assert_eq!(case.plan(None), Ok(AssignPlan::Unchanged { from: at(-600) }));
        assert_eq!(case.plan(Some(-600)), Ok(AssignPlan::Unchanged { from: at(-600) }));
        let earlier = case.plan(Some(-660));
        assert_eq!(earlier, Err(AssignRefusal::Overlap { edge: at(-660), begins_at: at(-600) }));
    }

    #[test]
    fn another_account_and_impossible_edges_are_refused() {
        let mut case = case(&[], 0);
        let ahead = 400 * 86_400;
        assert_eq!(case.plan(Some(60 + ahead)), case.append(60 + ahead, false));
        assert_eq!(
            case.plan(Some(61 + ahead)),
            Err(AssignRefusal::TooFarAhead { edge: at(120 + ahead), latest: at(60 + ahead) })
        );
        assert!(matches!(case.plan(Some(-86_400)), Ok(AssignPlan::Ask(_))), "the window of its creation");
        assert_eq!(
            case.plan(Some(-86_460)),
            Err(AssignRefusal::BeforeTeam { edge: at(-86_460), created_at: at(-86_390) })
        );
        case.facts.team_account = AccountId::generate();
        assert_eq!(case.plan(None), Err(AssignRefusal::AppAndTeamDiffer));
    }

    #[test]
    fn d26_the_account_of_the_edge_decides_and_not_the_present_one() {
        let mut case = case(&[], 0);
        let new = AccountId::generate();
        let transfer = Change { from: at(120), value: new };
        case.facts.later_accounts = Box::leak(Box::new(History::from_changes([transfer]).unwrap()));
        assert_eq!(case.plan(Some(60)), case.append(60, false));
        assert_eq!(case.plan(Some(120)), Err(AssignRefusal::AppAndTeamDiffer));
        case.facts.team_account = new;
        assert_eq!(case.plan(Some(60)), Err(AssignRefusal::AppAndTeamDiffer));
        assert_eq!(case.plan(Some(120)), case.append(120, false));
    }
}
