//! Producers, lanes, resets, lost ranges.

use drawdown_proto::{
    ledger::v1::{
        BeginResetRequest, CreateProducerRequest, GetShardsRequest, LaneState, ListLostRangesRequest,
        LostRange, NameLostRequest, NameLostResponse, OpenProducerRequest, OpenProducerResponse,
        ResetAllShardsRequest, review_service_server::ReviewService,
        settlement_service_server::SettlementService,
    },
    scalar::timestamp_to_proto,
};
use drawdown_types::{Clock as _, ProducerId};
use tonic::{Request, Status};

use crate::world::{SHARD, World, calls, reason, refusal, request_id};

async fn open(world: &World, id: &str, log_epoch: u64) -> Result<OpenProducerResponse, Status> {
    let request = OpenProducerRequest { producer_id: id.to_owned(), log_epoch };
    Ok(world.settlement.open_producer(Request::new(request)).await?.into_inner())
}

async fn name_lost(world: &World, claim: &NameLostRequest) -> Result<NameLostResponse, Status> {
    Ok(world.settlement.name_lost(Request::new(claim.clone())).await?.into_inner())
}

#[tokio::test]
async fn an_epoch_rises_above_the_stored_and_the_log_s() {
    let world = World::new().await;
    let id = world.producer().await.to_string();
    assert_eq!(open(&world, &id, 0).await.unwrap().epoch, 1);
    assert_eq!(open(&world, &id, 1).await.unwrap().epoch, 2);
    // A restored database knows less than the log.
    assert_eq!(open(&world, &id, 40).await.unwrap().epoch, 41);
    assert_eq!(open(&world, &id, 1).await.unwrap().epoch, 42);
    let (_, reason, fields) = refusal(&open(&world, "prod_x", u64::MAX).await.unwrap_err());
    assert_eq!((reason.as_str(), fields[0].as_str()), ("REQUEST_INVALID", "producer_id"));
}

#[tokio::test]
async fn an_unknown_producer_is_refused_never_treated_as_new() {
    let world = World::new().await;
    let id = ProducerId::generate().to_string();
    assert_eq!(reason(open(&world, &id, 0).await), "PRODUCER_UNKNOWN");
}

#[tokio::test]
async fn an_opening_tells_where_the_lanes_stand() {
    let world = World::new().await;
    world.priced().await;
    let (buyer, producer) = (world.buyer(), world.producer().await);
    world.settle(producer, vec![calls(buyer, 5)]).await;
    let opened = open(&world, &producer.to_string(), 0).await.unwrap();
    let lane = world.shard(SHARD).await.lanes.remove(0);
    assert_eq!((lane.settled_sequence, lane.epoch), (5, 1));
    assert_eq!(opened.lanes, [lane]);
}

#[tokio::test]
async fn creating_a_producer_twice_with_one_request_makes_one() {
    let world = World::new().await;
    let request = CreateProducerRequest { name: "a".to_owned(), request_id: request_id() };
    let first = world.settlement.create_producer(Request::new(request.clone())).await.unwrap().into_inner();
    let again = world.settlement.create_producer(Request::new(request.clone())).await.unwrap().into_inner();
    assert_eq!(first, again);
    let other = CreateProducerRequest { name: "b".to_owned(), ..request };
    assert_eq!(reason(world.settlement.create_producer(Request::new(other)).await), "REQUEST_ID_CONFLICT");
    let nameless = CreateProducerRequest { name: String::new(), request_id: String::new() };
    let status = world.settlement.create_producer(Request::new(nameless)).await.unwrap_err();
    assert_eq!(refusal(&status).2, ["request_id", "name"]);
}

