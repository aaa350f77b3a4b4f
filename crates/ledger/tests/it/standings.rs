//! What gates are told of teams: a list and the changes after it are what the ledger answers, at any instant.

use std::{collections::BTreeMap, pin::Pin, sync::Arc, time::Duration};

use drawdown_ledger::{
    Options,
    config::{FeedConfig, FeedSweepConfig},
    grpc::Standings,
    jobs::feed::FeedSweep,
};
use drawdown_proto::{
    ledger::v1::{
        AccountStanding, BalanceStep, ListStandingsRequest, ListStandingsResponse, MeterPricing,
        MeterStandings, Price, SetBudgetRequest, StandingRules, TeamStanding, WatchStandingsRequest,
        WatchStandingsResponse, budget_service_server::BudgetService,
        standing_service_server::StandingService,
    },
    scalar::timestamp_to_proto,
};
use drawdown_service::config::Count;
use drawdown_types::{AccountId, TeamId, Timestamp};
use futures::{Stream, StreamExt as _};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status};

use crate::world::{Buyer, DAY, World, at, calls, calls_at, price, proto, reason, refusal};

type Messages = Pin<Box<dyn Stream<Item = Result<WatchStandingsResponse, Status>> + Send>>;

/// A gate's memory: the last state of everything, and nothing computed from it but by the clock.
#[derive(Default)]
pub(crate) struct Gate {
    teams: BTreeMap<String, TeamStanding>,
    accounts: BTreeMap<String, AccountStanding>,
    meters: MeterStandings,
    rules: StandingRules,
    cursor: String,
    changes: Option<Messages>,
}

fn micros(at: Option<&prost_types::Timestamp>) -> i64 {
    let at = at.unwrap();
    at.seconds * 1_000_000 + i64::from(at.nanos) / 1_000
}

/// Looks all the time, and says so whenever it saw nothing.
fn eager() -> FeedConfig {
    FeedConfig {
        poll_interval: Duration::from_millis(1),
        heartbeat: Duration::ZERO,
        ..Options::default().validate().unwrap().standings.feed
    }
}

fn service(world: &World, config: FeedConfig) -> Standings {
    Standings::new(Arc::clone(&world.ledger), config, CancellationToken::new())
}

async fn watch(service: &Standings, cursor: &str) -> Result<Messages, Status> {
    let request = WatchStandingsRequest { cursor: cursor.to_owned() };
    Ok(service.watch_standings(Request::new(request)).await?.into_inner())
}

async fn list(service: &Standings, request: ListStandingsRequest) -> Result<ListStandingsResponse, Status> {
    Ok(service.list_standings(Request::new(request)).await?.into_inner())
}

/// The next message of a stream that has something to say.
async fn next(messages: &mut Messages) -> WatchStandingsResponse {
    loop {
        let message = messages.next().await.unwrap().unwrap();
        if !message.teams.is_empty() {
            return message;
        }
    }
}

fn named(teams: &[TeamStanding]) -> Vec<TeamId> {
    teams.iter().map(|team| team.team_id.parse().unwrap()).collect()
}

