//! Three ledgers as cells: a batch is retired when all have it, whatever fails in between and in whichever of them.

use std::time::Duration;

use tokio::task::JoinSet;

use crate::{
    gate::{Gate, Mode, State, Sums},
    producer::{Ended, Log, Session, Until, clients_of_all_shards, deliver, open},
    rig::{Rig, Running, SHARDS, soon},
};

/// The clients of `Log::fill` with this seed live in the cells in turn; one in four is unknown.
fn spread(rig: &Rig, seed: u64) {
    for client in 0..7 {
        let name = format!("client-{seed}-{client}");
        match client % 4 {
            3 => rig.gate.stranger(&name),
            cell => rig.gate.lives_in(&name, cell),
        }
    }
}

/// Everything of all cells.
fn sums(states: &[State]) -> Sums {
    let mut all = Sums::new();
    for (key, (events, quantity)) in states.iter().flat_map(|state| &state.sums) {
        let sum = all.entry(key.clone()).or_default();
        *sum = (sum.0 + events, sum.1 + quantity);
    }
    all
}

fn states(rig: &Rig, others: &[Gate; 2]) -> [State; 3] {
    [rig.gate.state(), others[0].state(), others[1].state()]
}

/// All cells have the same batches and lanes, each line is where its payer lives, and together they have the log.
fn assert_settled(rig: &Rig, others: &[Gate; 2], log: &Log) {
    let states = states(rig, others);
    assert_eq!(sums(&states), log.sums);
    let places = states.each_ref().map(State::places);
    assert_eq!(places[0], places[1]);
    assert_eq!(places[0], places[2]);
    for (cell, state) in (1..).zip(&states[1..]) {
        assert!(state.unattributed.is_empty() && state.refused.is_empty());
        let lives = |client: &String| states[0].elsewhere.get(client) == Some(&cell);
        assert!(state.sums.keys().all(|(client, ..)| lives(client)), "cell {cell}");
    }
}

async fn retired(rig: &mut Rig) -> u64 {
    let mut retired = 0;
    for shard in 0..SHARDS {
        let head = rig.keys.head(shard);
        let field: Option<u64> =
            redis::cmd("HGET").arg(&head).arg("b").query_async(&mut rig.redis).await.unwrap();
        retired += field.unwrap_or_default();
    }
    retired
}

#[tokio::test]
async fn each_line_goes_to_the_cell_of_its_account() {
    let (rig, others) = Rig::with_cells().await;
    spread(&rig, 1);
    let running = rig.start().await;
    let mut log = Log::new(rig.gate.producer());
    log.fill(1, 200);
    soon("settlement", deliver(&log, running.address, Until::Settled)).await;
    running.stop().await;
    assert_settled(&rig, &others, &log);
    let events = states(&rig, &others).map(|state| state.sums.values().map(|sum| sum.0).sum::<u64>());
    assert!(events.iter().all(|events| *events > 0), "{events:?}");
    assert!(rig.gate.state().unattributed["unknown_client"] > 0);
    assert_eq!(rig.gate.resets(), u64::from(SHARDS), "only the first head of each shard");
    assert_eq!(others.each_ref().map(Gate::resets), [0, 0]);
}

#[tokio::test]
async fn while_a_cell_is_down_nothing_is_retired_or_freed_and_then_all_agree() {
    for mode in [Mode::Down, Mode::Gone] {
        let (mut rig, others) = Rig::with_cells().await;
        spread(&rig, 1);
        let running = rig.start().await;
        let mut log = Log::new(rig.gate.producer());
        log.fill(1, 50);
        soon("settlement", deliver(&log, running.address, Until::Settled)).await;
        let (before, places) = (retired(&mut rig).await, others[1].state().places());
        let epoch = open(running.address, log.producer).await.unwrap();
        log.fill(1, 100);
        let mut session = Session::begin(&log, running.address, epoch).await.unwrap();
        // The lanes are attached, then the cell goes.
        while session.settled.len() < log.lanes.len() {
            assert!(soon("attach", session.next()).await.is_none());
        }
        let told = session.settled.clone();
        others[1].set_mode(mode);
        assert!(matches!(soon("applied", session.run(Until::Applied)).await, Ended::Reached));
        if mode == Mode::Down {
            for _ in 0..3 {
                soon("a try", others[1].asked()).await;
            }
        } else {
            let quiet = tokio::time::timeout(Duration::from_millis(300), session.next()).await;
            assert!(quiet.is_err(), "{quiet:?}");
        }
        assert_eq!((retired(&mut rig).await, others[1].state().places()), (before, places));
        assert_eq!(session.settled, told, "a producer was told of what one cell does not have");
        others[1].set_mode(Mode::Open);
        assert!(matches!(soon("settlement", session.run(Until::Settled)).await, Ended::Reached));
        drop(session);
        running.stop().await;
        assert_settled(&rig, &others, &log);
        assert_eq!(rig.gate.resets(), u64::from(SHARDS), "{mode:?}");
    }
}

