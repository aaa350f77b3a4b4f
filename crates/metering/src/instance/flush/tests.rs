use std::{num::NonZeroU32, sync::Arc};

use drawdown_metering_core::{
    aggregate::{Aggregator, EventRules, Incoming},
    chain,
    dictionary::Dictionary,
    frame::{FrameBuilder, FrameLimits, FrameView},
    meter::MeterTable,
    series::{Outcome, SeriesKey, SeriesNumber},
    shard::{Position, ShardMap},
};
use drawdown_types::{ClientId, MeterSlug, ProducerId, Timestamp};

use super::{
    super::{Offer, Sender, outbox::Outbox, retry::Retry, shard::Limits},
    *,
};

const MAP: ShardMap = ShardMap { version: 1, shard_count: NonZeroU32::MIN };

const ROLL: Roll = Roll { generation: 1, number: 0 };

fn shard() -> Shard {
    shard_of(Limits { counters_max: 1_000, series_max: 2_000, lanes_max: 10 })
}

fn shard_of(limits: Limits) -> Shard {
    let meters = Arc::new(MeterTable::default());
    let aggregator = Aggregator::new(0, EventRules::default(), 100, meters);
    let retry = Retry::new(Duration::from_millis(1), Duration::from_millis(1));
    let shard = Shard::new(0, limits, aggregator, retry);
    shard.lock().head = Some(Belief { roll: ROLL, open: 1 });
    shard
}

/// A stream of an epoch asks for the lane, and the ledger answers.
fn seat(shard: &Shard, lane: Lane, epoch: u64) {
    let sender = Sender { stream: epoch, epoch, outbox: Arc::new(Outbox::default()) };
    shard.seat(lane, sender, 0).unwrap();
    let found = Found { settled: Position::START, told: Position::START };
    shard.found(&lane, ROLL, found, Some(epoch));
}

/// The stream sends one event after `at`; answers where the lane stands then.
fn offer(shard: &Shard, lane: Lane, epoch: u64, at: Position) -> Position {
    let (offered, after) = offer_of("c", shard, lane, epoch, at);
    assert!(matches!(offered, Offer::Counted(_)), "{offered:?}");
    after
}

/// The same of a client id, and what became of it.
fn offer_of(client_id: &str, shard: &Shard, lane: Lane, epoch: u64, at: Position) -> (Offer, Position) {
    let key = SeriesKey::new(
        ClientId::new(client_id).unwrap(),
        MeterSlug::new("web.call").unwrap(),
        Outcome::Succeeded,
        Vec::new(),
        None,
    );
    let mut builder = FrameBuilder::new();
    let number = SeriesNumber::new(1).unwrap();
    builder.define(number, &key.unwrap());
    builder.push(number, 1, 0);
    let body = builder.finish(lane, at.sequence + 1, 0);
    let view = FrameView::parse(&body, &FrameLimits::default()).unwrap();
    let chain_after = chain::next(at.chain, &body);
    let incoming = Incoming {
        producer: lane.producer,
        epoch,
        map: MAP,
        chain_before: at.chain,
        chain_after,
        frame: &view,
        now: Timestamp::EPOCH,
    };
    let offered = shard.offer(epoch, &incoming, &mut Dictionary::new(10));
    (offered, Position { sequence: at.sequence + 1, chain: chain_after })
}

/// Blobs and questions of a round.
fn plan(shard: &Shard) -> (usize, usize) {
    let (mut writes, mut sent) = (Vec::new(), Vec::new());
    shard.plan(100, &mut writes, &mut sent);
    let blobs = writes.iter().filter(|write| matches!(write, Write::Apply(_))).count();
    (blobs, writes.len() - blobs)
}

#[test]
fn a_lane_is_asked_for_when_nothing_of_an_older_process_is_under_way() {
    let shard = shard();
    let lane = Lane { producer: ProducerId::generate(), map_version: 1, shard: 0 };
    seat(&shard, lane, 1);
    assert_eq!(plan(&shard), (0, 1));
    shard.lock().go_live(&lane, Position::START, Position::START, 1);
    let first = offer(&shard, lane, 1, Position::START);
    assert_eq!(plan(&shard), (1, 0));
    // One more while the first blob has no answer, and a newer process asks for the lane.
    offer(&shard, lane, 1, first);
    seat(&shard, lane, 2);
    assert_eq!(plan(&shard), (1, 0), "asked now, Redis would refuse the first blob for its epoch");
    let flush = shard.lock().pending.take().unwrap();
    shard.lock().acknowledge(&flush);
    assert_eq!(plan(&shard), (1, 0), "the answer would be older than what is still to be written");
    let flush = shard.lock().pending.take().unwrap();
    assert!(flush.lanes.iter().all(|span| span.epoch == 1));
    shard.lock().acknowledge(&flush);
    assert_eq!(plan(&shard), (0, 1));
}

#[test]
fn what_was_lost_is_asked_anew_of_the_ledger_as_well() {
    let shard = shard();
    let lane = Lane { producer: ProducerId::generate(), map_version: 1, shard: 0 };
    seat(&shard, lane, 1);
    shard.lock().lose();
    assert_eq!(plan(&shard), (0, 0));
    assert_eq!(shard.wanted(), [(lane, ROLL)]);
}

#[test]
fn what_the_ledger_said_under_another_roll_is_asked_again() {
    let shard = shard();
    let lane = Lane { producer: ProducerId::generate(), map_version: 1, shard: 0 };
    let later = Roll { number: 7, ..ROLL };
    seat(&shard, lane, 1);
    assert_eq!(plan(&shard), (0, 1));
    // Lanes were retired: the head that is read next says so.
    shard.lock().head = Some(Belief { roll: later, open: 1 });
    assert_eq!(plan(&shard), (0, 0), "not under the new roll, with the old answer");
    assert!(shard.lock().ask_again(later));
    assert_eq!(shard.wanted(), [(lane, later)]);
    // An answer to the first question comes late.
    let found = Found { settled: Position::START, told: Position::START };
    shard.found(&lane, ROLL, found, Some(1));
    assert_eq!(shard.wanted(), [(lane, later)]);
    shard.found(&lane, later, found, Some(1));
    assert_eq!((plan(&shard), shard.lock().ask_again(later)), ((0, 1), false));
    // Where the head is not known, it is read before the ledger is asked.
    shard.lock().lose();
    shard.lock().head = None;
    assert!(shard.wanted().is_empty() && matches!(shard.need(Instant::now()), Need::Look));
}

#[test]
fn series_whose_events_are_refused_are_bounded_like_those_that_are_counted() {
    // Nobody knows the meter, so nothing is counted; Redis does not answer, so nothing is flushed.
    let shard = shard_of(Limits { counters_max: 1_000, series_max: 120, lanes_max: 10 });
    let lane = Lane { producer: ProducerId::generate(), map_version: 1, shard: 0 };
    seat(&shard, lane, 1);
    shard.lock().go_live(&lane, Position::START, Position::START, 1);
    let mut at = Position::START;
    for client in 0..120 {
        let (offered, after) = offer_of(&format!("c{client}"), &shard, lane, 1, at);
        assert!(matches!(&offered, Offer::Counted(refused) if refused.len() == 1), "{client}: {offered:?}");
        at = after;
    }
    assert!(matches!(offer_of("more", &shard, lane, 1, at).0, Offer::Full));
    // A flush takes the refusals, and forgets whose they were.
    assert_eq!(plan(&shard).0, 1);
    assert!(matches!(offer_of("more", &shard, lane, 1, at).0, Offer::Counted(_)));
}
