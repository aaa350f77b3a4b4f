//! Two ledgers as cells: the leading one settles a batch and keeps what the other gets; the other takes it from there.

use std::time::Duration;

use drawdown_proto::ledger::v1::{
    settlement_service_server::SettlementService as _, token_service_server::TokenService as _, *,
};
use drawdown_service::config::Millis;
use drawdown_types::ProducerId;
use tonic::{Request, Status};

use crate::{
    corruption::DISARM,
    world::{Buyer, SHARD, World, batch, calls, nobody, reason, refusal, sum, usage_at},
};

const WINDOW: &str = "2026-03-10T12:00:00Z";

/// Number, digest, totals, events of a batch.
type Settled = (i64, Vec<u8>, String, i64);

/// Two cells, a buyer in each, and a producer that the leading one has registered.
pub(crate) struct Pair {
    pub(crate) leading: World,
    pub(crate) other: World,
    pub(crate) here: Buyer,
    pub(crate) there: Buyer,
    producer: ProducerId,
}

impl Pair {
    pub(crate) async fn new() -> Self {
        let leading = World::with(|options| {
            options.cells.others = vec![1];
            options.cells.parts_keep_ms = Millis::from_millis(60_000);
        })
        .await;
        let other = World::with(|options| options.cells.number = 1).await;
        let note = "insert into ledger.installation (window_secs, pool_order, cell) values (60, '{}', 1)";
        sqlx::raw_sql(note).execute(other.database.pool()).await.unwrap();
        leading.priced().await;
        other.priced().await;
        let (here, there, producer) = (leading.buyer(), other.buyer(), leading.producer().await);
        other.shard(SHARD).await;
        Self { leading, other, here, there, producer }
    }

    /// The next batch, with lines of both cells.
    async fn sealed(&self, here: Vec<Line>, there: Vec<Line>) -> PostBatchRequest {
        split(batch(&self.leading.shard(SHARD).await, self.producer, [here, there.clone()].concat()), there)
    }

    async fn part(&self, number: u64) -> Result<PostBatchRequest, Status> {
        part(&self.leading, number, 1).await
    }

    /// Takes a settled batch to the other cell.
    async fn follow(&self, number: u64) -> PostBatchResponse {
        self.other.post(&self.part(number).await.unwrap()).await.unwrap()
    }

    async fn settle(&self, here: Vec<Line>, there: Vec<Line>) {
        let batch = self.sealed(here, there).await;
        self.leading.post(&batch).await.unwrap();
        self.follow(batch.number).await;
    }

    /// Both stand at the same place with the same batches, and each is right by itself.
    async fn assert_agree(&self) {
        let (leading, other) = (self.leading.shard(SHARD).await, self.other.shard(SHARD).await);
        assert_eq!(leading.last_batch, other.last_batch);
        let lanes = |cursor: &ShardCursor| {
            let lane =
                |lane: &LaneState| (lane.producer_id.clone(), lane.settled_sequence, lane.settled_chain);
            cursor.lanes.iter().map(lane).collect::<Vec<_>>()
        };
        assert_eq!(lanes(&leading), lanes(&other));
        let batches = "select number, digest, totals::text, events + refused + elsewhere_events
                       from ledger.settlement_batch order by number";
        let rows: [Vec<Settled>; 2] = [
            sqlx::query_as(batches).fetch_all(self.leading.database.pool()).await.unwrap(),
            sqlx::query_as(batches).fetch_all(self.other.database.pool()).await.unwrap(),
        ];
        assert_eq!(rows[0], rows[1]);
        self.leading.assert_clean().await;
        self.other.assert_clean().await;
    }
}

async fn part(world: &World, number: u64, cell: u32) -> Result<PostBatchRequest, Status> {
    let request = GetCellPartRequest { shard: SHARD, number, cell };
    Ok(world.settlement.get_cell_part(Request::new(request)).await?.into_inner().post.unwrap())
}

