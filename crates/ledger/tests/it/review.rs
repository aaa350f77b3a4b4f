//! The review queue: unattributed usage is charged or dismissed by a decision, once (D25, D9).

use drawdown_proto::ledger::v1::{
    Aggregation, AggregationPeriod, ChargeUnattributedRequest, ChargeUnattributedResponse, DecisionKind,
    DismissUnattributedRequest, Line, ListUnattributedRequest, ReviewState, UnattributedFilter,
    UnattributedUsage, review_service_server::ReviewService, token_service_server::TokenService,
};
use drawdown_types::{AppId, TeamId};
use futures::future::join_all;
use tonic::{Code, Request, Status};

use crate::world::{
    Buyer, DAY, World, at, calls, calls_at, distinct, largest, nobody, price, proto, reason, refusal,
    request_id, sum, usage_at,
};

fn bytes_at(buyer: Buyer, quantity: i64, window: &str) -> Line {
    usage_at(buyer, "byte", sum(quantity), window)
}

pub(crate) fn charge(buyer: Buyer, entries: &[i64]) -> ChargeUnattributedRequest {
    ChargeUnattributedRequest {
        entries: entries.to_vec(),
        account_id: buyer.account.to_string(),
        team_id: buyer.team.to_string(),
        app_id: buyer.app.to_string(),
        reason: "found the contract".to_owned(),
        decided_by: "ann".to_owned(),
        validate_only: false,
        request_id: request_id(),
    }
}

pub(crate) fn dismiss(entries: &[i64]) -> DismissUnattributedRequest {
    DismissUnattributedRequest {
        entries: entries.to_vec(),
        reason: "a test of ours".to_owned(),
        decided_by: "bob".to_owned(),
        validate_only: false,
        request_id: request_id(),
    }
}

impl World {
    pub(crate) async fn decide(
        &self,
        request: ChargeUnattributedRequest,
    ) -> Result<ChargeUnattributedResponse, Status> {
        Ok(self.review.charge_unattributed(Request::new(request)).await?.into_inner())
    }

    pub(crate) async fn dismiss(&self, request: DismissUnattributedRequest) -> Result<i64, Status> {
        Ok(self.review.dismiss_unattributed(Request::new(request)).await?.into_inner().dismissed)
    }

    pub(crate) async fn queue(&self, filter: UnattributedFilter) -> Vec<UnattributedUsage> {
        let request = ListUnattributedRequest { filter: Some(filter), ..ListUnattributedRequest::default() };
        self.tokens.list_unattributed(Request::new(request)).await.unwrap().into_inner().usage
    }

    async fn undecided(&self) -> Vec<i64> {
        let filter = UnattributedFilter { state: ReviewState::Open.into(), ..UnattributedFilter::default() };
        self.queue(filter).await.iter().map(|usage| usage.entry).collect()
    }

    async fn audited(&self, action: &str) -> i64 {
        let sql = "select count(*) from ledger.audit_log where action = $1";
        sqlx::query_scalar(sql).bind(action).fetch_one(self.database.pool()).await.unwrap()
    }
}

