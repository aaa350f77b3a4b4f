//! May a client id use a meter now: levels walked through time, everything that refuses, data that grows old.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use drawdown_entitlement::{
    Access, AccessLimits, AccessPolicy, Accounts, FollowConfig, Follower, Hubs, Limits, Memory, Parts,
};
use drawdown_entitlement_core::{Rules, access::WhenStale};
use drawdown_proto::{
    entitlement::v1::{
        AccessAnswer, AccessLevel, AccessQuestion, AccessReason, AssignProductRequest,
        BatchCheckAccessRequest, BudgetScope, CheckAccessRequest, CreateAppRequest, CreateHubRequest,
        EndTrialRequest, LiftSuspensionRequest, MoveAppRequest, RevokeCredentialRequest, SetRoleRequest,
        SuspendRequest, WatchAccessRequest, WatchAccessResponse, access_service_server::AccessService as _,
        account_service_server::AccountService as _, credential_service_server::CredentialService as _,
        hierarchy_service_server::HierarchyService as _, hub_service_server::HubService as _,
        member_service_server::MemberService as _,
    },
    ledger::v1::{MeterPricing, TeamStanding},
    scalar::timestamp_from_proto,
};
use drawdown_service::Telemetry;
use drawdown_types::Timestamp;
use futures::{StreamExt as _, stream::BoxStream};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Request, Status};

use crate::{
    standings::{FakeStandings, budget, step},
    world::{Chain, World, access_policy, at, ok, refused},
};

/// How long a test waits for what takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);
const TOKEN: i64 = 1_000_000;

pub(crate) fn limits() -> AccessLimits {
    AccessLimits {
        questions_max: 3,
        watch_questions_max: 10,
        watchers_max: 2,
        watch_pause: Duration::from_millis(1),
        watch_heartbeat: Duration::from_millis(200),
    }
}

/// A service whose memory is loaded and follows a ledger.
struct Gate {
    world: World,
    ledger: Arc<FakeStandings>,
    access: Access,
    _stop: DropGuard,
}

impl Gate {
    async fn new() -> Self {
        Self::with(World::new().await, access_policy()).await
    }

    async fn with(mut world: World, policy: AccessPolicy) -> Self {
        let meter = Telemetry::detached("entitlement").unwrap().meter();
        let of_rules = (world.parts.rules, world.parts.limits.hub_mode);
        let memory = Memory::new(world.parts.pool.clone(), world.clock.clone(), of_rules, policy, &meter);
        world.use_memory(Arc::clone(&memory));
        memory.load().await.unwrap();
        let ledger = FakeStandings::new(world.clock.clone());
        for (meter, hard, pricing) in [
            ("tile", false, MeterPricing::Charged),
            ("tile.hard", true, MeterPricing::Charged),
            ("tile.free", false, MeterPricing::Free),
        ] {
            ledger.meter(meter, hard, pricing);
        }
        let stop = CancellationToken::new();
        let config = FollowConfig { silence_max: PATIENCE, retry: Duration::from_millis(10) };
        let follower = Follower::new(Arc::clone(&memory), Arc::clone(&ledger) as _, config);
        tokio::spawn(follower.run(stop.clone()));
        let access = Access::new(memory, limits(), stop.clone());
        let gate = Self { world, ledger, access, _stop: stop.drop_guard() };
        gate.until("", "tile", |answer| answer.ledger_age_ms.is_some()).await;
        gate
    }

    /// A commercial account with a team, an app without an owner and its client id.
    async fn app(&self) -> (Chain, String) {
        let chain = self.world.chain().await;
        let client_id = self.world.credential(&chain.app_id, None).await.client_id;
        self.world.assign(&chain.app_id, &chain.team_id, Some("2026-02-01T00:00:00Z")).await;
        (chain, client_id)
    }

    async fn ask(&self, client_id: &str, meter: &str) -> AccessAnswer {
        let request =
            CheckAccessRequest { question: Some(question(client_id, meter)), with_billed_to: false };
        ok(self.access.check_access(Request::new(request)).await).answer.unwrap()
    }

