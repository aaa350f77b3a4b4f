//! Request ids and page tokens: whose they are, and what they are good for.

use std::sync::Arc;

use drawdown_ledger::grpc::{Catalog, Holds};
use drawdown_proto::ledger::v1::{
    Aggregation, Budget, CaptureHoldRequest, ContractKind, CreateMeterRequest, ExtendHoldRequest, LimitKind,
    ListHoldsRequest, ListMetersRequest, ListRateCardsRequest, Meter, PublishRateCardRequest, RateCard,
    ReleaseHoldRequest, ReserveTokensRequest, SetBudgetRequest, budget_service_server::BudgetService,
    catalog_service_server::CatalogService, hold_service_server::HoldService,
};
use drawdown_service::identity::{self, Caller, Role, Roles, Scope};
use tonic::{Code, Request, Response, Status};

use crate::{
    holds::reserve,
    world::{Buyer, World, at, price, proto, refusal, request_id},
};

const DAY_MS: i64 = 86_400_000;

/// A caller of a tenant, or of the platform.
async fn set_budget(world: &World, by: Scope, buyer: Buyer, cap_micros: i64) -> Result<Budget, Status> {
    let request = SetBudgetRequest {
        account_id: buyer.account.to_string(),
        team_id: buyer.team.to_string(),
        cap_micros: Some(cap_micros),
        request_id: "budget-1".to_owned(),
        ..SetBudgetRequest::default()
    };
    let roles = Roles::of(&[Role::ContractManager]);
    let caller = Arc::new(Caller { roles, scope: by, ..Caller::certified("test") });
    let answer = identity::scope(caller, world.budgets.set_budget(Request::new(request))).await?;
    Ok(answer.into_inner().budget.unwrap())
}

#[tokio::test]
async fn the_request_ids_of_a_tenant_are_its_own() {
    let world = World::new().await;
    let (one, two) = (world.buyer(), world.buyer());
    let of = |buyer: Buyer| Scope::Account(buyer.account);
    let first = set_budget(&world, of(one), one, 1).await.unwrap();
    let second = set_budget(&world, of(two), two, 2).await.unwrap();
    assert_eq!((first.cap_micros, second.cap_micros), (Some(1), Some(2)));
    // Each is answered again, also where a key of one team asks for the account's.
    let team = Scope::Team { account_id: one.account, team_id: one.team };
    assert_eq!(set_budget(&world, team, one, 1).await.unwrap(), first);
    assert_eq!(set_budget(&world, of(two), two, 2).await.unwrap(), second);
    // Other content is a conflict for the one whose id it is; the platform has ids of its own.
    let changed = set_budget(&world, of(one), one, 3).await.unwrap_err();
    assert_eq!(refusal(&changed).1, "REQUEST_ID_CONFLICT");
    assert_eq!(set_budget(&world, Scope::Platform, one, 3).await.unwrap().cap_micros, Some(3));
    let changed = set_budget(&world, Scope::Platform, two, 3).await.unwrap_err();
    assert_eq!(refusal(&changed).1, "REQUEST_ID_CONFLICT");
}

/// The same request again is answered as before; another one with its id is a conflict and changes nothing.
macro_rules! assert_own_id {
    ($service:expr, $call:ident, $request:expr, |$other:ident| $change:expr) => {{
        let request = $request;
        let first = $service.$call(Request::new(request.clone())).await.map(Response::into_inner).unwrap();
        let again = $service.$call(Request::new(request.clone())).await.map(Response::into_inner).unwrap();
        assert_eq!(again, first, stringify!($call));
        let mut $other = request;
        $change;
        let status = $service.$call(Request::new($other)).await.map(drop).unwrap_err();
        let expected = (Code::AlreadyExists, "REQUEST_ID_CONFLICT".to_owned(), vec!["request_id".to_owned()]);
        assert_eq!(refusal(&status), expected, stringify!($call));
        first
    }};
}

#[tokio::test]
async fn a_request_id_of_holds_is_not_taken_for_another_request() {
    let world = World::new().await;
    world.priced().await;
    let buyer = world.buyer();
    world.purchase(buyer, 100, None).await.unwrap();
    let (holds, team_id): (&Holds, _) = (&world.hold_service, buyer.team.to_string());
    let reserve = ReserveTokensRequest {
        account_id: buyer.account.to_string(),
        team_id: team_id.clone(),
        app_id: buyer.app.to_string(),
        micros: 9_000_000,
        lasts_ms: 60_000,
        request_id: request_id(),
        ..ReserveTokensRequest::default()
    };
    let held = assert_own_id!(holds, reserve_tokens, reserve, |other| other.micros = 8_000_000);
    let hold_id = held.hold.unwrap().hold_id;
    let extend = ExtendHoldRequest {
        team_id: team_id.clone(),
        hold_id: hold_id.clone(),
        lasts_ms: 120_000,
        more_micros: 1_000_000,
        request_id: request_id(),
    };
    assert_own_id!(holds, extend_hold, extend, |other| other.more_micros = 2_000_000);
    let capture = CaptureHoldRequest {
        team_id: team_id.clone(),
        hold_id: hold_id.clone(),
        client_id: "client".to_owned(),
        meter: "call".to_owned(),
        quantity: 4,
        request_id: request_id(),
        ..CaptureHoldRequest::default()
    };
    assert_own_id!(holds, capture_hold, capture, |other| other.quantity = 5);
    let release = ReleaseHoldRequest { team_id: team_id.clone(), hold_id, request_id: request_id() };
    let another = reserve_id(&world, buyer).await;
    assert_own_id!(holds, release_hold, release, |other| other.hold_id = another);
    // Of each, one effect.
    let balance = world.balance(buyer).await;
    assert_eq!((balance.available_micros, balance.held_micros), (97_000_000, 1_000_000));
    assert_eq!(balance.used_micros, 2_000_000);
    world.assert_clean().await;
}

