use super::*;
use crate::Trial;

fn at(secs: i64) -> Timestamp {
    Timestamp::from_secs(1_767_268_800 + secs).unwrap()
}

fn party() -> Party {
    Party {
        account_id: AccountId::generate(),
        team_id: Some(TeamId::generate()),
        suspended: false,
        trial: TrialTerms { trial: None, commercial_from: Some(at(-86_400)) },
        cell: 0,
        ledger_known: true,
    }
}

fn transfer(stage: Stage) -> TransferState {
    TransferState { stage, to: UserId::generate(), expires_at: at(600), team_id: None, effective_from: None }
}

fn by(actor: Actor, for_giving_side: bool) -> Acting {
    Acting { actor, for_giving_side }
}

fn operator() -> Acting {
    by(Actor::Operator, false)
}

fn admin() -> Standing {
    Standing { role: Some(super::super::Role::SecondaryAdmin), ..Standing::default() }
}

/// What keeps a side from giving or receiving, and what is told.
fn closed_sides(side: Side) -> Vec<(Party, TransferRefusal)> {
    let begun = |start| Some(Trial::begin(at(start), &Rules::default()));
    let days = 86_400;
    vec![
        (Party { suspended: true, ..party() }, TransferRefusal::Suspended(side)),
        (
            Party { trial: TrialTerms { trial: begun(-90 * days + 61), commercial_from: None }, ..party() },
            TransferRefusal::InTrial(side),
        ),
        // it never began, so it is not over
        (Party { trial: TrialTerms::default(), ..party() }, TransferRefusal::InTrial(side)),
        (
            Party { trial: TrialTerms { trial: None, commercial_from: Some(at(60)) }, ..party() },
            TransferRefusal::InTrial(side),
        ),
        (Party { cell: 2, ledger_known: false, ..party() }, TransferRefusal::OtherCell(side, 2)),
        (Party { team_id: None, ..party() }, TransferRefusal::NoTeam),
    ]
}

#[test]
fn d26_the_giving_side_invites_somebody_else_once_at_a_time() {
    let (owner, to, stranger) = (UserId::generate(), UserId::generate(), UserId::generate());
    let rules = Rules::default();
    let invite =
        |acting, to, open, giving| plan_invitation(at(0), acting, (Some(owner), to), open, giving, &rules);
    let invited = |closes_expired| {
        Ok(Invitation { expires_at: at(0).checked_add(rules.invitation).unwrap(), closes_expired })
    };
    let person = by(Actor::User(owner), true);
    assert_eq!(invite(person, to, None, party()), invited(false));
    assert_eq!(invite(operator(), to, None, party()), invited(false));
    let not_permitted = invite(by(Actor::User(stranger), false), to, None, party());
    assert_eq!(not_permitted, Err(TransferRefusal::NotPermitted(stranger)));
    assert_eq!(invite(person, owner, None, party()), Err(TransferRefusal::OwnsApp(owner)));
    let open = transfer(Stage::TeamChosen);
    assert_eq!(invite(person, to, Some(open), party()), Err(TransferRefusal::Open { until: at(600) }));
    let expired = TransferState { expires_at: at(0), ..open };
    assert_eq!(invite(person, to, Some(expired), party()), invited(true));
    for (giving, refusal) in closed_sides(Side::Giving) {
        assert_eq!(invite(person, to, None, giving), Err(refusal));
    }
}

#[test]
fn d26_every_step_follows_the_one_before() {
    use Stage::{Accepted, Confirmed, Declined, Expired, Invited, TeamChosen, Withdrawn};
    use TransferAct::{Accept, Choose, Confirm, Decline, Withdraw};
    let (go, unchanged) = (Ok(TransferPlan::Go), Ok(TransferPlan::Unchanged));
    let out_of_order = |stage| Err(TransferRefusal::OutOfOrder(stage));
    for (act, answers) in [
        (Accept, [go, unchanged, unchanged]),
        (Choose, [out_of_order(Invited), go, go]),
        (Confirm, [out_of_order(Invited), out_of_order(Accepted), go]),
        (Withdraw, [go, go, go]),
        (Decline, [go, go, go]),
    ] {
        for (stage, answer) in [Invited, Accepted, TeamChosen].into_iter().zip(answers) {
            let transfer = transfer(stage);
            let step = |now| plan_transfer_step(at(now), transfer, act, operator(), party());
            assert_eq!(step(599), answer, "{act:?} {stage:?}");
            assert_eq!(step(600), Err(TransferRefusal::Over(Expired)), "{act:?} {stage:?} too late");
        }
        for stage in [Confirmed, Withdrawn, Declined] {
            let again = matches!((act, stage), (Withdraw, Withdrawn) | (Decline, Declined));
            let told = plan_transfer_step(at(0), transfer(stage), act, operator(), party());
            let expected = if again { unchanged } else { Err(TransferRefusal::Over(stage)) };
            assert_eq!(told, expected, "{act:?} {stage:?}");
        }
    }
}

