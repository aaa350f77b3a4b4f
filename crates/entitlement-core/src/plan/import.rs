//! Moving here from another platform (D61): whole accounts with their teams, people, apps, histories and client
//! ids, at their original instants.
//!
//! Doctrine: what can be told without the database is told here, all of it at once and by its place; the edges are
//! those that the acts one by one would give (`plan_account`, `plan_team`, `plan_credential`, [`Rules::edge`]), so an
//! import answers for every window as they do. A client id of another platform stays what it is: it was given once,
//! and is never given again (D49). Secrets do not move.

use std::collections::HashMap;

use drawdown_types::{ClientId, Timestamp};

use super::{
    CredentialRefusal, NewAccount, NewTeam, OpenRefusal, Role,
    credential::{check_instant, check_number, has_trial},
    open::{plan_account, plan_team},
};
use crate::{Change, ContractKind, Revocation, Rules, Trial, calendar::month_edge};

/// An account of another platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountImport {
    /// What people call it.
    pub name: String,
    /// When it was opened.
    pub created_at: Timestamp,
    /// The contract it was opened with.
    pub opened_as: ContractKind,
    /// Its later kinds of contract, in order, each from where a UTC month begins (D57).
    pub contracts: Vec<Change<ContractKind>>,
    /// From when on it is commercial; absent where its trial runs, or ran, to its end (D50).
    pub commercial_from: Option<Timestamp>,
    /// Its teams, each name once.
    pub teams: Vec<TeamImport>,
    /// Its contract managers.
    pub managers: Vec<PersonImport>,
    /// The names of its hubs, each once (D29).
    pub hubs: Vec<String>,
    /// Its apps.
    pub apps: Vec<AppImport>,
}

/// A team.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TeamImport {
    /// What people call it, and what the apps of the same account name it by.
    pub name: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// Who has a role in it, each person once.
    pub members: Vec<PersonImport>,
}

/// A person with a role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PersonImport {
    /// Who: the mail address, whatever the case of its letters.
    pub email: String,
    /// What they are called, where they are new here.
    pub name: String,
    /// In a team; contract managers have theirs in the account.
    pub role: Role,
    /// Since when.
    pub from: Timestamp,
    /// They may use the tokens of the team (D27).
    pub uses_tokens: bool,
}

/// An app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppImport {
    /// What people call it.
    pub name: String,
    /// The mail address of its owner; empty where it is nobody's.
    pub owner_email: String,
    /// The name of the hub that it is in; empty for none.
    pub hub: String,
    /// Its teams by their names, in order (D23).
    pub assignments: Vec<Change<String>>,
    /// Its credentials.
    pub credentials: Vec<CredentialImport>,
}

/// A credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialImport {
    /// The id that its calls carry already.
    pub client_id: ClientId,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was revoked, or will be.
    pub revoked_at: Option<Timestamp>,
}

/// What to write of an account, beside what the import says itself. Everything is in the order of the import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountRows {
    /// The account; commercial from the start, or not.
    pub account: NewAccount,
    /// The edge from which on it is commercial, where that is later than its start.
    pub commercial_from: Option<Timestamp>,
    /// Its trial (D20).
    pub trial: Option<Trial>,
    /// Its teams.
    pub teams: Vec<NewTeam>,
    /// Its apps.
    pub apps: Vec<AppRows>,
    /// No usage of its client ids may be settled in windows from here on (D61); absent where it has none.
    pub unsettled_from: Option<Timestamp>,
}

/// What to write of an app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppRows {
    /// The hub, by its place in the account.
    pub hub: Option<usize>,
    /// The links: which team by its place in the account, from which edge on, whether that is past (D61).
    pub assignments: Vec<(usize, Timestamp, bool)>,
    /// Its credentials: the edge from which on usage under each has an app, and its revocation.
    pub credentials: Vec<(Timestamp, Option<Revocation>)>,
}

/// What is wrong at one place of an import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportFault {
    /// The path of the field, such as `accounts[0].apps[2].assignments[1].from`.
    pub field: String,
    /// What is wrong.
    pub problem: ImportProblem,
}

