//! Random acts through the handlers, on a real Postgres: verdicts and answers agree with the naive model.

use std::{sync::atomic::Ordering, time::Duration};

use drawdown_entitlement_core::Rules;
use drawdown_proto::entitlement::v1::{
    AssignAppRequest, ChangeContractRequest, ContractKind, CorrectAssignmentRequest, CreateAccountRequest,
    CreateAppRequest, CreateCredentialRequest, CreateTeamRequest, EndTrialRequest, RevokeCredentialRequest,
    UnresolvedReason, account_service_server::AccountService as _,
    credential_service_server::CredentialService as _, hierarchy_service_server::HierarchyService as _,
    history_service_server::HistoryService as _,
};
use drawdown_types::{AccountId, AppId, CredentialId, TeamId, Timestamp, WindowSize};
use proptest::{prelude::*, strategy::ValueTree as _, test_runner::TestRunner};
use tonic::{Request, Status};

use crate::{
    model::{self, Act, Answer, Model, Verdict},
    strategy,
    world::{World, instant, reason, wire},
};

/// How many random runs, each on a database of its own.
const RUNS: usize = 4;

fn rules() -> Rules {
    let micros = |value: i64| Duration::from_micros(value.unsigned_abs());
    Rules {
        window: WindowSize::MINUTE,
        lead: micros(model::LEAD),
        trial: micros(model::TRIAL),
        schedule_ahead_max: micros(model::AHEAD),
        credentials_per_app_max: u32::try_from(model::CREDENTIALS_MAX).unwrap(),
        ..Rules::default()
    }
}

fn at(micros: i64) -> Timestamp {
    Timestamp::from_micros(micros).unwrap()
}

/// The ids behind the model's indices.
#[derive(Default)]
struct Ids {
    accounts: Vec<String>,
    teams: Vec<String>,
    apps: Vec<String>,
    client_ids: Vec<String>,
    credential_ids: Vec<String>,
}

fn verdict(status: &Status) -> Verdict {
    match reason(status).as_str() {
        "ACCOUNT_UNKNOWN" | "TEAM_UNKNOWN" | "APP_UNKNOWN" | "CREDENTIAL_UNKNOWN" => Verdict::NoSuchThing,
        "INSTANT_IN_FUTURE" => Verdict::InFuture,
        "INSTANT_IN_PAST" => Verdict::InPast,
        "INSTANT_BEFORE_ACCOUNT" => Verdict::BeforeAccount,
        "INSTANT_BEFORE_TEAM" => Verdict::BeforeTeam,
        "CREDENTIALS_TOO_MANY" => Verdict::TooMany,
        "APP_AND_TEAM_DIFFER" => Verdict::Differ,
        "ASSIGNMENT_TOO_FAR_AHEAD" | "CHANGE_TOO_FAR_AHEAD" => Verdict::TooFarAhead,
        "ASSIGNMENT_OVERLAP" | "CONTRACT_OVERLAP" => Verdict::Overlap,
        "WINDOW_SETTLED" => Verdict::Settled,
        "TRANSFER_IN_TRIAL" => Verdict::InTrial,
        "APP_WITHOUT_TEAM" => Verdict::NoTeam,
        "TRANSFER_SAME_TEAM" => Verdict::SameTeam,
        "INTERVAL_EMPTY" => Verdict::Empty,
        "CORRECTION_LEAVES_GAP" => Verdict::Gap,
        "FIRST_TEAM_TOLD" => Verdict::FirstTold,
        other => panic!("{other}: {status:?}"),
    }
}

impl Ids {
    fn account(&self, index: usize) -> String {
        self.accounts.get(index).cloned().unwrap_or_else(|| AccountId::generate().to_string())
    }

    fn team(&self, index: usize) -> String {
        self.teams.get(index).cloned().unwrap_or_else(|| TeamId::generate().to_string())
    }

    fn app(&self, index: usize) -> String {
        self.apps.get(index).cloned().unwrap_or_else(|| AppId::generate().to_string())
    }