async fn reserve_id(world: &World, buyer: Buyer) -> String {
    reserve(world, buyer, 1_000_000, 0, DAY_MS).await.unwrap().hold_id
}

fn meter(slug: &str) -> Meter {
    Meter {
        slug: slug.to_owned(),
        unit: slug.to_owned(),
        aggregation: Aggregation::Sum.into(),
        limit: LimitKind::Soft.into(),
        ..Meter::default()
    }
}

/// A card of one meter of its own name.
fn card(name: &str, micros: i64) -> RateCard {
    RateCard {
        rate_card_id: String::new(),
        name: name.to_owned(),
        contract_kind: ContractKind::Flex.into(),
        effective_from: proto(at("2026-04-01T00:00:00Z")),
        prices: vec![price(name, micros, 1)],
    }
}

#[tokio::test]
async fn a_request_id_of_the_catalogue_is_not_taken_for_another_request() {
    let world = World::new().await;
    let catalog: &Catalog = &world.catalog;
    let create = CreateMeterRequest { meter: Some(meter("photo")), request_id: request_id() };
    assert_own_id!(catalog, create_meter, create, |other| other.meter = Some(meter("video")));
    let publish =
        PublishRateCardRequest { rate_card: Some(card("photo", 5)), set_up: false, request_id: request_id() };
    assert_own_id!(catalog, publish_rate_card, publish, |other| other.rate_card = Some(card("photo", 6)));
    let meters = catalog.list_meters(Request::new(ListMetersRequest::default())).await.unwrap();
    assert_eq!(meters.into_inner().meters.len(), 1);
    let cards = catalog.list_rate_cards(Request::new(ListRateCardsRequest::default())).await.unwrap();
    let cards = cards.into_inner().rate_cards;
    assert_eq!((cards.len(), cards[0].prices[0].micros), (1, 5));
}

#[tokio::test]
async fn a_page_token_is_good_for_its_own_list_only() {
    let world = World::new().await;
    let (buyer, other, catalog) = (world.buyer(), world.buyer(), &world.catalog);
    for slug in ["photo", "video"] {
        let request = CreateMeterRequest { meter: Some(meter(slug)), request_id: request_id() };
        catalog.create_meter(Request::new(request)).await.unwrap();
        world.publish_card(card(slug, 5)).await.unwrap();
    }
    for buyer in [buyer, other] {
        world.purchase(buyer, 100, None).await.unwrap();
        reserve_id(&world, buyer).await;
        reserve_id(&world, buyer).await;
    }
    let holds = async |buyer: Buyer, page_token: &str| {
        let page_token = page_token.to_owned();
        let request = ListHoldsRequest { team_id: buyer.team.to_string(), page_size: 1, page_token };
        world.hold_service.list_holds(Request::new(request)).await.map(|answer| {
            let answer = answer.into_inner();
            (answer.holds.len(), answer.next_page_token)
        })
    };
    let meters = async |page_token: &str| {
        let request = ListMetersRequest { page_size: 1, page_token: page_token.to_owned() };
        catalog.list_meters(Request::new(request)).await.map(|answer| {
            let answer = answer.into_inner();
            (answer.meters.len(), answer.next_page_token)
        })
    };
    let cards = async |page_token: &str| {
        let request = ListRateCardsRequest { page_size: 1, page_token: page_token.to_owned() };
        catalog.list_rate_cards(Request::new(request)).await.map(|answer| {
            let answer = answer.into_inner();
            (answer.rate_cards.len(), answer.next_page_token)
        })
    };
    let (held, others) = (holds(buyer, "").await.unwrap(), holds(other, "").await.unwrap());
    let (metered, carded) = (meters("").await.unwrap(), cards("").await.unwrap());
    let tokens = [held, others, metered, carded].map(|(rows, token)| {
        assert_eq!(rows, 1);
        token
    });
    let [of_holds, of_others, of_meters, of_cards] = tokens.each_ref().map(String::as_str);
    // Each goes on in its own list.
    let mut rows = vec![holds(buyer, of_holds).await.unwrap().0, holds(other, of_others).await.unwrap().0];
    rows.extend([meters(of_meters).await.unwrap().0, cards(of_cards).await.unwrap().0]);
    assert_eq!(rows, [1; 4]);
    // And in no other, nor in the holds of another team.
    let mut refused = Vec::new();
    for token in [of_others, of_meters, of_cards] {
        refused.push(holds(buyer, token).await.unwrap_err());
    }
    for token in [of_holds, of_cards] {
        refused.push(meters(token).await.unwrap_err());
    }
    for token in [of_holds, of_meters] {
        refused.push(cards(token).await.unwrap_err());
    }
    for status in refused {
        let (code, why, fields) = refusal(&status);
        assert_eq!((code, why.as_str()), (Code::InvalidArgument, "PAGE_TOKEN_INVALID"));
        assert_eq!(fields, ["page_token"]);
    }
}
