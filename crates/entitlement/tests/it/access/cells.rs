//! Accounts on several ledgers: each answer is made with the ledger of its account and with no other.

use std::sync::{Arc, atomic::Ordering};

use drawdown_entitlement::{Hierarchy, Parts};
use drawdown_proto::{
    entitlement::v1::{AccessLevel as Level, AccessReason as Reason, WatchAccessResponse},
    ledger::v1::MeterPricing,
};
use futures::StreamExt as _;
use tonic::Status;

use super::gate::{Gate, PATIENCE, TOKEN, question, told};
use crate::{
    standings::{FakeStandings, step},
    world::{Chain, World, at},
};

/// An app of an account that lives in a cell, assigned at the edge that is now.
async fn app_in(gate: &Gate, cell: u32) -> (Chain, String) {
    let chain = gate.world.chain_in(cell).await.unwrap();
    let client_id = gate.world.credential(&chain.app_id, None).await.client_id;
    let edge = gate.world.assign(&chain.app_id, &chain.team_id, None).await;
    gate.pass_to(&edge.to_string()).await;
    (chain, client_id)
}

/// Followed as that of cell 1; there `tile` is hard.
fn other(gate: &Gate) -> Arc<FakeStandings> {
    let other = FakeStandings::new(gate.world.clock.clone(), 1);
    other.meter("tile", true, MeterPricing::Charged);
    gate.follow(1, &other);
    other
}

async fn stale_and_age(gate: &Gate, client_id: &str) -> (bool, Option<u64>) {
    let answer = gate.ask(client_id, "tile").await;
    (answer.stale, answer.ledger_age_ms)
}

/// An app in each of two cells whose ledgers are heard: 50 tokens here, 7 there.
struct Both {
    gate: Gate,
    other: Arc<FakeStandings>,
    client_here: String,
    client_there: String,
}

impl Both {
    async fn heard() -> Self {
        let gate = Gate::new().await;
        let other = other(&gate);
        let (here, client_here) = gate.app().await;
        let (there, client_there) = app_in(&gate, 1).await;
        gate.balance(&here, &client_here, 50 * TOKEN, 0, None).await;
        other.balance(&there.account_id, &there.team_id, step(7 * TOKEN, 0, None));
        gate.until(&client_there, "tile", |answer| answer.balance_micros == Some(7 * TOKEN)).await;
        Self { gate, other, client_here, client_there }
    }
}

#[tokio::test]
async fn each_account_is_answered_with_the_ledger_of_its_cell() {
    let gate = Gate::new().await;
    let (here, client_here) = gate.app().await;
    let (there, client_there) = app_in(&gate, 1).await;
    let (_, client_beyond) = app_in(&gate, 2).await;
    gate.balance(&here, &client_here, 50 * TOKEN, 0, None).await;
    let unheard = gate.ask(&client_there, "tile").await;
    assert_eq!((unheard.stale, unheard.ledger_age_ms, unheard.level()), (true, None, Level::Unspecified));

    let other = other(&gate);
    other.balance(&there.account_id, &there.team_id, step(7 * TOKEN, 0, None));
    gate.until(&client_there, "tile", |answer| answer.balance_micros == Some(7 * TOKEN)).await;
    assert_eq!(gate.told(&client_there, "tile").await, (true, Level::Full, Reason::InFull));
    other.balance(&there.account_id, &there.team_id, step(0, 0, None));
    let answer = gate.until(&client_there, "tile", |answer| answer.balance_micros == Some(0)).await;
    assert_eq!(told(&answer), (false, Level::Full, Reason::BalanceTooLow), "the meter is hard in its cell");
    assert_eq!(gate.told(&client_there, "tile.hard").await.2, Reason::MeterNotKnown, "and of its catalogue");
    assert_eq!(gate.told(&client_here, "tile").await, (true, Level::Full, Reason::InFull));
    // a debt limit is of the ledger that told it
    other.debt_limit(TOKEN);
    let deadline = Some(at("2026-03-20T00:00:00Z"));
    other.balance(&there.account_id, &there.team_id, step(0, 5 * TOKEN, deadline));
    gate.until(&client_there, "tile", |answer| answer.reason() == Reason::DebtLimitPassed).await;
    gate.balance(&here, &client_here, 0, 5 * TOKEN, deadline).await;
    assert_eq!(gate.told(&client_here, "tile").await, (true, Level::Grace, Reason::InGrace));
    // a cell that nobody follows stays unheard
    assert_eq!(stale_and_age(&gate, &client_beyond).await, (true, None));
}