    async fn act(&mut self, world: &World, act: Act) -> Result<Verdict, Status> {
        let (service, name, request_id) = (&world.hierarchy, "x".to_owned(), String::new());
        let instant_of = |micros: Option<i64>| micros.and_then(|micros| wire(at(micros)));
        match act {
            Act::EndTrial { .. }
            | Act::Contract { .. }
            | Act::Revoke { .. }
            | Act::Correct { .. }
            | Act::Transfer { .. } => return self.change(world, act).await,
            Act::Account { created_at, enterprise, commercial } => {
                let kind = if enterprise { ContractKind::Enterprise } else { ContractKind::Flex };
                let created_at = instant_of(created_at);
                let request = CreateAccountRequest {
                    name,
                    contract_kind: kind.into(),
                    created_at,
                    commercial,
                    request_id,
                    cell: 0,
                };
                let reply = service.create_account(Request::new(request)).await?.into_inner();
                self.accounts.push(reply.account.unwrap().account_id);
            }
            Act::Team { account, created_at } => {
                let account_id = self.account(account);
                let created_at = instant_of(created_at);
                let request = CreateTeamRequest { account_id, name, created_at, request_id };
                let reply = service.create_team(Request::new(request)).await?.into_inner();
                self.teams.push(reply.team.unwrap().team_id);
            }
            Act::App { account } => {
                let account_id = self.account(account);
                let request = CreateAppRequest { account_id, owner_user_id: String::new(), name, request_id };
                let reply = service.create_app(Request::new(request)).await?.into_inner();
                self.apps.push(reply.app.unwrap().app_id);
            }
            Act::Credential { app, created_at, settled } => {
                world.ledger.says_yes.store(settled, Ordering::SeqCst);
                let app_id = self.app(app);
                let created_at = instant_of(created_at);
                let request = CreateCredentialRequest { app_id, created_at, request_id };
                let reply = service.create_credential(Request::new(request)).await?.into_inner();
                self.client_ids.push(reply.client_id);
                self.credential_ids.push(reply.credential_id);
            }
            Act::Assign { app, team, from, settled } => {
                world.ledger.says_yes.store(settled, Ordering::SeqCst);
                let (app_id, team_id) = (self.app(app), self.team(team));
                let request = AssignAppRequest { app_id, team_id, from: instant_of(from), request_id };
                let reply = service.assign_app(Request::new(request)).await?.into_inner();
                return Ok(Verdict::Assigned(instant(reply.from.as_ref()).as_micros()));
            }
        }
        Ok(Verdict::Done)
    }

    /// What becomes of things that are there.
    async fn change(&self, world: &World, act: Act) -> Result<Verdict, Status> {
        let request_id = String::new();
        let instant_of = |micros: Option<i64>| micros.and_then(|micros| wire(at(micros)));
        let (accounts, credentials) = (&world.accounts, &world.credentials);
        match act {
            Act::EndTrial { account, from, settled } => {
                world.ledger.says_yes.store(settled, Ordering::SeqCst);
                let (account_id, from) = (self.account(account), instant_of(from));
                let request = EndTrialRequest { account_id, from, request_id };
                let reply = accounts.end_trial(Request::new(request)).await?.into_inner();
                Ok(Verdict::Assigned(instant(reply.from.as_ref()).as_micros()))
            }
            Act::Contract { account, enterprise, from, settled } => {
                world.ledger.says_yes.store(settled, Ordering::SeqCst);
                let kind = if enterprise { ContractKind::Enterprise } else { ContractKind::Flex };
                let (account_id, from) = (self.account(account), instant_of(from));
                let request =
                    ChangeContractRequest { account_id, contract_kind: kind.into(), from, request_id };
                let reply = accounts.change_contract(Request::new(request)).await?.into_inner();
                Ok(Verdict::Assigned(instant(reply.from.as_ref()).as_micros()))
            }
            Act::Revoke { credential, at } => {
                let credential_id = self.credential_ids.get(credential).cloned();
                let credential_id = credential_id.unwrap_or_else(|| CredentialId::generate().to_string());
                let request = RevokeCredentialRequest { credential_id, at: instant_of(at), request_id };
                let reply = credentials.revoke_credential(Request::new(request)).await?.into_inner();
                let end = reply.credential.unwrap();
                let micros = |at: Option<prost_types::Timestamp>| instant(at.as_ref()).as_micros();
                Ok(Verdict::Revoked(micros(end.revoked_at), micros(end.unknown_from)))
            }
            Act::Correct { app, team, from, to, settled } => {
                world.ledger.says_yes.store(settled, Ordering::SeqCst);
                let request = CorrectAssignmentRequest {
                    app_id: self.app(app),
                    team_id: self.team(team),
                    from: wire(at(from)),
                    to: wire(at(to)),
                    note: "x".to_owned(),
                    request_id,
                };
                world.histories.correct_assignment(Request::new(request)).await?;
                Ok(Verdict::Done)
            }
            Act::Transfer { app, team } => {
                let (app_id, team_id) = (self.app(app), self.team(team));
                let from = world.hand_over(&app_id, &team_id).await?;
                Ok(Verdict::Assigned(from.as_micros()))
            }
            other => panic!("{other:?} makes something new"),
        }
    }

