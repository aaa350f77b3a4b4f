//! Everything goes well, or the parts around Redis do not.

use crate::{
    gate::Mode,
    producer::{Ended, Log, Session, Until, deliver, open, sums_of},
    rig::{Rig, soon},
};

#[tokio::test]
async fn frames_become_lines_of_the_ledger() {
    let rig = Rig::new().await;
    rig.gate.stranger("client-1-0");
    let running = rig.start().await;
    let mut logs = [Log::new(rig.gate.producer()), Log::new(rig.gate.producer())];
    logs[0].fill(1, 200);
    logs[1].fill(2, 150);
    let both = async {
        tokio::join!(
            deliver(&logs[0], running.address, Until::Settled),
            deliver(&logs[1], running.address, Until::Settled),
        )
    };
    soon("settlement", both).await;
    let state = rig.gate.state();
    assert_eq!(state.sums, sums_of(&logs));
    let strangers: u64 =
        state.sums.iter().filter(|(key, _)| key.0 == "client-1-0").map(|(_, sum)| sum.0).sum();
    assert_eq!(state.unattributed.get("unknown_client"), Some(&strangers));
    assert_eq!(rig.gate.resets(), u64::from(crate::rig::SHARDS), "only the first head of each shard");
    running.stop().await;
}

#[tokio::test]
async fn a_second_delivery_adds_nothing() {
    let rig = Rig::new().await;
    let running = rig.start().await;
    let mut log = Log::new(rig.gate.producer());
    log.fill(3, 60);
    soon("settlement", deliver(&log, running.address, Until::Settled)).await;
    soon("settlement", deliver(&log, running.address, Until::Settled)).await;
    // Frames that the lanes are past are dropped, also where they are sent all the same.
    let epoch = open(running.address, log.producer).await.unwrap();
    let mut session = Session::begin(&log, running.address, epoch).await.unwrap();
    assert!(matches!(soon("attach", session.run(Until::Applied)).await, Ended::Reached));
    for frame in log.lanes.values().flatten() {
        session.send(frame).await;
    }
    drop(session);
    running.stop().await;
    assert_eq!(rig.gate.state().sums, log.sums);
}

