//! Lists and sums of charges: filters, groups, pages, streams, and what is refused.

use std::collections::{BTreeMap, HashMap};

use drawdown_proto::ledger::v1::{
    Charge, ChargeFilter, ChargeOutcome, Line, ListChargesRequest, ListChargesResponse, StreamChargesRequest,
    SumState, SummarizeUsageRequest, SummarizeUsageResponse, UsageKey, UsageSums, line,
    report_service_server::ReportService, token_service_server::TokenService,
};
use drawdown_types::{AccountId, AppId, Timestamp};
use futures::StreamExt as _;
use tonic::{Code, Request, Status};

use crate::world::{Buyer, DAY, NOW, World, at, calls, calls_at, payer, proto, reason, refusal};

const DAYS: [&str; 3] = ["2026-03-09T23:59:00Z", "2026-03-10T00:00:00Z", "2026-03-10T11:00:00Z"];

/// Two apps of a team, three client ids, two meters, three windows of two days, two regions, some failed.
fn usage(buyer: Buyer, apps: &[AppId]) -> Vec<Line> {
    let mut lines = Vec::new();
    for n in 0..36_usize {
        let app = apps[n % apps.len()];
        let quantity = i64::try_from(n * 37 % 1500).unwrap();
        let mut line = calls_at(Buyer { app, ..buyer }, 1 + u64::try_from(n % 4).unwrap(), DAYS[n % 3]);
        line.client_id = format!("client-{}", n % 3);
        if n % 5 == 0 {
            line.meter = "byte".to_owned();
            line.state = Some(line::State::Sum(SumState { quantity }));
        }
        line.dimensions = match n % 4 {
            0 => HashMap::new(),
            n => HashMap::from([("region".to_owned(), format!("r{n}"))]),
        };
        line.failed = n % 7 == 0;
        line.attribution = Some(line::Attribution::Payer(payer(Buyer { app, ..buyer })));
        lines.push(line);
    }
    lines
}

/// A team with usage of which a part is paid, a part is owed, and a part was owed and paid since.
pub(crate) async fn owing(world: &World, buyer: Buyer) -> [AppId; 2] {
    let (apps, producer) = ([buyer.app, AppId::generate()], world.producer().await);
    let lines = usage(buyer, &apps);
    world.grant(buyer, 7_300_000, None, "2026-06-01T00:00:00Z").await.unwrap();
    world.settle(producer, lines[..20].to_vec()).await;
    world.grant(buyer, 5_100_000, None, "2026-07-01T00:00:00Z").await.unwrap();
    world.settle(producer, lines[20..].to_vec()).await;
    let balance = world.balance(buyer).await;
    assert!(balance.uncharged_micros > 0 && balance.used_micros > 20_000_000, "{balance:?}");
    apps
}

pub(crate) fn list(
    buyer: Buyer,
    filter: ChargeFilter,
    page_size: u32,
    page_token: &str,
) -> ListChargesRequest {
    ListChargesRequest {
        team_id: buyer.team.to_string(),
        page_size,
        page_token: page_token.to_owned(),
        filter: Some(filter),
        account_id: buyer.account.to_string(),
    }
}

async fn page(world: &World, request: ListChargesRequest) -> Result<ListChargesResponse, Status> {
    world.tokens.list_charges(Request::new(request)).await.map(tonic::Response::into_inner)
}

pub(crate) async fn listed(world: &World, buyer: Buyer, filter: &ChargeFilter) -> Vec<Charge> {
    page(world, list(buyer, filter.clone(), 0, "")).await.unwrap().charges
}

pub(crate) fn summarize(buyer: Buyer, filter: ChargeFilter, group_by: &[UsageKey]) -> SummarizeUsageRequest {
    SummarizeUsageRequest {
        account_id: buyer.account.to_string(),
        team_id: buyer.team.to_string(),
        filter: Some(filter),
        group_by: group_by.iter().map(|key| (*key).into()).collect(),
        group_by_dimensions: Vec::new(),
    }
}

pub(crate) async fn summary(
    world: &World,
    request: SummarizeUsageRequest,
) -> Result<SummarizeUsageResponse, Status> {
    world.reports.summarize_usage(Request::new(request)).await.map(tonic::Response::into_inner)
}

fn window(charge: &Charge) -> Timestamp {
    drawdown_proto::scalar::timestamp_from_proto(charge.window_start.as_ref().unwrap()).unwrap()
}

type Fits = Box<dyn Fn(&Charge) -> bool>;

