use super::*;

fn at(minutes: i64) -> Timestamp {
    Timestamp::from_secs(1_767_268_800 + minutes * 60).unwrap()
}

struct Case {
    teams: [TeamId; 3],
    history: History<TeamId>,
    accounts: History<AccountId>,
    account: AccountId,
    app_id: AppId,
}

/// An app with team 0 from -100 on and team 1 from -50 on.
fn case() -> Case {
    let teams = [TeamId::generate(), TeamId::generate(), TeamId::generate()];
    let changes = [Change { from: at(-100), value: teams[0] }, Change { from: at(-50), value: teams[1] }];
    Case {
        teams,
        history: History::from_changes(changes).unwrap(),
        accounts: History::default(),
        account: AccountId::generate(),
        app_id: AppId::generate(),
    }
}

impl Case {
    fn facts(&self, team: usize) -> CorrectionFacts<'_> {
        CorrectionFacts {
            now: at(0),
            app_id: self.app_id,
            app_account: self.account,
            later_accounts: &self.accounts,
            team_id: self.teams[team],
            team_account: self.account,
            team_created_at: at(-1_000),
            history: &self.history,
            first_team_told: false,
            answer: None,
        }
    }

    fn plan(
        &self,
        facts: CorrectionFacts<'_>,
        from: i64,
        to: Option<i64>,
    ) -> Result<CorrectionPlan, CorrectionRefusal> {
        let question = UsageQuestion { scope: UsageScope::App(self.app_id), from: at(from) };
        let answer = Some(UsageAnswer { question, settled: false });
        plan_correction(CorrectionFacts { answer, ..facts }, at(from), to.map(at), &Rules::default())
    }

    fn writes(
        &self,
        voided: &[i64],
        added: &[(i64, usize)],
        changes_first: bool,
    ) -> Result<CorrectionPlan, CorrectionRefusal> {
        Ok(CorrectionPlan::Write(Correction {
            voided: voided.iter().map(|minutes| at(*minutes)).collect(),
            added: added
                .iter()
                .map(|(from, team)| Change { from: at(*from), value: self.teams[*team] })
                .collect(),
            changes_first,
        }))
    }
}

#[test]
fn d23_a_correction_changes_its_interval_and_nothing_else() {
    let case = case();
    for (team, from, to, expected) in [
        // inside of one link, at its beginning, at its end, over both
        (2, -80, Some(-70), case.writes(&[], &[(-80, 2), (-70, 0)], false)),
        (2, -100, Some(-70), case.writes(&[-100], &[(-100, 2), (-70, 0)], true)),
        (2, -60, Some(-50), case.writes(&[], &[(-60, 2)], false)),
        (2, -80, Some(-20), case.writes(&[-50], &[(-80, 2), (-20, 1)], false)),
        (2, -200, Some(-20), case.writes(&[-100, -50], &[(-200, 2), (-20, 1)], true)),
        // to the next change, or open
        (2, -80, None, case.writes(&[], &[(-80, 2)], false)),
        (2, -40, None, case.writes(&[], &[(-40, 2)], false)),
        (2, -200, None, case.writes(&[], &[(-200, 2)], true)),
        // the team of before goes on, the one of after begins sooner
        (0, -50, Some(-40), case.writes(&[-50], &[(-40, 1)], false)),
        (0, -50, None, case.writes(&[-50], &[], false)),
        (1, -70, Some(-50), case.writes(&[-50], &[(-70, 1)], false)),
        (1, -70, None, case.writes(&[-50], &[(-70, 1)], false)),
        // it is so
        (0, -80, Some(-60), Ok(CorrectionPlan::Unchanged)),
        (1, -50, None, Ok(CorrectionPlan::Unchanged)),
        (0, -100, None, Ok(CorrectionPlan::Unchanged)),
    ] {
        assert_eq!(case.plan(case.facts(team), from, to), expected, "team {team} from {from} to {to:?}");
    }
}

#[test]
fn d61_a_correction_needs_that_nothing_from_there_on_is_settled() {
    let case = case();
    let facts = case.facts(2);
    let question = UsageQuestion { scope: UsageScope::App(case.app_id), from: at(-80) };
    let plan = |answer| {
        plan_correction(CorrectionFacts { answer, ..facts }, at(-80), Some(at(-70)), &Rules::default())
    };
    assert_eq!(plan(None), Ok(CorrectionPlan::Ask(question)));
    let settled = Some(UsageAnswer { question, settled: true });
    assert_eq!(plan(settled), Err(CorrectionRefusal::SettledUsage { edge: at(-80) }));
}

#[test]
fn impossible_corrections_are_refused() {
    let mut case = case();
    let facts = case.facts(2);
    assert_eq!(case.plan(facts, 1, None), Err(CorrectionRefusal::NotPast { edge: at(1) }));
    let empty = Err(CorrectionRefusal::Empty { from: at(-10), to: at(-10) });
    assert_eq!(case.plan(facts, -10, Some(-10)), empty);
    assert_eq!(case.plan(facts, -200, Some(-150)), Err(CorrectionRefusal::LeavesGap(at(-150))));
    let told = CorrectionFacts { first_team_told: true, ..facts };
    assert_eq!(case.plan(told, -100, Some(-70)), Err(CorrectionRefusal::FirstTeamTold));
    assert!(case.plan(told, -80, Some(-70)).is_ok(), "the first link stays");
    let young = CorrectionFacts { team_created_at: at(-75), ..facts };
    let before = Err(CorrectionRefusal::BeforeTeam { edge: at(-80), created_at: at(-75) });
    assert_eq!(case.plan(young, -80, None), before);
    // the account of the interval counts, and a transfer must not lie inside
    let other = AccountId::generate();
    assert_eq!(
        case.plan(CorrectionFacts { team_account: other, ..facts }, -80, None),
        Err(CorrectionRefusal::AppAndTeamDiffer)
    );
    case.accounts = History::from_changes([Change { from: at(-50), value: other }]).unwrap();
    let facts = case.facts(2);
    assert!(case.plan(facts, -80, Some(-50)).is_ok());
    assert_eq!(case.plan(facts, -80, Some(-40)), Err(CorrectionRefusal::AppAndTeamDiffer));
    assert!(case.plan(CorrectionFacts { team_account: other, ..facts }, -50, Some(-40)).is_ok());
}

#[test]
fn d51_a_scheduled_change_can_be_taken_back_until_five_seconds_before_its_edge() {
    let rules = Rules::default();
    let back = |before_edge: i64| {
        let now = Timestamp::from_micros(at(10).as_micros() - before_edge).unwrap();
        plan_cancellation(now, at(10), &rules)
    };
    assert_eq!(back(5_000_000), Ok(()));
    assert_eq!(back(4_999_999), Err(TooLate { from: at(10), edge: at(11) }));
    assert_eq!(back(0), Err(TooLate { from: at(10), edge: at(11) }));
}