/// What can be wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImportProblem {
    /// An instant that must have been.
    #[error("{0}")]
    Open(#[from] OpenRefusal),
    /// It comes twice, and must not.
    #[error("is there twice: also at {0}")]
    Twice(String),
    /// A name that the account does not have.
    #[error("{name:?} is no {what} of this account")]
    Unknown {
        /// What is looked for.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// Contracts change where months begin.
    #[error("is not where a UTC month begins; the next one is {0}")]
    NotMonth(Timestamp),
    /// Changes come in order.
    #[error("takes effect at {edge}, not after the one before it at {before}")]
    NotAfter {
        /// Its edge.
        edge: Timestamp,
        /// That of the one before.
        before: Timestamp,
    },
    /// The same again is no change.
    #[error("is the same as the one before it")]
    Same,
    /// A change needs some time ahead.
    #[error("is too near: the first edge that can still be changed is {0}")]
    TooNear(Timestamp),
    /// Further ahead than a change may be scheduled.
    #[error("the edge {edge} is later than {latest}, the latest that may be scheduled now")]
    TooFarAhead {
        /// The edge asked for.
        edge: Timestamp,
        /// The latest one allowed.
        latest: Timestamp,
    },
    /// Before there was such a team.
    #[error("the edge {edge} lies before the team was created at {created_at}")]
    BeforeTeam {
        /// The edge asked for.
        edge: Timestamp,
        /// When the team was created.
        created_at: Timestamp,
    },
    /// A role in the future.
    #[error("the instant {0} lies in the future")]
    InFuture(Timestamp),
    /// A role that is not of this place.
    #[error("a contract manager is one of the account, all others are of a team")]
    RoleElsewhere,
    /// A buyer needs no assignment (D27).
    #[error("a contract manager may use tokens without an assignment")]
    NeedsNone,
    /// Somebody else is primary admin.
    #[error("the team has two primary admins")]
    TwoPrimaryAdmins,
    /// A credential can not be made so.
    #[error("{0}")]
    Credential(#[from] CredentialRefusal),
    /// Revoked before it was made.
    #[error("the instant {at} lies before the credential was made at {created_at}")]
    RevokedBefore {
        /// When it was revoked.
        at: Timestamp,
        /// When it was made.
        created_at: Timestamp,
    },
}

impl AccountRows {
    /// Every edge at which something of the account changes.
    pub fn edges(&self) -> impl Iterator<Item = Timestamp> {
        let links = self.apps.iter().flat_map(|app| app.assignments.iter().map(|(_, edge, _)| *edge));
        let revocations = self.apps.iter().flat_map(|app| &app.credentials);
        let revocations = revocations.filter_map(|(_, revocation)| Some(revocation.as_ref()?.unknown_from));
        self.commercial_from.into_iter().chain(links).chain(revocations)
    }
}

/// Plans the import of accounts at `now`.
///
/// # Errors
/// Everything that is wrong, each by its place.
pub fn plan_import(
    now: Timestamp,
    accounts: &[AccountImport],
    rules: &Rules,
) -> Result<Vec<AccountRows>, Vec<ImportFault>> {
    let mut planning = Planning { now, rules, client_ids: HashMap::new(), faults: Vec::new() };
    let rows: Vec<_> = accounts
        .iter()
        .enumerate()
        .map(|(n, import)| planning.account(&format!("accounts[{n}]"), import))
        .collect();
    if planning.faults.is_empty() { Ok(rows.into_iter().flatten().collect()) } else { Err(planning.faults) }
}

struct Planning<'a> {
    now: Timestamp,
    rules: &'a Rules,
    /// Where each client id was seen first.
    client_ids: HashMap<&'a str, String>,
    faults: Vec<ImportFault>,
}

impl<'a> Planning<'a> {
    fn fault(&mut self, field: impl Into<String>, problem: impl Into<ImportProblem>) {
        self.faults.push(ImportFault { field: field.into(), problem: problem.into() });
    }

    fn checked<T, E: Into<ImportProblem>>(&mut self, field: &str, result: Result<T, E>) -> Option<T> {
        result.map_err(|error| self.fault(field, error)).ok()
    }

    /// The places of names, each of which must come once.
    fn places<'n>(
        &mut self,
        names: impl Iterator<Item = &'n str>,
        path: impl Fn(usize) -> String,
    ) -> HashMap<&'n str, usize> {
        let mut places = HashMap::new();
        for (n, name) in names.enumerate() {
            if let Some(first) = places.get(name).copied() {
                self.fault(path(n), ImportProblem::Twice(path(first)));
            } else {
                places.insert(name, n);
            }
        }
        places
    }

    fn account(&mut self, at: &str, import: &'a AccountImport) -> Option<AccountRows> {
        let opened = plan_account(self.now, Some(import.created_at), false, self.rules);
        let mut account = self.checked(&format!("{at}.created_at"), opened)?;
        self.contracts(at, import, account.contract_from);
        // from its very start on, or by a change at an edge
        let from_start = import.commercial_from.is_some_and(|from| from <= import.created_at);
        account.commercial_from = from_start.then_some(account.contract_from);
        let commercial_from = import.commercial_from.filter(|_| !from_start);
        let commercial_from = commercial_from.map(|from| self.rules.edge(self.now, Some(from)));
        if let Some(edge) = commercial_from {
            self.not_too_far(&format!("{at}.commercial_from"), edge);
        }
        let teams = self.teams(at, import);
        let team_path = |n| format!("{at}.teams[{n}].name");
        let team_places = self.places(import.teams.iter().map(|team| team.name.as_str()), team_path);
        self.people(&format!("{at}.managers"), &import.managers, true);
        let hub_path = |n| format!("{at}.hubs[{n}]");
        let hub_places = self.places(import.hubs.iter().map(String::as_str), hub_path);
        let mut apps = Vec::with_capacity(import.apps.len());
        for (n, app) in import.apps.iter().enumerate() {
            let at = format!("{at}.apps[{n}]");
            let hub = self.named(&format!("{at}.hub"), "hub", &app.hub, &hub_places);
            let assignments = self.assignments(&at, app, (&import.teams, &team_places));
            let credentials = self.credentials(&at, app, import.created_at);
            apps.push(AppRows { hub, assignments, credentials });
        }
        let first = import.apps.iter().flat_map(|app| &app.credentials).map(|made| made.created_at).min();
        let commercial = account.commercial_from.or(commercial_from);
        let trial = first.map(|first| Trial::begin(first, self.rules));
        let trial = trial.filter(|trial| has_trial(*trial, commercial, self.rules));
        let unsettled_from = first.map(|first| self.rules.window.floor(first));
        Some(AccountRows { account, commercial_from, trial, teams, apps, unsettled_from })
    }

    fn not_too_far(&mut self, field: &str, edge: Timestamp) {
        let latest = self.rules.latest_edge(self.now);
        if edge > latest {
            self.fault(field, ImportProblem::TooFarAhead { edge, latest });
        }
    }

    fn contracts(&mut self, at: &str, import: &AccountImport, begins: Timestamp) {
        let first = self.rules.first_edge_after(self.now);
        let mut before = (begins, import.opened_as);
        for (n, change) in import.contracts.iter().enumerate() {
            let field = format!("{at}.contracts[{n}].from");
            let edge = month_edge(change.from);
            if edge != change.from {
                self.fault(&field, ImportProblem::NotMonth(edge));
            } else if edge <= before.0 {
                self.fault(&field, ImportProblem::NotAfter { edge, before: before.0 });
            } else if edge > self.now && edge < first {
                self.fault(&field, ImportProblem::TooNear(first));
            }
            if change.value == before.1 {
                self.fault(format!("{at}.contracts[{n}].kind"), ImportProblem::Same);
            }
            self.not_too_far(&field, edge);
            before = (edge, change.value);
        }
    }

    fn teams(&mut self, at: &str, import: &AccountImport) -> Vec<NewTeam> {
        let mut rows = Vec::with_capacity(import.teams.len());
        for (n, team) in import.teams.iter().enumerate() {
            let at = format!("{at}.teams[{n}]");
            let planned = plan_team(self.now, import.created_at, Some(team.created_at));
            rows.extend(self.checked(&format!("{at}.created_at"), planned));
            self.people(&format!("{at}.members"), &team.members, false);
            let admins = team.members.iter().filter(|person| person.role == Role::PrimaryAdmin);
            if admins.count() > 1 {
                self.fault(format!("{at}.members"), ImportProblem::TwoPrimaryAdmins);
            }
        }
        rows
    }

    fn people(&mut self, at: &str, people: &[PersonImport], managers: bool) {
        let emails: Vec<_> = people.iter().map(|person| person.email.to_lowercase()).collect();
        self.places(emails.iter().map(String::as_str), |n| format!("{at}[{n}].email"));
        for (n, person) in people.iter().enumerate() {
            if (person.role == Role::ContractManager) != managers {
                self.fault(format!("{at}[{n}].role"), ImportProblem::RoleElsewhere);
            }
            if managers && person.uses_tokens {
                self.fault(format!("{at}[{n}].uses_tokens"), ImportProblem::NeedsNone);
            }
            if person.from > self.now {
                self.fault(format!("{at}[{n}].from"), ImportProblem::InFuture(person.from));
            }
        }
    }

    /// The place of what a name stands for; none for the empty name.
    fn named(
        &mut self,
        field: &str,
        what: &'static str,
        name: &str,
        places: &HashMap<&str, usize>,
    ) -> Option<usize> {
        let place = places.get(name).copied();
        if place.is_none() && !name.is_empty() {
            self.fault(field, ImportProblem::Unknown { what, name: name.to_owned() });
        }
        place.filter(|_| !name.is_empty())
    }

    fn assignments(
        &mut self,
        at: &str,
        app: &AppImport,
        (teams, places): (&[TeamImport], &HashMap<&str, usize>),
    ) -> Vec<(usize, Timestamp, bool)> {
        let first = self.rules.first_edge_after(self.now);
        let mut links: Vec<(usize, Timestamp, bool)> = Vec::with_capacity(app.assignments.len());
        for (n, change) in app.assignments.iter().enumerate() {
            let at = format!("{at}.assignments[{n}]");
            let (team_field, field) = (format!("{at}.team"), format!("{at}.from"));
            let found =
                places.get(change.value.as_str()).and_then(|place| Some((*place, teams.get(*place)?)));
            let Some((place, team)) = found else {
                self.fault(team_field, ImportProblem::Unknown { what: "team", name: change.value.clone() });
                continue;
            };
            let edge = self.rules.edge(self.now, Some(change.from));
            if edge < self.rules.window.floor(team.created_at) {
                self.fault(&field, ImportProblem::BeforeTeam { edge, created_at: team.created_at });
            }
            match links.last() {
                Some((last, ..)) if *last == place => self.fault(team_field, ImportProblem::Same),
                Some((_, before, _)) if *before >= edge => {
                    self.fault(&field, ImportProblem::NotAfter { edge, before: *before });
                }
                _ => {}
            }
            self.not_too_far(&field, edge);
            links.push((place, edge, edge < first));
        }
        links
    }

    fn credentials(
        &mut self,
        at: &str,
        app: &'a AppImport,
        account_created_at: Timestamp,
    ) -> Vec<(Timestamp, Option<Revocation>)> {
        let mut rows = Vec::with_capacity(app.credentials.len());
        let mut live = 0_u32;
        for (n, import) in app.credentials.iter().enumerate() {
            let at = format!("{at}.credentials[{n}]");
            let here = format!("{at}.client_id");
            if let Some(first) = self.client_ids.get(import.client_id.as_str()).cloned() {
                self.fault(&here, ImportProblem::Twice(first));
            } else {
                self.client_ids.insert(import.client_id.as_str(), here);
            }
            let made = check_instant(import.created_at, self.now, account_created_at);
            self.checked(&format!("{at}.created_at"), made);
            // one that is revoked takes nobody's place
            if import.revoked_at.is_none_or(|revoked_at| revoked_at > self.now) {
                self.checked(&at, check_number(live, self.rules));
                live = live.saturating_add(1);
            }
            let known_from = self.rules.window.floor(import.created_at);
            rows.push((known_from, self.revocation(&format!("{at}.revoked_at"), import)));
        }
        rows
    }

    /// The revocation of a credential: its edge is what it would have been at its instant.
    fn revocation(&mut self, field: &str, import: &CredentialImport) -> Option<Revocation> {
        let revoked_at = import.revoked_at?;
        if revoked_at < import.created_at {
            let problem = ImportProblem::RevokedBefore { at: revoked_at, created_at: import.created_at };
            self.fault(field, problem);
        }
        let unknown_from = self.rules.edge(self.now, Some(revoked_at));
        self.not_too_far(field, unknown_from);
        Some(Revocation { revoked_at, unknown_from })
    }
}

#[cfg(test)]
#[path = "import_tests.rs"]
mod tests;
