//! Keeps the directory current: everything at the start, then what changed.
//!
//! Every act that changes anything writes one line of the audit log in its transaction, with the number of that
//! transaction. A position is a snapshot of the database: what was not visible in it and is visible now, is new. So
//! lines that commit late, out of the order of their numbers, are neither missed nor waited for.
//!
//! What changed is read again as it is now: whole apps and whole accounts take the place of what was known, so reading
//! twice does no harm and no order of lines matters. What an act touches follows from the id that its line names; an act
//! that is not known here makes everything of its account be read again.
//!
//! Cost of a look that finds nothing: one statement, one probe of an index.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use drawdown_entitlement_core::{Change, History};
use drawdown_types::{
    AccountId, AppId, CredentialId, HubId, KeyId, PrincipalId, TeamId, Timestamp, TransferId, UserId,
};
use futures::TryStreamExt as _;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    Memory,
    cells::{AccountFacts, AppFacts, Ownership, TeamCell, TeamFacts},
    clients::Entry,
};
use crate::{
    Error,
    store::{self, Changed, KnownApp, Owner, Part, Position},
};

/// How long the answer to an act waits at most until the memory knows it.
const SOON: Duration = Duration::from_secs(1);

/// What has to be read again.
#[derive(Debug, Default, PartialEq, Eq)]
struct Touched {
    accounts: BTreeSet<AccountId>,
    apps: BTreeSet<AppId>,
    credentials: BTreeSet<CredentialId>,
    transfers: BTreeSet<TransferId>,
    /// Accounts all of whose apps are concerned.
    whole: BTreeSet<AccountId>,
    everything: bool,
}

// === impl Touched ===

impl Touched {
    fn by(changed: &[Changed]) -> Self {
        let mut touched = Self::default();
        for line in changed {
            if is_of_callers(&line.subject) {
                // who may call is looked up by the gate, and is no part of the directory
                continue;
            }
            touched.accounts.extend(line.account_id);
            touched.add(line);
        }
        touched
    }

    fn add(&mut self, line: &Changed) {
        let subject = line.subject.as_str();
        if let Ok(app_id) = subject.parse() {
            self.apps.insert(app_id);
        } else if let Ok(credential_id) = subject.parse() {
            self.credentials.insert(credential_id);
        } else if let Ok(transfer_id) = subject.parse() {
            self.transfers.insert(transfer_id);
        } else if is_of_account(subject) && is_small(&line.method) {
            // what such an act touches is read with the account of the line
        } else if let Some(account_id) = line.account_id {
            self.whole.insert(account_id);
        } else if subject.parse::<UserId>().is_err() {
            self.everything = true;
        }
    }
}

/// Accounts, teams, people and hubs: all that hangs on an account but its apps.
fn is_of_account(subject: &str) -> bool {
    subject.parse::<AccountId>().is_ok()
        || subject.parse::<TeamId>().is_ok()
        || subject.parse::<UserId>().is_ok()
        || subject.parse::<HubId>().is_ok()
}

/// Principals and their keys.
fn is_of_callers(subject: &str) -> bool {
    subject.parse::<PrincipalId>().is_ok() || subject.parse::<KeyId>().is_ok()
}

/// Acts that touch an account, its teams or its people, and no app.
fn is_small(method: &str) -> bool {
    matches!(
        method,
        "CreateAccount"
            | "CreateTeam"
            | "PreparePurchase"
            | "CreateUser"
            | "CreateHub"
            | "SetRole"
            | "EndRole"
            | "AssignProduct"
            | "EndProductAssignment"
            | "Suspend"
            | "LiftSuspension"
            | "EndTrial"
            | "ChangeContract"
            | "CancelScheduledChange"
    )
}

// === impl Memory ===

impl Memory {
    /// Reads everything, in one snapshot.
    ///
    /// # Errors
    /// Where the database does not play along.
    pub async fn load(&self) -> Result<(), Error> {
        let mut position = self.position.lock().await;
        *position = Some(self.load_all().await?);
        Ok(())
    }

    /// Reads what changed; everything, where nothing is known yet. What was committed before this was called is known
    /// after it.
    ///
    /// # Errors
    /// Where the database does not play along.
    pub async fn catch_up(&self) -> Result<(), Error> {
        let mut position = self.position.lock().await;
        let Some(since) = position.clone() else {
            *position = Some(self.load_all().await?);
            return Ok(());
        };
        let before = self.clock.now();
        let (changed, snapshot) = self.store.changed(&since, self.policy.feed_rows_max).await?;
        if changed.is_empty() {
            *position = Some(Position { snapshot, ..since });
            self.directory_is_as_of(before);
        } else {
            *position = Some(self.read_again(since).await?);
        }
        Ok(())
    }