fn filters(apps: [AppId; 2]) -> Vec<(ChargeFilter, Fits)> {
    let none = ChargeFilter::default;
    let app = apps[1].to_string();
    let region = HashMap::from([("region".to_owned(), "r2".to_owned())]);
    let day = |charge: &Charge| window(charge) >= at("2026-03-10T00:00:00Z");
    vec![
        (none(), Box::new(|_| true)),
        (ChargeFilter { app_ids: vec![app.clone()], ..none() }, Box::new(move |charge| charge.app_id == app)),
        (
            ChargeFilter { client_ids: vec!["client-0".to_owned(), "client-2".to_owned()], ..none() },
            Box::new(|charge| charge.client_id != "client-1"),
        ),
        (ChargeFilter { meters: vec!["byte".to_owned()], ..none() }, Box::new(|c| c.meter == "byte")),
        (
            ChargeFilter { dimensions: region, ..none() },
            Box::new(|charge| charge.dimensions.get("region").is_some_and(|region| region == "r2")),
        ),
        (ChargeFilter { from: proto(at("2026-03-10T00:00:00Z")), ..none() }, Box::new(day)),
        (
            ChargeFilter {
                from: proto(at("2026-03-09T00:00:00Z")),
                to: proto(at("2026-03-10T00:00:00Z")),
                ..none()
            },
            Box::new(move |charge| !day(charge)),
        ),
        (ChargeFilter { outcome: ChargeOutcome::Failed.into(), ..none() }, Box::new(|charge| charge.failed)),
        (
            ChargeFilter {
                outcome: ChargeOutcome::Succeeded.into(),
                meters: vec!["call".to_owned(), "byte".to_owned()],
                to: proto(at("2026-03-11T00:00:00Z")),
                client_ids: vec!["client-1".to_owned()],
                ..none()
            },
            Box::new(|charge| !charge.failed && charge.client_id == "client-1"),
        ),
    ]
}

#[tokio::test]
async fn a_filter_finds_what_fits_and_nothing_else() {
    let world = World::new().await;
    world.priced().await;
    let buyer = world.buyer();
    let apps = owing(&world, buyer).await;
    let all = world.charges(buyer).await;
    assert_eq!(all.len(), 36);
    for (filter, fits) in filters(apps) {
        let expected: Vec<_> = all.iter().filter(|charge| fits(charge)).cloned().collect();
        assert!(!expected.is_empty(), "{filter:?}");
        assert_eq!(listed(&world, buyer, &filter).await, expected, "{filter:?}");
    }
}

#[tokio::test]
async fn d7_what_is_still_uncharged_is_the_part_of_the_queue_beyond_what_is_paid() {
    let world = World::new().await;
    world.priced().await;
    let buyer = world.buyer();
    owing(&world, buyer).await;
    let charges = world.charges(buyer).await;
    let owed = world.balance(buyer).await.uncharged_micros;
    assert_eq!(charges.iter().map(|charge| charge.open_micros).sum::<i64>(), owed);
    // The queue is paid from its front: what was posted as uncharged is open only at its end.
    let first_open = charges.iter().position(|charge| charge.open_micros > 0).unwrap();
    let paid_since = charges[..first_open].iter().filter(|charge| charge.uncharged_micros > 0).count();
    assert!(paid_since > 0 && charges[first_open].open_micros < charges[first_open].uncharged_micros);
    assert!(charges[first_open + 1..].iter().all(|charge| charge.open_micros == charge.uncharged_micros));
    // A lot that starts later pays when it starts, for every reader, with no job (D40).
    world.grant(buyer, owed, Some("2026-03-10T12:05:00Z"), "2026-07-01T00:00:00Z").await.unwrap();
    assert_eq!(world.charges(buyer).await, charges);
    world.clock.set(at("2026-03-10T12:05:00Z"));
    let paid = world.charges(buyer).await;
    assert!(paid.iter().all(|charge| charge.open_micros == 0));
    let totals =
        summary(&world, summarize(buyer, ChargeFilter::default(), &[])).await.unwrap().totals.unwrap();
    assert_eq!((totals.open_micros, totals.charged_micros), (0, totals.amount_micros));
}

