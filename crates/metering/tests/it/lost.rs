//! Ranges that a restored ledger lacks and a producer has freed: metering hands the proof to the ledger and its word back.

use drawdown_proto::metering::v1 as wire;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::{
    producer::{Log, Until, connect, deliver, open},
    rig::{Rig, SHARDS, soon},
};

fn at(shard: u32, sequence: u64, chain: u64) -> Option<wire::LanePosition> {
    Some(wire::LanePosition { lane: Some(wire::Lane { map_version: 1, shard }), sequence, chain })
}

fn refusal(status: &Status) -> (Code, String, Vec<String>) {
    let details = status.get_error_details();
    let fields = details.bad_request().map(|bad| bad.field_violations.clone()).unwrap_or_default();
    let fields = fields.into_iter().map(|violation| violation.field).collect();
    (status.code(), details.error_info().unwrap().reason.clone(), fields)
}

#[tokio::test]
async fn what_the_ledger_gives_up_is_told_and_the_lane_goes_on_after_it() {
    let rig = Rig::new().await;
    let running = rig.start().await;
    let producer = rig.gate.producer();
    let mut log = Log::new(producer);
    log.append("app", "web.byte", &[1, 2, 3]);
    log.append("app", "web.byte", &[10]);
    let lane = log.lane_of("app");
    let gone = log.lanes[&lane][0].end;
    let epoch = open(running.address, producer).await.unwrap();
    let mut client = connect(running.address).await;
    let mut name = async |epoch, claims| {
        let request = wire::NameLostRequest { producer_id: producer.to_string(), epoch, claims };
        soon("an answer", client.name_lost(request)).await.map(tonic::Response::into_inner)
    };
    let [other, third] = [1, 2].map(|more| (lane.shard + more) % SHARDS);
    let claim =
        |shard, freed, chain| wire::LostClaim { settled: at(shard, 0, 0), freed: at(shard, freed, chain) };
    let lost = claim(lane.shard, gone.sequence, gone.chain);
    let told = name(epoch, vec![lost, claim(other, 9, 77)]).await.unwrap();
    let range = |shard, to_sequence| wire::LostRange {
        lane: Some(wire::Lane { map_version: 1, shard }),
        from_sequence: 1,
        to_sequence,
    };
    assert_eq!(told.lost, [range(lane.shard, 3), range(other, 9)]);
    // The ledger's refusals come as they are.
    let refused = name(epoch, vec![lost]).await.unwrap_err();
    assert_eq!(refusal(&refused), (Code::FailedPrecondition, "LANE_DIVERGED".to_owned(), vec![]));
    let refused = name(epoch - 1, vec![claim(third, 5, 77)]).await.unwrap_err();
    assert_eq!(refusal(&refused), (Code::FailedPrecondition, "FENCED".to_owned(), vec![]));
    // What the log still has is settled.
    soon("settlement", deliver(&log, running.address, Until::Settled)).await;
    assert_eq!(rig.gate.state().sums, [(("app".to_owned(), "web.byte".to_owned(), false), (1, 10))].into());
    running.stop().await;
}

#[tokio::test]
async fn claims_that_can_not_be_read_never_reach_the_ledger() {
    let rig = Rig::new().await;
    let running = rig.start().await;
    let producer_id = rig.gate.producer().to_string();
    let claim = |shard| wire::LostClaim { settled: at(shard, 0, 0), freed: at(shard, 5, 77) };
    let two_lanes = wire::LostClaim { settled: at(1, 0, 0), freed: at(2, 5, 77) };
    let none = wire::LostClaim::default();
    let cases = [
        (producer_id.as_str(), vec![], "REQUEST_INVALID", vec!["claims"]),
        (&producer_id, vec![none; 1_025], "REQUEST_INVALID", vec!["claims", "claims[0]", "claims[1]"]),
        (
            &producer_id,
            vec![two_lanes, none, claim(2), claim(2)],
            "REQUEST_INVALID",
            vec!["claims[0]", "claims[1]", "claims[3]"],
        ),
        (&producer_id, vec![claim(99)], "MAP_VERSION_UNKNOWN", vec!["lane.shard"]),
        ("prod_x", vec![claim(0)], "ID_MALFORMED", vec!["producer_id"]),
    ];
    for (producer_id, claims, reason, fields) in cases {
        let request = wire::NameLostRequest { producer_id: producer_id.to_owned(), epoch: 1, claims };
        let answer = soon("an answer", connect(running.address).await.name_lost(request)).await;
        let (code, found, violations) = refusal(&answer.unwrap_err());
        assert_eq!((code, found.as_str()), (Code::InvalidArgument, reason));
        assert_eq!(violations[..fields.len()], fields);
    }
    running.stop().await;
}
