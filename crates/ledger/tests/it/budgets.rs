//! Budgets: counted by the window of the usage, whatever the posting, and never in the way of a charge.

use std::collections::BTreeSet;

use drawdown_proto::ledger::v1::{
    Budget, BudgetReachedFact, BudgetState, GetBudgetRequest, ListBudgetsRequest, NoticeFilter, NoticeKind,
    SetBudgetRequest, budget_service_server::BudgetService, notice::Fact,
};
use drawdown_types::{AccountId, AppId, BudgetId, ProducerId};
use tonic::{Code, Request, Status};

use crate::world::{Buyer, World, at, batch, calls_at, reason, refusal, request_id};

const MARCH: &str = "2026-03-10T12:00:00Z";

async fn get(world: &World, budget: &Budget, month: &str) -> Result<Budget, Status> {
    let request = GetBudgetRequest { budget_id: budget.budget_id.clone(), month: month.to_owned() };
    Ok(world.budgets.get_budget(Request::new(request)).await?.into_inner().budget.unwrap())
}

async fn used(world: &World, budget: &Budget, month: &str) -> i64 {
    get(world, budget, month).await.unwrap().used_micros
}

/// Levels that were told, with the usage at that moment, and whether the month was over.
async fn told(world: &World) -> Vec<(u32, i64, bool)> {
    let kinds = vec![NoticeKind::BudgetReached.into()];
    let notices = world.told(Some(NoticeFilter { kinds, ..NoticeFilter::default() })).await;
    let level = |fact: Option<Fact>| match fact {
        Some(Fact::BudgetReached(BudgetReachedFact { percent, used_micros, late, .. })) => {
            (percent, used_micros, late)
        }
        other => panic!("{other:?}"),
    };
    notices.into_iter().map(|notice| level(notice.fact)).collect()
}

/// Half a token each, settled as the next batch.
async fn spend(world: &World, producer: ProducerId, buyer: Buyer, events: u64, window: &str) {
    world.settle(producer, vec![calls_at(buyer, events, window)]).await;
}

#[tokio::test]
async fn d59_a_budget_counts_by_window_and_late_usage_overruns_a_month_that_is_over() {
    let world = World::new().await;
    world.priced().await;
    let (buyer, producer) = (world.buyer(), world.producer().await);
    world.clock.set(at("2026-03-31T23:59:30Z"));
    let budget = world.budget(buyer, None, 10_000_000, &[50, 80]).await.unwrap();
    assert_eq!(
        (budget.month.as_str(), budget.used_micros, budget.state()),
        ("2026-03", 0, BudgetState::Under)
    );
    assert_eq!((budget.remaining_micros, budget.over, budget.hard), (Some(10_000_000), false, true));
    spend(&world, producer, buyer, 9, "2026-03-31T23:59:00Z").await;
    world.clock.set(at("2026-04-01T00:00:30Z"));
    let line = |events, window| calls_at(buyer, events, window);
    world.settle(producer, vec![line(3, "2026-03-31T23:58:00Z"), line(1, "2026-04-01T00:00:00Z")]).await;
    spend(&world, producer, buyer, 30, "2026-03-31T23:59:00Z").await;
    assert_eq!(told(&world).await, [(50, 6_000_000, true), (80, 21_000_000, true), (100, 21_000_000, true)]);
    let march = get(&world, &budget, "2026-03").await.unwrap();
    assert_eq!((march.used_micros, march.remaining_micros), (21_000_000, Some(-11_000_000)));
    assert_eq!((march.state(), march.reached_percent, march.over), (BudgetState::CapReached, 100, true));
    let april = get(&world, &budget, "").await.unwrap();
    assert_eq!(
        (april.month.as_str(), april.used_micros, april.state()),
        ("2026-04", 500_000, BudgetState::Under)
    );
    // It never stopped a charge.
    assert_eq!(world.charges(buyer).await.iter().map(|charge| charge.amount_micros).sum::<i64>(), 21_500_000);
    world.assert_clean().await;
}