impl Gate {
    /// Lists everything in small pages.
    pub(crate) async fn open(world: &World) -> Self {
        let service = service(world, eager());
        let mut gate = Self::default();
        let mut page_token = String::new();
        loop {
            let page =
                list(&service, ListStandingsRequest { page_size: 2, page_token, ..Default::default() }).await;
            let page = page.unwrap();
            gate.keep(page.teams, page.accounts, page.meters, page.rules, page.cursor);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return gate;
            }
        }
    }

    fn keep(
        &mut self,
        teams: Vec<TeamStanding>,
        accounts: Vec<AccountStanding>,
        meters: Option<MeterStandings>,
        rules: Option<StandingRules>,
        cursor: String,
    ) {
        self.teams.extend(teams.into_iter().map(|team| (team.team_id.clone(), team)));
        self.accounts.extend(accounts.into_iter().map(|account| (account.account_id.clone(), account)));
        self.meters = meters.unwrap_or_else(|| std::mem::take(&mut self.meters));
        self.rules = rules.unwrap_or(self.rules);
        self.cursor = cursor;
    }

    /// Takes in everything that is committed by now, on one stream from the cursor of the list.
    pub(crate) async fn catch_up(&mut self, world: &World) {
        if self.changes.is_none() {
            self.changes = Some(watch(&service(world, eager()), &self.cursor).await.unwrap());
        }
        loop {
            let message = self.changes.as_mut().unwrap().next().await.unwrap().unwrap();
            let complete = message.as_of.is_some();
            self.keep(message.teams, message.accounts, message.meters, message.rules, message.cursor);
            if complete {
                return;
            }
        }
    }

    /// The balance of a team at an instant, as far as it was ever told.
    pub(crate) fn balance(&self, team: TeamId, at: Timestamp) -> BalanceStep {
        let Some(team) = self.teams.get(&team.to_string()) else { return BalanceStep::default() };
        let until = team.steps_until.as_ref().map(|until| micros(Some(until)));
        assert!(until.is_none_or(|until| at.as_micros() < until), "what is asked for was told");
        let holds = |step: &&BalanceStep| micros(step.from.as_ref()) <= at.as_micros();
        *team.steps.iter().take_while(holds).last().unwrap_or(&team.steps[0])
    }

    /// Whether that balance is one that time alone has brought since it was told.
    pub(crate) fn was_told_ahead(&self, team: TeamId, at: Timestamp) -> bool {
        let steps = self.teams.get(&team.to_string()).map_or(&[][..], |team| &team.steps);
        steps.iter().skip(1).any(|step| micros(step.from.as_ref()) <= at.as_micros())
    }

    pub(crate) fn has_grace(&self, account: AccountId, at: Timestamp) -> bool {
        let Some(account) = self.accounts.get(&account.to_string()) else { return true };
        !account.no_grace.iter().any(|none| {
            micros(none.from.as_ref()) <= at.as_micros()
                && none.to.as_ref().is_none_or(|to| at.as_micros() < micros(Some(to)))
        })
    }

    /// What was told is what is answered, now.
    async fn assert_answers(&self, world: &World, buyer: Buyer) {
        let balance = world.balance(buyer).await;
        let mine = self.balance(buyer.team, at_of(balance.at.as_ref()));
        assert_eq!(
            (mine.available_micros, mine.uncharged_micros, mine.held_micros, mine.negative_since),
            (balance.available_micros, balance.uncharged_micros, balance.held_micros, balance.negative_since)
        );
    }
}

fn at_of(at: Option<&prost_types::Timestamp>) -> Timestamp {
    Timestamp::from_micros(micros(at)).unwrap()
}

#[tokio::test]
async fn a_list_and_the_changes_after_it_are_what_the_ledger_answers() {
    let world = World::new().await;
    world.priced().await;
    let (buyers, producer) = ([(); 5].map(|()| world.buyer()), world.producer().await);
    for buyer in &buyers[..4] {
        world.purchase(*buyer, 100, None).await.unwrap();
    }
    let mut gate = Gate::open(&world).await;
    assert_eq!(gate.teams.len(), 4, "the fifth has nothing yet");
    world.settle(producer, vec![calls(buyers[0], 7), calls(buyers[4], 3)]).await;
    world.purchase(buyers[1], 250, None).await.unwrap();
    world.settle(producer, vec![calls(buyers[0], 300)]).await;
    gate.catch_up(&world).await;
    for buyer in buyers {
        gate.assert_answers(&world, buyer).await;
    }
    assert_eq!(gate.balance(buyers[4].team, at(crate::world::NOW)).uncharged_micros, 1_500_000);
    // Several changes of one team are one state, and nothing comes twice on one stream.
    let request = ListStandingsRequest {
        team_ids: vec![buyers[0].team.to_string(), TeamId::generate().to_string()],
        ..Default::default()
    };
    let asked = list(&service(&world, eager()), request).await.unwrap();
    assert_eq!(asked.teams, [gate.teams[&buyers[0].team.to_string()].clone()], "an unknown one is left out");
    let quiet = gate.changes.as_mut().unwrap().next().await.unwrap().unwrap();
    assert_eq!((quiet.teams.len(), quiet.as_of), (0, proto(at(crate::world::NOW))));
    let settled = quiet.completeness.unwrap();
    assert_eq!(settled.newest_window_end, proto(at("2026-03-10T12:01:00Z")));
}