#[tokio::test]
async fn all_pages_show_the_state_of_the_first() {
    let world = World::new().await;
    world.priced().await;
    let (buyer, producer) = (world.buyer(), world.producer().await);
    owing(&world, buyer).await;
    let filter = ChargeFilter { meters: vec!["call".to_owned()], ..ChargeFilter::default() };
    let expected = listed(&world, buyer, &filter).await;
    let (mut found, mut token) = (Vec::new(), String::new());
    let mut reach = None;
    loop {
        let answer = page(&world, list(buyer, filter.clone(), 5, &token)).await.unwrap();
        assert!(reach.is_none_or(|reach| Some(reach) == answer.completeness));
        reach = answer.completeness;
        found.extend(answer.charges);
        token = answer.next_page_token;
        if token.is_empty() {
            break;
        }
        // More usage, and a lot that pays all debts.
        world.clock.advance(DAY / 24);
        world.settle(producer, vec![calls(buyer, 1)]).await;
        world.purchase(buyer, 100, None).await.unwrap();
    }
    assert_eq!(found, expected);
    assert!(listed(&world, buyer, &filter).await.iter().all(|charge| charge.open_micros == 0));
}

#[tokio::test]
async fn a_token_of_another_question_is_refused() {
    let world = World::new().await;
    world.priced().await;
    let (buyer, other) = (world.buyer(), world.buyer());
    let apps = owing(&world, buyer).await;
    owing(&world, other).await;
    let token = page(&world, list(buyer, ChargeFilter::default(), 3, "")).await.unwrap().next_page_token;
    assert!(page(&world, list(buyer, ChargeFilter::default(), 7, &token)).await.is_ok());
    assert_eq!(
        reason(page(&world, list(other, ChargeFilter::default(), 3, &token)).await),
        "PAGE_TOKEN_INVALID"
    );
    for (filter, _) in filters(apps).into_iter().skip(1) {
        assert_eq!(reason(page(&world, list(buyer, filter, 3, &token)).await), "PAGE_TOKEN_INVALID");
    }
    let stranger = Buyer { account: other.account, ..buyer };
    let asked = list(stranger, ChargeFilter::default(), 3, &token);
    assert_eq!(reason(page(&world, asked).await), "TEAM_UNKNOWN");
}

pub(crate) const KEYS: [UsageKey; 7] = [
    UsageKey::Team,
    UsageKey::App,
    UsageKey::ClientId,
    UsageKey::Meter,
    UsageKey::Day,
    UsageKey::Outcome,
    UsageKey::Hour,
];

pub(crate) type Key =
    (String, String, String, String, Option<Timestamp>, Option<Timestamp>, Option<bool>, Option<String>);

pub(crate) fn add(sums: &mut UsageSums, charge: &Charge) {
    sums.charges += 1;
    sums.events += charge.events;
    sums.quantity += charge.quantity;
    sums.amount_micros += charge.amount_micros;
    sums.open_micros += charge.open_micros;
    sums.charged_micros += charge.amount_micros - charge.open_micros;
}

/// The groups as a reader of the whole list would make them.
pub(crate) fn grouped(charges: &[Charge], keys: &[UsageKey], region: bool) -> BTreeMap<Key, UsageSums> {
    let mut groups: BTreeMap<Key, UsageSums> = BTreeMap::new();
    for charge in charges {
        let by =
            |key: UsageKey, value: &str| if keys.contains(&key) { value.to_owned() } else { String::new() };
        let day: i64 = DAY.as_micros().try_into().unwrap();
        let start =
            |size: i64| Timestamp::from_micros(window(charge).as_micros().div_euclid(size) * size).unwrap();
        let key = (
            by(UsageKey::Team, &charge.team_id),
            by(UsageKey::App, &charge.app_id),
            by(UsageKey::ClientId, &charge.client_id),
            by(UsageKey::Meter, &charge.meter),
            keys.contains(&UsageKey::Day).then(|| start(day)),
            keys.contains(&UsageKey::Hour).then(|| start(day / 24)),
            keys.contains(&UsageKey::Outcome).then_some(charge.failed),
            region.then(|| charge.dimensions.get("region").cloned().unwrap_or_default()),
        );
        add(groups.entry(key).or_default(), charge);
    }
    groups
}

pub(crate) fn answered(answer: &SummarizeUsageResponse) -> BTreeMap<Key, UsageSums> {
    let groups = answer.groups.iter().map(|group| {
        let outcome = match group.outcome() {
            ChargeOutcome::Unspecified => None,
            ChargeOutcome::Failed => Some(true),
            ChargeOutcome::Succeeded => Some(false),
        };
        let instant = |at: &prost_types::Timestamp| drawdown_proto::scalar::timestamp_from_proto(at).unwrap();
        let (day, hour) = (group.day.as_ref().map(instant), group.hour.as_ref().map(instant));
        let region = group.dimensions.first().map(|dimension| dimension.value.clone());
        let ids = (group.team_id.clone(), group.app_id.clone());
        let key = (ids.0, ids.1, group.client_id.clone(), group.meter.clone(), day, hour, outcome, region);
        (key, group.sums.unwrap())
    });
    let found: BTreeMap<_, _> = groups.collect();
    assert_eq!(found.len(), answer.groups.len(), "each group once");
    found
}