#[tokio::test]
async fn d9_reviewed_usage_is_charged_at_the_price_and_the_lots_of_its_window() {
    let world = World::new().await;
    world.priced().await;
    let (buyer, producer) = (world.buyer(), world.producer().await);
    // Each lot is valid for the usage of one day; by the time of the decision the first is closed.
    world.grant(buyer, 5_000_000, None, "2026-03-11T00:00:00Z").await.unwrap();
    world.grant(buyer, 5_000_000, Some("2026-03-11T00:00:00Z"), "2026-03-12T00:00:00Z").await.unwrap();
    let dear = vec![price("call", 2_000_000, 1), price("byte", 1_000_000, 1000)];
    world.publish("web", "2026-03-11T00:00:00Z", dear, true).await.unwrap();
    world.clock.set(at("2026-03-12T12:00:00Z"));
    let window = ["2026-03-12T09:00:00Z", "2026-03-11T09:00:00Z", "2026-03-10T09:00:00Z"];
    let late =
        Line { received_window_start: proto(at("2026-03-12T11:00:00Z")), ..calls_at(buyer, 1, window[2]) };
    let lines = vec![
        nobody(calls_at(buyer, 1, window[0]), "unknown_client"),
        nobody(calls_at(buyer, 1, window[1]), "no_team"),
        late,
    ];
    world.settle(producer, lines).await;
    let left = world.unattributed().await;
    assert_eq!(
        left.iter().map(|usage| usage.reason.as_str()).collect::<Vec<_>>(),
        ["unknown_client", "no_team", "late"]
    );
    // A late line says who would have paid; the others do not know.
    assert_eq!([&left[0].team_id, &left[2].team_id], [&String::new(), &buyer.team.to_string()]);
    let names: Vec<i64> = left.iter().map(|usage| usage.entry).collect();
    let answer = world.decide(charge(buyer, &names)).await.unwrap();
    let charged: Vec<_> =
        answer.charged.iter().map(|c| (c.entry, c.charge_seq, c.amount_micros, c.uncharged_micros)).collect();
    // In order of window: debt of the first day, the closing lot of the second, debt of the third.
    assert_eq!(
        charged,
        [(names[2], 1, 500_000, 500_000), (names[1], 2, 2_000_000, 0), (names[0], 3, 2_000_000, 2_000_000)]
    );
    assert_eq!((answer.amount_micros, answer.uncharged_micros), (4_500_000, 2_500_000));
    let balance = world.balance(buyer).await;
    assert_eq!(
        (balance.used_micros, balance.uncharged_micros, balance.expired_micros),
        (4_500_000, 2_500_000, 5_000_000)
    );
    // D48: the clock of grace starts with the decision, whatever the age of the usage.
    assert_eq!(balance.negative_since, answer.posted_at);
    let charges = world.charges(buyer).await;
    let ids: Vec<_> = answer.charged.iter().map(|charged| charged.charge_id.clone()).collect();
    assert_eq!(charges.iter().map(|charge| charge.charge_id.clone()).collect::<Vec<_>>(), ids);
    assert_eq!(charges[0].dimensions, left[2].dimensions);
    let decision = world.unattributed().await[1].decision.clone().unwrap();
    assert_eq!((decision.kind(), decision.decided_by.as_str()), (DecisionKind::Charged, "ann"));
    assert_eq!(
        (decision.charge_id, decision.charge_seq, decision.app_id),
        (ids[1].clone(), 2, buyer.app.to_string())
    );
    assert_eq!((decision.decided_at, world.audited("unattributed.charge").await), (answer.posted_at, 1));
    world.assert_clean().await;
}

#[tokio::test]
async fn a_dry_run_says_the_same_and_leaves_nothing() {
    let world = World::new().await;
    world.priced().await;
    let (buyer, producer) = (world.buyer(), world.producer().await);
    world.purchase(buyer, 100, None).await.unwrap();
    world.settle(producer, vec![nobody(calls(buyer, 3), "no_team")]).await;
    let names = world.undecided().await;
    let asked = ChargeUnattributedRequest { validate_only: true, ..charge(buyer, &names) };
    let before = world.balance(buyer).await;
    let told = world.decide(asked.clone()).await.unwrap();
    assert_eq!((world.balance(buyer).await, world.undecided().await), (before, names.clone()));
    let asked = ChargeUnattributedRequest { validate_only: false, ..asked };
    let mut done = world.decide(asked).await.unwrap();
    assert_ne!(std::mem::take(&mut done.charged[0].charge_id), "");
    assert_eq!(done, told);
    let doubtful = DismissUnattributedRequest { validate_only: true, ..dismiss(&names) };
    assert_eq!(reason(world.dismiss(doubtful).await), "ENTRY_DECIDED");
    world.assert_clean().await;
}