/// A batch with all lines of all cells, for the leading one; `there` are those of the other.
fn split(whole: PostBatchRequest, there: Vec<Line>) -> PostBatchRequest {
    let totals = batch(&ShardCursor::default(), ProducerId::generate(), there.clone()).totals;
    let events = there.iter().map(|line| line.events).sum();
    PostBatchRequest {
        events: whole.events - events,
        lines: whole.lines.into_iter().filter(|line| !there.contains(line)).collect(),
        elsewhere: Some(Elsewhere { events, totals }),
        parts: vec![CellLines { cell: 1, lines: there }],
        ..whole
    }
}

fn bytes(buyer: Buyer, quantity: i64) -> Line {
    usage_at(buyer, "byte", sum(quantity), WINDOW)
}

#[tokio::test]
async fn a_batch_is_settled_in_both_cells_and_each_has_its_own_money() {
    let pair = Pair::new().await;
    let stranger = nobody(Line { client_id: "stranger".to_owned(), ..calls(pair.here, 7) }, "unknown_client");
    let first =
        pair.sealed(vec![calls(pair.here, 4), stranger], vec![calls(pair.there, 3), bytes(pair.there, 500)]);
    let first = first.await;
    let answer = pair.leading.post(&first).await.unwrap();
    assert_eq!((answer.charges, answer.unattributed, answer.amount_micros), (1, 1, 2_000_000));
    let answer = pair.follow(1).await;
    assert_eq!((answer.already_settled, answer.charges, answer.amount_micros), (false, 2, 2_000_000));
    // Batches of one cell only, and one whose events were all refused.
    pair.settle(vec![calls(pair.here, 1)], Vec::new()).await;
    pair.settle(Vec::new(), vec![bytes(pair.there, 1000)]).await;
    pair.settle(Vec::new(), Vec::new()).await;
    assert_eq!(pair.leading.balance(pair.here).await.used_micros, 2_500_000);
    assert_eq!(pair.other.balance(pair.there).await.used_micros, 3_000_000);
    pair.assert_agree().await;
}

#[tokio::test]
async fn the_leading_cell_knows_the_client_ids_of_all() {
    let pair = Pair::new().await;
    let line = calls(pair.there, 3);
    let client_ids = vec![line.client_id.clone()];
    let batch = pair.sealed(Vec::new(), vec![line.clone()]).await;
    pair.leading.post(&batch).await.unwrap();
    let request = HasSettledUsageRequest { client_ids, team_id: String::new(), from: line.window_start };
    let answer = pair.leading.settlement.has_settled_usage(Request::new(request)).await.unwrap();
    assert!(answer.into_inner().settled);
}

#[tokio::test]
async fn a_team_of_another_cell_gets_nothing_here() {
    let pair = Pair::new().await;
    pair.leading.know(pair.there, None, None);
    assert!(pair.leading.purchase(pair.there, 100, None).await.is_ok());
    let (stranger, known) = (pair.leading.buyer(), pair.there);
    for buyer in [stranger, known] {
        pair.leading.lives_in(buyer, 1);
        assert_eq!(reason(pair.leading.purchase(buyer, 100, None).await), "ACCOUNT_ELSEWHERE");
        let granted = pair.leading.grant(buyer, 1, None, "2026-04-01T00:00:00Z").await;
        assert_eq!(reason(granted), "ACCOUNT_ELSEWHERE");
    }
    let request = GetBalanceRequest { team_id: stranger.team.to_string(), ..GetBalanceRequest::default() };
    assert_eq!(reason(pair.leading.tokens.get_balance(Request::new(request)).await), "ACCOUNT_ELSEWHERE");
}