#[tokio::test]
async fn what_commits_late_is_not_missed_by_who_has_looked_since() {
    let world = World::new().await;
    let (early_team, late_team) = (world.buyer(), world.buyer());
    for buyer in [early_team, late_team] {
        world.purchase(buyer, 100, None).await.unwrap();
    }
    let service = service(&world, eager());
    let mut messages = watch(&service, "").await.unwrap();
    assert!(messages.next().await.unwrap().unwrap().teams.is_empty());
    let insert = "insert into ledger.standing_change (changed_at, teams) values (now(), array[$1])";
    let mut early = world.database.pool().begin().await.unwrap();
    let mut late = world.database.pool().begin().await.unwrap();
    for (tx, buyer) in [(&mut early, early_team), (&mut late, late_team)] {
        sqlx::query(insert).bind(buyer.team.as_uuid()).execute(&mut **tx).await.unwrap();
    }
    late.commit().await.unwrap();
    let first = next(&mut messages).await;
    assert_eq!(named(&first.teams), [late_team.team], "the one that took its number last commits first");
    early.commit().await.unwrap();
    assert_eq!(named(&next(&mut messages).await.teams), [early_team.team]);
    // Who goes on from the cursor of in between hears the first one again, and does not miss the second.
    let mut again = named(&next(&mut watch(&service, &first.cursor).await.unwrap()).await.teams);
    again.sort_unstable();
    let mut both = [early_team.team, late_team.team];
    both.sort_unstable();
    assert_eq!(again, both);
}

#[tokio::test]
async fn d40_what_time_alone_changes_was_told_before() {
    let world = World::new().await;
    world.priced().await;
    let (buyer, producer) = (world.buyer(), world.producer().await);
    world.grant(buyer, 5_000_000, None, "2026-03-11T00:00:00Z").await.unwrap();
    world.grant(buyer, 3_000_000, Some("2026-03-12T06:00:00Z"), "2026-03-13T00:00:00Z").await.unwrap();
    let gate = Gate::open(&world).await;
    for (now, available) in [
        ("2026-03-10T23:59:59.999999Z", 5_000_000),
        ("2026-03-11T00:00:00Z", 0),
        ("2026-03-12T05:59:59.999999Z", 0),
        ("2026-03-12T06:00:00Z", 3_000_000),
        ("2026-03-20T00:00:00Z", 0),
    ] {
        world.clock.set(at(now));
        assert_eq!(gate.balance(buyer.team, at(now)).available_micros, available, "{now}");
        gate.assert_answers(&world, buyer).await;
    }
    // A lot that starts pays the debt and stops the clock, with no job and no message.
    world.clock.set(at("2026-03-20T00:00:30Z"));
    world.settle(producer, vec![calls_at(buyer, 4, "2026-03-20T00:00:00Z")]).await;
    world.grant(buyer, 9_000_000, Some("2026-03-21T00:00:00Z"), "2026-05-01T00:00:00Z").await.unwrap();
    let gate = Gate::open(&world).await;
    let owes = gate.balance(buyer.team, at("2026-03-20T23:59:59Z"));
    assert_eq!((owes.uncharged_micros, owes.negative_since), (2_000_000, proto(at("2026-03-20T00:00:30Z"))));
    assert_eq!(owes.grace_deadline, proto(at("2026-04-03T00:01:00Z")));
    world.clock.set(at("2026-03-21T00:00:00Z"));
    gate.assert_answers(&world, buyer).await;
    let paid = gate.balance(buyer.team, at("2026-03-21T00:00:00Z"));
    assert_eq!((paid.available_micros, paid.negative_since, paid.grace_deadline), (7_000_000, None, None));
}