#[tokio::test]
async fn d58_a_ledger_out_of_reach_makes_its_own_accounts_stale_and_no_others() {
    let Both { gate, other, client_here, client_there } = Both::heard().await;

    other.dies();
    gate.pass_to("2026-03-01T12:05:00Z").await;
    assert_eq!(stale_and_age(&gate, &client_here).await, (false, Some(0)));
    let answer = gate.ask(&client_there, "tile").await;
    assert_eq!((told(&answer), answer.stale), ((false, Level::Full, Reason::RefusedWhileStale), true));

    other.comes_back();
    gate.ledger.dies();
    gate.until(&client_there, "tile", |answer| !answer.stale).await;
    gate.world.clock.set(at("2026-03-01T12:10:00Z"));
    gate.world.parts.memory.catch_up().await.unwrap();
    other.alive();
    let back = gate.until(&client_there, "tile", |answer| answer.ledger_age_ms == Some(0)).await;
    assert_eq!((told(&back), back.balance_micros), ((true, Level::Full, Reason::InFull), Some(7 * TOKEN)));
    let answer = gate.ask(&client_here, "tile").await;
    assert_eq!((told(&answer), answer.stale), ((true, Level::Full, Reason::AllowedWhileStale), true));
}

#[tokio::test]
async fn a_list_of_one_ledger_takes_nothing_from_another() {
    let mut gate = Gate::new().await;
    let other = other(&gate);
    let (here, client_here) = gate.app().await;
    let (there, client_there) = app_in(&gate, 1).await;
    gate.balance(&here, &client_here, 50 * TOKEN, 0, None).await;
    // told of a team before the directory is
    let early = unheard_account(&mut gate.world).await;
    other.balance(&early.account_id, &early.team_id, step(3 * TOKEN, 0, None));
    other.balance(&there.account_id, &there.team_id, step(7 * TOKEN, 0, None));
    gate.until(&client_there, "tile", |answer| answer.balance_micros == Some(7 * TOKEN)).await;

    let lists = gate.ledger.lists.load(Ordering::SeqCst);
    gate.follow(0, &gate.ledger);
    gate.until("", "tile", |_| gate.ledger.lists.load(Ordering::SeqCst) > lists).await;
    let edge = gate.world.assign(&early.app_id, &early.team_id, None).await;
    let early_client = gate.world.credential(&early.app_id, None).await.client_id;
    gate.pass_to(&edge.to_string()).await;
    other.alive();
    for (client_id, balance) in [(&client_here, 50), (&client_there, 7), (&early_client, 3)] {
        let answer = gate.ask(client_id, "tile").await;
        assert_eq!(answer.balance_micros, Some(balance * TOKEN), "{client_id}");
    }
}

/// An account of cell 1 that the memory has not heard of yet.
async fn unheard_account(world: &mut World) -> Chain {
    let memory = world.other_memory().await;
    world.hierarchy = Hierarchy::new(&Parts { memory, ..world.parts.clone() });
    let chain = world.chain_in(1).await.unwrap();
    world.rebuild();
    chain
}

#[tokio::test]
async fn a_ledger_that_is_not_the_cell_it_is_called_as_is_not_believed() {
    let gate = Gate::new().await;
    let (there, client_there) = app_in(&gate, 1).await;
    let other = FakeStandings::new(gate.world.clock.clone(), 2);
    other.balance(&there.account_id, &there.team_id, step(7 * TOKEN, 0, None));
    gate.follow(1, &other);
    let lists = || other.lists.load(Ordering::SeqCst);
    let asked_twice = async {
        while lists() < 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, asked_twice).await.unwrap();
    assert_eq!(stale_and_age(&gate, &client_there).await, (true, None));
    other.becomes(1);
    gate.until(&client_there, "tile.hard", |answer| answer.balance_micros == Some(7 * TOKEN)).await;
}

#[tokio::test]
async fn a_watcher_hears_which_of_its_answers_are_stale() {
    let Both { gate, other, client_here, client_there } = Both::heard().await;

    let mut both = gate.watch(vec![question(&client_here, "tile"), question(&client_there, "tile")]).await;
    let next = |message: Option<Result<WatchAccessResponse, Status>>| message.unwrap().unwrap();
    let first = next(both.next().await);
    assert_eq!((first.answers.len(), first.stale), (2, false));
    other.dies();
    gate.world.clock.set(at("2026-03-01T12:05:00Z"));
    gate.ledger.alive();
    gate.world.parts.memory.catch_up().await.unwrap();
    let stale = async {
        loop {
            let message = next(both.next().await);
            if let [watched] = &*message.answers
                && watched.index == 1
            {
                return (watched.answer.as_ref().unwrap().stale, message.stale);
            }
            // the first one may have been seen between its old age and its new one
        }
    };
    assert_eq!(tokio::time::timeout(PATIENCE, stale).await.unwrap(), (true, true));
    let mut one = gate.watch(vec![question(&client_here, "tile")]).await;
    assert!(!next(one.next().await).stale, "no answer of it hangs on the other ledger");
}
