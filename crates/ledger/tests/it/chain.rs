//! The chain over settlement batches: whatever is done to a row that was settled, it no longer fits.

use crate::{
    corruption::{DISARM, back_up, put_back, rich},
    world::World,
};

const CHAIN: &str = "batch_chain_recomputes";

/// Numbers of a receipt.
const RECEIPT: [&str; 8] = [
    "lines",
    "events",
    "refused",
    "charges",
    "unattributed",
    "amount_micros",
    "uncharged_micros",
    "elsewhere_events",
];

async fn sees(world: &World, sql: &str) -> bool {
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(world.database.pool()).await.unwrap();
    let seen = world.violated().await.iter().any(|verdict| verdict.name == CHAIN);
    put_back(world).await;
    seen
}

#[tokio::test]
async fn rows_that_were_changed_removed_swapped_or_inserted_break_it() {
    let (world, ..) = rich().await;
    world.assert_clean().await;
    let batches: i64 = sqlx::query_scalar("select count(*) from ledger.settlement_batch")
        .fetch_one(world.database.pool())
        .await
        .unwrap();
    assert_eq!(batches, 6);
    sqlx::raw_sql(DISARM).execute(world.database.pool()).await.unwrap();
    back_up(&world).await;
    let numbers = RECEIPT.iter().chain(&["generation"]);
    let mut tampering: Vec<String> = numbers
        .map(|column| format!("update ledger.settlement_batch set {column} = {column} + 1 where number = 2"))
        .collect();
    let range = ["epoch", "from_sequence", "to_sequence", "chain_before", "chain_after", "map_version"];
    tampering.extend(
        range.map(|column| format!("update ledger.batch_lane set {column} = {column} + 1 where number = 2")),
    );
    tampering.extend(
        [
            // changed
            "update ledger.settlement_batch set digest = decode(repeat('ff', 16), 'hex') where number = 6",
            "update ledger.settlement_batch set chain = decode(repeat('ff', 32), 'hex') where number = 6",
            "update ledger.settlement_batch set posted_at = posted_at + interval '1 microsecond' where number = 1",
            "update ledger.batch_lane set producer_id = gen_random_uuid() where number = 1",
            "update ledger.shard_cursor set chain = decode(repeat('ff', 32), 'hex')",
            // removed: the first, one in between, the last, a range, everything
            "delete from ledger.settlement_batch where number = 1",
            "delete from ledger.settlement_batch where number = 2",
            "delete from ledger.settlement_batch where number = 6",
            "delete from ledger.batch_lane where number = 3",
            "delete from ledger.settlement_batch; delete from ledger.batch_lane",
            // removed, and the rest moved up
            "delete from ledger.settlement_batch where number = 2;
             update ledger.settlement_batch set number = 2 where number = 3;
             update ledger.settlement_batch set number = 3 where number = 4;
             update ledger.settlement_batch set number = 4 where number = 5;
             update ledger.settlement_batch set number = 5 where number = 6;
             update ledger.shard_cursor set last_batch = 5",
            // swapped: with their ranges, and the contents alone
            "update ledger.settlement_batch set number = 99 where number = 2;
             update ledger.settlement_batch set number = 2 where number = 3;
             update ledger.settlement_batch set number = 3 where number = 99;
             update ledger.batch_lane set number = 99 where number = 2;
             update ledger.batch_lane set number = 2 where number = 3;
             update ledger.batch_lane set number = 3 where number = 99",
            "update ledger.settlement_batch b set digest = o.digest from ledger.settlement_batch o
             where b.number + o.number = 5 and b.number in (2, 3)",
            // inserted: behind the last, with the cursor moved, and in between
            "insert into ledger.settlement_batch select (jsonb_populate_record(b, '{\"number\": 7}')).*
             from ledger.settlement_batch b where number = 6",
            "insert into ledger.settlement_batch select (jsonb_populate_record(b, '{\"number\": 7}')).*
             from ledger.settlement_batch b where number = 6; update ledger.shard_cursor set last_batch = 7",
            "update ledger.settlement_batch set number = number + 1 where number = 6;
             update ledger.settlement_batch set number = number + 1 where number = 5;
             update ledger.settlement_batch set number = number + 1 where number = 4;
             update ledger.settlement_batch set number = number + 1 where number = 3;
             insert into ledger.settlement_batch select (jsonb_populate_record(b, '{\"number\": 3}')).*
             from ledger.settlement_batch b where number = 2; update ledger.shard_cursor set last_batch = 7",
            "insert into ledger.batch_lane select (jsonb_populate_record(l, '{\"map_version\": 77}')).*
             from ledger.batch_lane l where number = 2",
        ]
        .map(str::to_owned),
    );
    let mut unseen = Vec::new();
    for sql in tampering {
        if !sees(&world, &sql).await {
            unseen.push(sql);
        }
    }
    assert!(unseen.is_empty(), "{}", unseen.join("\n"));
    world.assert_clean().await;
}