#[tokio::test]
async fn d48_while_one_team_is_past_its_deadline_no_other_of_the_account_has_grace() {
    let world = World::new().await;
    world.priced().await;
    let (first, producer) = (world.buyer(), world.producer().await);
    let (second, stranger) = (world.sibling(first), world.buyer());
    world.settle(producer, vec![calls(first, 4), calls(stranger, 4)]).await;
    let mut gate = Gate::open(&world).await;
    world.clock.advance(10 * DAY);
    world.settle(producer, vec![calls_at(second, 4, "2026-03-20T12:00:00Z")]).await;
    gate.catch_up(&world).await;
    let deadline = at("2026-03-24T12:01:00Z");
    assert_eq!(gate.balance(first.team, deadline).grace_deadline, proto(deadline));
    assert_eq!(gate.balance(second.team, deadline).grace_deadline, proto(at("2026-04-03T12:01:00Z")));
    let before = at("2026-03-24T12:00:59.999999Z");
    assert_eq!([before, deadline].map(|at| gate.has_grace(first.account, at)), [true, false]);
    assert!(gate.has_grace(stranger.account, before));
    // The second one's message is enough to know it: the first one's debt is read with it.
    let asked = ListStandingsRequest { team_ids: vec![second.team.to_string()], ..Default::default() };
    let asked = list(&service(&world, eager()), asked).await.unwrap();
    assert_eq!((asked.teams.len(), asked.accounts[0].no_grace[0].from), (1, proto(deadline)));
    // Whoever pays the first one's debt gives grace back to the second one.
    world.grant(first, 9_000_000, None, "2026-06-01T00:00:00Z").await.unwrap();
    gate.catch_up(&world).await;
    assert!(gate.has_grace(first.account, deadline));
    assert!(
        !gate.has_grace(first.account, at("2026-04-03T12:01:00Z")),
        "by then the second one has none itself"
    );
}

#[tokio::test]
async fn budgets_quotas_meters_and_rules_are_told_and_told_again_when_they_change() {
    let world = World::with(|options| options.standings.debt_limit_tokens = 5).await;
    world.priced().await;
    world.meter("photo", drawdown_proto::ledger::v1::Aggregation::Sum).await.unwrap();
    let quota = Price { free_quota: 100, ..price("photo", 1_000_000, 50) };
    let free = Price { free_quota: 10, free_only: true, ..price("call", 0, 1) };
    world.publish("photos", "2026-01-01T00:00:00Z", vec![quota], true).await.unwrap();
    let (buyer, producer) = (world.buyer(), world.producer().await);
    world.purchase(buyer, 100, None).await.unwrap();
    let mut gate = Gate::open(&world).await;
    assert_eq!(gate.rules.debt_limit_micros, Some(5_000_000));
    let pricing = |gate: &Gate, meter: &str| {
        let meter = gate.meters.meters.iter().find(|known| known.meter == meter).unwrap();
        meter.terms.iter().map(|term| (term.pricing(), term.free_quota)).collect::<Vec<_>>()
    };
    assert_eq!(pricing(&gate, "photo"), [(MeterPricing::Charged, 100)]);
    assert_eq!(pricing(&gate, "call"), [(MeterPricing::Charged, 0)]);
    world.budget(buyer, Some(buyer.app), 2_000_000, &[50]).await.unwrap();
    world.budget(buyer, None, 9_000_000, &[]).await.unwrap();
    let request = SetBudgetRequest {
        account_id: buyer.account.to_string(),
        cap_micros: Some(50_000_000),
        request_id: crate::world::request_id(),
        ..SetBudgetRequest::default()
    };
    world.budgets.set_budget(Request::new(request)).await.unwrap();
    let photos =
        drawdown_proto::ledger::v1::line::State::Sum(drawdown_proto::ledger::v1::SumState { quantity: 30 });
    let photos = crate::world::usage_at(buyer, "photo", photos, "2026-03-10T11:59:00Z");
    world.settle(producer, vec![calls(buyer, 3), photos]).await;
    world.publish("web", "2026-04-01T00:00:00Z", vec![free], false).await.unwrap();
    gate.catch_up(&world).await;
    let team = &gate.teams[&buyer.team.to_string()];
    let mut budgets: Vec<_> =
        team.budgets.iter().map(|b| (b.app_id.as_str(), b.cap_micros, b.used_micros, b.hard)).collect();
    budgets.sort_unstable();
    let app = buyer.app.to_string();
    assert_eq!(budgets, [("", Some(9_000_000), 1_500_000, true), (&app, Some(2_000_000), 1_500_000, true)]);
    assert!(team.budgets.iter().all(|budget| budget.month == "2026-03"));
    let of_account: Vec<_> = gate.accounts[&buyer.account.to_string()].budgets.iter().collect();
    let [of_account] = of_account[..] else { panic!("{of_account:?}") };
    assert_eq!(
        (of_account.cap_micros, of_account.used_micros, of_account.hard),
        (Some(50_000_000), 1_500_000, false)
    );
    let used: Vec<_> =
        team.quotas.iter().map(|q| (q.meter.as_str(), q.month.as_str(), q.used_quantity)).collect();
    assert_eq!(used, [("photo", "2026-03", 30)]);
    let card = &gate.meters.meters.iter().find(|known| known.meter == "photo").unwrap().terms[0];
    assert_eq!(team.quotas[0].price_id, card.price_id);
    // What comes later is told with its instant.
    assert_eq!(pricing(&gate, "call"), [(MeterPricing::Charged, 0), (MeterPricing::FreeTierOnly, 10)]);
    let later = &gate.meters.meters.iter().find(|known| known.meter == "call").unwrap().terms[1];
    assert_eq!(later.from, proto(at("2026-04-01T00:00:00Z")));
    // The card of calls ends the price of bytes.
    let byte = gate.meters.meters.iter().find(|known| known.meter == "byte").unwrap();
    assert_eq!(byte.terms[1].pricing(), MeterPricing::Unpriced);
    // In the next month nothing is used yet, and nobody had to say so.
    world.clock.set(at("2026-04-01T00:00:00Z"));
    let next = Gate::open(&world).await;
    assert_eq!(next.teams[&buyer.team.to_string()].quotas, []);
    assert!(next.teams[&buyer.team.to_string()].budgets.iter().all(|budget| budget.used_micros == 0));
}