    /// After an act of this process, before it is answered: whoever hears the answer may ask at once. What does not work
    /// now is made up for by the job.
    pub(crate) async fn catch_up_soon(&self) {
        if self.is_loaded() {
            match tokio::time::timeout(SOON, self.catch_up()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(error = %error, "an act is not in memory yet"),
                Err(_) => tracing::warn!("an act is not in memory yet"),
            }
        }
    }

    fn directory_is_as_of(&self, at: Timestamp) {
        self.directory_as_of.store(at.as_micros(), Ordering::Release);
    }

    async fn load_all(&self) -> Result<Position, Error> {
        let before = self.clock.now();
        let started = tokio::time::Instant::now();
        let mut tx = self.store.begin_snapshot(self.policy.load_timeout_ms).await?;
        let position = store::position_in_tx(&mut tx).await?;
        self.read_accounts(&mut tx, None).await?;
        let entries = self.read_apps(&mut tx, None).await?;
        tx.rollback().await?;
        self.clients.replace(entries);
        self.directory_is_as_of(before);
        self.has_changed();
        self.metrics.loaded(started.elapsed(), self.size());
        Ok(position)
    }

    /// Reads what the lines since a position touch, in one snapshot with them.
    async fn read_again(&self, since: Position) -> Result<Position, Error> {
        let before = self.clock.now();
        let mut tx = self.store.begin_snapshot(self.policy.load_timeout_ms).await?;
        let rows = self.policy.feed_rows_max;
        let (mut changed, snapshot) = store::changed_in_tx(&mut tx, &since, 0, rows).await?;
        let mut more = changed.clone();
        while let Some(last) = more.last().filter(|_| u32::try_from(more.len()).is_ok_and(|len| len >= rows))
        {
            (more, _) = store::changed_in_tx(&mut tx, &since, last.audit_id, rows).await?;
            changed.extend_from_slice(&more);
        }
        let touched = Touched::by(&changed);
        if touched.everything {
            tx.rollback().await?;
            return self.load_all().await;
        }
        let accounts: Vec<Uuid> = touched.accounts.iter().map(|id| id.as_uuid()).collect();
        let credentials: Vec<Uuid> = touched.credentials.iter().map(|id| id.as_uuid()).collect();
        let transfers: Vec<Uuid> = touched.transfers.iter().map(|id| id.as_uuid()).collect();
        let whole: Vec<Uuid> = touched.whole.iter().map(|id| id.as_uuid()).collect();
        let mut apps = store::apps_of_in_tx(&mut tx, &credentials, &transfers, &whole).await?;
        apps.extend(touched.apps.iter().map(|id| id.as_uuid()));
        self.read_accounts(&mut tx, Some(&accounts)).await?;
        let entries = self.read_apps(&mut tx, Some(&apps)).await?;
        tx.rollback().await?;
        self.clients.put(entries);
        self.directory_is_as_of(before);
        self.has_changed();
        if let Some(oldest) = changed.iter().map(|line| line.at).min() {
            self.metrics.changed("directory", self.clock.now().saturating_since(oldest));
        }
        Ok(Position { snapshot, ..since })
    }

    /// Accounts and their teams, with who may use their tokens.
    async fn read_accounts(&self, tx: &mut PgConnection, part: Part<'_>) -> Result<(), Error> {
        let accounts = store::known_accounts_in_tx(tx, part).await?;
        let teams = store::known_teams_in_tx(tx, part).await?;
        let mut managers: HashMap<AccountId, Vec<UserId>> = HashMap::new();
        let mut users: HashMap<TeamId, Vec<UserId>> = HashMap::new();
        for holder in store::holders_in_tx(tx, part).await? {
            match holder.team_id {
                Some(team_id) => users.entry(team_id).or_default().push(holder.user_id),
                None => managers.entry(holder.account_id).or_default().push(holder.user_id),
            }
        }
        let in_order = |ids: Option<Vec<UserId>>| {
            let mut ids = ids.unwrap_or_default();
            ids.sort_unstable();
            ids.dedup();
            ids.into_boxed_slice()
        };
        let mut registry = self.registry();
        for known in accounts {
            let account_id = known.account.account_id;
            let managers = in_order(managers.remove(&account_id));
            let facts = AccountFacts { account: known.account, suspended: known.suspended, managers };
            registry.account(account_id).facts.store(Arc::new(facts));
        }
        for known in teams {
            let facts =
                TeamFacts { suspended: known.suspended, users: in_order(users.remove(&known.team_id)) };
            registry.team(known.team_id, known.account_id).facts.store(Arc::new(facts));
        }
        drop(registry);
        Ok(())
    }

