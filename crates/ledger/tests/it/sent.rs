//! How many statements a post is, counted on the wire. What `posting.rs` says of them is this.

use std::sync::Arc;

use drawdown_proto::ledger::v1::Line;
use drawdown_service::config::Count;
use drawdown_testkit::{Counted, Relay};
use drawdown_types::ProducerId;

use crate::{
    holds::reserve,
    world::{Buyer, SHARD, World, calls, distinct, largest, usage_at},
};

const NOON: &str = "2026-03-10T12:00:00Z";
/// As many lines as a statement of charges of its own is worth.
const LINES: usize = 600;

/// A ledger whose statements are counted, beside another on the same database.
struct Measured {
    world: World,
    relay: Relay,
    beside: World,
    producer: ProducerId,
    turns: usize,
}

impl Measured {
    async fn new(sub_batch_lines: usize) -> Self {
        let world = World::new().await;
        world.priced().await;
        world.shapes().await;
        let relay = Relay::to(world.database.url()).await.unwrap();
        let beside = World::on(Arc::clone(&world.database), |options| {
            options.database.url = relay.url().into();
            options.database.connections_max = Count::of(1);
            options.sub_batch_lines = Count::of(sub_batch_lines);
        });
        let producer = world.producer().await;
        let mut measured = Self { world, relay, beside, producer, turns: 0 };
        // It connects and reads the catalogue.
        let first = measured.world.buyer();
        measured.post(vec![calls(first, 1)]).await;
        measured
    }

    /// Statements of a post, BEGIN and COMMIT apart.
    async fn post(&mut self, lines: Vec<Line>) -> u64 {
        let batch = self.world.batch(SHARD, self.producer, lines).await;
        let _before = self.relay.take();
        let charged = self.beside.post(&batch).await.unwrap();
        assert_eq!(usize::try_from(charged.charges).unwrap(), batch.lines.len());
        let Counted { statements, transactional } = self.relay.take();
        assert_eq!(transactional % 2, 0, "what begins ends");
        statements
    }

    /// So many lines of calls, each a series of its own.
    fn many(&mut self, buyer: Buyer, lines: usize) -> Vec<Line> {
        self.turns += 1;
        let line = |number| {
            let region = format!("{}-{number}", self.turns);
            Line { dimensions: [("region".to_owned(), region)].into(), ..calls(buyer, 1) }
        };
        (0..lines).map(line).collect()
    }
}

#[tokio::test]
async fn a_post_is_six_statements_and_more_only_for_holds_and_for_largest_and_distinct_values() {
    let mut measured = Measured::new(5_000).await;
    let buyer = measured.world.buyer();
    measured.world.purchase(buyer, 100_000, None).await.unwrap();
    let lines = measured.many(buyer, LINES);
    let loaded = measured.post(lines).await;
    let lines = measured.many(buyer, LINES);
    let known = measured.post(lines).await;
    let few = measured.many(buyer, 5);
    let few = measured.post(few).await;
    let periods = |user: &str, value| {
        let seats = usage_at(buyer, "seat", distinct(&[user]), NOON);
        [seats, usage_at(buyer, "peak", largest(value), NOON)]
    };
    // The team is known, but not the states of meters that are new to it.
    let lines = measured.many(buyer, LINES).into_iter().chain(periods("ann", 3)).collect();
    let with_periods = measured.post(lines).await;
    // A team with an open hold is loaded for each post.
    let hold = reserve(&measured.world, buyer, 1_000_000_000, 0, 3_600_000).await.unwrap();
    let held = |line: Line| Line { hold_id: hold.hold_id.clone(), ..line };
    let lines = measured.many(buyer, LINES).into_iter().map(held).collect();
    let with_hold = measured.post(lines).await;
    let lines = measured.many(buyer, LINES).into_iter().map(held).chain(periods("bob", 5)).collect();
    let with_both = measured.post(lines).await;
    assert_eq!((loaded, known, few), (6, 5, 4));
    assert_eq!((with_periods, with_hold, with_both), (8, 8, 10));
    measured.world.assert_clean().await;
}

#[tokio::test]
async fn a_post_is_one_statement_more_for_each_further_sub_batch() {
    let mut measured = Measured::new(1_000).await;
    let buyer = measured.world.buyer();
    measured.world.purchase(buyer, 100_000, None).await.unwrap();
    let mut statements = Vec::new();
    for lines in [1_000, 1_000, 1_001, 3_000] {
        let lines = measured.many(buyer, lines);
        statements.push(measured.post(lines).await);
    }
    assert_eq!(statements, [6, 5, 6, 7]);
}