#[tokio::test]
async fn a_future_of_many_steps_is_told_as_far_as_a_message_holds() {
    let world = World::with(|options| options.standings.steps_max = Count::of(2)).await;
    let buyer = world.buyer();
    for day in 11..14 {
        world.grant(buyer, 1_000_000, None, &format!("2026-03-{day}T00:00:00Z")).await.unwrap();
    }
    let gate = Gate::open(&world).await;
    let team = &gate.teams[&buyer.team.to_string()];
    assert_eq!(
        team.steps.iter().map(|step| step.available_micros).collect::<Vec<_>>(),
        [3_000_000, 2_000_000]
    );
    assert_eq!(team.steps_until, proto(at("2026-03-12T00:00:00Z")));
}

#[tokio::test]
async fn who_is_too_far_behind_begins_anew_and_never_misses_anything_in_silence() {
    let world = World::new().await;
    let buyers = [(); 3].map(|()| world.buyer());
    let unhurried = service(&world, eager());
    let config = FeedConfig { behind_teams_max: 2, ..eager() };
    let slow = service(&world, config);
    let mut idle = watch(&unhurried, "").await.unwrap();
    let cursor = idle.next().await.unwrap().unwrap().cursor;
    for buyer in &buyers[..2] {
        world.purchase(*buyer, 100, None).await.unwrap();
    }
    assert_eq!(next(&mut watch(&slow, &cursor).await.unwrap()).await.teams.len(), 2);
    world.purchase(buyers[2], 100, None).await.unwrap();
    let mut behind = watch(&slow, &cursor).await.unwrap();
    assert_eq!(refusal(&behind.next().await.unwrap().unwrap_err()).1, "CURSOR_EXPIRED");
    // What is old is forgotten: a cursor of before leads nowhere, nor does a stream whose reader slept so long.
    let sweep = FeedSweepConfig { keep: DAY, interval: DAY, rows_max: 1 };
    let sweep = FeedSweep::new(Arc::clone(&world.ledger), sweep);
    assert_eq!(sweep.look().await.unwrap(), 0);
    world.clock.advance(2 * DAY);
    // A change that a transaction of the server may not see yet is kept, and others have some under way.
    let swept = async {
        let mut gone = 0;
        while gone < 3 {
            gone += sweep.look().await.unwrap();
        }
        gone
    };
    assert_eq!(tokio::time::timeout(Duration::from_secs(60), swept).await.unwrap(), 3);
    let expired = (tonic::Code::FailedPrecondition, "CURSOR_EXPIRED".to_owned(), vec!["cursor".to_owned()]);
    assert_eq!(refusal(&watch(&unhurried, &cursor).await.err().unwrap()), expired);
    assert_eq!(refusal(&idle.next().await.unwrap().unwrap_err()), expired);
    let gate = Gate::open(&world).await;
    assert_eq!(gate.teams.len(), 3);
    assert!(watch(&unhurried, &gate.cursor).await.is_ok());
}