#[tokio::test]
async fn shards_are_answered_in_the_order_asked_with_the_producers_that_are_known() {
    let world = World::new().await;
    let producer = world.producer().await;
    let stranger = ProducerId::generate();
    let request = GetShardsRequest {
        shards: vec![9, 2, 9],
        producer_ids: vec![stranger.to_string(), producer.to_string()],
        only_their_lanes: false,
    };
    let answer = world.settlement.get_shards(Request::new(request)).await.unwrap().into_inner();
    assert_eq!(answer.shards.iter().map(|cursor| cursor.shard).collect::<Vec<_>>(), [9, 2, 9]);
    assert_eq!(answer.shards[0], answer.shards[2]);
    assert_ne!(answer.shards[0].generation, answer.shards[1].generation);
    assert_eq!(answer.window_secs, 60);
    assert_eq!(answer.producers.len(), 1);
    assert_eq!(
        (answer.producers[0].producer_id.as_str(), answer.producers[0].epoch),
        (&*producer.to_string(), 0)
    );
    for shards in [Vec::new(), vec![0; 1025], vec![65_536]] {
        let request = GetShardsRequest { shards, producer_ids: Vec::new(), only_their_lanes: false };
        assert_eq!(reason(world.settlement.get_shards(Request::new(request)).await), "REQUEST_INVALID");
    }
}

#[tokio::test]
async fn lanes_are_told_of_everybody_or_of_the_producers_asked_for() {
    let world = World::new().await;
    world.priced().await;
    let buyer = world.buyer();
    let producers = [world.producer().await, world.producer().await, world.producer().await];
    for (events, producer) in (1..).zip(producers) {
        world.settle(producer, vec![calls(buyer, events)]).await;
    }
    let all = world.shard(SHARD).await;
    assert_eq!(all.lanes.len(), 3);
    let ask = async |of: &[ProducerId]| {
        let producer_ids = of.iter().map(ToString::to_string).collect();
        let shards = vec![SHARD, SHARD + 1];
        let request = GetShardsRequest { shards, producer_ids, only_their_lanes: true };
        world.settlement.get_shards(Request::new(request)).await.unwrap().into_inner()
    };
    for of in [&[][..], &producers[..1], &[producers[2], ProducerId::generate()]] {
        let told = ask(of).await;
        let is_asked = |lane: &&LaneState| of.iter().any(|id| id.to_string() == lane.producer_id);
        let lanes: Vec<LaneState> = all.lanes.iter().filter(is_asked).cloned().collect();
        assert_eq!(told.shards[0].lanes, lanes);
        assert_eq!((told.shards[0].generation, told.shards[0].last_batch), (all.generation, 3));
        assert_eq!((told.shards[1].lanes.len(), told.producers.len()), (0, lanes.len()));
    }
}

#[tokio::test]
async fn a_reset_needs_the_generation_that_was_read() {
    let world = World::new().await;
    let before = world.shard(SHARD).await;
    let reset = |shard, expected_generation| {
        let request = BeginResetRequest { shard, expected_generation, cause: "test".to_owned() };
        world.settlement.begin_reset(Request::new(request))
    };
    assert_eq!(reason(reset(SHARD, before.generation ^ 1).await), "GENERATION_STALE");
    assert_eq!(reason(reset(99, 0).await), "SHARD_UNKNOWN");
    let after = reset(SHARD, before.generation).await.unwrap().into_inner().cursor.unwrap();
    assert_ne!(after.generation, before.generation);
    assert_eq!((after.last_batch, &after.lanes), (before.last_batch, &before.lanes));
    assert_eq!(world.shard(SHARD).await, after);
    // The second worker that found the same damage looks again.
    assert_eq!(reason(reset(SHARD, before.generation).await), "GENERATION_STALE");
    let other = world.shard(SHARD + 1).await;
    let request = ResetAllShardsRequest { cause: "restore".to_owned() };
    let all = world.settlement.reset_all_shards(Request::new(request)).await.unwrap().into_inner();
    assert_eq!(all.shards, 2);
    assert_ne!(world.shard(SHARD).await.generation, after.generation);
    assert_ne!(world.shard(SHARD + 1).await.generation, other.generation);
}