#[tokio::test]
async fn an_entry_is_decided_once() {
    let world = World::new().await;
    world.priced().await;
    let (buyer, producer) = (world.buyer(), world.producer().await);
    let lines = vec![nobody(calls(buyer, 1), "no_team"), nobody(calls(buyer, 2), "unknown_client")];
    world.settle(producer, lines).await;
    let names = world.undecided().await;
    let request = charge(buyer, &names[..1]);
    let answer = world.decide(request.clone()).await.unwrap();
    assert_eq!(world.decide(request.clone()).await.unwrap(), answer);
    let other = ChargeUnattributedRequest { reason: "again".to_owned(), ..request };
    assert_eq!(reason(world.decide(other).await), "REQUEST_ID_CONFLICT");
    let status = world.decide(charge(buyer, &[names[1], names[0]])).await.unwrap_err();
    let told = (Code::FailedPrecondition, "ENTRY_DECIDED".to_owned(), vec!["entries[1]".to_owned()]);
    assert_eq!(refusal(&status), told);
    let status = world.dismiss(dismiss(&[77, names[1], 78])).await.unwrap_err();
    let fields = vec!["entries[0]".to_owned(), "entries[2]".to_owned()];
    assert_eq!(refusal(&status), (Code::NotFound, "ENTRY_UNKNOWN".to_owned(), fields));
    assert_eq!(world.undecided().await, names[1..]);
    assert_eq!(world.dismiss(dismiss(&names[1..])).await.unwrap(), 1);
    assert_eq!(reason(world.decide(charge(buyer, &names[1..])).await), "ENTRY_DECIDED");
    assert_eq!((world.charges(buyer).await.len(), world.audited("unattributed.dismiss").await), (1, 1));
    world.assert_clean().await;
}

#[tokio::test]
async fn every_wrong_field_of_a_decision_is_named_at_once() {
    let world =
        World::with(|options| options.review_entries_max = drawdown_service::config::Count::of(2)).await;
    let buyer = world.buyer();
    let request = ChargeUnattributedRequest {
        entries: vec![1, 1, 2],
        account_id: String::new(),
        team_id: buyer.app.to_string(),
        app_id: buyer.team.to_string(),
        reason: String::new(),
        decided_by: "x".repeat(201),
        validate_only: false,
        request_id: String::new(),
    };
    let status = world.decide(request).await.unwrap_err();
    let fields =
        ["request_id", "entries", "entries[1]", "account_id", "team_id", "app_id", "reason", "decided_by"];
    let told = (Code::InvalidArgument, "REQUEST_INVALID".to_owned(), fields.map(str::to_owned).to_vec());
    assert_eq!(refusal(&status), told);
    let stranger = Buyer { team: TeamId::generate(), ..buyer };
    assert_eq!(reason(world.decide(charge(stranger, &[1])).await), "TEAM_UNKNOWN");
    let foreign = Buyer { account: world.buyer().account, ..buyer };
    assert_eq!(reason(world.decide(charge(foreign, &[1])).await), "TEAM_NOT_OF_ACCOUNT");
    assert_eq!(reason(world.decide(charge(buyer, &[1])).await), "ENTRY_UNKNOWN");
}

#[tokio::test]
async fn of_two_decisions_about_one_entry_at_the_same_moment_one_holds() {
    let world = World::new().await;
    world.priced().await;
    let (one, two, producer) = (world.buyer(), world.buyer(), world.producer().await);
    for round in 0..10 {
        let window = format!("2026-03-10T11:{round:02}:00Z");
        world.settle(producer, vec![nobody(calls_at(one, 1, &window), "no_team")]).await;
        let names = world.undecided().await;
        let asked = [one, two, one, two].map(|buyer| world.decide(charge(buyer, &names)));
        let outcomes = join_all(asked).await;
        let refused: Vec<_> = outcomes.into_iter().filter_map(Result::err).collect();
        assert_eq!(refused.len(), 3, "round {round}");
        assert!(refused.iter().all(|status| refusal(status).1 == "ENTRY_DECIDED"), "{refused:?}");
    }
    let charges = world.charges(one).await.len() + world.charges(two).await.len();
    assert_eq!(charges, 10);
    world.assert_clean().await;
}

#[tokio::test]
async fn d53_what_does_not_fit_stays_and_says_why() {
    let world = World::new().await;
    world.priced().await;
    world.meter("photo", Aggregation::Sum).await.unwrap();
    world.publish("huge", "2020-01-01T00:00:00Z", vec![price("photo", i64::MAX / 2, 1)], true).await.unwrap();
    let (buyer, producer) = (world.buyer(), world.producer().await);
    let wrong_kind =
        Line { meter: "call".to_owned(), ..nobody(bytes_at(buyer, 6, "2026-03-10T12:00:00Z"), "poison") };
    let huge = |quantity, window| nobody(usage_at(buyer, "photo", sum(quantity), window), "overflow");
    let lines = vec![
        huge(3, "2026-03-10T11:58:00Z"),
        huge(1, "2026-03-10T11:59:00Z"),
        wrong_kind,
        nobody(calls(buyer, 1), "no_team"),
    ];
    world.settle(producer, lines).await;
    let names = world.undecided().await;
    let answer = world.decide(charge(buyer, &names)).await.unwrap();
    let left: Vec<_> = answer.left.iter().map(|left| (left.entry, left.reason.as_str())).collect();
    assert_eq!(left, [(names[0], "overflow"), (names[2], "meter_unfit")]);
    assert_eq!(answer.charged.iter().map(|charged| charged.entry).collect::<Vec<_>>(), [names[1], names[3]]);
    // Still open: another decision may follow.
    assert_eq!(world.undecided().await, [names[0], names[2]]);
    assert_eq!(world.dismiss(dismiss(&[names[0], names[2]])).await.unwrap(), 2);
    world.assert_clean().await;
}