    async fn told(&self, client_id: &str, meter: &str) -> (bool, AccessLevel, AccessReason) {
        told(&self.ask(client_id, meter).await)
    }

    async fn watch(
        &self,
        questions: Vec<AccessQuestion>,
    ) -> BoxStream<'static, Result<WatchAccessResponse, Status>> {
        let request = WatchAccessRequest { questions, with_billed_to: false, with_amounts: true };
        self.access.watch_access(Request::new(request)).await.unwrap().into_inner()
    }

    /// Waits for an answer.
    async fn until(
        &self,
        client_id: &str,
        meter: &str,
        holds: impl Fn(&AccessAnswer) -> bool,
    ) -> AccessAnswer {
        let mut messages = self.watch(vec![question(client_id, meter)]).await;
        let wait = async {
            loop {
                messages.next().await.unwrap().unwrap();
                let answer = self.ask(client_id, meter).await;
                if holds(&answer) {
                    return answer;
                }
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.unwrap()
    }

    /// What the ledger says from now on about a team, once it is known.
    async fn balance(
        &self,
        chain: &Chain,
        client_id: &str,
        available: i64,
        owed: i64,
        deadline: Option<Timestamp>,
    ) {
        self.ledger.balance(&chain.account_id, &chain.team_id, step(available, owed, deadline));
        self.until(client_id, "tile", |answer| answer.balance_micros == Some(available - owed)).await;
    }

    /// Time passes, and the ledger is alive.
    async fn pass_to(&self, now: &str) {
        self.world.clock.set(at(now));
        self.ledger.alive();
        self.until("", "tile", |answer| answer.ledger_age_ms == Some(0)).await;
        self.world.parts.memory.catch_up().await.unwrap();
    }
}

fn question(client_id: &str, meter: &str) -> AccessQuestion {
    AccessQuestion { client_id: client_id.to_owned(), meter: meter.to_owned(), quantity: 1 }
}

fn told(answer: &AccessAnswer) -> (bool, AccessLevel, AccessReason) {
    (answer.allowed, answer.level(), answer.reason())
}

fn instant(at: Option<prost_types::Timestamp>) -> Option<Timestamp> {
    at.map(|at| timestamp_from_proto(&at).unwrap())
}

use AccessLevel as Level;
use AccessReason as Reason;

#[tokio::test]
async fn d21_levels_are_walked_through_time() {
    let rules = Rules { trial: Duration::from_secs(86_400), ..Rules::default() };
    let gate = Gate::with(World::with(rules).await, access_policy()).await;
    let account_id = gate.world.account(None, false).await;
    let team_id = gate.world.team(&account_id, None).await;
    let app_id = gate.world.app(&account_id).await;
    let client_id = gate.world.credential(&app_id, None).await.client_id;
    gate.world.assign(&app_id, &team_id, None).await;
    let chain = Chain { account_id, team_id, app_id };
    // noon: the trial began with the credential; the team comes at the next edge
    let without = (false, Level::Unspecified, Reason::TeamMissing);
    assert_eq!(gate.told(&client_id, "tile").await, without);
    gate.pass_to("2026-03-01T12:01:00Z").await;
    gate.balance_unseen(&chain, 100 * TOKEN).await;
    let trial = gate.ask(&client_id, "tile.hard").await;
    assert_eq!(told(&trial), (true, Level::Trial, Reason::InTrial));
    assert_eq!((trial.balance_micros, trial.budgets.len()), (None, 0), "d20: not shown");
    assert_eq!(instant(trial.changes_at), Some(at("2026-03-02T12:00:00Z")));
    gate.pass_to("2026-03-02T11:59:59.999999Z").await;
    assert_eq!(gate.told(&client_id, "tile").await.1, Level::Trial);
    gate.pass_to("2026-03-02T12:00:00Z").await;
    let full = gate.ask(&client_id, "tile").await;
    assert_eq!(told(&full), (true, Level::Full, Reason::InFull));
    assert_eq!(full.balance_micros, Some(100 * TOKEN));
    // late usage takes it below zero: the clock starts with the posting
    let deadline = at("2026-03-16T12:31:00Z");
    gate.pass_to("2026-03-02T12:30:10Z").await;
    gate.balance(&chain, &client_id, 0, 5 * TOKEN, Some(deadline)).await;
    let grace = gate.ask(&client_id, "tile").await;
    assert_eq!(told(&grace), (true, Level::Grace, Reason::InGrace));
    assert_eq!((instant(grace.grace_deadline), instant(grace.changes_at)), (Some(deadline), Some(deadline)));
    // a partial top-up leaves the clock
    gate.pass_to("2026-03-10T00:00:00Z").await;
    gate.balance(&chain, &client_id, 0, TOKEN, Some(deadline)).await;
    assert_eq!(instant(gate.ask(&client_id, "tile").await.grace_deadline), Some(deadline));
    gate.pass_to("2026-03-16T12:30:59.999999Z").await;
    assert_eq!(gate.told(&client_id, "tile").await.1, Level::Grace);
    // the deadline passes, and nobody says anything
    gate.world.clock.set(deadline);
    let limited = gate.ask(&client_id, "tile").await;
    assert_eq!(told(&limited), (false, Level::Limited, Reason::GraceOver));
    assert!(!limited.stale);
    let missing: Vec<_> =
        limited.remedies.iter().map(|remedy| (remedy.reason(), remedy.tokens_micros)).collect();
    assert_eq!(missing, [(Reason::GraceOver, Some(TOKEN))]);
    assert_eq!(gate.told(&client_id, "tile.free").await, (true, Level::Limited, Reason::FreeOfCharge));
    gate.pass_to("2026-03-17T00:00:00Z").await;
    gate.balance(&chain, &client_id, 0, TOKEN / 2, Some(deadline)).await;
    assert_eq!(gate.told(&client_id, "tile").await, (false, Level::Limited, Reason::GraceOver));
    // enough is bought
    gate.balance(&chain, &client_id, 99 * TOKEN, 0, None).await;
    assert_eq!(gate.told(&client_id, "tile").await, (true, Level::Full, Reason::InFull));
}

impl Gate {
    /// A balance that the trial hides.
    async fn balance_unseen(&self, chain: &Chain, available: i64) {
        self.ledger.balance(&chain.account_id, &chain.team_id, step(available, 0, None));
        self.ledger.alive();
    }
}

#[tokio::test]
async fn what_time_alone_brings_is_told_ahead() {
    let gate = Gate::new().await;
    let (chain, client_id) = gate.app().await;
    let expiry = "2026-03-01T12:10:00Z";
    let mut steps = vec![step(5 * TOKEN, 0, None), step(0, 0, None)];
    steps[1].from = crate::world::wire(at(expiry));
    let team = TeamStanding { team_id: chain.team_id.clone(), steps, ..TeamStanding::default() };
    gate.ledger.team(&chain.account_id, team);
    let before = gate.until(&client_id, "tile.hard", |answer| answer.balance_micros == Some(5 * TOKEN)).await;
    assert_eq!((before.allowed, instant(before.changes_at)), (true, Some(at(expiry))));
    gate.world.clock.set(at("2026-03-01T12:00:09Z"));
    let mut messages = gate.watch(vec![question(&client_id, "tile.hard")]).await;
    assert!(messages.next().await.unwrap().unwrap().answers[0].answer.as_ref().unwrap().allowed);
    gate.pass_to(expiry).await;
    let after = gate.ask(&client_id, "tile.hard").await;
    assert_eq!(
        told(&after),
        (false, Level::Full, Reason::BalanceTooLow),
        "the lot expired, and nobody said so"
    );
    assert_eq!(gate.told(&client_id, "tile").await, (true, Level::Full, Reason::InFull), "zero is fine (D6)");
    let wait = async {
        while messages
            .next()
            .await
            .unwrap()
            .unwrap()
            .answers
            .iter()
            .all(|watched| watched.answer.as_ref().unwrap().allowed)
        {}
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap();
}

#[tokio::test]
async fn d48_an_account_without_grace_and_a_debt_limit_refuse_at_once() {
    let gate = Gate::new().await;
    let (chain, client_id) = gate.app().await;
    let deadline = at("2026-03-10T00:00:00Z");
    gate.balance(&chain, &client_id, 0, 7 * TOKEN, Some(deadline)).await;
    let others = at("2026-03-01T11:00:00Z");
    gate.ledger.account(&chain.account_id, Some(others), Vec::new());
    let answer = gate.until(&client_id, "tile", |answer| !answer.allowed).await;
    assert_eq!(told(&answer), (false, Level::Limited, Reason::AccountWithoutGrace));
    assert_eq!(instant(answer.grace_deadline), Some(others));
    gate.ledger.account(&chain.account_id, None, Vec::new());
    gate.until(&client_id, "tile", |answer| answer.level() == Level::Grace).await;
    gate.ledger.debt_limit(5 * TOKEN);
    let answer = gate.until(&client_id, "tile", |answer| !answer.allowed).await;
    assert_eq!(told(&answer), (false, Level::Limited, Reason::DebtLimitPassed));
    assert_eq!(answer.remedies[0].tokens_micros, Some(2 * TOKEN), "to be within the limit again");
}

#[tokio::test]
async fn d59_budgets_of_app_team_and_account_stand_in_one_answer() {
    let gate = Gate::new().await;
    let (chain, client_id) = gate.app().await;
    let budgets = vec![budget(&chain.app_id, 10 * TOKEN, 3 * TOKEN), budget("", 20 * TOKEN, 20 * TOKEN)];
    let team = TeamStanding {
        team_id: chain.team_id.clone(),
        steps: vec![step(50 * TOKEN, 0, None)],
        budgets,
        ..TeamStanding::default()
    };
    gate.ledger.team(&chain.account_id, team);
    gate.ledger.account(&chain.account_id, None, vec![budget("", 30 * TOKEN, 29 * TOKEN)]);
    let answer = gate.until(&client_id, "tile", |answer| answer.budgets.len() == 3).await;
    let of = |scope: BudgetScope, cap, used| (scope, Some(cap * TOKEN), used * TOKEN);
    let budgets: Vec<_> = answer.budgets.iter().map(|b| (b.scope(), b.cap_micros, b.used_micros)).collect();
    let expected =
        [of(BudgetScope::App, 10, 3), of(BudgetScope::Team, 20, 20), of(BudgetScope::Account, 30, 29)];
    assert_eq!(budgets, expected);
    assert_eq!(told(&answer), (false, Level::Full, Reason::TeamBudgetReached));
    assert_eq!(instant(answer.remedies[0].at), Some(at("2026-04-01T00:00:00Z")));
    assert_eq!(gate.told(&client_id, "tile.free").await, (true, Level::Full, Reason::FreeOfCharge));
    gate.pass_to("2026-04-01T00:00:00Z").await;
    assert_eq!(gate.told(&client_id, "tile").await, (true, Level::Full, Reason::InFull), "a new month");
}

#[expect(clippy::too_many_lines, reason = "everything that can be in the way")]
#[tokio::test]
async fn everything_in_the_way_is_told_at_once_and_goes_away_at_once() {
    let mut world = World::new().await;
    world.parts.limits = Limits { hub_mode: true, ..world.parts.limits };
    let gate = Gate::with(world, access_policy()).await;
    let world = &gate.world;
    let since = Some("2026-01-01T00:00:00Z");
    let account_id = world.account(since, true).await;
    let team_id = world.team(&account_id, since).await;
    let owner = world.user("owner@example.org").await;
    let request = CreateAppRequest {
        account_id: account_id.clone(),
        name: "App".to_owned(),
        owner_user_id: owner.clone(),
        ..Default::default()
    };
    let app_id = ok(world.hierarchy.create_app(Request::new(request)).await).app.unwrap().app_id;
    let credential = world.credential(&app_id, None).await;
    let client_id = credential.client_id.clone();
    world.assign(&app_id, &team_id, Some("2026-02-01T00:00:00Z")).await;
    let accounts = Accounts::new(&world.parts);
    for (account_id, team_id) in [(&account_id, ""), (&String::new(), team_id.as_str())] {
        let request = SuspendRequest {
            account_id: account_id.clone(),
            team_id: team_id.to_owned(),
            note: "a test".to_owned(),
            ..Default::default()
        };
        ok(accounts.suspend(Request::new(request)).await);
    }
    let ways =
        |answer: &AccessAnswer| answer.remedies.iter().map(|remedy| remedy.reason()).collect::<Vec<_>>();
    let all = [Reason::AccountSuspended, Reason::TeamSuspended, Reason::AppArchived, Reason::ProductMissing];
    let answer = gate.ask(&client_id, "tile").await;
    assert_eq!((ways(&answer).as_slice(), answer.level()), (&all[..], Level::Suspended));
    let free = gate.ask(&client_id, "tile.free").await;
    assert_eq!(ways(&free), all[..3], "who may use tokens is asked of charged use only (D27)");
    assert_eq!(ways(&gate.ask(&client_id, "no.such.meter").await)[3], Reason::MeterNotKnown);
    for (account_id, team_id) in [(&account_id, ""), (&String::new(), team_id.as_str())] {
        let request = LiftSuspensionRequest {
            account_id: account_id.clone(),
            team_id: team_id.to_owned(),
            note: "a test".to_owned(),
            ..Default::default()
        };
        ok(accounts.lift_suspension(Request::new(request)).await);
    }
    assert_eq!(ways(&gate.ask(&client_id, "tile").await), all[2..]);
    let hubs = Hubs::new(&world.parts);
    let request =
        CreateHubRequest { account_id: account_id.clone(), name: "Hub".to_owned(), ..Default::default() };
    let hub_id = ok(hubs.create_hub(Request::new(request)).await).hub.unwrap().hub_id;
    let request = MoveAppRequest { app_id: app_id.clone(), hub_id, ..Default::default() };
    ok(hubs.move_app(Request::new(request)).await);
    assert_eq!(ways(&gate.ask(&client_id, "tile").await), all[3..]);
    assert_eq!(gate.told(&client_id, "tile.free").await, (true, Level::Full, Reason::FreeOfCharge));
    let request =
        SetRoleRequest { user_id: owner.clone(), team_id: team_id.clone(), role: 3, ..Default::default() };
    ok(world.hierarchy.set_role(Request::new(request)).await);
    assert_eq!(gate.told(&client_id, "tile").await.2, Reason::ProductMissing, "a member is no buyer");
    let request =
        AssignProductRequest { team_id: team_id.clone(), user_id: owner.clone(), ..Default::default() };
    ok(world.members.assign_product(Request::new(request)).await);
    assert_eq!(gate.told(&client_id, "tile").await, (true, Level::Full, Reason::InFull));
    let request = RevokeCredentialRequest { credential_id: credential.credential_id, ..Default::default() };
    ok(world.credentials.revoke_credential(Request::new(request)).await);
    assert_eq!(
        gate.told(&client_id, "tile").await,
        (false, Level::Unspecified, Reason::ClientRevoked),
        "at once"
    );
    let nobody = gate.ask("client_nobody", "tile").await;
    assert_eq!(told(&nobody), (false, Level::Unspecified, Reason::ClientUnknown));
    assert_eq!(gate.told("not well formed", "tile").await.2, Reason::ClientUnknown);
}

#[tokio::test]
async fn d20_a_trial_that_is_ended_early_ends_at_its_edge() {
    let gate = Gate::new().await;
    let account_id = gate.world.account(None, false).await;
    let team_id = gate.world.team(&account_id, None).await;
    let app_id = gate.world.app(&account_id).await;
    let client_id = gate.world.credential(&app_id, None).await.client_id;
    let from = gate.world.assign(&app_id, &team_id, None).await;
    gate.pass_to(&from.to_string()).await;
    assert_eq!(gate.told(&client_id, "tile.hard").await, (true, Level::Trial, Reason::InTrial));
    let accounts = Accounts::new(&gate.world.parts);
    let request = EndTrialRequest { account_id, ..EndTrialRequest::default() };
    ok(accounts.end_trial(Request::new(request)).await);
    let ends = gate.ask(&client_id, "tile.hard").await;
    assert_eq!(instant(ends.changes_at), Some(at("2026-03-01T12:02:00Z")));
    gate.world.clock.set(at("2026-03-01T12:02:00Z"));
    let over = gate.ask(&client_id, "tile.hard").await;
    assert_eq!(told(&over), (false, Level::Full, Reason::BalanceTooLow));
    assert_eq!(over.remedies[0].tokens_micros, Some(1));
}

#[tokio::test]
async fn d58_without_the_ledger_answers_say_so_and_follow_the_policy() {
    let meters = [("tile.vip", WhenStale::Allow), ("tile.shut", WhenStale::Refuse)];
    let meters: BTreeMap<String, WhenStale> =
        meters.into_iter().map(|(meter, when)| (meter.to_owned(), when)).collect();
    let gate = Gate::with(World::new().await, AccessPolicy { meters, ..access_policy() }).await;
    gate.ledger.meter("tile.vip", true, MeterPricing::Charged);
    gate.ledger.meter("tile.shut", false, MeterPricing::Charged);
    let (chain, client_id) = gate.app().await;
    gate.balance(&chain, &client_id, 50 * TOKEN, 0, None).await;
    let deadline = at("2026-03-01T12:05:00Z");
    gate.ledger.dies();
    gate.world.clock.set(at("2026-03-01T12:00:10Z"));
    gate.world.parts.memory.catch_up().await.unwrap();
    let young = gate.ask(&client_id, "tile.hard").await;
    assert_eq!(
        (told(&young), young.stale),
        ((true, Level::Full, Reason::InFull), false),
        "exactly the bound"
    );
    gate.world.clock.set(at("2026-03-01T12:00:10.001Z"));
    gate.world.parts.memory.catch_up().await.unwrap();
    for (meter, allowed, reason) in [
        ("tile", true, Reason::AllowedWhileStale),
        ("tile.hard", false, Reason::RefusedWhileStale),
        ("tile.vip", true, Reason::AllowedWhileStale),
        ("tile.shut", false, Reason::RefusedWhileStale),
        ("tile.free", true, Reason::InFull),
    ] {
        let answer = gate.ask(&client_id, meter).await;
        assert_eq!(told(&answer), (allowed, Level::Full, reason), "{meter}");
        assert_eq!(
            (answer.stale, answer.ledger_age_ms, answer.directory_age_ms),
            (true, Some(10_001), 0),
            "{meter}"
        );
        assert_eq!(answer.balance_micros, Some(50 * TOKEN), "as far as is known");
    }
    // it comes back and tells of a debt: within a second, as time is real here
    gate.ledger.comes_back();
    let back = tokio::time::Instant::now();
    gate.ledger.balance(&chain.account_id, &chain.team_id, step(0, TOKEN, Some(deadline)));
    let answer = gate.until(&client_id, "tile.hard", |answer| !answer.stale).await;
    assert!(back.elapsed() < Duration::from_secs(1), "{:?}", back.elapsed());
    assert_eq!(told(&answer), (false, Level::Grace, Reason::BalanceTooLow));
    // and goes again: the deadline counts on
    gate.ledger.dies();
    gate.world.clock.set(deadline);
    let answer = gate.ask(&client_id, "tile").await;
    assert_eq!((told(&answer), answer.stale), ((false, Level::Limited, Reason::GraceOver), true));
}

#[tokio::test]
async fn d58_a_ledger_that_was_never_heard_is_not_guessed_at() {
    let world = World::new().await;
    let (chain, client_id) = {
        let chain = world.chain().await;
        let client_id = world.credential(&chain.app_id, None).await.client_id;
        (chain, client_id)
    };
    world.assign(&chain.app_id, &chain.team_id, Some("2026-02-01T00:00:00Z")).await;
    let memory = Arc::clone(&world.parts.memory);
    let access = Access::new(Arc::clone(&memory), limits(), CancellationToken::new());
    let ask = async |meter: &str| {
        let request =
            CheckAccessRequest { question: Some(question(&client_id, meter)), with_billed_to: true };
        access.check_access(Request::new(request)).await
    };
    assert_eq!(refused(ask("tile").await).0, "UNAVAILABLE", "nothing is loaded");
    memory.load().await.unwrap();
    let answer = ok(ask("tile").await).answer.unwrap();
    assert_eq!(told(&answer), (false, Level::Unspecified, Reason::RefusedWhileStale));
    assert_eq!((answer.stale, answer.ledger_age_ms, answer.balance_micros), (true, None, None));
    let billed = answer.billed_to.unwrap();
    assert_eq!(
        (billed.app_id, billed.team_id, billed.account_id),
        (chain.app_id, chain.team_id, chain.account_id)
    );
    // a cell whose ledger is not followed is the same
    let there = world.chain_in(2).await.unwrap();
    let client_id = world.credential(&there.app_id, None).await.client_id;
    world.clock.set(world.assign(&there.app_id, &there.team_id, None).await);
    memory.catch_up().await.unwrap();
    let request = CheckAccessRequest { question: Some(question(&client_id, "tile")), with_billed_to: false };
    let answer = ok(access.check_access(Request::new(request)).await).answer.unwrap();
    assert_eq!((answer.level(), answer.ledger_age_ms), (Level::Unspecified, None));
}

#[tokio::test]
async fn batches_and_watchers_are_bounded() {
    let gate = Gate::new().await;
    let batch = async |count: usize| {
        let questions = vec![question("client_x", "tile"); count];
        gate.access
            .batch_check_access(Request::new(BatchCheckAccessRequest { questions, with_billed_to: false }))
            .await
    };
    assert_eq!(ok(batch(3).await).answers.len(), 3);
    assert_eq!(refused(batch(4).await), ("BATCH_TOO_LARGE".to_owned(), vec!["questions".to_owned()]));
    assert_eq!(refused(batch(0).await), ("REQUEST_INVALID".to_owned(), vec!["questions".to_owned()]));
    let nothing = gate.access.check_access(Request::new(CheckAccessRequest::default())).await;
    assert_eq!(refused(nothing), ("REQUEST_INVALID".to_owned(), vec!["question".to_owned()]));
    let watch = async |count: usize| {
        let questions = vec![question("client_x", "tile"); count];
        let request = WatchAccessRequest { questions, with_billed_to: false, with_amounts: false };
        gate.access.watch_access(Request::new(request)).await.map(|answer| answer.into_inner())
    };
    let reason = |status: Status| crate::world::reason(&status);
    assert_eq!(watch(11).await.map_err(reason).err().unwrap(), "BATCH_TOO_LARGE");
    assert_eq!(watch(0).await.map_err(reason).err().unwrap(), "REQUEST_INVALID");
    let mut first = watch(7).await.unwrap();
    let second = watch(1).await.unwrap();
    assert_eq!(watch(1).await.map_err(reason).err().unwrap(), "WATCHERS_EXHAUSTED");
    drop(second);
    drop(watch(1).await.unwrap());
    // three answers a message, and complete with the last of them
    let mut sizes = Vec::new();
    loop {
        let message = first.next().await.unwrap().unwrap();
        sizes.push((message.answers.len(), message.complete));
        if message.complete {
            break;
        }
    }
    assert_eq!(sizes, [(3, false), (3, false), (1, true)]);
    let alive = tokio::time::timeout(PATIENCE, first.next()).await.unwrap().unwrap().unwrap();
    assert_eq!((alive.answers.len(), alive.complete, alive.ledger_age_ms), (0, true, Some(0)));
}

/// What the parts of the world answer by is the memory of the gate.
impl World {
    fn use_memory(&mut self, memory: Arc<Memory>) {
        self.parts = Parts { memory, ..self.parts.clone() };
        self.rebuild();
    }
}
