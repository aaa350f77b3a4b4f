//! Events by id where accounts are spread over three ledgers.

use drawdown_proto::metering::v1::{RecordOutcome, Series, UsageEvent};
use drawdown_service::config::{Count, Millis};
use tokio::task::JoinSet;
use tonic::Code;

use crate::{
    gate::Mode,
    records::{AGAIN, CALLERS, NEW, all_waiting, event, outcomes, reason, record},
    rig::Rig,
};

/// An event of a client id.
fn of(client_id: &str, id: &str, quantity: u64) -> UsageEvent {
    let event = event(id, "web.byte", quantity);
    let series = event.series.map(|series| Series { client_id: client_id.to_owned(), ..series });
    UsageEvent { series, ..event }
}

#[tokio::test]
async fn each_event_is_recorded_in_the_cell_of_its_account() {
    let (rig, others) = Rig::with_cells().await;
    rig.gate.lives_in("one", 1);
    rig.gate.lives_in("two", 2);
    rig.gate.stranger("nobody");
    let running = rig.start().await;
    let sent: Vec<_> = (0..40)
        .map(|n: u64| {
            let client = ["app", "one", "two", "nobody"][usize::try_from(n).unwrap() % 4];
            of(client, &format!("e-{n}"), n)
        })
        .collect();
    let first = record(running.address, &sent).await.unwrap();
    assert_eq!(outcomes(&first), [NEW; 40]);
    let again = record(running.address, &sent).await.unwrap();
    assert_eq!(outcomes(&again), [AGAIN; 40]);
    for ((sent, first), again) in sent.iter().zip(&first).zip(&again) {
        assert_eq!(first.charge_id, again.charge_id, "{sent:?}");
        let nobodys = sent.series.as_ref().is_some_and(|series| series.client_id == "nobody");
        assert_eq!(first.charge_id.is_empty(), nobodys, "{sent:?}");
    }
    let other_content: Vec<_> =
        sent.iter().map(|sent| UsageEvent { quantity: 1_000, ..sent.clone() }).collect();
    let told = record(running.address, &other_content).await.unwrap();
    assert_eq!(outcomes(&told), [(RecordOutcome::Conflict, false); 40]);
    let sum = |rest: u64| (0..40).filter(|n: &u64| n % 4 == rest).sum::<u64>();
    let key = |client: &str| (client.to_owned(), "web.byte".to_owned(), false);
    let expected = |client: &str, rest| (key(client), (10, i64::try_from(sum(rest)).unwrap()));
    assert_eq!(rig.gate.book().sums, [expected("app", 0), expected("nobody", 3)].into());
    assert_eq!(others[0].book().sums, [expected("one", 1)].into());
    assert_eq!(others[1].book().sums, [expected("two", 2)].into());
    running.stop().await;
}

#[tokio::test]
async fn a_cell_that_is_down_keeps_nobody_waiting_but_its_own_callers() {
    let (rig, others) = Rig::with_cells().await;
    rig.gate.lives_in("one", 1);
    rig.gate.lives_in("two", 2);
    let running = rig.start().await;
    others[0].set_mode(Mode::Down);
    let mut callers = JoinSet::new();
    for n in 0..30 {
        let (address, client) = (running.address, ["app", "one", "two"][n % 3]);
        callers.spawn(async move { (client, record(address, &[of(client, &format!("e-{n}"), 1)]).await) });
    }
    while let Some(told) = callers.join_next().await {
        match told.unwrap() {
            ("one", told) => assert_eq!(told.unwrap_err().code(), Code::Unavailable),
            (_, told) => assert_eq!(outcomes(&told.unwrap()), [NEW]),
        }
    }
    // What was claimed meanwhile is recorded when it is asked for again, once, whoever pays by now.
    for mode in [Mode::ReplyLost, Mode::Open, Mode::Open] {
        others[0].set_mode(mode);
        rig.gate.lives_in("one", 2);
        let sent: Vec<_> = (0..30).filter(|n| n % 3 == 1).map(|n| of("one", &format!("e-{n}"), 1)).collect();
        match record(running.address, &sent).await {
            Ok(told) => assert_eq!(outcomes(&told), [AGAIN; 10]),
            Err(status) => assert_eq!((mode, status.code()), (Mode::ReplyLost, Code::Unavailable)),
        }
    }
    assert_eq!(others[0].book().sums.values().copied().collect::<Vec<_>>(), [(10, 10)]);
    assert_eq!(others[1].book().sums.values().copied().collect::<Vec<_>>(), [(10, 10)]);
    running.stop().await;
}

#[tokio::test]
async fn a_cell_that_is_not_in_the_settings_is_named_and_costs_no_other_an_answer() {
    let (rig, others) = Rig::with_cells().await;
    rig.gate.lives_in("two", 2);
    // The leading ledger knows it, metering does not.
    let mut options = rig.options();
    options.cells.truncate(1);
    let running = rig.start_with(options).await;
    let refused = record(running.address, &[of("two", "a", 1)]).await.unwrap_err();
    assert_eq!(reason(&refused), (Code::Internal, "INTERNAL".to_owned()));
    assert_eq!(outcomes(&record(running.address, &[of("app", "b", 1)]).await.unwrap()), [NEW]);
    assert!(others[1].book().sums.is_empty());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_wait_for_a_cell_share_its_posts() {
    let (rig, others) = Rig::with_cells().await;
    rig.gate.lives_in("one", 1);
    let mut options = rig.options();
    options.record.events_waiting_max = Count::of(CALLERS);
    options.record.events_per_call_max = Count::of(1);
    options.record.wait_max_ms = Millis::from_millis(60_000);
    let running = rig.start_with(options).await;
    let mut callers = all_waiting(&others[0], running.address, |id| of("one", id, 1)).await;
    while let Some(answers) = callers.join_next().await {
        assert_eq!(outcomes(&answers.unwrap()), [NEW]);
    }
    let posts = others[0].book().calls.clone();
    assert_eq!(posts.iter().sum::<usize>(), CALLERS);
    assert!(posts.len() <= CALLERS / 4, "{posts:?}");
    running.stop().await;
}