#[tokio::test]
async fn d14_d19_a_decision_costs_what_the_usage_would_have_cost_in_time() {
    let world = World::new().await;
    world.priced().await;
    world.meter_by("peak", Aggregation::Max, AggregationPeriod::Day, "").await.unwrap();
    world.meter_by("people", Aggregation::Unique, AggregationPeriod::Month, "user").await.unwrap();
    let prices = vec![price("peak", 7, 3), price("people", 1_000_000, 1)];
    world.publish("shapes", "2020-01-01T00:00:00Z", prices, true).await.unwrap();
    let (in_time, reviewed, producer) = (world.buyer(), world.buyer(), world.producer().await);
    let lines = |buyer| {
        vec![
            bytes_at(buyer, 333, "2026-03-10T09:00:00Z"),
            bytes_at(buyer, 334, "2026-03-10T10:00:00Z"),
            bytes_at(buyer, 1, "2026-03-10T11:00:00Z"),
            usage_at(buyer, "peak", largest(10), "2026-03-10T09:00:00Z"),
            usage_at(buyer, "peak", largest(25), "2026-03-10T10:00:00Z"),
            usage_at(buyer, "people", distinct(&["ann", "bob"]), "2026-03-10T09:00:00Z"),
            usage_at(buyer, "people", distinct(&["bob", "cid"]), "2026-03-10T10:00:00Z"),
            Line { failed: true, ..calls_at(buyer, 4, "2026-03-10T10:00:00Z") },
        ]
    };
    world.settle(producer, lines(in_time)).await;
    world.settle(producer, lines(reviewed).into_iter().map(|line| nobody(line, "no_team")).collect()).await;
    let names = world.undecided().await;
    // In two calls, the later half first: the order decides who bears what, not what it costs.
    let (first, second) = names.split_at(4);
    for part in [second, first] {
        let answer = world.decide(charge(reviewed, part)).await.unwrap();
        assert_eq!((answer.charged.len(), answer.left.len()), (4, 0));
    }
    let world = &world;
    let used =
        |buyer| async move { (world.balance(buyer).await.used_micros, world.charges(buyer).await.len()) };
    let expected = used(in_time).await;
    assert_eq!(expected, (668_000 + 58 + 3_000_000, 8));
    assert_eq!(used(reviewed).await, expected);
    world.assert_clean().await;
}

#[tokio::test]
async fn d20_usage_of_a_trial_is_recorded_and_free() {
    let world = World::new().await;
    world.priced().await;
    let (buyer, producer) = (world.buyer(), world.producer().await);
    world.know(buyer, Some(at("2026-01-01T00:00:00Z")), Some(at("2026-03-10T11:00:00Z")));
    let lines = ["2026-03-10T10:59:00Z", "2026-03-10T11:00:00Z"].map(|window| calls_at(buyer, 1, window));
    world.settle(producer, lines.into_iter().map(|line| nobody(line, "no_team")).collect()).await;
    let answer = world.decide(charge(buyer, &world.undecided().await)).await.unwrap();
    let charged: Vec<_> =
        answer.charged.iter().map(|charged| (charged.zero_rated.as_str(), charged.amount_micros)).collect();
    assert_eq!(charged, [("trial", 0), ("", 500_000)]);
    world.assert_clean().await;
}

