//! May a client id use a meter now: levels walked through time, and what bounds them. What refuses beside, data that grows
//! old, and the bounds of questions are in files of their own.

mod bounds;
mod cells;
mod gate;
mod obstacles;
mod stale;

use std::{sync::atomic::Ordering, time::Duration};

use drawdown_entitlement::Accounts;
use drawdown_entitlement_core::Rules;
use drawdown_proto::{
    entitlement::v1::{
        AccessLevel as Level, AccessReason as Reason, BudgetScope, EndTrialRequest,
        account_service_server::AccountService as _,
    },
    ledger::v1::{MeterPricing, TeamStanding},
};
use futures::StreamExt as _;
use tonic::Request;

use self::gate::{Gate, PATIENCE, TOKEN, instant, question, told};
use crate::{
    standings::{FakeStandings, budget, step},
    world::{Chain, World, access_policy, at, ok},
};

#[tokio::test]
async fn d21_levels_are_walked_through_time() {
    let rules = Rules { trial: Duration::from_secs(86_400), ..Rules::default() };
    let gate = Gate::with(World::with(rules).await, access_policy()).await;
    let account_id = gate.world.account(None, false).await;
    let team_id = gate.world.team(&account_id, None).await;
    let app_id = gate.world.app(&account_id).await;
    let client_id = gate.world.credential(&app_id, None).await.client_id;
    gate.world.assign(&app_id, &team_id, None).await;
    let chain = Chain { account_id, team_id, app_id };
    // noon: the trial began with the credential; the team comes at the next edge
    let without = (false, Level::Unspecified, Reason::TeamMissing);
    assert_eq!(gate.told(&client_id, "tile").await, without);
    gate.pass_to("2026-03-01T12:01:00Z").await;
    gate.balance_unseen(&chain, 100 * TOKEN).await;
    let trial = gate.ask(&client_id, "tile.hard").await;
    assert_eq!(told(&trial), (true, Level::Trial, Reason::InTrial));
    assert_eq!((trial.balance_micros, trial.budgets.len()), (None, 0), "d20: not shown");
    assert_eq!(instant(trial.changes_at), Some(at("2026-03-02T12:00:00Z")));
    gate.pass_to("2026-03-02T11:59:59.999999Z").await;
    assert_eq!(gate.told(&client_id, "tile").await.1, Level::Trial);
    gate.pass_to("2026-03-02T12:00:00Z").await;
    let full = gate.ask(&client_id, "tile").await;
    assert_eq!(told(&full), (true, Level::Full, Reason::InFull));
    assert_eq!(full.balance_micros, Some(100 * TOKEN));
    // late usage takes it below zero: the clock starts with the posting
    let deadline = at("2026-03-16T12:31:00Z");
    gate.pass_to("2026-03-02T12:30:10Z").await;
    gate.balance(&chain, &client_id, 0, 5 * TOKEN, Some(deadline)).await;
    let grace = gate.ask(&client_id, "tile").await;
    assert_eq!(told(&grace), (true, Level::Grace, Reason::InGrace));
    assert_eq!((instant(grace.grace_deadline), instant(grace.changes_at)), (Some(deadline), Some(deadline)));
    // a partial top-up leaves the clock
    gate.pass_to("2026-03-10T00:00:00Z").await;
    gate.balance(&chain, &client_id, 0, TOKEN, Some(deadline)).await;
    assert_eq!(instant(gate.ask(&client_id, "tile").await.grace_deadline), Some(deadline));
    gate.pass_to("2026-03-16T12:30:59.999999Z").await;
    assert_eq!(gate.told(&client_id, "tile").await.1, Level::Grace);
    // the deadline passes, and nobody says anything
    gate.world.clock.set(deadline);
    let limited = gate.ask(&client_id, "tile").await;
    assert_eq!(told(&limited), (false, Level::Limited, Reason::GraceOver));
    assert!(!limited.stale);
    let missing: Vec<_> =
        limited.remedies.iter().map(|remedy| (remedy.reason(), remedy.tokens_micros)).collect();
    assert_eq!(missing, [(Reason::GraceOver, Some(TOKEN))]);
    assert_eq!(gate.told(&client_id, "tile.free").await, (true, Level::Limited, Reason::FreeOfCharge));
    gate.pass_to("2026-03-17T00:00:00Z").await;
    gate.balance(&chain, &client_id, 0, TOKEN / 2, Some(deadline)).await;
    assert_eq!(gate.told(&client_id, "tile").await, (false, Level::Limited, Reason::GraceOver));
    // enough is bought
    gate.balance(&chain, &client_id, 99 * TOKEN, 0, None).await;
    assert_eq!(gate.told(&client_id, "tile").await, (true, Level::Full, Reason::InFull));
}