#[tokio::test]
async fn cursors_and_names_that_do_not_belong_here_are_refused() {
    let (world, other) = (World::new().await, World::new().await);
    let (mine, theirs) = (service(&world, eager()), service(&other, eager()));
    let theirs = list(&theirs, ListStandingsRequest::default()).await.unwrap();
    assert_eq!(reason(watch(&mine, &theirs.cursor).await.map(drop)), "CURSOR_FOREIGN");
    assert_eq!(reason(watch(&mine, "0102").await.map(drop)), "PAGE_TOKEN_INVALID");
    let page_token = theirs.cursor;
    let misused = list(&mine, ListStandingsRequest { page_token, ..Default::default() }).await;
    assert_eq!(reason(misused), "PAGE_TOKEN_INVALID");
    let team_ids = vec![world.buyer().team.to_string(), "nobody".to_owned()];
    let wrong = list(&mine, ListStandingsRequest { team_ids, ..Default::default() }).await.unwrap_err();
    assert_eq!(refusal(&wrong).2, ["team_ids[1]"]);
    let one = service(&world, FeedConfig { streams_max: 1, ..eager() });
    let _first = watch(&one, "").await.unwrap();
    assert_eq!(reason(watch(&one, "").await.map(drop)), "STREAMS_EXHAUSTED");
}

/// Reads five changed teams, two a message; gives the cursor of the last message.
async fn told_in_parts(service: &Standings, begin: &str, all: &[TeamId]) -> String {
    let mut messages = watch(service, begin).await.unwrap();
    let (mut told, mut last) = (Vec::new(), String::new());
    for teams in [2, 2, 1] {
        let message = messages.next().await.unwrap().unwrap();
        assert_eq!((message.teams.len(), message.as_of.is_some()), (teams, teams == 1));
        assert!(teams == 1 || message.cursor == begin);
        assert_eq!(message.rules.is_some(), told.is_empty());
        told.extend(named(&message.teams));
        last = message.cursor;
    }
    told.sort_unstable();
    assert_eq!(told, all);
    last
}

#[tokio::test]
async fn many_changes_come_in_several_messages_and_only_the_last_moves_the_cursor() {
    let world = World::new().await;
    let buyers = [(); 5].map(|()| world.buyer());
    let config = FeedConfig { message_teams_max: 2, heartbeat: Duration::from_secs(3600), ..eager() };
    let service = service(&world, config);
    let mut messages = watch(&service, "").await.unwrap();
    let begin = messages.next().await.unwrap().unwrap().cursor;
    for buyer in buyers {
        world.purchase(buyer, 100, None).await.unwrap();
    }
    let mut all = buyers.map(|buyer| buyer.team);
    all.sort_unstable();
    // A cursor stands before every transaction of the server that is under way, and others have some.
    let moved = async { while told_in_parts(&service, &begin, &all).await == begin {} };
    tokio::time::timeout(Duration::from_secs(60), moved).await.unwrap();
    assert_eq!(timestamp_to_proto(at(crate::world::NOW)), world.balance(buyers[0]).await.at.unwrap());
}

#[tokio::test]
async fn a_change_is_told_well_within_a_second_of_its_commit_with_the_settings_as_they_come() {
    let world = World::new().await;
    let buyer = world.buyer();
    let service = service(&world, Options::default().validate().unwrap().standings.feed);
    let mut messages = watch(&service, "").await.unwrap();
    messages.next().await.unwrap().unwrap();
    let mut fastest = Duration::MAX;
    for _ in 0..3 {
        world.purchase(buyer, 100, None).await.unwrap();
        let committed = std::time::Instant::now();
        assert_eq!(named(&next(&mut messages).await.teams), [buyer.team]);
        fastest = fastest.min(committed.elapsed());
    }
    // The best of three: a machine may have other work, the feed may not need it.
    assert!(fastest < Duration::from_secs(1), "{fastest:?}");
}