#[tokio::test]
async fn the_queue_is_filtered_and_its_pages_belong_to_one_question() {
    let world = World::new().await;
    world.priced().await;
    let (buyer, producer) = (world.buyer(), world.producer().await);
    let other = Buyer { app: AppId::generate(), ..buyer };
    let lines = vec![
        nobody(calls_at(buyer, 1, "2026-03-10T10:00:00Z"), "no_team"),
        nobody(calls_at(other, 2, "2026-03-10T11:00:00Z"), "unknown_client"),
        nobody(bytes_at(buyer, 3, "2026-03-10T11:30:00Z"), "no_team"),
        Line {
            received_window_start: proto(at("2026-03-10T12:00:00Z")),
            ..nobody(calls_at(buyer, 4, "2026-03-10T09:00:00Z"), "late")
        },
    ];
    world.settle(producer, lines).await;
    let names = world.undecided().await;
    world.dismiss(dismiss(&names[..1])).await.unwrap();
    let one = || UnattributedFilter::default();
    let cases: [(UnattributedFilter, &[usize]); 9] = [
        (one(), &[0, 1, 2, 3]),
        (UnattributedFilter { reasons: vec!["late".to_owned(), "no_team".to_owned()], ..one() }, &[0, 2, 3]),
        (UnattributedFilter { client_ids: vec![format!("client-{}", other.app)], ..one() }, &[1]),
        (UnattributedFilter { meters: vec!["byte".to_owned()], ..one() }, &[2]),
        (UnattributedFilter { window_from: proto(at("2026-03-10T11:00:00Z")), ..one() }, &[1, 2]),
        (UnattributedFilter { window_to: proto(at("2026-03-10T11:00:00Z")), ..one() }, &[0, 3]),
        (UnattributedFilter { received_from: proto(at("2026-03-10T11:30:00Z")), ..one() }, &[2, 3]),
        (UnattributedFilter { received_to: proto(at("2026-03-10T11:30:00Z")), ..one() }, &[0, 1]),
        (UnattributedFilter { state: ReviewState::Decided.into(), ..one() }, &[0]),
    ];
    for (filter, expected) in cases {
        let found: Vec<_> = world.queue(filter.clone()).await.iter().map(|usage| usage.entry).collect();
        let expected: Vec<_> = expected.iter().map(|index| names[*index]).collect();
        assert_eq!(found, expected, "{filter:?}");
    }
    let page = |filter: Option<UnattributedFilter>, page_token: &str| {
        let page_token = page_token.to_owned();
        world.tokens.list_unattributed(Request::new(ListUnattributedRequest {
            page_size: 2,
            page_token,
            filter,
        }))
    };
    let first = page(None, "").await.unwrap().into_inner();
    let second = page(None, &first.next_page_token).await.unwrap().into_inner();
    let paged: Vec<_> = first.usage.iter().chain(&second.usage).map(|usage| usage.entry).collect();
    assert_eq!(paged, names);
    let another = UnattributedFilter { meters: vec!["call".to_owned()], ..one() };
    assert_eq!(reason(page(Some(another), &first.next_page_token).await), "PAGE_TOKEN_INVALID");
    let wrong = UnattributedFilter {
        reasons: vec!["never".to_owned()],
        window_from: proto(at("2026-03-10T11:00:00Z")),
        window_to: proto(at("2026-03-10T11:00:00Z")),
        state: 9,
        ..one()
    };
    let (_, _, fields) = refusal(&page(Some(wrong), "").await.unwrap_err());
    assert_eq!(fields, ["filter.state", "filter.reasons[0]", "filter.window_to"]);
}

#[tokio::test]
async fn a_lot_that_is_due_closes_before_reviewed_usage_could_draw_it() {
    let world = World::new().await;
    world.priced().await;
    let (buyer, producer) = (world.buyer(), world.producer().await);
    world.grant(buyer, 5_000_000, None, "2026-03-10T13:00:00Z").await.unwrap();
    world.settle(producer, vec![nobody(calls(buyer, 2), "no_team")]).await;
    // Its close date and the allowance have passed, and no job has looked.
    world.clock.set(at("2026-03-10T13:00:00Z"));
    world.clock.advance(DAY);
    world.clock.advance(std::time::Duration::from_secs(301));
    let answer = world.decide(charge(buyer, &world.undecided().await)).await.unwrap();
    assert_eq!((answer.amount_micros, answer.uncharged_micros), (1_000_000, 1_000_000));
    assert_eq!(world.balance(buyer).await.expired_micros, 5_000_000);
    world.assert_clean().await;
}
