//! Random acts, now, scheduled and entered for the past: plans and answers agree with the naive model.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod model;
mod strategy;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use drawdown_entitlement_core::{
    Account, App, Change, Client, ContractKind, Directory, History, Resolution, Revocation, Rules, TeamLink,
    TrialTerms,
    plan::{
        AccountFacts, AccountPlan, AccountRefusal, Acting, Actor, AssignFacts, AssignPlan, AssignRefusal,
        ConfirmFacts, ConfirmPlan, CorrectionFacts, CorrectionPlan, CorrectionRefusal, CredentialFacts,
        CredentialPlan, CredentialRefusal, OpenRefusal, Party, RevocationFacts, RevocationPlan,
        RevocationRefusal, Stage, Standing, TransferAct, TransferRefusal, TransferState, UsageAnswer,
        plan_account, plan_assign, plan_confirmation, plan_contract, plan_correction, plan_credential,
        plan_invitation, plan_revocation, plan_team, plan_team_choice, plan_transfer_step, plan_trial_end,
    },
};
use drawdown_types::{AccountId, AppId, ClientId, TeamId, Timestamp, UserId, WindowSize};
use model::{Act, Answer, Model, Verdict};
use proptest::prelude::*;
use strategy::Step;

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

/// The rows that a store would keep.
#[derive(Default)]
struct Rows {
    accounts: Vec<(AccountId, Timestamp, History<ContractKind>, TrialTerms)>,
    teams: Vec<(TeamId, usize, Timestamp)>,
    apps: Vec<(AppId, usize)>,
    owners: Vec<(usize, usize, Timestamp)>,
    credentials: Vec<(ClientId, usize, Timestamp, Option<Revocation>)>,
    links: Vec<(usize, TeamId, Timestamp)>,
}

impl Rows {
    fn act(&mut self, now: Timestamp, act: Act) -> Verdict {
        match act {
            Act::Account { created_at, enterprise, commercial } => {
                let plan = plan_account(now, created_at.map(at), commercial, &rules());
                let kind = if enterprise { ContractKind::Enterprise } else { ContractKind::Flex };
                plan.map_or_else(open_verdict, |new| {
                    let terms = TrialTerms { trial: None, commercial_from: new.commercial_from };
                    let opened = Change { from: new.contract_from, value: kind };
                    let contract = History::from_changes([opened]).unwrap();
                    self.accounts.push((AccountId::generate(), new.created_at, contract, terms));
                    Verdict::Done
                })
            }
            Act::Team { account, created_at } => {
                let Some(of) = self.accounts.get(account) else { return Verdict::NoSuchThing };
                plan_team(now, of.1, created_at.map(at)).map_or_else(open_verdict, |new| {
                    self.teams.push((TeamId::generate(), account, new.created_at));
                    Verdict::Done
                })
            }
            Act::App { account } if account < self.accounts.len() => {
                self.apps.push((AppId::generate(), account));
                Verdict::Done
            }
            Act::App { .. } => Verdict::NoSuchThing,
            Act::Credential { app, created_at, settled } => self.credential(now, app, created_at, settled),
            Act::Assign { app, team, from, settled } => self.assign(now, app, team, from, settled),
            Act::EndTrial { account, from, settled } => {
                let plan = |facts: AccountFacts<'_>| plan_trial_end(facts, from.map(at), &rules());
                match self.of_account(now, account, settled, plan) {
                    Err(verdict) => verdict,
                    Ok(end) => {
                        self.accounts[account].3.commercial_from = Some(end.from);
                        Verdict::Assigned(end.from.as_micros())
                    }
                }
            }
            Act::Contract { account, enterprise, from, settled } => {
                let kind = if enterprise { ContractKind::Enterprise } else { ContractKind::Flex };
                let plan = |facts: AccountFacts<'_>| plan_contract(facts, kind, from.map(at), &rules());
                match self.of_account(now, account, settled, plan) {
                    Err(verdict) => verdict,
                    Ok(change) => {
                        let contract = &mut self.accounts[account].2;
                        let before =
                            contract.links().map(|link| Change { from: link.from, value: *link.value });
                        let new = Change { from: change.from, value: change.kind };
                        *contract = History::from_changes(before.chain([new]).collect::<Vec<_>>()).unwrap();
                        Verdict::Assigned(change.from.as_micros())
                    }
                }
            }
            Act::Revoke { credential, at } => self.revoke(now, credential, at),
            Act::Transfer { app, team } => self.transfer(now, app, team),
            Act::Correct { app, team, from, to, settled } => {
                self.correct(now, (app, team), (at(from), at(to)), settled)
            }
        }
    }