#[tokio::test]
async fn d31_sums_by_any_keys_are_those_of_the_charges() {
    let world = World::new().await;
    world.priced().await;
    let buyer = world.buyer();
    let apps = owing(&world, buyer).await;
    let keys = KEYS;
    for (filter, _) in filters(apps) {
        let charges = listed(&world, buyer, &filter).await;
        let mut totals = UsageSums::default();
        charges.iter().for_each(|charge| add(&mut totals, charge));
        for subset in 0..128_u32 {
            let asked: Vec<_> = (0..6).filter(|bit| subset & (1 << bit) != 0).map(|bit| keys[bit]).collect();
            let region = subset >= 64;
            let mut request = summarize(buyer, filter.clone(), &asked);
            request.group_by_dimensions = if region { vec!["region".to_owned()] } else { Vec::new() };
            let answer = summary(&world, request).await.unwrap();
            assert_eq!(answer.totals, Some(totals));
            if subset > 0 {
                assert_eq!(answered(&answer), grouped(&charges, &asked, region), "{filter:?} {asked:?}");
            }
        }
    }
}

#[tokio::test]
async fn d31_an_account_is_the_sum_of_its_teams() {
    let world = World::new().await;
    world.priced().await;
    let one = world.buyer();
    let two = Buyer { account: one.account, ..world.buyer() };
    world.know(two, None, None);
    let stranger = world.buyer();
    for buyer in [one, two, stranger] {
        owing(&world, buyer).await;
    }
    let account = SummarizeUsageRequest {
        team_id: String::new(),
        ..summarize(one, ChargeFilter::default(), &[UsageKey::Team])
    };
    let answer = summary(&world, account).await.unwrap();
    let teams: Vec<_> = answer.groups.iter().map(|group| group.team_id.clone()).collect();
    assert_eq!(teams, [one.team.to_string(), two.team.to_string()]);
    let mut totals = UsageSums::default();
    for (buyer, group) in [one, two].into_iter().zip(&answer.groups) {
        let alone = summary(&world, summarize(buyer, ChargeFilter::default(), &[])).await.unwrap();
        assert_eq!(group.sums, alone.totals);
        assert_eq!(alone.totals.unwrap().open_micros, world.balance(buyer).await.uncharged_micros);
        world.charges(buyer).await.iter().for_each(|charge| add(&mut totals, charge));
    }
    assert_eq!(answer.totals, Some(totals));
}

#[tokio::test]
async fn the_answer_says_how_far_it_reaches() {
    let world = World::new().await;
    world.priced().await;
    let (buyer, idle) = (world.buyer(), world.buyer());
    owing(&world, buyer).await;
    let reach =
        summary(&world, summarize(buyer, ChargeFilter::default(), &[])).await.unwrap().completeness.unwrap();
    assert_eq!(reach.complete_up_to, proto(at(NOW)));
    assert_eq!(reach.newest_window_end, proto(at("2026-03-10T11:01:00Z")));
    // A day of lateness and five minutes of settlement before, down to an edge.
    assert_eq!(reach.final_up_to, proto(at("2026-03-09T11:55:00Z")));
    let reach =
        summary(&world, summarize(idle, ChargeFilter::default(), &[])).await.unwrap().completeness.unwrap();
    assert_eq!((reach.complete_up_to, reach.newest_window_end), (proto(at(NOW)), None));
}

#[tokio::test]
async fn a_stream_shows_the_state_of_its_beginning_whatever_is_posted_meanwhile() {
    let world = World::with(|options| {
        options.reports.stream_rows = drawdown_service::config::Count::of(4);
        options.reports.stream_messages_max = drawdown_service::config::Count::of(1);
    })
    .await;
    world.priced().await;
    let (buyer, producer) = (world.buyer(), world.producer().await);
    owing(&world, buyer).await;
    for filter in [
        ChargeFilter::default(),
        ChargeFilter { meters: vec!["byte".to_owned()], ..ChargeFilter::default() },
        ChargeFilter { meters: vec!["none".to_owned()], ..ChargeFilter::default() },
    ] {
        let expected = listed(&world, buyer, &filter).await;
        let request = StreamChargesRequest {
            account_id: buyer.account.to_string(),
            team_id: buyer.team.to_string(),
            filter: Some(filter),
        };
        let mut stream = world.reports.stream_charges(Request::new(request)).await.unwrap().into_inner();
        world.settle(producer, vec![calls(buyer, 3)]).await;
        world.purchase(buyer, 100, None).await.unwrap();
        let (mut found, mut parts) = (Vec::new(), 0);
        while let Some(part) = stream.next().await {
            let part = part.unwrap();
            assert!(part.charges.len() <= 4 && part.completeness.is_some());
            found.extend(part.charges);
            parts += 1;
        }
        assert_eq!(found, expected);
        assert!(parts >= found.len().div_ceil(4).max(1));
    }
}

