//! Random acts, now, scheduled and entered for the past: plans and answers agree with the naive model.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod model;
mod strategy;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use drawdown_entitlement_core::{
    Account, App, Change, Client, ContractKind, Directory, History, Resolution, Rules, TeamLink, TrialTerms,
    plan::{
        AssignFacts, AssignPlan, AssignRefusal, CredentialFacts, CredentialPlan, CredentialRefusal,
        OpenRefusal, UsageAnswer, plan_account, plan_assign, plan_credential, plan_team,
    },
};
use drawdown_types::{AccountId, AppId, ClientId, TeamId, Timestamp, WindowSize};
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
    }
}

fn at(micros: i64) -> Timestamp {
    Timestamp::from_micros(micros).unwrap()
}

/// The rows that a store would keep.
#[derive(Default)]
struct Rows {
    accounts: Vec<(AccountId, Timestamp, ContractKind, Timestamp, TrialTerms)>,
    teams: Vec<(TeamId, usize, Timestamp)>,
    apps: Vec<(AppId, usize)>,
    credentials: Vec<(ClientId, usize, Timestamp)>,
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
                    self.accounts.push((
                        AccountId::generate(),
                        new.created_at,
                        kind,
                        new.contract_from,
                        terms,
                    ));
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
        }
    }

    fn credential(&mut self, now: Timestamp, app: usize, created_at: Option<i64>, settled: bool) -> Verdict {
        let Some((_, account)) = self.apps.get(app).copied() else { return Verdict::NoSuchThing };
        let (account_id, account_created_at, _, _, trial) = self.accounts[account];
        let credentials = self.credentials.iter().filter(|(_, of, _)| *of == app).count();
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
                self.credentials.push((client_id, app, new.known_from));
                self.accounts[account].4.trial = new.trial.or(trial.trial);
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
        let of_app = self.links.iter().filter(|(of, _, _)| *of == app);
        let history =
            History::from_changes(of_app.map(|(_, value, from)| Change { from: *from, value: *value }))
                .unwrap();
        let mut facts = AssignFacts {
            now,
            app_id,
            app_account: self.accounts[app_account].0,
            team_id,
            team_account: self.accounts[team_account].0,
            team_created_at,
            history: &history,
            answer: None,
        };
        let mut plan = plan_assign(facts, from.map(at), &rules());
        if let Ok(AssignPlan::Ask(question)) = plan {
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
            .map(|(account_id, _, kind, from, trial)| {
                let contract = History::from_changes([Change { from: *from, value: *kind }]).unwrap();
                Arc::new(Account {
                    account_id: *account_id,
                    opened_as: *kind,
                    contract,
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
        let clients = self.credentials.iter().map(|(client_id, app, known_from)| {
            let of_app = self.links.iter().filter(|(of, _, _)| of == app);
            let links = of_app.map(|(_, team, from)| Change { from: *from, value: teams[team].clone() });
            let app = App { app_id: self.apps[*app].0, teams: History::from_changes(links).unwrap() };
            (client_id.clone(), Client { known_from: *known_from, app: Arc::new(app) })
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
    if let Act::Credential { settled, .. } | Act::Assign { settled, .. } = &mut step.act {
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
