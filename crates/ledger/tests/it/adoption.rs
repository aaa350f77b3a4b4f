//! Usage of an app from before its first team is charged to that team, and nothing else is (D49).

use drawdown_ledger::{config::AdoptionConfig, jobs::adopt::Adopt};
use drawdown_proto::ledger::v1::{
    AdoptUsageRequest, DecisionKind, Line, ReviewState, UnattributedFilter,
    review_service_server::ReviewService,
};
use drawdown_types::{AppId, TeamId};
use std::{sync::Arc, time::Duration};
use tonic::{Code, Request, Status};

use crate::world::{
    Buyer, DAY, World, at, calls_at, nobody, price, proto, reason, refusal, request_id, sum, usage_at,
};

/// The edge from which the app of these tests has its team.
const ASSIGNED: &str = "2026-03-10T12:00:00Z";

pub(crate) fn adopt(buyer: Buyer, since: &str) -> AdoptUsageRequest {
    AdoptUsageRequest {
        account_id: buyer.account.to_string(),
        team_id: buyer.team.to_string(),
        app_id: buyer.app.to_string(),
        client_ids: vec![format!("client-{}", buyer.app)],
        account_since: proto(at(since)),
        assigned_from: proto(at(ASSIGNED)),
        request_id: request_id(),
    }
}

fn no_team(buyer: Buyer, events: u64, window: &str) -> Line {
    nobody(calls_at(buyer, events, window), "no_team")
}

impl World {
    pub(crate) async fn adopted(&self, request: AdoptUsageRequest) -> Result<(), Status> {
        self.review.adopt_usage(Request::new(request)).await.map(drop)
    }

    /// Adopts what the client id `orphan` used before the instant at which these tests begin.
    pub(crate) async fn adopt_orphan(&self, buyer: Buyer) {
        let request = AdoptUsageRequest {
            client_ids: vec!["orphan".to_owned()],
            assigned_from: proto(at("2026-03-10T12:01:00Z")),
            ..adopt(buyer, "2020-01-01T00:00:00Z")
        };
        self.adopted(request).await.unwrap();
        assert_eq!(self.adopts(1000).await, 1);
    }

    /// One look of the job, in chunks of so many lines.
    pub(crate) async fn adopts(&self, lines_max: u32) -> usize {
        let config = AdoptionConfig { interval: Duration::from_secs(1), lines_max, rounds_max: 100 };
        Adopt::new(Arc::clone(&self.ledger), config).look().await.unwrap()
    }

    async fn windows_charged(&self, buyer: Buyer) -> Vec<(i64, String)> {
        let charges = self.charges(buyer).await;
        let window = |charge: drawdown_proto::ledger::v1::Charge| {
            let at = charge.window_start.unwrap();
            (charge.events, drawdown_proto::scalar::timestamp_from_proto(&at).unwrap().to_string())
        };
        charges.into_iter().map(window).collect()
    }
}

#[tokio::test]
async fn d49_usage_from_before_the_first_team_is_charged_and_nothing_else() {
    let world = World::new().await;
    world.priced().await;
    let (buyer, producer) = (world.buyer(), world.producer().await);
    let other_app = Buyer { app: AppId::generate(), ..buyer };
    let lines = vec![
        no_team(buyer, 1, "2026-03-10T11:59:00Z"),
        // From the edge on it would have had a team.
        no_team(buyer, 2, "2026-03-10T12:00:00Z"),
        // 90 days before the edge: the last window that counts, and the first that does not.
        no_team(buyer, 4, "2025-12-10T12:00:00Z"),
        no_team(buyer, 8, "2025-12-10T11:59:00Z"),
        no_team(buyer, 16, "2026-03-01T00:00:00Z"),
        no_team(other_app, 32, "2026-03-10T11:59:00Z"),
        nobody(calls_at(buyer, 64, "2026-03-10T11:58:00Z"), "unknown_client"),
        nobody(calls_at(buyer, 128, "2026-03-10T11:57:00Z"), "late"),
    ];
    world.settle(producer, lines).await;
    world.adopted(adopt(buyer, "2020-01-01T00:00:00Z")).await.unwrap();
    assert_eq!(world.adopts(1000).await, 3);
    let charged = [(4, "2025-12-10T12:00:00Z"), (16, "2026-03-01T00:00:00Z"), (1, "2026-03-10T11:59:00Z")];
    assert_eq!(world.windows_charged(buyer).await, charged.map(|(events, at)| (events, at.to_owned())));
    let open = UnattributedFilter { state: ReviewState::Open.into(), ..UnattributedFilter::default() };
    let left: Vec<_> = world.queue(open).await.iter().map(|usage| usage.events).collect();
    assert_eq!(left, [2, 8, 32, 64, 128]);
    let decided = UnattributedFilter { state: ReviewState::Decided.into(), ..UnattributedFilter::default() };
    let decisions: Vec<_> =
        world.queue(decided).await.into_iter().map(|usage| usage.decision.unwrap()).collect();
    assert!(decisions.iter().all(|decision| decision.kind() == DecisionKind::Adopted));
    // D48: the clock of grace starts now, whatever the age of the usage.
    assert_eq!(world.balance(buyer).await.negative_since, decisions[0].decided_at);
    assert_eq!(world.adopts(1000).await, 0);
    world.assert_clean().await;
}