#[tokio::test]
async fn a_client_id_that_becomes_known_between_two_tries_changes_no_split() {
    let (rig, others) = Rig::with_cells().await;
    let clients = clients_of_all_shards();
    let mut log = Log::new(rig.gate.producer());
    for client in &clients {
        rig.gate.stranger(client);
        log.append(client, "web.call", &[1, 2, 3]);
    }
    let running = rig.start().await;
    // The leading cell has the batches, but nobody is told, and the others get nothing.
    rig.gate.set_mode(Mode::ReplyLost);
    let epoch = open(running.address, log.producer).await.unwrap();
    let mut session = Session::begin(&log, running.address, epoch).await.unwrap();
    assert!(matches!(soon("applied", session.run(Until::Applied)).await, Ended::Reached));
    let settled = async {
        while rig.gate.state().sums != log.sums {
            rig.gate.asked().await;
        }
    };
    soon("posts", settled).await;
    for client in &clients {
        rig.gate.lives_in(client, 1);
    }
    rig.gate.set_mode(Mode::Open);
    assert!(matches!(soon("settlement", session.run(Until::Settled)).await, Ended::Reached));
    drop(session);
    running.stop().await;
    assert_settled(&rig, &others, &log);
    assert_eq!(others[0].state().sums, Sums::new());
}

#[tokio::test]
async fn redis_is_lost_between_two_cells() {
    let (mut rig, others) = Rig::with_cells().await;
    spread(&rig, 1);
    let mut log = Log::new(rig.gate.producer());
    log.fill(1, 80);
    let running = rig.start().await;
    others[0].set_mode(Mode::Down);
    let epoch = open(running.address, log.producer).await.unwrap();
    let mut session = Session::begin(&log, running.address, epoch).await.unwrap();
    assert!(matches!(soon("applied", session.run(Until::Applied)).await, Ended::Reached));
    // The leading cell has settled a batch of some shard and the first of the others refuses to answer.
    soon("a try", others[0].asked()).await;
    running.kill();
    rig.flush_all().await;
    // What the leading cell has is not sent again; what it keeps reaches the others all the same.
    assert_ne!(rig.gate.state().places(), others[0].state().places());
    drop(session);
    let running = rig.start().await;
    others[0].set_mode(Mode::Open);
    soon("settlement", deliver(&log, running.address, Until::Settled)).await;
    running.stop().await;
    assert_settled(&rig, &others, &log);
}

#[tokio::test]
async fn a_cell_that_is_put_back_is_brought_up_from_the_leading_one() {
    let (rig, others) = Rig::with_cells().await;
    spread(&rig, 1);
    let running = rig.start().await;
    let mut log = Log::new(rig.gate.producer());
    let mut saved = others[0].state();
    for round in 0..6 {
        log.fill(1, 20);
        soon("settlement", deliver(&log, running.address, Until::Settled)).await;
        if round == 2 {
            saved = others[0].state();
        }
    }
    running.stop().await;
    let resets = rig.gate.resets();
    others[0].restore(saved);
    assert_ne!(others[0].state().places(), rig.gate.state().places());
    let running = rig.start().await;
    log.fill(1, 20);
    soon("settlement", deliver(&log, running.address, Until::Settled)).await;
    running.stop().await;
    assert_settled(&rig, &others, &log);
    assert_eq!(rig.gate.resets(), resets);
}

