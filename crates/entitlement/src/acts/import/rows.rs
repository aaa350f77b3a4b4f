//! The rows of one account, in the order in which they name each other, and its line in the audit log.

use drawdown_entitlement_core::{
    Change, History, TrialTerms,
    plan::{AccountImport, AccountRows, Actor, AppImport, AppRows, Assignment, PersonImport},
};
use drawdown_proto::entitlement::v1::{ImportedAccount, ImportedApp};
use drawdown_types::{AccountId, AppId, CredentialId, HubId, TeamId, Timestamp, UserId};
use serde_json::{Value, json};

use super::{Act as _, ImportAccounts, People};
use crate::{
    Error,
    acts::Acts,
    grpc::encode,
    secret::Secret,
    store::{
        self, AccountRecord, AuditEntry, HubRecord, Made, NewCredentialRow, Scope, TeamRecord,
        TrialEndRecord, Tx,
    },
};

/// An account that is being written.
pub(super) struct Writing<'a> {
    pub(super) now: Timestamp,
    pub(super) cell: u8,
    pub(super) import: &'a AccountImport,
    pub(super) rows: &'a AccountRows,
    /// Everybody who is named.
    pub(super) people: &'a People,
    pub(super) note: &'a str,
}

impl Writing<'_> {
    const fn made(&self) -> Made {
        Made { at: self.now, by: Actor::Operator, through: ImportAccounts::METHOD }
    }

    /// Writes all of it. How many people are new is the caller's to say.
    pub(super) async fn write(&self, tx: &mut Tx, acts: &Acts) -> Result<ImportedAccount, Error> {
        let account_id = AccountId::generate();
        let account = self.account(tx, account_id).await?;
        let mut after = json!({
            "name": account.name,
            "contract_kind": store::kind_text(account.opened_as),
            "created_at": account.created_at,
            "commercial_from": account.trial.commercial_from,
            "trial_ends_at": account.trial.trial.map(|trial| trial.ends_at),
            "cell": account.cell,
        });
        let mut people = self.people(tx, &self.import.managers, Scope::Account(account_id)).await?;
        let (teams, hubs) = (self.teams(tx, account_id).await?, self.hubs(tx, account_id).await?);
        for (import, team) in self.import.teams.iter().zip(&teams) {
            people.extend(self.people(tx, &import.members, Scope::Team(team.team_id)).await?);
        }
        let mut apps = Vec::with_capacity(self.import.apps.len());
        let mut lines = Vec::with_capacity(self.import.apps.len());
        for (import, rows) in self.import.apps.iter().zip(&self.rows.apps) {
            let (app, line) = self.app(tx, acts, (import, rows), (account_id, &teams, &hubs)).await?;
            apps.push(app);
            lines.push(line);
        }
        let named = |team: &TeamRecord| json!({ "team_id": team.team_id, "name": team.name });
        after["teams"] = teams.iter().map(named).collect();
        after["hubs"] = json!(hubs);
        after["people"] = people.into();
        after["apps"] = lines.into();
        let entry = AuditEntry {
            at: self.now,
            actor: Actor::Operator,
            reason: Some(self.note.to_owned()),
            subject: account_id.to_string(),
            account_id: Some(account_id),
            before: None,
            after,
        };
        store::append_audit_in_tx(tx, ImportAccounts::METHOD, &entry).await?;
        Ok(ImportedAccount {
            account: Some(encode::account(&account, self.now)),
            teams: teams.into_iter().map(encode::team).collect(),
            apps,
            people_new: 0,
        })
    }

    async fn account(&self, tx: &mut Tx, account_id: AccountId) -> Result<AccountRecord, Error> {
        let (import, rows, made) = (self.import, self.rows, self.made());
        let kind = (import.opened_as, self.cell);
        store::insert_account_in_tx(tx, account_id, &import.name, kind, &rows.account, made).await?;
        for change in &import.contracts {
            store::append_contract_in_tx(tx, account_id, change.value, change.from, made).await?;
        }
        if let Some(from) = rows.commercial_from {
            store::set_commercial_in_tx(tx, account_id, Some(TrialEndRecord::new(from, made))).await?;
        }
        if let Some(trial) = rows.trial {
            store::set_trial_in_tx(tx, account_id, trial).await?;
        }
        let opened = Change { from: rows.account.contract_from, value: import.opened_as };
        let contract = History::from_changes([opened].into_iter().chain(import.contracts.iter().copied()));
        Ok(AccountRecord {
            account_id,
            name: import.name.clone(),
            created_at: import.created_at,
            opened_as: import.opened_as,
            contract: contract.map_err(|conflict| Error::stored("contract", conflict))?,
            trial: TrialTerms {
                trial: rows.trial,
                commercial_from: rows.account.commercial_from.or(rows.commercial_from),
            },
            cell: self.cell,
            suspended_since: None,
        })
    }

    async fn teams(&self, tx: &mut Tx, account_id: AccountId) -> Result<Vec<TeamRecord>, Error> {
        let mut teams = Vec::with_capacity(self.rows.teams.len());
        for (import, new) in self.import.teams.iter().zip(&self.rows.teams) {
            let team = TeamRecord {
                team_id: TeamId::generate(),
                account_id,
                name: import.name.clone(),
                created_at: new.created_at,
                suspended_since: None,
            };
            store::insert_team_in_tx(tx, team.team_id, account_id, &team.name, new).await?;
            teams.push(team);
        }
        Ok(teams)
    }

    async fn hubs(&self, tx: &mut Tx, account_id: AccountId) -> Result<Vec<HubId>, Error> {
        let mut hubs = Vec::with_capacity(self.import.hubs.len());
        for name in &self.import.hubs {
            let hub_id = HubId::generate();
            let hub = HubRecord { hub_id, account_id, name: name.clone(), created_at: self.now };
            store::insert_hub_in_tx(tx, &hub).await?;
            hubs.push(hub_id);
        }
        Ok(hubs)
    }

    fn person(&self, email: &str) -> Result<UserId, Error> {
        let found = self.people.get(&email.to_lowercase()).copied();
        found.ok_or_else(|| Error::stored("person", "is not registered"))
    }

    async fn people(&self, tx: &mut Tx, people: &[PersonImport], scope: Scope) -> Result<Vec<Value>, Error> {
        let mut lines = Vec::with_capacity(people.len());
        for person in people {
            let user_id = self.person(&person.email)?;
            store::begin_role_in_tx(tx, user_id, scope, person.role, person.from).await?;
            if let Some(team_id) = scope.team_id().filter(|_| person.uses_tokens) {
                store::begin_product_in_tx(tx, (team_id, user_id), self.now, Actor::Operator).await?;
            }
            lines.push(json!({
                "user_id": user_id,
                "team_id": scope.team_id(),
                "role": store::role_text(person.role),
                "from": person.from,
                "uses_tokens": person.uses_tokens,
            }));
        }
        Ok(lines)
    }

    async fn app(
        &self,
        tx: &mut Tx,
        acts: &Acts,
        (import, rows): (&AppImport, &AppRows),
        (account_id, teams, hubs): (AccountId, &[TeamRecord], &[HubId]),
    ) -> Result<(ImportedApp, Value), Error> {
        let app_id = AppId::generate();
        let owner = match import.owner_email.as_str() {
            "" => None,
            email => Some(self.person(email)?),
        };
        store::insert_app_in_tx(tx, app_id, account_id, owner, &import.name).await?;
        if let Some(hub_id) = rows.hub.and_then(|place| hubs.get(place)) {
            store::enter_hub_in_tx(tx, app_id, *hub_id, self.now).await?;
        }
        let links = self.assignments(tx, app_id, (rows, teams)).await?;
        let credentials = self.credentials(tx, acts, app_id, (import, rows)).await?;
        let known_from = rows.credentials.iter().map(|(known_from, _)| *known_from).min();
        if let Some(first) = links.first().filter(|first| known_from.is_some_and(|known| known < first.from))
        {
            // what it used before is charged to its first team, once that is in force (D49)
            store::note_adoption_in_tx(tx, app_id, first.team_id, first.from, first.from).await?;
        }
        let app = ImportedApp {
            app_id: app_id.to_string(),
            name: import.name.clone(),
            credentials: u32::try_from(credentials.len()).unwrap_or(u32::MAX),
        };
        let link = |link: &Assignment| json!({ "team_id": link.team_id, "from": link.from });
        let line = json!({
            "app_id": app_id,
            "name": import.name,
            "owner_user_id": owner,
            "assignments": links.iter().map(link).collect::<Vec<_>>(),
            "credentials": credentials,
        });
        Ok((app, line))
    }

    async fn assignments(
        &self,
        tx: &mut Tx,
        app_id: AppId,
        (rows, teams): (&AppRows, &[TeamRecord]),
    ) -> Result<Vec<Assignment>, Error> {
        let mut links = Vec::with_capacity(rows.assignments.len());
        for (place, from, set_up) in &rows.assignments {
            let team = teams.get(*place).ok_or_else(|| Error::stored("team", "is not imported"))?;
            let link = Assignment { app_id, team_id: team.team_id, from: *from, set_up: *set_up };
            store::append_assignment_in_tx(tx, &link, self.made()).await?;
            links.push(link);
        }
        Ok(links)
    }

    async fn credentials(
        &self,
        tx: &mut Tx,
        acts: &Acts,
        app_id: AppId,
        (import, rows): (&AppImport, &AppRows),
    ) -> Result<Vec<Value>, Error> {
        let mut lines = Vec::with_capacity(rows.credentials.len());
        for (credential, (known_from, revocation)) in import.credentials.iter().zip(&rows.credentials) {
            let credential_id = CredentialId::generate();
            let client_id = credential.client_id.as_str();
            let row = NewCredentialRow {
                credential_id,
                app_id,
                client_id,
                // of a secret that nobody has: the old one stays behind, and nothing is taken for it
                secret_hmac: &acts.pepper.hash(client_id, Secret::generate().expose()),
                created_at: credential.created_at,
                known_from: *known_from,
                made: self.made(),
            };
            store::insert_credential_in_tx(tx, row).await?;
            if let Some(revocation) = revocation {
                store::append_revocation_in_tx(tx, credential_id, *revocation, self.made()).await?;
            }
            lines.push(json!({
                "credential_id": credential_id,
                "client_id": client_id,
                "created_at": credential.created_at,
                "revoked_at": credential.revoked_at,
            }));
        }
        Ok(lines)
    }
}