#[tokio::test]
async fn d49_usage_of_before_the_account_is_never_adopted() {
    let world = World::new().await;
    world.priced().await;
    let (buyer, producer) = (world.buyer(), world.producer().await);
    let windows = ["2026-03-09T09:59:00Z", "2026-03-09T10:00:00Z", "2026-03-09T10:01:00Z"];
    world.settle(producer, windows.map(|window| no_team(buyer, 1, window)).to_vec()).await;
    // The window in which the account was opened is its own.
    world.adopted(adopt(buyer, "2026-03-09T10:00:30Z")).await.unwrap();
    assert_eq!(world.adopts(1000).await, 2);
    assert_eq!(world.windows_charged(buyer).await[0].1, windows[1]);
    world.assert_clean().await;
}

#[tokio::test]
async fn d49_chunks_follow_the_windows_and_change_no_sum() {
    let mut outcomes = Vec::new();
    for lines_max in [1, 2, 1000] {
        let world = World::new().await;
        world.priced().await;
        let (buyer, producer) = (world.buyer(), world.producer().await);
        world.grant(buyer, 2_000_000, None, "2026-03-11T00:00:00Z").await.unwrap();
        let window = |minute: u64| format!("2026-03-10T11:{minute:02}:00Z");
        // Settled in two batches, the later windows first.
        let lines = |minutes: std::ops::Range<u64>| minutes.map(|m| no_team(buyer, m, &window(m)));
        world.settle(producer, lines(3..6).collect()).await;
        let bytes = |m: u64| nobody(usage_at(buyer, "byte", sum(333), &window(m)), "no_team");
        world.settle(producer, lines(1..3).chain([bytes(1), bytes(3), bytes(5)]).collect()).await;
        world.adopted(adopt(buyer, "2020-01-01T00:00:00Z")).await.unwrap();
        assert_eq!(world.adopts(lines_max).await, 8);
        let charges: Vec<_> = (world.charges(buyer).await.into_iter())
            .map(|c| (c.seq, c.window_start.unwrap().seconds, c.meter, c.amount_micros, c.uncharged_micros))
            .collect();
        assert!(charges.is_sorted_by_key(|charge| charge.1), "{charges:?}");
        let balance = world.balance(buyer).await;
        outcomes.push((charges, balance.used_micros, balance.uncharged_micros));
        world.assert_clean().await;
    }
    assert_eq!(outcomes[0].1, 15 * 500_000 + 999_000);
    assert!(outcomes.windows(2).all(|pair| pair[0] == pair[1]), "{outcomes:?}");
}

#[tokio::test]
async fn d49_usage_that_arrives_later_goes_the_same_way() {
    let world = World::new().await;
    world.priced().await;
    let (buyer, producer) = (world.buyer(), world.producer().await);
    world.adopted(adopt(buyer, "2020-01-01T00:00:00Z")).await.unwrap();
    assert_eq!(world.adopts(1000).await, 0);
    world.clock.advance(DAY + DAY);
    // Received far too late for a team, but it had none.
    let late = Line {
        received_window_start: proto(at("2026-03-12T12:00:00Z")),
        ..no_team(buyer, 1, "2026-03-10T11:00:00Z")
    };
    world.settle(producer, vec![late, no_team(buyer, 2, "2026-03-10T12:00:00Z")]).await;
    assert_eq!(world.adopts(1000).await, 1);
    world.settle(producer, vec![no_team(buyer, 3, "2026-03-10T10:00:00Z")]).await;
    assert_eq!(world.adopts(1000).await, 1);
    assert_eq!(world.charges(buyer).await.iter().map(|charge| charge.events).collect::<Vec<_>>(), [1, 3]);
    world.assert_clean().await;
}

#[tokio::test]
async fn nothing_that_is_settled_while_an_app_is_registered_is_missed() {
    let world = World::new().await;
    world.priced().await;
    let producer = world.producer().await;
    for round in 0..8 {
        let buyer = world.buyer();
        let batch = world.batch(3, producer, vec![no_team(buyer, 1, "2026-03-10T11:00:00Z")]).await;
        let (posted, registered) =
            tokio::join!(world.post(&batch), world.adopted(adopt(buyer, "2020-01-01T00:00:00Z")));
        posted.unwrap();
        registered.unwrap();
        // Two jobs at the same moment adopt it once.
        let (one, two) = tokio::join!(world.adopts(1000), world.adopts(1000));
        assert_eq!(one + two, 1, "round {round}");
        assert_eq!(world.charges(buyer).await.len(), 1);
    }
    world.assert_clean().await;
}

