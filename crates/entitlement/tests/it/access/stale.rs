//! Data that grows old: the ledger is not heard, or was never heard.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use drawdown_entitlement::{Access, AccessPolicy};
use drawdown_entitlement_core::access::WhenStale;
use drawdown_proto::{
    entitlement::v1::{
        AccessLevel as Level, AccessReason as Reason, CheckAccessRequest,
        access_service_server::AccessService as _,
    },
    ledger::v1::MeterPricing,
};
use tokio_util::sync::CancellationToken;
use tonic::Request;

use super::gate::{Gate, TOKEN, limits, question, told};
use crate::{
    standings::step,
    world::{World, access_policy, at, ok, refused},
};

#[tokio::test]
async fn d58_without_the_ledger_answers_say_so_and_follow_the_policy() {
    let meters = [("tile.vip", WhenStale::Allow), ("tile.shut", WhenStale::Refuse)];
    let meters: BTreeMap<String, WhenStale> =
        meters.into_iter().map(|(meter, when)| (meter.to_owned(), when)).collect();
    let gate = Gate::with(World::new().await, AccessPolicy { meters, ..access_policy() }).await;
    gate.ledger.meter("tile.vip", true, MeterPricing::Charged);
    gate.ledger.meter("tile.shut", false, MeterPricing::Charged);
    let (chain, client_id) = gate.app().await;
    gate.balance(&chain, &client_id, 50 * TOKEN, 0, None).await;
    let deadline = at("2026-03-01T12:05:00Z");
    gate.ledger.dies();
    gate.world.clock.set(at("2026-03-01T12:00:10Z"));
    gate.world.parts.memory.catch_up().await.unwrap();
    let young = gate.ask(&client_id, "tile.hard").await;
    assert_eq!(
        (told(&young), young.stale),
        ((true, Level::Full, Reason::InFull), false),
        "exactly the bound"
    );
    gate.world.clock.set(at("2026-03-01T12:00:10.001Z"));
    gate.world.parts.memory.catch_up().await.unwrap();
    for (meter, allowed, reason) in [
        ("tile", true, Reason::AllowedWhileStale),
        ("tile.hard", false, Reason::RefusedWhileStale),
        ("tile.vip", true, Reason::AllowedWhileStale),
        ("tile.shut", false, Reason::RefusedWhileStale),
        ("tile.free", true, Reason::InFull),
    ] {
        let answer = gate.ask(&client_id, meter).await;
        assert_eq!(told(&answer), (allowed, Level::Full, reason), "{meter}");
        assert_eq!(
            (answer.stale, answer.ledger_age_ms, answer.directory_age_ms),
            (true, Some(10_001), 0),
            "{meter}"
        );
        assert_eq!(answer.balance_micros, Some(50 * TOKEN), "as far as is known");
    }
    // it comes back and tells of a debt: within a second, as time is real here
    gate.ledger.comes_back();
    let back = tokio::time::Instant::now();
    gate.ledger.balance(&chain.account_id, &chain.team_id, step(0, TOKEN, Some(deadline)));
    let answer = gate.until(&client_id, "tile.hard", |answer| !answer.stale).await;
    assert!(back.elapsed() < Duration::from_secs(1), "{:?}", back.elapsed());
    assert_eq!(told(&answer), (false, Level::Grace, Reason::BalanceTooLow));
    // and goes again: the deadline counts on
    gate.ledger.dies();
    gate.world.clock.set(deadline);
    let answer = gate.ask(&client_id, "tile").await;
    assert_eq!((told(&answer), answer.stale), ((false, Level::Limited, Reason::GraceOver), true));
}

#[tokio::test]
async fn d58_a_ledger_that_was_never_heard_is_not_guessed_at() {
    let world = World::new().await;
    let (chain, client_id) = {
        let chain = world.chain().await;
        let client_id = world.credential(&chain.app_id, None).await.client_id;
        (chain, client_id)
    };
    world.assign(&chain.app_id, &chain.team_id, Some("2026-02-01T00:00:00Z")).await;
    let memory = Arc::clone(&world.parts.memory);
    let access = Access::new(Arc::clone(&memory), limits(), CancellationToken::new());
    let ask = async |meter: &str| {
        let request =
            CheckAccessRequest { question: Some(question(&client_id, meter)), with_billed_to: true };
        access.check_access(Request::new(request)).await
    };
    assert_eq!(refused(ask("tile").await).0, "UNAVAILABLE", "nothing is loaded");
    memory.load().await.unwrap();
    let answer = ok(ask("tile").await).answer.unwrap();
    assert_eq!(told(&answer), (false, Level::Unspecified, Reason::RefusedWhileStale));
    assert_eq!((answer.stale, answer.ledger_age_ms, answer.balance_micros), (true, None, None));
    let billed = answer.billed_to.unwrap();
    assert_eq!(
        (billed.app_id, billed.team_id, billed.account_id),
        (chain.app_id, chain.team_id, chain.account_id)
    );
    // a cell whose ledger is not followed is the same
    let there = world.chain_in(2).await.unwrap();
    let client_id = world.credential(&there.app_id, None).await.client_id;
    world.clock.set(world.assign(&there.app_id, &there.team_id, None).await);
    memory.catch_up().await.unwrap();
    let request = CheckAccessRequest { question: Some(question(&client_id, "tile")), with_billed_to: false };
    let answer = ok(access.check_access(Request::new(request)).await).answer.unwrap();
    assert_eq!((answer.level(), answer.ledger_age_ms), (Level::Unspecified, None));
}