#[tokio::test]
async fn the_split_of_a_settled_batch_never_changes() {
    let pair = Pair::new().await;
    let unknown = nobody(calls(pair.there, 3), "unknown_client");
    let first = pair.sealed(vec![calls(pair.here, 4), unknown], Vec::new()).await;
    pair.leading.post(&first).await.unwrap();
    // Its reply is lost, and the client id becomes known in between: the retry splits the batch another way.
    let whole =
        PostBatchRequest { lines: vec![calls(pair.here, 4), calls(pair.there, 3)], events: 7, ..first };
    let again = split(whole, vec![calls(pair.there, 3)]);
    assert!(pair.leading.post(&again).await.unwrap().already_settled);
    let part = pair.part(1).await.unwrap();
    assert_eq!((part.events, part.lines.len(), part.elsewhere.as_ref().unwrap().events), (0, 0, 7));
    pair.other.post(&part).await.unwrap();
    assert!(pair.other.post(&part).await.unwrap().already_settled);
    // Whoever brings it split another way is told so.
    let elsewhere = Elsewhere { events: 4, ..part.elsewhere.clone().unwrap() };
    let other =
        PostBatchRequest { elsewhere: Some(elsewhere), events: 3, lines: vec![calls(pair.there, 3)], ..part };
    assert_eq!(reason(pair.other.post(&other).await), "BATCH_CONFLICT");
    pair.assert_agree().await;
}

#[tokio::test]
async fn a_retry_after_a_crash_between_the_cells_gives_each_line_once() {
    let pair = Pair::new().await;
    let first = pair.sealed(vec![calls(pair.here, 4)], vec![calls(pair.there, 3)]).await;
    for _ in 0..2 {
        pair.leading.post(&first).await.unwrap();
    }
    // Redis is lost meanwhile: the shard is reset, and what follows is of another generation.
    let reset =
        BeginResetRequest { shard: SHARD, expected_generation: first.generation, cause: "test".to_owned() };
    pair.leading.settlement.begin_reset(Request::new(reset)).await.unwrap();
    let second = pair.sealed(vec![calls(pair.here, 1)], vec![calls(pair.there, 1)]).await;
    assert_ne!(second.generation, first.generation);
    pair.leading.post(&second).await.unwrap();
    // The other cell takes them in their order only.
    assert_eq!(reason(pair.other.post(&pair.part(2).await.unwrap()).await), "BATCH_NOT_NEXT");
    for number in [1, 1, 2] {
        pair.follow(number).await;
    }
    assert_eq!(pair.other.shard(SHARD).await.generation, second.generation);
    assert_eq!(pair.other.balance(pair.there).await.used_micros, 2_000_000);
    pair.assert_agree().await;
}

#[tokio::test]
async fn what_does_not_add_up_over_the_cells_is_refused_and_nothing_moves() {
    type Change = fn(&mut PostBatchRequest);
    let leading: &[(&str, &str, Change)] = &[
        ("events elsewhere that no part has", "TOTALS_MISMATCH", |b| {
            b.elsewhere.as_mut().unwrap().events += 1;
            b.lanes[0].to_sequence += 1;
        }),
        ("too few events elsewhere", "TOTALS_MISMATCH", |b| b.elsewhere.as_mut().unwrap().events -= 1),
        ("another sum elsewhere", "TOTALS_MISMATCH", |b| {
            b.elsewhere.as_mut().unwrap().totals[0].quantity += 1;
            b.totals.iter_mut().for_each(|total| total.quantity += 1);
        }),
        ("a line of the part is missing", "TOTALS_MISMATCH", |b| {
            b.parts[0].lines.pop();
        }),
        ("nothing said of elsewhere", "TOTALS_MISMATCH", |b| b.elsewhere = None),
        ("no part", "CELL_MISMATCH", |b| b.parts.clear()),
        ("a part of a cell that is not there", "CELL_MISMATCH", |b| b.parts[0].cell = 2),
        ("for another cell", "CELL_MISMATCH", |b| {
            b.cell = 1;
            b.parts.clear();
        }),
        ("a part for the leading cell", "REQUEST_INVALID", |b| b.parts[0].cell = 0),
        ("a line of the part that nobody pays", "REQUEST_INVALID", |b| {
            b.parts[0].lines[0] = nobody(b.parts[0].lines[0].clone(), "no_team");
        }),
        ("a line of the part that can not be read", "REQUEST_INVALID", |b| b.parts[0].lines[0].state = None),
        ("lost ranges for the leading cell", "REQUEST_INVALID", |b| b.lost = b.lanes.clone()),
    ];
    let other: &[(&str, &str, Change)] = &[
        ("a line less", "TOTALS_MISMATCH", |b| {
            b.lines.pop();
        }),
        ("an event more", "TOTALS_MISMATCH", |b| b.events += 1),
        ("another sum elsewhere", "TOTALS_MISMATCH", |b| {
            b.elsewhere.as_mut().unwrap().totals[0].quantity += 1
        }),
        ("another chain", "LANE_DIVERGED", |b| b.lanes[0].chain_before ^= 1),
        ("a gap that nothing is said about", "LANE_GAP", |b| {
            b.lanes[0].from_sequence += 1;
            b.lanes[0].to_sequence += 1;
        }),
        ("for the leading cell", "CELL_MISMATCH", |b| b.cell = 0),
        ("for a third cell", "CELL_MISMATCH", |b| b.cell = 2),
        ("parts", "REQUEST_INVALID", |b| b.parts = vec![CellLines { cell: 2, lines: Vec::new() }]),
    ];
    let pair = Pair::new().await;
    pair.settle(vec![calls(pair.here, 1)], vec![calls(pair.there, 1)]).await;
    let good = pair.sealed(vec![calls(pair.here, 4)], vec![calls(pair.there, 3), calls(pair.there, 2)]).await;
    for (name, expected, change) in leading {
        let mut batch = good.clone();
        change(&mut batch);
        assert_eq!(reason(pair.leading.post(&batch).await), *expected, "{name}");
    }
    pair.assert_agree().await;
    pair.leading.post(&good).await.unwrap();
    let part = pair.part(good.number).await.unwrap();
    for (name, expected, change) in other {
        let mut batch = part.clone();
        change(&mut batch);
        assert_eq!(reason(pair.other.post(&batch).await), *expected, "{name}");
    }
    pair.other.post(&part).await.unwrap();
    pair.assert_agree().await;
}