#[tokio::test]
async fn d20_d53_a_trial_is_free_and_what_does_not_fit_stays_in_review() {
    let world = World::new().await;
    world.priced().await;
    world.meter("photo", drawdown_proto::ledger::v1::Aggregation::Sum).await.unwrap();
    world.publish("huge", "2020-01-01T00:00:00Z", vec![price("photo", i64::MAX / 2, 1)], true).await.unwrap();
    let (buyer, producer) = (world.buyer(), world.producer().await);
    world.know(buyer, Some(at("2026-01-01T00:00:00Z")), Some(at("2026-03-10T11:00:00Z")));
    let huge = |window| nobody(usage_at(buyer, "photo", sum(3), window), "no_team");
    let lines = vec![
        no_team(buyer, 1, "2026-03-10T10:00:00Z"),
        huge("2026-03-10T11:00:00Z"),
        huge("2026-03-10T11:01:00Z"),
        no_team(buyer, 1, "2026-03-10T11:30:00Z"),
    ];
    world.settle(producer, lines).await;
    world.adopted(adopt(buyer, "2020-01-01T00:00:00Z")).await.unwrap();
    // Chunks of one: what stays does not stop what follows.
    assert_eq!(world.adopts(1).await, 2);
    let charges: Vec<_> =
        world.charges(buyer).await.into_iter().map(|c| (c.amount_micros, c.zero_rated)).collect();
    assert_eq!(charges, [(0, "trial".to_owned()), (500_000, String::new())]);
    // Nothing is due: nobody tries the same again and again.
    assert_eq!(world.adopts(1).await, 0);
    world.assert_clean().await;
}

#[tokio::test]
async fn an_app_is_adopted_once_by_one_team() {
    let world = World::new().await;
    world.priced().await;
    let (buyer, producer) = (world.buyer(), world.producer().await);
    world.settle(producer, vec![no_team(buyer, 1, "2026-03-10T11:00:00Z")]).await;
    let request = adopt(buyer, "2020-01-01T00:00:00Z");
    world.adopted(request.clone()).await.unwrap();
    world.adopted(request.clone()).await.unwrap();
    let more = AdoptUsageRequest {
        client_ids: vec!["client-new".to_owned(), format!("client-{}", buyer.app)],
        request_id: request_id(),
        ..request.clone()
    };
    world.adopted(more.clone()).await.unwrap();
    assert_eq!(
        reason(world.adopted(AdoptUsageRequest { request_id: request.request_id, ..more }).await),
        "REQUEST_ID_CONFLICT"
    );
    assert_eq!((world.adopts(1000).await, world.adopts(1000).await), (1, 0));
    let fresh = || AdoptUsageRequest { request_id: request_id(), ..adopt(buyer, "2020-01-01T00:00:00Z") };
    let sibling = world.sibling(buyer);
    let cases = [
        (AdoptUsageRequest { team_id: sibling.team.to_string(), ..fresh() }, "APP_ADOPTED", "app_id"),
        (
            AdoptUsageRequest { assigned_from: proto(at("2026-03-10T12:01:00Z")), ..fresh() },
            "APP_ADOPTED",
            "app_id",
        ),
        (
            AdoptUsageRequest { app_id: AppId::generate().to_string(), ..fresh() },
            "CLIENT_OF_OTHER_APP",
            "client_ids",
        ),
        (AdoptUsageRequest { team_id: TeamId::generate().to_string(), ..fresh() }, "TEAM_UNKNOWN", "team_id"),
        (
            AdoptUsageRequest { account_id: world.buyer().account.to_string(), ..fresh() },
            "TEAM_NOT_OF_ACCOUNT",
            "team_id",
        ),
    ];
    for (request, expected, field) in cases {
        let (_, reason, fields) = refusal(&world.adopted(request).await.unwrap_err());
        assert_eq!((reason.as_str(), fields), (expected, vec![field.to_owned()]));
    }
    let wrong = AdoptUsageRequest {
        client_ids: vec![String::new(), "a".to_owned(), "a".to_owned()],
        assigned_from: proto(at("2026-03-10T12:00:01Z")),
        account_since: None,
        team_id: String::new(),
        ..fresh()
    };
    let fields = ["team_id", "client_ids[0]", "client_ids[2]", "account_since", "assigned_from"];
    let told = (Code::InvalidArgument, "REQUEST_INVALID".to_owned(), fields.map(str::to_owned).to_vec());
    assert_eq!(refusal(&world.adopted(wrong).await.unwrap_err()), told);
    world.assert_clean().await;
}