#[tokio::test]
async fn d20_a_trial_that_is_ended_early_ends_at_its_edge() {
    let gate = Gate::new().await;
    let account_id = gate.world.account(None, false).await;
    let team_id = gate.world.team(&account_id, None).await;
    let app_id = gate.world.app(&account_id).await;
    let client_id = gate.world.credential(&app_id, None).await.client_id;
    let from = gate.world.assign(&app_id, &team_id, None).await;
    gate.pass_to(&from.to_string()).await;
    assert_eq!(gate.told(&client_id, "tile.hard").await, (true, Level::Trial, Reason::InTrial));
    let accounts = Accounts::new(&gate.world.parts);
    let request = EndTrialRequest { account_id, ..EndTrialRequest::default() };
    ok(accounts.end_trial(Request::new(request)).await);
    let ends = gate.ask(&client_id, "tile.hard").await;
    assert_eq!(instant(ends.changes_at), Some(at("2026-03-01T12:02:00Z")));
    gate.world.clock.set(at("2026-03-01T12:02:00Z"));
    let over = gate.ask(&client_id, "tile.hard").await;
    assert_eq!(told(&over), (false, Level::Full, Reason::BalanceTooLow));
    assert_eq!(over.remedies[0].tokens_micros, Some(1));
}

#[tokio::test]
async fn what_time_alone_brings_is_told_ahead() {
    let gate = Gate::new().await;
    let (chain, client_id) = gate.app().await;
    let expiry = "2026-03-01T12:10:00Z";
    let mut steps = vec![step(5 * TOKEN, 0, None), step(0, 0, None)];
    steps[1].from = crate::world::wire(at(expiry));
    let team = TeamStanding { team_id: chain.team_id.clone(), steps, ..TeamStanding::default() };
    gate.ledger.team(&chain.account_id, team);
    let before = gate.until(&client_id, "tile.hard", |answer| answer.balance_micros == Some(5 * TOKEN)).await;
    assert_eq!((before.allowed, instant(before.changes_at)), (true, Some(at(expiry))));
    gate.world.clock.set(at("2026-03-01T12:00:09Z"));
    let mut messages = gate.watch(vec![question(&client_id, "tile.hard")]).await;
    assert!(messages.next().await.unwrap().unwrap().answers[0].answer.as_ref().unwrap().allowed);
    gate.pass_to(expiry).await;
    let after = gate.ask(&client_id, "tile.hard").await;
    assert_eq!(
        told(&after),
        (false, Level::Full, Reason::BalanceTooLow),
        "the lot expired, and nobody said so"
    );
    assert_eq!(gate.told(&client_id, "tile").await, (true, Level::Full, Reason::InFull), "zero is fine (D6)");
    let wait = async {
        while messages
            .next()
            .await
            .unwrap()
            .unwrap()
            .answers
            .iter()
            .all(|watched| watched.answer.as_ref().unwrap().allowed)
        {}
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap();
}

#[tokio::test]
async fn d48_an_account_without_grace_and_a_debt_limit_refuse_at_once() {
    let gate = Gate::new().await;
    let (chain, client_id) = gate.app().await;
    let deadline = at("2026-03-10T00:00:00Z");
    gate.balance(&chain, &client_id, 0, 7 * TOKEN, Some(deadline)).await;
    let others = at("2026-03-01T11:00:00Z");
    gate.ledger.account(&chain.account_id, Some(others), Vec::new());
    let answer = gate.until(&client_id, "tile", |answer| !answer.allowed).await;
    assert_eq!(told(&answer), (false, Level::Limited, Reason::AccountWithoutGrace));
    assert_eq!(instant(answer.grace_deadline), Some(others));
    gate.ledger.account(&chain.account_id, None, Vec::new());
    gate.until(&client_id, "tile", |answer| answer.level() == Level::Grace).await;
    gate.ledger.debt_limit(5 * TOKEN);
    let answer = gate.until(&client_id, "tile", |answer| !answer.allowed).await;
    assert_eq!(told(&answer), (false, Level::Limited, Reason::DebtLimitPassed));
    assert_eq!(answer.remedies[0].tokens_micros, Some(2 * TOKEN), "to be within the limit again");
    assert_eq!(answer.grace_deadline, None, "it is refused now, not at the end of the grace");
}

#[tokio::test]
async fn d48_the_debt_limit_holds_from_the_first_list_on() {
    let world = World::new().await;
    let ledger = FakeStandings::new(world.clock.clone(), 0);
    ledger.is_quiet.store(true, Ordering::SeqCst);
    ledger.meter("tile", false, MeterPricing::Charged);
    ledger.debt_limit(5 * TOKEN);
    let chain = world.chain().await;
    let client_id = world.credential(&chain.app_id, None).await.client_id;
    world.assign(&chain.app_id, &chain.team_id, Some("2026-02-01T00:00:00Z")).await;
    let deadline = Some(at("2026-03-10T00:00:00Z"));
    ledger.balance(&chain.account_id, &chain.team_id, step(0, 7 * TOKEN, deadline));
    let gate = Gate::following(world, access_policy(), ledger).await;
    assert_eq!(gate.told(&client_id, "tile").await, (false, Level::Limited, Reason::DebtLimitPassed));
}

#[tokio::test]
async fn d59_budgets_of_app_team_and_account_stand_in_one_answer() {
    let gate = Gate::new().await;
    let (chain, client_id) = gate.app().await;
    let budgets = vec![budget(&chain.app_id, 10 * TOKEN, 3 * TOKEN), budget("", 20 * TOKEN, 20 * TOKEN)];
    let team = TeamStanding {
        team_id: chain.team_id.clone(),
        steps: vec![step(50 * TOKEN, 0, None)],
        budgets,
        ..TeamStanding::default()
    };
    gate.ledger.team(&chain.account_id, team);
    gate.ledger.account(&chain.account_id, None, vec![budget("", 30 * TOKEN, 29 * TOKEN)]);
    let answer = gate.until(&client_id, "tile", |answer| answer.budgets.len() == 3).await;
    let of = |scope: BudgetScope, cap, used| (scope, Some(cap * TOKEN), used * TOKEN);
    let budgets: Vec<_> = answer.budgets.iter().map(|b| (b.scope(), b.cap_micros, b.used_micros)).collect();
    let expected =
        [of(BudgetScope::App, 10, 3), of(BudgetScope::Team, 20, 20), of(BudgetScope::Account, 30, 29)];
    assert_eq!(budgets, expected);
    assert_eq!(told(&answer), (false, Level::Full, Reason::TeamBudgetReached));
    assert_eq!(instant(answer.remedies[0].at), Some(at("2026-04-01T00:00:00Z")));
    assert_eq!(gate.told(&client_id, "tile.free").await, (true, Level::Full, Reason::FreeOfCharge));
    gate.pass_to("2026-04-01T00:00:00Z").await;
    assert_eq!(gate.told(&client_id, "tile").await, (true, Level::Full, Reason::InFull), "a new month");
}
