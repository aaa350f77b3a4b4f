//! Each check of the gate, in its order; a refused batch leaves nothing behind.

use drawdown_proto::ledger::v1::PostBatchRequest;
use drawdown_types::ProducerId;

use crate::world::{SHARD, World, calls, reason, refusal};

struct Case {
    name: &'static str,
    reason: &'static str,
    change: fn(&mut PostBatchRequest),
}

const CASES: &[Case] = &[
    Case { name: "another number", reason: "BATCH_NOT_NEXT", change: |b| b.number = 7 },
    Case { name: "number 0", reason: "BATCH_NOT_NEXT", change: |b| b.number = 0 },
    Case { name: "another generation", reason: "GENERATION_STALE", change: |b| b.generation ^= 1 },
    Case {
        name: "a producer that nobody registered",
        reason: "LANE_UNKNOWN",
        change: |b| b.lanes[0].producer_id = ProducerId::generate().to_string(),
    },
    Case { name: "a gap before the range", reason: "LANE_GAP", change: |b| shift(b, 1) },
    Case { name: "an overlap with what is settled", reason: "LANE_GAP", change: |b| shift(b, -1) },
    Case {
        name: "a range that ends before it begins",
        reason: "LANE_GAP",
        change: |b| b.lanes[0].to_sequence = b.lanes[0].from_sequence - 1,
    },
    Case { name: "another chain", reason: "LANE_DIVERGED", change: |b| b.lanes[0].chain_before ^= 1 },
    Case {
        name: "events that are not in lanes",
        reason: "TOTALS_MISMATCH",
        change: |b| b.lanes[0].to_sequence += 1,
    },
    Case { name: "events that are not in lines", reason: "TOTALS_MISMATCH", change: |b| b.events += 1 },
    Case { name: "another total", reason: "TOTALS_MISMATCH", change: |b| b.totals[0].quantity += 1 },
    Case { name: "a meter without total", reason: "TOTALS_MISMATCH", change: |b| b.totals.clear() },
    // The first check that fails names the refusal.
    Case {
        name: "another number and generation",
        reason: "BATCH_NOT_NEXT",
        change: |b| {
            b.number = 9;
            b.generation ^= 1;
        },
    },
    Case {
        name: "another generation and a gap",
        reason: "GENERATION_STALE",
        change: |b| {
            b.generation ^= 1;
            shift(b, 5);
        },
    },
];

fn shift(batch: &mut PostBatchRequest, by: i64) {
    let range = &mut batch.lanes[0];
    range.from_sequence = range.from_sequence.checked_add_signed(by).unwrap();
    range.to_sequence = range.to_sequence.checked_add_signed(by).unwrap();
}

#[tokio::test]
async fn each_check_refuses_and_nothing_moves() {
    let world = World::new().await;
    world.priced().await;
    let (buyer, producer) = (world.buyer(), world.producer().await);
    world.settle(producer, vec![calls(buyer, 3)]).await;
    let before = (world.shard(SHARD).await, world.balance(buyer).await);
    for case in CASES {
        let mut batch = world.batch(SHARD, producer, vec![calls(buyer, 2)]).await;
        (case.change)(&mut batch);
        assert_eq!(reason(world.post(&batch).await), case.reason, "{}", case.name);
        assert_eq!((world.shard(SHARD).await, world.balance(buyer).await), before, "{}", case.name);
    }
    world.assert_clean().await;
}

#[tokio::test]
async fn a_shard_without_a_cursor_is_named() {
    let world = World::new().await;
    let producer = world.producer().await;
    let mut batch = world.batch(SHARD, producer, Vec::new()).await;
    batch.shard = 77;
    assert_eq!(reason(world.post(&batch).await), "SHARD_UNKNOWN");
}

#[tokio::test]
async fn a_retry_gets_the_receipt_even_under_another_generation() {
    let world = World::new().await;
    world.priced().await;
    let (buyer, producer) = (world.buyer(), world.producer().await);
    let batch = world.batch(SHARD, producer, vec![calls(buyer, 4)]).await;
    let first = world.post(&batch).await.unwrap();
    assert!(!first.already_settled);
    assert_eq!((first.charges, first.amount_micros), (1, 2_000_000));
    let expected = drawdown_proto::ledger::v1::PostBatchResponse { already_settled: true, ..first };
    assert_eq!(world.post(&batch).await.unwrap(), expected);
    // Resolving again may have changed the payer: the digest does not cover it.
    let mut resolved_again = batch.clone();
    resolved_again.lines = vec![calls(world.buyer(), 4)];
    assert_eq!(world.post(&resolved_again).await.unwrap(), expected);
    let cause = drawdown_proto::ledger::v1::BeginResetRequest {
        shard: SHARD,
        expected_generation: batch.generation,
        cause: "test".to_owned(),
    };
    use drawdown_proto::ledger::v1::settlement_service_server::SettlementService as _;
    world.settlement.begin_reset(tonic::Request::new(cause)).await.unwrap();
    assert_eq!(world.post(&batch).await.unwrap(), expected);
    assert_eq!(world.balance(buyer).await.used_micros, 2_000_000);
    world.assert_clean().await;
}

#[tokio::test]
async fn the_same_number_with_other_content_is_a_conflict() {
    let world = World::new().await;
    world.priced().await;
    let (buyer, producer) = (world.buyer(), world.producer().await);
    let mut batch = world.batch(SHARD, producer, vec![calls(buyer, 4)]).await;
    world.post(&batch).await.unwrap();
    batch.digest[0] ^= 1;
    assert_eq!(reason(world.post(&batch).await), "BATCH_CONFLICT");
}

#[tokio::test]
async fn epochs_are_never_compared() {
    let world = World::new().await;
    let producer = world.producer().await;
    let mut batch = world.batch(SHARD, producer, Vec::new()).await;
    batch.lanes[0].epoch = 40;
    assert!(world.post(&batch).await.is_ok());
}

#[tokio::test]
async fn every_malformed_field_of_a_batch_is_named_at_once() {
    let world = World::new().await;
    let (buyer, producer) = (world.buyer(), world.producer().await);
    let mut batch = world.batch(SHARD, producer, vec![calls(buyer, 1); 4]).await;
    batch.lanes.push(batch.lanes[0].clone());
    batch.lines[0].client_id = "a b".to_owned();
    batch.lines[1].window_start = crate::world::proto(crate::world::at("2026-03-10T12:00:01Z"));
    batch.lines[2].state = None;
    batch.lines[3].attribution = None;
    let (code, reason, fields) = refusal(&world.post(&batch).await.unwrap_err());
    assert_eq!((code, reason.as_str()), (tonic::Code::InvalidArgument, "REQUEST_INVALID"));
    let expected = [
        "lanes[1].producer_id",
        "lines[0].client_id",
        "lines[1].window_start",
        "lines[2].state",
        "lines[3].attribution",
    ];
    assert_eq!(fields, expected);
    let mut batch = world.batch(SHARD, producer, Vec::new()).await;
    batch.digest.pop();
    batch.shard = u32::MAX;
    batch.number = u64::MAX;
    let (_, _, fields) = refusal(&world.post(&batch).await.unwrap_err());
    assert_eq!(fields, ["shard", "number", "digest"]);
}