#[tokio::test]
async fn two_instances_share_producers_and_shards() {
    let rig = Rig::new().await;
    let (one, two) = (rig.start().await, rig.start().await);
    let mut logs: Vec<Log> = (0..4).map(|_| Log::new(rig.gate.producer())).collect();
    for (seed, log) in logs.iter_mut().enumerate() {
        // The same clients: their series meet in one batch under two dictionaries.
        log.fill(7, 80 + u64::try_from(seed).unwrap());
    }
    let all = async {
        tokio::join!(
            deliver(&logs[0], one.address, Until::Settled),
            deliver(&logs[1], two.address, Until::Settled),
            deliver(&logs[2], one.address, Until::Settled),
            deliver(&logs[3], two.address, Until::Settled),
        )
    };
    soon("settlement", Box::pin(all)).await;
    assert_eq!(rig.gate.state().sums, sums_of(&logs));
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn a_lost_reply_is_answered_by_a_receipt() {
    let rig = Rig::new().await;
    let running = rig.start().await;
    rig.gate.set_mode(Mode::ReplyLost);
    let mut log = Log::new(rig.gate.producer());
    log.fill(4, 50);
    let ((), ()) = tokio::join!(
        async { soon("settlement", deliver(&log, running.address, Until::Settled)).await },
        async {
            soon("post", rig.gate.asked()).await;
            soon("post", rig.gate.asked()).await;
            rig.gate.set_mode(Mode::Open);
        },
    );
    assert_eq!(rig.gate.state().sums, log.sums);
    assert_eq!(rig.gate.resets(), u64::from(crate::rig::SHARDS));
    running.stop().await;
}

#[tokio::test]
async fn another_worker_goes_on_where_one_died() {
    let rig = Rig::new().await;
    let first = rig.start().await;
    rig.gate.set_mode(Mode::ReplyLost);
    let mut log = Log::new(rig.gate.producer());
    log.fill(5, 50);
    soon("applied", deliver(&log, first.address, Until::Applied)).await;
    soon("post", rig.gate.asked()).await;
    // Between post and retire, with other shards between seal and post.
    first.kill();
    rig.gate.set_mode(Mode::Open);
    let second = rig.start().await;
    soon("settlement", deliver(&log, second.address, Until::Settled)).await;
    assert_eq!(rig.gate.state().sums, log.sums);
    second.stop().await;
}

#[tokio::test]
async fn while_the_ledger_is_down_usage_is_applied_and_settled_later() {
    let rig = Rig::new().await;
    let running = rig.start().await;
    rig.gate.set_mode(Mode::Down);
    let mut log = Log::new(rig.gate.producer());
    log.fill(6, 120);
    soon("applied", deliver(&log, running.address, Until::Applied)).await;
    assert!(rig.gate.state().sums.is_empty());
    rig.gate.set_mode(Mode::Open);
    soon("settlement", deliver(&log, running.address, Until::Settled)).await;
    assert_eq!(rig.gate.state().sums, log.sums);
    running.stop().await;
}

#[tokio::test]
async fn a_lane_may_be_sent_one_window_beyond_what_is_applied() {
    let rig = Rig::new().await;
    let mut options = rig.options();
    options.ingest.frame_events_max = drawdown_service::config::Count::of(5);
    options.ingest.lane_window_events = drawdown_service::config::Count::of(20);
    let running = rig.start_with(options).await;
    let mut log = Log::new(rig.gate.producer());
    log.append("client", "web.byte", &[1, 2, 3, 4, 5]);
    let epoch = open(running.address, log.producer).await.unwrap();
    let mut session = Session::begin(&log, running.address, epoch).await.unwrap();
    while session.granted.is_empty() {
        assert!(soon("attach", session.next()).await.is_none());
    }
    assert_eq!(session.granted.values().copied().collect::<Vec<_>>(), [20]);
    assert!(matches!(soon("applied", session.run(Until::Applied)).await, Ended::Reached));
    assert_eq!(session.granted.values().copied().collect::<Vec<_>>(), [25]);
    running.stop().await;
}

#[tokio::test]
async fn a_drain_flushes_and_acknowledges_what_was_taken() {
    let rig = Rig::new().await;
    let mut options = rig.options();
    // So that what was taken waits for a flush when the drain begins.
    options.flush.pause_ms = drawdown_service::config::Millis::from_millis(400);
    options.flush.pause_max_ms = options.flush.pause_ms;
    let running = rig.start_with(options).await;
    let mut log = Log::new(rig.gate.producer());
    for quantity in 1..=10 {
        log.append("client", "web.byte", &[quantity]);
    }
    let epoch = open(running.address, log.producer).await.unwrap();
    let mut session = Session::begin(&log, running.address, epoch).await.unwrap();
    while session.applied.len() < log.lanes.len() {
        assert!(soon("attach", session.next()).await.is_none());
    }
    let taken = async {
        while running.metric("drawdown_metering_frames_total") < 10 {
            tokio::task::yield_now().await;
        }
    };
    soon("frames", taken).await;
    let ended = async {
        loop {
            if let Some(ended) = session.next().await {
                break ended;
            }
        }
    };
    let (ended, ()) = tokio::join!(soon("end", ended), running.stop());
    assert!(matches!(ended, Ended::Closed(None)), "{ended:?}");
    assert_eq!(session.applied, log.ends(), "taken, and not acknowledged");
    // Whatever was acknowledged is there for the next instance.
    let next = rig.start().await;
    let epoch = open(next.address, log.producer).await.unwrap();
    let mut again = Session::begin(&log, next.address, epoch).await.unwrap();
    while again.applied.len() < log.lanes.len() {
        assert!(soon("attach", again.next()).await.is_none());
    }
    assert_eq!(again.applied, log.ends());
    assert!(matches!(soon("settlement", again.run(Until::Settled)).await, Ended::Reached));
    assert_eq!(rig.gate.state().sums, log.sums);
    next.stop().await;
}

#[tokio::test]
async fn a_producer_that_has_said_everything_hears_what_came_of_it() {
    let rig = Rig::new().await;
    let running = rig.start().await;
    let mut log = Log::new(rig.gate.producer());
    log.fill(9, 30);
    let epoch = open(running.address, log.producer).await.unwrap();
    let mut session = Session::begin(&log, running.address, epoch).await.unwrap();
    while session.applied.len() < log.lanes.len() {
        assert!(soon("attach", session.next()).await.is_none());
    }
    let (closed, _) = tokio::sync::mpsc::channel(1);
    session.requests = closed;
    let ended = async {
        loop {
            if let Some(ended) = session.next().await {
                break ended;
            }
        }
    };
    assert!(matches!(soon("end", ended).await, Ended::Closed(None)));
    assert_eq!(session.applied, log.ends());
    running.stop().await;
}

#[tokio::test]
async fn a_producer_that_the_ledger_refuses_holds_up_no_other() {
    let rig = Rig::new().await;
    let running = rig.start().await;
    let mut good = [Log::new(rig.gate.producer()), Log::new(rig.gate.producer())];
    let mut bad = Log::new(rig.gate.producer());
    for (seed, log) in good.iter_mut().chain([&mut bad]).enumerate() {
        log.fill(20 + u64::try_from(seed).unwrap(), 40);
    }
    rig.gate.poison(bad.producer);
    let refused = async {
        let epoch = open(running.address, bad.producer).await.unwrap();
        let mut session = Session::begin(&bad, running.address, epoch).await.unwrap();
        session.run(Until::Settled).await
    };
    let all = async {
        tokio::join!(
            deliver(&good[0], running.address, Until::Settled),
            deliver(&good[1], running.address, Until::Settled),
            refused
        )
    };
    let ((), (), ended) = soon("settlement", Box::pin(all)).await;
    let Ended::Stopped(stopped) = ended else { panic!("{ended:?}") };
    assert_eq!(stopped.reason, "LANE_SET_ASIDE");
    assert_eq!(rig.gate.state().sums, sums_of(&good));
    // What comes later settles as if nothing had been.
    good[0].fill(30, 20);
    soon("settlement", deliver(&good[0], running.address, Until::Settled)).await;
    assert_eq!(rig.gate.state().sums, sums_of(&good));
    running.stop().await;
}