#[tokio::test]
async fn a_budget_set_in_the_middle_of_a_month_knows_what_was_used_before() {
    let world = World::new().await;
    world.priced().await;
    let (buyer, producer) = (world.buyer(), world.producer().await);
    let second = Buyer { app: AppId::generate(), ..buyer };
    spend(&world, producer, buyer, 12, MARCH).await;
    spend(&world, producer, second, 2, MARCH).await;
    let of_team = world.budget(buyer, None, 10_000_000, &[50, 80]).await.unwrap();
    let of_app = world.budget(buyer, Some(second.app), 2_000_000, &[]).await.unwrap();
    assert_eq!((of_team.used_micros, of_team.reached_percent), (7_000_000, 50));
    assert_eq!((of_app.used_micros, of_app.state()), (1_000_000, BudgetState::Under));
    assert_eq!(told(&world).await, [(50, 7_000_000, false)]);
    spend(&world, producer, second, 2, MARCH).await;
    assert_eq!((used(&world, &of_team, "").await, used(&world, &of_app, "").await), (8_000_000, 2_000_000));
    assert_eq!(told(&world).await[1..], [(80, 8_000_000, false), (100, 2_000_000, false)]);
    // Months from before are not counted, and nobody is told that they were not used.
    assert_eq!(reason(get(&world, &of_team, "2026-02").await), "BUDGET_UNKNOWN");
    world.assert_clean().await;
}

#[tokio::test]
async fn terms_change_from_the_present_month_on_and_tell_what_they_put_below_the_usage() {
    let world = World::new().await;
    world.priced().await;
    let (buyer, producer) = (world.buyer(), world.producer().await);
    let first = world.budget(buyer, None, 10_000_000, &[50]).await.unwrap();
    spend(&world, producer, buyer, 12, MARCH).await;
    world.clock.set(at("2026-04-02T00:00:00Z"));
    spend(&world, producer, buyer, 4, "2026-04-01T23:59:00Z").await;
    let second = world.budget(buyer, None, 2_000_000, &[]).await.unwrap();
    assert_eq!(second.budget_id, first.budget_id);
    assert_eq!(
        (second.cap_micros, second.used_micros, second.state()),
        (Some(2_000_000), 2_000_000, BudgetState::CapReached)
    );
    assert_eq!(told(&world).await, [(50, 6_000_000, false), (100, 2_000_000, false)]);
    let march = get(&world, &first, "2026-03").await.unwrap();
    assert_eq!((march.cap_micros, march.reached_percent), (Some(10_000_000), 50));
    // Lifted: it goes on counting and tells nothing.
    let lift = SetBudgetRequest {
        account_id: buyer.account.to_string(),
        team_id: buyer.team.to_string(),
        request_id: request_id(),
        ..SetBudgetRequest::default()
    };
    let lifted = world.budgets.set_budget(Request::new(lift)).await.unwrap().into_inner().budget.unwrap();
    assert_eq!((lifted.cap_micros, lifted.remaining_micros, lifted.hard), (None, None, false));
    spend(&world, producer, buyer, 100, "2026-04-01T23:59:00Z").await;
    assert_eq!(used(&world, &first, "2026-04").await, 52_000_000);
    assert_eq!(told(&world).await.len(), 2);
    let audited: i64 =
        sqlx::query_scalar("select count(*) from ledger.audit_log where action = 'budget.set'")
            .fetch_one(world.database.pool())
            .await
            .unwrap();
    assert_eq!(audited, 3);
    world.assert_clean().await;
}

#[tokio::test]
async fn no_split_of_batches_changes_a_budget() {
    let worlds = [World::new().await, World::new().await];
    let mut sums = Vec::new();
    for (world, cut) in worlds.iter().zip([2, 24]) {
        world.priced().await;
        let (buyer, producer) = (world.buyer(), world.producer().await);
        world.clock.set(at("2026-03-01T01:00:00Z"));
        let budget = world.budget(buyer, None, 30_000_000, &[10, 50]).await.unwrap();
        world.clock.set(at("2026-04-01T00:10:00Z"));
        let lines: Vec<_> = (0..24_u64)
            .map(|line| {
                let window = if line % 2 == 0 { "2026-03-31T23:59:00Z" } else { "2026-04-01T00:00:00Z" };
                let app = Buyer { app: AppId::generate(), ..buyer };
                calls_at(app, 1 + line, window)
            })
            .collect();
        for lines in lines.chunks(cut) {
            world.settle(producer, lines.to_vec()).await;
        }
        let mut levels: Vec<_> = told(world).await.into_iter().map(|(percent, ..)| percent).collect();
        levels.sort_unstable();
        sums.push((used(world, &budget, "2026-03").await, used(world, &budget, "2026-04").await, levels));
        world.assert_clean().await;
    }
    assert_eq!(sums[0], sums[1]);
    assert_eq!(sums[0], (72_000_000, 78_000_000, vec![10, 10, 50, 50, 100, 100]));
}