    /// Apps with their links and owners, and their client ids.
    async fn read_apps(
        &self,
        tx: &mut PgConnection,
        part: Part<'_>,
    ) -> Result<Vec<(Box<str>, Entry)>, Error> {
        if part.is_some_and(<[Uuid]>::is_empty) {
            return Ok(Vec::new());
        }
        let mut owners = store::later_owners_in_tx(tx, part).await?;
        let mut links: HashMap<AppId, Vec<Change<Arc<TeamCell>>>> = HashMap::new();
        let mut rows = Box::pin(store::known_links_in_tx(tx, part));
        while let Some(link) = rows.try_next().await? {
            let team = self.registry().team(link.team_id, link.account_id);
            let of_app = links.entry(link.app_id).or_insert_with(|| Vec::with_capacity(1));
            of_app.push(Change { from: link.from, value: team });
        }
        drop(rows);
        let mut apps: HashMap<AppId, Arc<AppFacts>> = HashMap::with_capacity(links.len());
        let mut rows = Box::pin(store::known_apps_in_tx(tx, part));
        while let Some(app) = rows.try_next().await? {
            let links = links.remove(&app.app_id).unwrap_or_default();
            let owners = owners.remove(&app.app_id);
            apps.insert(app.app_id, Arc::new(self.app(app, links, owners)?));
        }
        drop(rows);
        let mut entries = Vec::new();
        let mut rows = Box::pin(store::known_credentials_in_tx(tx, part));
        while let Some(credential) = rows.try_next().await? {
            let app = apps.get(&credential.app_id);
            let app = app.ok_or_else(|| Error::stored("credential", "it is of no app"))?;
            let revocation = credential.revocation.map(Box::new);
            let entry = Entry { app: Arc::clone(app), known_from: credential.known_from, revocation };
            entries.push((credential.client_id, entry));
        }
        drop(rows);
        Ok(entries)
    }

    fn app(
        &self,
        app: KnownApp,
        links: Vec<Change<Arc<TeamCell>>>,
        owners: Option<Vec<Change<Owner>>>,
    ) -> Result<AppFacts, Error> {
        let mut registry = self.registry();
        let mut ownership =
            |owner: Owner| Ownership { account: registry.account(owner.account_id), user_id: owner.user_id };
        let first = ownership(app.first);
        let later = owners.map(|changes| {
            let owned = |change: Change<Owner>| Change { from: change.from, value: ownership(change.value) };
            History::from_changes(changes.into_iter().map(owned))
        });
        let later = later.transpose().map_err(|conflict| Error::stored("owners", conflict))?;
        let hub = app.hub_account.map(|account_id| registry.account(account_id));
        drop(registry);
        let teams =
            History::from_changes(links).map_err(|conflict| Error::stored("assignments", conflict))?;
        Ok(AppFacts { app_id: app.app_id, teams, first, later: later.map(Box::new), hub })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_principals_touch_nothing_and_what_is_not_known_touches_everything() {
        let line = |subject: String, account_id| Changed {
            audit_id: 1,
            at: Timestamp::from_secs(0).unwrap(),
            method: "Any".to_owned(),
            subject,
            account_id,
        };
        let (account_id, principal) = (AccountId::generate(), PrincipalId::generate().to_string());
        let of_callers = [
            line(principal.clone(), None),
            line(principal, Some(account_id)),
            line(KeyId::generate().to_string(), None),
        ];
        assert_eq!(Touched::by(&of_callers), Touched::default());
        assert!(Touched::by(&[line("other_1".to_owned(), None)]).everything);
        let whole = Touched::by(&[line("other_1".to_owned(), Some(account_id))]);
        assert_eq!((whole.whole.len(), whole.accounts.len(), whole.everything), (1, 1, false));
    }
}