#[tokio::test]
async fn a_lost_range_is_gone_over_in_every_cell() {
    let pair = Pair::new().await;
    pair.settle(vec![calls(pair.here, 4)], vec![calls(pair.there, 3)]).await;
    let opening = OpenProducerRequest { producer_id: pair.producer.to_string(), log_epoch: 0 };
    let opened = pair.leading.settlement.open_producer(Request::new(opening)).await.unwrap().into_inner();
    let mut at_settled = opened.lanes[0].clone();
    for (freed_sequence, freed_chain) in [(10, 77), (12, 78)] {
        at_settled.epoch = opened.epoch;
        let at_settled_now = Some(at_settled.clone());
        let claim = NameLostRequest { at_settled: at_settled_now, freed_sequence, freed_chain };
        pair.leading.settlement.name_lost(Request::new(claim)).await.unwrap();
        (at_settled.settled_sequence, at_settled.settled_chain) = (freed_sequence, freed_chain);
    }
    // The other cell would stand between two batches.
    let claim = NameLostRequest { at_settled: Some(at_settled), freed_sequence: 20, freed_chain: 9 };
    assert_eq!(reason(pair.other.settlement.name_lost(Request::new(claim)).await), "CELL_MISMATCH");
    let opening = OpenProducerRequest { producer_id: pair.producer.to_string(), log_epoch: 0 };
    assert_eq!(reason(pair.other.settlement.open_producer(Request::new(opening)).await), "CELL_MISMATCH");
    let next = pair.sealed(vec![calls(pair.here, 1)], vec![calls(pair.there, 1)]).await;
    assert_eq!(next.lanes[0].from_sequence, 13);
    pair.leading.post(&next).await.unwrap();
    let part = pair.part(2).await.unwrap();
    assert_eq!(part.lost.len(), 2);
    let mut other_chain = part.clone();
    other_chain.lost[1].chain_before ^= 1;
    assert_eq!(reason(pair.other.post(&other_chain).await), "LANE_DIVERGED");
    pair.other.post(&part).await.unwrap();
    assert!(pair.other.post(&part).await.unwrap().already_settled);
    pair.settle(vec![calls(pair.here, 1)], Vec::new()).await;
    assert_eq!(pair.part(3).await.unwrap().lost, Vec::new());
    pair.assert_agree().await;
}