#[tokio::test]
async fn every_wrong_field_of_a_question_is_named_at_once() {
    let world = World::new().await;
    let buyer = world.buyer();
    let filter = ChargeFilter {
        app_ids: vec![buyer.app.to_string(), buyer.team.to_string()],
        client_ids: vec!["with space".to_owned()],
        meters: vec!["Call".to_owned(); 101],
        dimensions: HashMap::from([("Region".to_owned(), "eu".to_owned())]),
        from: proto(at("2026-03-10T00:00:00Z")),
        to: proto(at("2026-03-10T00:00:00Z")),
        outcome: 9,
        recorded_until: Some(prost_types::Timestamp { seconds: i64::MAX, nanos: 0 }),
    };
    let asked = SummarizeUsageRequest {
        account_id: buyer.team.to_string(),
        team_id: "team_x".to_owned(),
        filter: Some(ChargeFilter { meters: Vec::new(), ..filter.clone() }),
        group_by: vec![UsageKey::Day.into(), 77, 0, UsageKey::Day.into()],
        group_by_dimensions: vec!["region".to_owned(), "region".to_owned(), String::new()],
    };
    let (code, why, fields) = refusal(&summary(&world, asked).await.unwrap_err());
    assert_eq!((code, why.as_str()), (Code::InvalidArgument, "REQUEST_INVALID"));
    assert_eq!(
        fields,
        [
            "account_id",
            "team_id",
            "filter.to",
            "filter.outcome",
            "filter.app_ids[1]",
            "filter.client_ids[0]",
            "filter.dimensions[Region]",
            "filter.recorded_until",
            "group_by[1]",
            "group_by[2]",
            "group_by[3]",
            "group_by_dimensions[1]",
            "group_by_dimensions[2]",
        ]
    );
    let (_, _, fields) = refusal(&page(&world, list(buyer, filter, 0, "")).await.unwrap_err());
    assert!(fields.contains(&"filter.meters".to_owned()) && fields.len() == 100, "{fields:?}");
    let upside_down = ChargeFilter {
        from: proto(at("2026-03-11T00:00:00Z")),
        to: proto(at("2026-03-10T12:00:00Z")),
        ..ChargeFilter::default()
    };
    let (_, _, fields) = refusal(&page(&world, list(buyer, upside_down, 0, "")).await.unwrap_err());
    assert_eq!(fields, ["filter.to"]);
}

#[tokio::test]
async fn too_many_groups_or_teams_and_foreign_teams_are_refused() {
    let world = World::with(|options| {
        options.reports.groups_max = drawdown_service::config::Count::of(2);
        options.reports.teams_max = drawdown_service::config::Count::of(1);
    })
    .await;
    world.priced().await;
    let buyer = world.buyer();
    let other = Buyer { account: buyer.account, ..world.buyer() };
    world.know(other, None, None);
    owing(&world, buyer).await;
    let ask = |keys: &[UsageKey]| summary(&world, summarize(buyer, ChargeFilter::default(), keys));
    assert_eq!(ask(&[UsageKey::Day]).await.unwrap().groups.len(), 2);
    let status = ask(&[UsageKey::ClientId]).await.unwrap_err();
    assert_eq!((status.code(), refusal(&status).1.as_str()), (Code::ResourceExhausted, "GROUPS_TOO_MANY"));
    world.purchase(other, 100, None).await.unwrap();
    let account =
        SummarizeUsageRequest { team_id: String::new(), ..summarize(buyer, ChargeFilter::default(), &[]) };
    assert_eq!(reason(summary(&world, account).await), "TEAMS_TOO_MANY");
    let foreign = Buyer { account: AccountId::generate(), ..buyer };
    let asked = summarize(foreign, ChargeFilter::default(), &[]);
    assert_eq!(reason(summary(&world, asked).await), "TEAM_UNKNOWN");
    let unknown = Buyer { team: drawdown_types::TeamId::generate(), ..buyer };
    let asked = summarize(unknown, ChargeFilter::default(), &[]);
    assert_eq!(reason(summary(&world, asked).await), "TEAM_UNKNOWN");
}