#[tokio::test]
async fn an_instance_that_knows_fewer_cells_settles_nothing() {
    let (rig, others) = Rig::with_cells().await;
    spread(&rig, 1);
    let mut options = rig.options();
    options.cells.pop();
    let running = rig.start_with(options).await;
    let mut log = Log::new(rig.gate.producer());
    log.fill(1, 30);
    soon("applied", deliver(&log, running.address, Until::Applied)).await;
    for _ in 0..5 {
        soon("a try", rig.gate.asked()).await;
    }
    running.stop().await;
    assert_eq!((rig.gate.state().sums, rig.gate.resets()), (Sums::new(), u64::from(SHARDS)));
    let running = rig.start().await;
    soon("settlement", deliver(&log, running.address, Until::Settled)).await;
    running.stop().await;
    assert_settled(&rig, &others, &log);
}

#[tokio::test]
async fn a_cell_that_answers_for_another_is_not_believed() {
    let (rig, others) = Rig::with_cells().await;
    let mut options = rig.options();
    let (first, second) = options.cells.split_at_mut(1);
    std::mem::swap(&mut first[0].ledger, &mut second[0].ledger);
    let mut starting = JoinSet::new();
    let config = options.validate().unwrap();
    let (context, mut bound) = rig.context();
    starting.spawn(drawdown_metering::run(config, context));
    let waited = tokio::time::timeout(Duration::from_millis(500), bound.wait()).await;
    assert!(waited.is_err(), "it started with the cells mixed up");
    starting.shutdown().await;
    assert_eq!(states(&rig, &others).map(|state| state.sums), [Sums::new(), Sums::new(), Sums::new()]);
}

/// A number that only hangs on the round, as different as a hash.
fn chance(round: u64, of: u64) -> u64 {
    (round + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23) % of
}

#[tokio::test]
async fn whatever_fails_in_whichever_cell_each_event_is_charged_once() {
    let (mut rig, others) = Rig::with_cells().await;
    let mut log = Log::new(rig.gate.producer());
    let mut running: Option<Running> = None;
    for round in 0..24_u64 {
        spread(&rig, round % 3);
        log.fill(round % 3, 15);
        let instance = match running.take() {
            Some(instance) => instance,
            None => rig.start().await,
        };
        // An outage of one cell from before the posts to after some of them.
        let cells = [&rig.gate, &others[0], &others[1]];
        let victim = cells[usize::try_from(chance(round, 3)).unwrap()];
        let epoch = open(instance.address, log.producer).await.unwrap();
        let mut session = Session::begin(&log, instance.address, epoch).await.unwrap();
        victim.set_mode(
            [Mode::Down, Mode::ReplyLost, Mode::Open][usize::try_from(chance(round * 7, 3)).unwrap()],
        );
        // A lane that is not attached yet waits for the cell that is down: then that comes back sooner.
        let ended = {
            let mut applied = std::pin::pin!(session.run(Until::Applied));
            match tokio::time::timeout(Duration::from_secs(2), &mut applied).await {
                Ok(ended) => ended,
                Err(_) => {
                    victim.set_mode(Mode::Open);
                    soon("applied", applied).await
                }
            }
        };
        assert!(matches!(ended, Ended::Reached));
        if round % 2 == 0 {
            let asked = cells[usize::try_from(chance(round * 3, 3)).unwrap()].asked();
            let _some = tokio::time::timeout(Duration::from_millis(100), asked).await;
        }
        drop(session);
        match chance(round * 5, 4) {
            0 => instance.kill(),
            1 => {
                rig.flush_all().await;
                running = Some(instance);
            }
            2 => {
                instance.kill();
                rig.flush_all().await;
            }
            _ => running = Some(instance),
        }
        // Somebody unknown becomes known, or the other way round.
        let client = format!("client-{}-3", round % 3);
        if chance(round * 11, 2) == 0 {
            rig.gate.lives_in(&client, u32::try_from(chance(round, 3)).unwrap());
        }
        for cell in [&rig.gate, &others[0], &others[1]] {
            cell.set_mode(Mode::Open);
        }
    }
    let instance = match running.take() {
        Some(instance) => instance,
        None => rig.start().await,
    };
    soon("settlement", deliver(&log, instance.address, Until::Settled)).await;
    instance.stop().await;
    let states = states(&rig, &others);
    assert_eq!(sums(&states), log.sums);
    let places = states.each_ref().map(State::places);
    assert!(places.iter().all(|place| *place == places[0]), "{places:#?}");
}