#[tokio::test]
async fn parts_are_kept_until_their_time_is_over_and_the_last_two_for_ever() {
    let pair = Pair::new().await;
    for _ in 0..3 {
        pair.settle(vec![calls(pair.here, 1)], vec![calls(pair.there, 1)]).await;
    }
    assert!(pair.part(1).await.is_ok());
    pair.leading.clock.advance(Duration::from_secs(3600));
    pair.settle(vec![calls(pair.here, 1)], vec![calls(pair.there, 1)]).await;
    assert_eq!(reason(pair.part(2).await), "PART_GONE");
    assert!(pair.part(3).await.is_ok());
    assert_eq!(reason(pair.part(5).await), "BATCH_UNKNOWN");
    assert_eq!(reason(part(&pair.leading, 1, 2).await), "CELL_MISMATCH");
    assert_eq!(reason(part(&pair.leading, 1, 0).await), "REQUEST_INVALID");
    pair.assert_agree().await;
}

#[tokio::test]
async fn a_cell_that_is_added_later_is_taken_through_the_history_without_a_line() {
    let alone = World::new().await;
    alone.priced().await;
    let (buyer, producer) = (alone.buyer(), alone.producer().await);
    for events in 1..4 {
        alone.settle(producer, vec![calls(buyer, events)]).await;
    }
    let World { database, .. } = alone;
    let leading = World::on(database, |options| options.cells.others = vec![1]);
    let Pair { other, there, .. } = Pair::new().await;
    let pair = Pair { leading, other, here: buyer, there, producer };
    for number in 1..4 {
        let answer = pair.follow(number).await;
        assert_eq!((answer.charges, answer.amount_micros), (0, 0));
    }
    pair.settle(vec![calls(buyer, 1)], vec![calls(there, 1)]).await;
    pair.assert_agree().await;
}

#[tokio::test]
async fn what_is_changed_by_hand_is_found_in_either_cell() {
    let pair = Pair::new().await;
    pair.settle(vec![calls(pair.here, 4)], vec![calls(pair.there, 3)]).await;
    pair.assert_agree().await;
    let cases: [(&World, &str, &[&str]); 6] = [
        (&pair.leading, "update ledger.batch_part set events = events - 1", &["batch_is_its_parts"]),
        (&pair.leading, "update ledger.batch_part set totals = '{}'", &["batch_is_its_parts"]),
        (&pair.leading, "delete from ledger.batch_part", &["batch_is_its_parts"]),
        (
            &pair.leading,
            "update ledger.settlement_batch set elsewhere = '{}'",
            &["batch_is_its_lines", "batch_is_its_parts"],
        ),
        (
            &pair.other,
            "update ledger.settlement_batch set elsewhere_events = elsewhere_events + 1",
            &["batch_chain_recomputes", "batch_is_its_ranges"],
        ),
        (&pair.other, "update ledger.settlement_batch set elsewhere = '{}'", &["batch_is_its_lines"]),
    ];
    for (world, sql, expected) in cases {
        crate::corruption::back_up(world).await;
        sqlx::raw_sql(DISARM).execute(world.database.pool()).await.unwrap();
        sqlx::raw_sql(sql).execute(world.database.pool()).await.unwrap();
        let names: Vec<_> = world.violated().await.iter().map(|verdict| verdict.name).collect();
        assert_eq!(names, expected, "{sql}");
        crate::corruption::put_back(world).await;
        sqlx::raw_sql("drop schema safe cascade").execute(world.database.pool()).await.unwrap();
    }
    // A part that was changed does not add up where it is posted to.
    let next = pair.sealed(vec![calls(pair.here, 4)], vec![calls(pair.there, 3)]).await;
    pair.leading.post(&next).await.unwrap();
    let empty = "update ledger.batch_part set content = '' where number = 2";
    sqlx::raw_sql(empty).execute(pair.leading.database.pool()).await.unwrap();
    let (code, reason, _) = refusal(&pair.other.post(&pair.part(2).await.unwrap()).await.unwrap_err());
    assert_eq!((code, reason.as_str()), (tonic::Code::InvalidArgument, "TOTALS_MISMATCH"));
}