#[test]
fn d26_each_side_has_its_own_steps() {
    let transfer = transfer(Stage::TeamChosen);
    let (invited, stranger) = (by(Actor::User(transfer.to), false), UserId::generate());
    for act in [TransferAct::Accept, TransferAct::Choose, TransferAct::Confirm, TransferAct::Decline] {
        let step = |acting| plan_transfer_step(at(0), transfer, act, acting, party());
        assert!(step(invited).is_ok(), "{act:?}");
        // not even the giving side
        let giver = by(Actor::User(stranger), true);
        assert_eq!(step(giver), Err(TransferRefusal::NotPermitted(stranger)), "{act:?}");
    }
    let withdraw = |acting| plan_transfer_step(at(0), transfer, TransferAct::Withdraw, acting, party());
    assert_eq!(withdraw(by(Actor::User(stranger), true)), Ok(TransferPlan::Go));
    assert_eq!(withdraw(invited), Err(TransferRefusal::NotPermitted(transfer.to)));
}

#[test]
fn d26_the_team_is_another_one_that_may_be_used_and_stands_well() {
    let state = transfer(Stage::Accepted);
    let giving = party();
    let choose =
        |standing, receiving| plan_team_choice(at(0), state, operator(), standing, (giving, receiving));
    assert_eq!(choose(admin(), party()), Ok(TransferPlan::Go));
    assert_eq!(choose(Standing { assigned: true, ..Standing::default() }, party()), Ok(TransferPlan::Go));
    assert_eq!(choose(Standing::default(), party()), Err(TransferRefusal::NoProduct(state.to)));
    let same = Party { team_id: giving.team_id, ..party() };
    assert_eq!(choose(admin(), same), Err(TransferRefusal::SameTeam));
    for (receiving, refusal) in closed_sides(Side::Receiving) {
        assert_eq!(choose(admin(), receiving), Err(refusal));
    }
    let receiving = party();
    let chosen = TransferState { stage: Stage::TeamChosen, team_id: receiving.team_id, ..state };
    let again = plan_team_choice(at(0), chosen, operator(), admin(), (giving, receiving));
    assert_eq!(again, Ok(TransferPlan::Unchanged));
    let other = plan_team_choice(at(0), chosen, operator(), admin(), (giving, party()));
    assert_eq!(other, Ok(TransferPlan::Go));
}

#[test]
fn d26_a_confirmation_asks_for_both_balances_and_takes_effect_at_an_edge() {
    let (giving, receiving, rules) = (party(), Party { cell: 2, ..party() }, Rules::default());
    let (from, to) = (giving.team_id.unwrap(), receiving.team_id.unwrap());
    let present = Change { from: at(-600), value: from };
    let teams = History::from_changes([present]).unwrap();
    let base = ConfirmFacts {
        now: at(56),
        transfer: transfer(Stage::TeamChosen),
        acting: operator(),
        standing: admin(),
        giving,
        receiving,
        teams: &teams,
        balances: &[],
    };
    let confirm = |balances: &[(TeamId, i64)]| plan_confirmation(&ConfirmFacts { balances, ..base }, &rules);
    assert_eq!(confirm(&[]), Ok(ConfirmPlan::AskBalances(vec![(0, from), (2, to)])));
    assert_eq!(confirm(&[(from, 0)]), Ok(ConfirmPlan::AskBalances(vec![(2, to)])));
    assert_eq!(confirm(&[(from, 0), (to, 0)]), Ok(ConfirmPlan::Transfer { from: at(120) }));
    assert_eq!(confirm(&[(from, -1), (to, 0)]), Err(TransferRefusal::BelowZero(Side::Giving)));
    assert_eq!(confirm(&[(from, 5), (to, -1)]), Err(TransferRefusal::BelowZero(Side::Receiving)));
    for (receiving, refusal) in closed_sides(Side::Receiving) {
        let facts = ConfirmFacts { receiving, ..base };
        assert_eq!(plan_confirmation(&facts, &rules), Err(refusal));
    }
    for (giving, refusal) in closed_sides(Side::Giving) {
        let facts = ConfirmFacts { giving, ..base };
        assert_eq!(plan_confirmation(&facts, &rules), Err(refusal));
    }
    let scheduled = Change { from: at(120), value: TeamId::generate() };
    let teams = History::from_changes([present, scheduled]).unwrap();
    let later = ConfirmFacts { teams: &teams, ..base };
    let overlap = TransferRefusal::Overlap { edge: at(120), begins_at: at(120) };
    assert_eq!(plan_confirmation(&later, &rules), Err(overlap));
    let done =
        TransferState { stage: Stage::Confirmed, effective_from: Some(at(60)), ..transfer(Stage::Confirmed) };
    let done = ConfirmFacts { transfer: done, ..base };
    assert_eq!(plan_confirmation(&done, &rules), Ok(ConfirmPlan::Unchanged { from: at(60) }));
}