#[tokio::test]
async fn a_lost_range_is_named_by_proof_only() {
    let world = World::new().await;
    world.priced().await;
    let (buyer, producer) = (world.buyer(), world.producer().await);
    world.settle(producer, vec![calls(buyer, 5)]).await;
    let epoch = open(&world, &producer.to_string(), 0).await.unwrap().epoch;
    let before = world.shard(SHARD).await;
    let lane = LaneState { epoch, ..before.lanes[0].clone() };
    let claim = NameLostRequest { at_settled: Some(lane.clone()), freed_sequence: 9, freed_chain: 0xfeed };
    let with = |lane: LaneState| NameLostRequest { at_settled: Some(lane), ..claim.clone() };
    let cases = [
        (with(LaneState { epoch: epoch + 1, ..lane.clone() }), "FENCED"),
        (with(LaneState { settled_sequence: 4, ..lane.clone() }), "LANE_GAP"),
        (with(LaneState { settled_chain: lane.settled_chain ^ 2, ..lane.clone() }), "LANE_DIVERGED"),
        (with(LaneState { shard: 99, ..lane.clone() }), "SHARD_UNKNOWN"),
        (
            with(LaneState { producer_id: ProducerId::generate().to_string(), ..lane.clone() }),
            "PRODUCER_UNKNOWN",
        ),
        (NameLostRequest { freed_sequence: 5, ..claim.clone() }, "NOTHING_LOST"),
        (NameLostRequest { at_settled: None, ..claim.clone() }, "REQUEST_INVALID"),
    ];
    for (claim, expected) in cases {
        assert_eq!(reason(name_lost(&world, &claim).await), expected);
    }
    assert_eq!(world.shard(SHARD).await, before);
    let named = name_lost(&world, &claim).await.unwrap();
    assert_eq!((named.from_sequence, named.to_sequence), (6, 9));
    let after = world.shard(SHARD).await;
    assert_eq!((after.lanes[0].settled_sequence, after.lanes[0].settled_chain), (9, 0xfeed));
    assert_ne!(after.generation, before.generation);
    // Operators are told, as a whole and page by page.
    let list = async |producer_id: &str, page_size, page_token: &str| {
        let (producer_id, page_token) = (producer_id.to_owned(), page_token.to_owned());
        let request = ListLostRangesRequest { producer_id, page_size, page_token };
        world.review.list_lost_ranges(Request::new(request)).await.map(tonic::Response::into_inner)
    };
    let range = |read: &LostRange| {
        (read.producer_id.clone(), read.map_version, read.shard, read.from_sequence, read.to_sequence)
    };
    let id = producer.to_string();
    let first = list("", 1, "").await.unwrap();
    assert_eq!(first.lost.iter().map(range).collect::<Vec<_>>(), [(id.clone(), 1, SHARD, 6, 9)]);
    assert_eq!(first.lost[0].named_at, Some(timestamp_to_proto(world.clock.now())));
    assert!(list("", 1, &first.next_page_token).await.unwrap().lost.is_empty());
    assert_eq!(list(&id, 0, "").await.unwrap().lost, first.lost);
    assert!(list(&ProducerId::generate().to_string(), 0, "").await.unwrap().lost.is_empty());
    assert_eq!(reason(list("prod_x", 0, "").await), "REQUEST_INVALID");
    assert_eq!(reason(list("", 0, "nonsense").await), "PAGE_TOKEN_INVALID");
    // The lane goes on from there.
    world.settle(producer, vec![calls(buyer, 2)]).await;
    assert_eq!(world.shard(SHARD).await.lanes[0].settled_sequence, 11);
    world.assert_clean().await;
}

#[tokio::test]
async fn a_lane_that_never_settled_can_lose_its_beginning() {
    let world = World::new().await;
    let producer = world.producer().await;
    let epoch = open(&world, &producer.to_string(), 0).await.unwrap().epoch;
    world.shard(SHARD).await;
    let lane = LaneState {
        producer_id: producer.to_string(),
        map_version: 1,
        shard: SHARD,
        epoch,
        settled_sequence: 0,
        settled_chain: 0,
    };
    let claim = NameLostRequest { at_settled: Some(lane), freed_sequence: 3, freed_chain: 7 };
    let named = name_lost(&world, &claim).await.unwrap();
    assert_eq!((named.from_sequence, named.to_sequence), (1, 3));
    world.assert_clean().await;
}