    /// What to write of an account, or what came of it otherwise.
    fn of_account<W: std::fmt::Debug>(
        &self,
        now: Timestamp,
        account: usize,
        settled: bool,
        plan: impl Fn(AccountFacts<'_>) -> Result<AccountPlan<W>, AccountRefusal>,
    ) -> Result<W, Verdict> {
        let (account_id, created_at, contract, trial) =
            self.accounts.get(account).ok_or(Verdict::NoSuchThing)?;
        let mut facts = AccountFacts {
            now,
            account_id: *account_id,
            created_at: *created_at,
            trial: *trial,
            contract,
            answer: None,
        };
        let mut planned = plan(facts);
        if let Ok(AccountPlan::Ask(question)) = planned {
            let settled =
                settled && self.credentials.iter().any(|(_, app, ..)| self.was_ever_of(*app, account));
            facts.answer = Some(UsageAnswer { question, settled });
            planned = plan(facts);
        }
        match planned {
            Ok(AccountPlan::Ask(question)) => panic!("asked twice: {question:?}"),
            Ok(AccountPlan::Unchanged { from }) => Err(Verdict::Assigned(from.as_micros())),
            Ok(AccountPlan::Write(write)) => Ok(write),
            Err(AccountRefusal::TooFarAhead { .. }) => Err(Verdict::TooFarAhead),
            Err(AccountRefusal::BeforeAccount { .. }) => Err(Verdict::BeforeAccount),
            Err(AccountRefusal::Overlap { .. }) => Err(Verdict::Overlap),
            Err(AccountRefusal::SettledUsage { .. }) => Err(Verdict::Settled),
        }
    }

    fn later_accounts(&self, app: usize) -> History<usize> {
        let of_app = self.owners.iter().filter(|(of, _, _)| *of == app);
        History::from_changes(of_app.map(|(_, value, from)| Change { from: *from, value: *value })).unwrap()
    }

    fn was_ever_of(&self, app: usize, account: usize) -> bool {
        self.apps[app].1 == account || self.owners.iter().any(|(of, to, _)| *of == app && *to == account)
    }

    fn assignments(&self, app: usize) -> History<TeamId> {
        let of_app = self.links.iter().filter(|(of, _, _)| *of == app);
        History::from_changes(of_app.map(|(_, value, from)| Change { from: *from, value: *value })).unwrap()
    }

    fn party(&self, account: usize, team_id: Option<TeamId>) -> Party {
        let (account_id, _, _, trial) = &self.accounts[account];
        let (trial, account_id) = (*trial, *account_id);
        Party { account_id, team_id, suspended: false, trial, cell: 0, ledger_known: true }
    }

    fn correct(
        &mut self,
        now: Timestamp,
        (app, team): (usize, usize),
        (from, to): (Timestamp, Timestamp),
        settled: bool,
    ) -> Verdict {
        let (Some((app_id, first)), Some((team_id, account, team_created_at))) =
            (self.apps.get(app).copied(), self.teams.get(team).copied())
        else {
            return Verdict::NoSuchThing;
        };
        let history = self.assignments(app);
        let mut facts = CorrectionFacts {
            now,
            app_id,
            app_account: self.accounts[first].0,
            later_accounts: &self.later_accounts(app).map(|account| self.accounts[*account].0),
            team_id,
            team_account: self.accounts[account].0,
            team_created_at,
            history: &history,
            first_team_told: history.links().next().is_some_and(|link| link.from <= now),
            answer: None,
        };
        let mut plan = plan_correction(facts, from, Some(to), &rules());
        if let Ok(CorrectionPlan::Ask(question)) = plan {
            let settled = settled && self.credentials.iter().any(|(_, of, ..)| *of == app);
            facts.answer = Some(UsageAnswer { question, settled });
            plan = plan_correction(facts, from, Some(to), &rules());
        }
        match plan {
            Ok(CorrectionPlan::Ask(question)) => panic!("asked twice: {question:?}"),
            Ok(CorrectionPlan::Unchanged) => Verdict::Done,
            Ok(CorrectionPlan::Write(correction)) => {
                self.links.retain(|(of, _, from)| *of != app || !correction.voided.contains(from));
                self.links.extend(correction.added.iter().map(|change| (app, change.value, change.from)));
                Verdict::Done
            }
            Err(CorrectionRefusal::NotPast { .. }) => Verdict::InFuture,
            Err(CorrectionRefusal::Empty { .. }) => Verdict::Empty,
            Err(CorrectionRefusal::AppAndTeamDiffer) => Verdict::Differ,
            Err(CorrectionRefusal::BeforeTeam { .. }) => Verdict::BeforeTeam,
            Err(CorrectionRefusal::LeavesGap(_)) => Verdict::Gap,
            Err(CorrectionRefusal::FirstTeamTold) => Verdict::FirstTold,
            Err(CorrectionRefusal::SettledUsage { .. }) => Verdict::Settled,
        }
    }

    /// All steps at one instant, by the operator.
    fn transfer(&mut self, now: Timestamp, app: usize, team: usize) -> Verdict {
        if app >= self.apps.len() || team >= self.teams.len() {
            return Verdict::NoSuchThing;
        }
        match self.steps(now, app, team) {
            Ok(from) => {
                let (team_id, account, _) = self.teams[team];
                self.links.push((app, team_id, from));
                self.owners.push((app, account, from));
                Verdict::Assigned(from.as_micros())
            }
            Err(TransferRefusal::NoTeam) => Verdict::NoTeam,
            Err(TransferRefusal::SameTeam) => Verdict::SameTeam,
            Err(TransferRefusal::InTrial(_)) => Verdict::InTrial,
            Err(TransferRefusal::Overlap { .. }) => Verdict::Overlap,
            Err(other) => panic!("{other:?}"),
        }
    }

    fn steps(&self, now: Timestamp, app: usize, team: usize) -> Result<Timestamp, TransferRefusal> {
        let acting = Acting { actor: Actor::Operator, for_giving_side: false };
        let teams = self.assignments(app);
        let owner = self.later_accounts(app).at(now).copied().unwrap_or(self.apps[app].1);
        let giving = self.party(owner, teams.at(now).copied());
        let to = UserId::generate();
        let invitation = plan_invitation(now, acting, (None, to), None, giving, &rules())?;
        let mut transfer = TransferState {
            stage: Stage::Invited,
            to,
            expires_at: invitation.expires_at,
            team_id: None,
            effective_from: None,
        };
        plan_transfer_step(now, transfer, TransferAct::Accept, acting, giving)?;
        transfer.stage = Stage::Accepted;
        let (team_id, account, _) = self.teams[team];
        let receiving = self.party(account, Some(team_id));
        let standing = Standing { assigned: true, ..Standing::default() };
        plan_team_choice(now, transfer, acting, standing, (giving, receiving))?;
        transfer.stage = Stage::TeamChosen;
        transfer.team_id = Some(team_id);
        let balances: Vec<(TeamId, i64)> = self.teams.iter().map(|(team_id, ..)| (*team_id, 0)).collect();
        let facts = ConfirmFacts {
            now,
            transfer,
            acting,
            standing,
            giving,
            receiving,
            teams: &teams,
            balances: &balances,
        };
        match plan_confirmation(&facts, &rules())? {
            ConfirmPlan::Transfer { from } => Ok(from),
            other => panic!("{other:?}"),
        }
    }

    fn revoke(&mut self, now: Timestamp, credential: usize, instant: Option<i64>) -> Verdict {
        let Some((.., held)) = self.credentials.get_mut(credential) else { return Verdict::NoSuchThing };
        let facts = RevocationFacts { now, held: *held };
        let end = match plan_revocation(facts, instant.map(at), &rules()) {
            Ok(RevocationPlan::Unchanged(end)) => end,
            Ok(RevocationPlan::Revoke { replaces, revocation }) => {
                assert_eq!(replaces, held.is_some());
                *held = Some(revocation);
                revocation
            }
            Err(RevocationRefusal::InPast { .. }) => return Verdict::InPast,
            Err(RevocationRefusal::TooFarAhead { .. }) => return Verdict::TooFarAhead,
        };
        Verdict::Revoked(end.revoked_at.as_micros(), end.unknown_from.as_micros())
    }

    fn credential(&mut self, now: Timestamp, app: usize, created_at: Option<i64>, settled: bool) -> Verdict {
        let Some((_, first)) = self.apps.get(app).copied() else { return Verdict::NoSuchThing };
        let account = self.later_accounts(app).at(now).copied().unwrap_or(first);
        let (account_id, account_created_at, _, trial) = self.accounts[account].clone();
        let live = |end: &Option<Revocation>| end.is_none_or(|end| end.revoked_at > now);
        let credentials = self.credentials.iter().filter(|(_, of, _, end)| *of == app && live(end)).count();
        let credentials = u32::try_from(credentials).unwrap();
        let mut facts =
            CredentialFacts { now, account_id, account_created_at, trial, credentials, answer: None };
        let mut plan = plan_credential(facts, created_at.map(at), &rules());
        if let Ok(CredentialPlan::Ask(question)) = plan {
            facts.answer = Some(UsageAnswer { question, settled });
            plan = plan_credential(facts, created_at.map(at), &rules());
        }
        match plan {
            Ok(CredentialPlan::Ask(question)) => panic!("asked twice: {question:?}"),
            Ok(CredentialPlan::Create(new)) => {
                let client_id = ClientId::new(&format!("client_{}", self.credentials.len())).unwrap();
                self.credentials.push((client_id, app, new.known_from, None));
                self.accounts[account].3.trial = new.trial.or(trial.trial);
                Verdict::Done
            }
            Err(CredentialRefusal::InFuture { .. }) => Verdict::InFuture,
            Err(CredentialRefusal::BeforeAccount { .. }) => Verdict::BeforeAccount,
            Err(CredentialRefusal::TooMany { .. }) => Verdict::TooMany,
            Err(CredentialRefusal::SettledUsage { .. }) => Verdict::Settled,
        }
    }

    fn assign(
        &mut self,
        now: Timestamp,
        app: usize,
        team: usize,
        from: Option<i64>,
        settled: bool,
    ) -> Verdict {
        let (Some((app_id, app_account)), Some((team_id, team_account, team_created_at))) =
            (self.apps.get(app).copied(), self.teams.get(team).copied())
        else {
            return Verdict::NoSuchThing;
        };
        let history = self.assignments(app);
        let later_accounts = self.later_accounts(app).map(|account| self.accounts[*account].0);
        let mut facts = AssignFacts {
            now,
            app_id,
            app_account: self.accounts[app_account].0,
            later_accounts: &later_accounts,
            team_id,
            team_account: self.accounts[team_account].0,
            team_created_at,
            history: &history,
            answer: None,
        };
        let mut plan = plan_assign(facts, from.map(at), &rules());
        if let Ok(AssignPlan::Ask(question)) = plan {
            let settled = settled && self.credentials.iter().any(|(_, of, ..)| *of == app);
            facts.answer = Some(UsageAnswer { question, settled });
            plan = plan_assign(facts, from.map(at), &rules());
        }
        match plan {
            Ok(AssignPlan::Ask(question)) => panic!("asked twice: {question:?}"),
            Ok(AssignPlan::Unchanged { from }) => Verdict::Assigned(from.as_micros()),
            Ok(AssignPlan::Append(link)) => {
                self.links.push((app, link.team_id, link.from));
                Verdict::Assigned(link.from.as_micros())
            }
            Err(AssignRefusal::AppAndTeamDiffer) => Verdict::Differ,
            Err(AssignRefusal::TooFarAhead { .. }) => Verdict::TooFarAhead,
            Err(AssignRefusal::BeforeTeam { .. }) => Verdict::BeforeTeam,
            Err(AssignRefusal::Overlap { .. }) => Verdict::Overlap,
            Err(AssignRefusal::SettledUsage { .. }) => Verdict::Settled,
        }
    }

    fn directory(&self) -> Directory {
        let accounts: Vec<Arc<Account>> = self
            .accounts
            .iter()
            .map(|(account_id, _, contract, trial)| {
                Arc::new(Account {
                    account_id: *account_id,
                    opened_as: *contract.links().next().unwrap().value,
                    contract: contract.clone(),
                    trial: *trial,
                    cell: 0,
                })
            })
            .collect();
        let teams: BTreeMap<TeamId, TeamLink> = self
            .teams
            .iter()
            .map(|(team_id, account, _)| {
                (*team_id, TeamLink { team_id: *team_id, account: Arc::clone(&accounts[*account]) })
            })
            .collect();
        let clients = self.credentials.iter().map(|(client_id, app, known_from, revocation)| {
            let of_app = self.links.iter().filter(|(of, _, _)| of == app);
            let links = of_app.map(|(_, team, from)| Change { from: *from, value: teams[team].clone() });
            let app = App { app_id: self.apps[*app].0, teams: History::from_changes(links).unwrap() };
            (
                client_id.clone(),
                Client { known_from: *known_from, revocation: *revocation, app: Arc::new(app) },
            )
        });
        clients.collect()
    }

    fn named(&self, resolution: Resolution) -> Answer {
        match resolution {
            Resolution::UnknownClient => Answer::Unknown,
            Resolution::NoTeam => Answer::NoTeam,
            Resolution::BilledTo(billed) => Answer::Billed {
                app: self.apps.iter().position(|(id, _)| *id == billed.app_id).unwrap(),
                team: self.teams.iter().position(|(id, _, _)| *id == billed.team_id).unwrap(),
                account: self.accounts.iter().position(|(id, ..)| *id == billed.account_id).unwrap(),
                enterprise: billed.contract_kind == ContractKind::Enterprise,
                in_trial: billed.in_trial,
            },
        }
    }
}

fn open_verdict(refusal: OpenRefusal) -> Verdict {
    match refusal {
        OpenRefusal::InFuture { .. } => Verdict::InFuture,
        OpenRefusal::BeforeAccount { .. } => Verdict::BeforeAccount,
    }
}

/// The same step where the ledger has settled usage.
fn settled(mut step: Step) -> Step {
    if let Act::Credential { settled, .. }
    | Act::Assign { settled, .. }
    | Act::EndTrial { settled, .. }
    | Act::Correct { settled, .. }
    | Act::Contract { settled, .. } = &mut step.act
    {
        *settled = true;
    }
    step
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn plans_and_answers_agree_with_the_model(
        steps in prop::collection::vec(strategy::step(), 1..60),
        instants in prop::collection::vec(strategy::instant(), 20),
    ) {
        let (mut model, mut rows, mut now) = (Model::default(), Rows::default(), strategy::START);
        for step in steps {
            now += step.pause;
            let act = step.act_at(now);
            prop_assert_eq!(rows.act(at(now), act), model.act(now, act), "{:?} at {}", act, now);
        }
        let directory = rows.directory();
        for (credential, (client_id, ..)) in rows.credentials.iter().enumerate() {
            for instant in &instants {
                let window = rules().window.window_of(at(*instant));
                let answer = rows.named(directory.resolve(client_id, window, &rules()));
                prop_assert_eq!(answer, model.who_pays(credential, *instant), "{} at {}", client_id, instant);
            }
        }
        prop_assert_eq!(rows.credentials.len(), model.credentials());
    }

    #[test]
    fn a_settled_window_keeps_its_answer(
        steps in prop::collection::vec(strategy::step(), 1..60),
        more in prop::collection::vec(strategy::step(), 1..20),
        credential in 0usize..8,
        back in 0i64..900 * model::SECOND,
    ) {
        let (mut rows, mut now) = (Rows::default(), strategy::START);
        for step in steps {
            now += step.pause;
            rows.act(at(now), step.act_at(now));
        }
        let window = rules().window.window_of(at(now - back));
        let ask = |rows: &Rows| {
            rows.credentials.get(credential).map(|(id, ..)| rows.directory().resolve(id, window, &rules()))
        };
        if let Some(before) = ask(&rows) {
            for step in more {
                now += step.pause;
                rows.act(at(now), settled(step).act_at(now));
            }
            prop_assert_eq!(ask(&rows), Some(before));
        }
    }
}