#[tokio::test]
async fn budgets_and_posts_at_once_count_every_charge_once() {
    let world = std::sync::Arc::new(World::new().await);
    world.priced().await;
    let buyer = world.buyer();
    let mut tasks = tokio::task::JoinSet::new();
    for shard in 0..4_u32 {
        let world = std::sync::Arc::clone(&world);
        tasks.spawn(async move {
            let producer = world.producer().await;
            for _ in 0..5 {
                let lines = vec![calls_at(buyer, 2, MARCH)];
                world.post(&batch(&world.shard(shard).await, producer, lines)).await.unwrap();
            }
        });
    }
    let setter = std::sync::Arc::clone(&world);
    tasks.spawn(async move {
        for cap in 1..=5 {
            setter.budget(buyer, None, cap * 5_000_000, &[50]).await.unwrap();
        }
    });
    tasks.join_all().await;
    let budget = world.budget(buyer, None, 100_000_000, &[]).await.unwrap();
    assert_eq!(budget.used_micros, 20_000_000);
    world.assert_clean().await;
}

#[tokio::test]
async fn a_request_that_can_not_be_names_every_wrong_field() {
    let world = World::new().await;
    let (buyer, other) = (world.buyer(), world.buyer());
    let set = |request: SetBudgetRequest| world.budgets.set_budget(Request::new(request));
    let good = SetBudgetRequest {
        account_id: buyer.account.to_string(),
        team_id: buyer.team.to_string(),
        cap_micros: Some(1),
        request_id: request_id(),
        ..SetBudgetRequest::default()
    };
    let wrong = SetBudgetRequest {
        account_id: "acct_".to_owned(),
        app_id: "app".to_owned(),
        cap_micros: Some(0),
        soft_percent: vec![50, 50, 100],
        request_id: String::new(),
        ..good.clone()
    };
    let (code, why, fields) = refusal(&set(wrong).await.unwrap_err());
    assert_eq!((code, why.as_str()), (Code::InvalidArgument, "REQUEST_INVALID"));
    assert_eq!(
        fields,
        ["request_id", "account_id", "app_id", "cap_micros", "soft_percent[1]", "soft_percent[2]"]
    );
    let capless = SetBudgetRequest { cap_micros: None, soft_percent: vec![1], hard: true, ..good.clone() };
    assert_eq!(refusal(&set(capless).await.unwrap_err()).2, ["soft_percent", "hard"]);
    let foreign = SetBudgetRequest { team_id: other.team.to_string(), ..good.clone() };
    assert_eq!(reason(set(foreign).await), "TEAM_NOT_OF_ACCOUNT");
    let first = set(good.clone()).await.unwrap().into_inner();
    assert_eq!(set(good.clone()).await.unwrap().into_inner(), first);
    let changed = SetBudgetRequest { cap_micros: Some(2), ..good };
    assert_eq!(reason(set(changed).await), "REQUEST_ID_CONFLICT");
    let unknown = Budget { budget_id: BudgetId::generate().to_string(), ..Budget::default() };
    assert_eq!(reason(get(&world, &unknown, "").await), "BUDGET_UNKNOWN");
    for month in ["2026-13", "2026-3", "march", "2026-03-01", "0000-01"] {
        assert_eq!(refusal(&get(&world, &unknown, month).await.unwrap_err()).2, ["month"], "{month}");
    }
}