    async fn answers(&self, world: &World, credential: usize, instants: &[i64]) -> Vec<Answer> {
        let instants: Vec<Timestamp> = instants.iter().map(|micros| at(*micros)).collect();
        let index = |ids: &[String], id: &String| ids.iter().position(|other| other == id).unwrap();
        let answers = world.who_pays(&self.client_ids[credential], &instants).await;
        answers
            .into_iter()
            .map(|answer| match answer {
                Err(UnresolvedReason::UnknownClient) => Answer::Unknown,
                Err(UnresolvedReason::NoTeam) => Answer::NoTeam,
                Err(UnresolvedReason::Unspecified) => panic!("no reason"),
                Ok(billed) => Answer::Billed {
                    app: index(&self.apps, &billed.app_id),
                    team: index(&self.teams, &billed.team_id),
                    account: index(&self.accounts, &billed.account_id),
                    enterprise: billed.contract_kind() == ContractKind::Enterprise,
                    in_trial: billed.in_trial,
                },
            })
            .collect()
    }
}

#[tokio::test]
async fn random_acts_agree_with_the_model() {
    let mut runner = TestRunner::default();
    for _ in 0..RUNS {
        let steps = prop::collection::vec(strategy::step(), 120).new_tree(&mut runner).unwrap().current();
        let instants =
            prop::collection::vec(strategy::instant(), 60).new_tree(&mut runner).unwrap().current();
        let mut world = World::with(rules()).await;
        let memory = world.other_memory().await;
        let (mut model, mut ids, mut now) = (Model::default(), Ids::default(), strategy::START);
        let mut told = Vec::new();
        for step in steps {
            now += step.pause;
            world.clock.set(at(now));
            let act = step.act_at(now);
            told.push((now, act));
            let real = ids.act(&world, act).await.unwrap_or_else(|status| verdict(&status));
            assert_eq!(real, model.act(now, act), "{told:#?}");
            // now and then another instance looks: some changes come alone, some together
            if told.len() % 7 == 0 {
                memory.catch_up().await.unwrap();
            }
        }
        for (credential, from_memory) in [false, true]
            .into_iter()
            .flat_map(|by| (0..model.credentials()).map(move |credential| (credential, by)))
        {
            if from_memory {
                world.resolve_by(std::sync::Arc::clone(&memory));
            }
            let answers = ids.answers(&world, credential, &instants).await;
            let expected: Vec<Answer> =
                instants.iter().map(|instant| model.who_pays(credential, *instant)).collect();
            assert_eq!(
                answers, expected,
                "credential {credential} at {instants:?}, memory {from_memory}, after {told:#?}"
            );
        }
    }
}