#[tokio::test]
async fn budgets_are_listed_by_account_in_pages() {
    let world = World::new().await;
    let (buyer, other) = (world.buyer(), world.buyer());
    let second = Buyer { team: drawdown_types::TeamId::generate(), ..buyer };
    world.know(second, None, None);
    let mut ids = Vec::new();
    for (team, app) in [(buyer, None), (buyer, Some(buyer.app)), (second, None)] {
        ids.push(world.budget(team, app, 1, &[]).await.unwrap().budget_id);
    }
    world.budget(other, None, 1, &[]).await.unwrap();
    let ask = |request: ListBudgetsRequest| world.budgets.list_budgets(Request::new(request));
    let of = ListBudgetsRequest {
        account_id: buyer.account.to_string(),
        page_size: 2,
        ..ListBudgetsRequest::default()
    };
    let first = ask(of.clone()).await.unwrap().into_inner();
    let token = first.next_page_token.clone();
    let rest =
        ask(ListBudgetsRequest { page_token: token.clone(), ..of.clone() }).await.unwrap().into_inner();
    let listed: Vec<_> =
        first.budgets.iter().chain(&rest.budgets).map(|budget| budget.budget_id.clone()).collect();
    assert_eq!(listed, ids);
    let elsewhere =
        ListBudgetsRequest { account_id: other.account.to_string(), page_token: token, ..of.clone() };
    assert_eq!(reason(ask(elsewhere).await), "PAGE_TOKEN_INVALID");
    let of_team = ListBudgetsRequest { team_id: second.team.to_string(), ..of.clone() };
    assert_eq!(ask(of_team).await.unwrap().into_inner().budgets.len(), 1);
    let foreign = ListBudgetsRequest { team_id: other.team.to_string(), ..of.clone() };
    assert_eq!(reason(ask(foreign).await), "TEAM_NOT_OF_ACCOUNT");
    let before = ListBudgetsRequest { month: "2026-02".to_owned(), ..of };
    assert!(ask(before).await.unwrap().into_inner().budgets.is_empty());
    let nobody =
        ListBudgetsRequest { account_id: AccountId::generate().to_string(), ..ListBudgetsRequest::default() };
    assert!(ask(nobody).await.unwrap().into_inner().budgets.is_empty());
}

async fn of_account(world: &World, buyer: Buyer, cap_micros: i64) -> Result<Budget, Status> {
    let request = SetBudgetRequest {
        account_id: buyer.account.to_string(),
        cap_micros: Some(cap_micros),
        soft_percent: vec![50],
        hard: true,
        request_id: request_id(),
        ..SetBudgetRequest::default()
    };
    Ok(world.budgets.set_budget(Request::new(request)).await?.into_inner().budget.unwrap())
}

#[tokio::test]
async fn d59_the_budget_of_an_account_counts_what_all_its_teams_use_those_of_later_too() {
    let world = World::new().await;
    world.priced().await;
    let (first, producer) = (world.buyer(), world.producer().await);
    let (second, stranger) = (world.sibling(first), world.buyer());
    let later = world.sibling(first);
    spend(&world, producer, first, 4, MARCH).await;
    spend(&world, producer, stranger, 100, MARCH).await;
    // One team has a cap of its own, the other has nothing yet.
    let own = world.budget(second, None, 1_000_000, &[]).await.unwrap();
    spend(&world, producer, second, 6, MARCH).await;
    let budget = of_account(&world, first, 10_000_000).await.unwrap();
    assert_eq!((budget.team_id.as_str(), budget.used_micros, budget.hard), ("", 5_000_000, true));
    assert_eq!((budget.state(), budget.reached_percent), (BudgetState::SoftLevelReached, 50));
    for buyer in [first, second, later] {
        spend(&world, producer, buyer, 2, MARCH).await;
    }
    let read = get(&world, &budget, "2026-03").await.unwrap();
    assert_eq!((read.used_micros, read.remaining_micros), (8_000_000, Some(2_000_000)));
    // Set again it is the same budget, and what its teams were given stays as it was.
    let again = of_account(&world, first, 8_000_000).await.unwrap();
    assert_eq!(
        (&again.budget_id, again.used_micros, again.state()),
        (&budget.budget_id, 8_000_000, BudgetState::CapReached)
    );
    assert_eq!(get(&world, &own, "").await.unwrap().cap_micros, Some(1_000_000));
    let request = ListBudgetsRequest { account_id: first.account.to_string(), ..Default::default() };
    let listed = world.budgets.list_budgets(Request::new(request)).await.unwrap().into_inner().budgets;
    let teams: BTreeSet<_> = listed.iter().map(|budget| budget.team_id.clone()).collect();
    let all = [first, second, later].map(|buyer| buyer.team.to_string());
    assert_eq!(teams, all.into_iter().chain([String::new()]).collect());
    world.clock.set(at("2026-04-01T00:00:30Z"));
    assert_eq!(used(&world, &budget, "").await, 0);
    assert_eq!(get(&world, &budget, "2026-02").await.unwrap_err().code(), Code::NotFound);
    world.assert_clean().await;
}
