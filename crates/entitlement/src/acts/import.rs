//! Accounts of another platform, all of them in one transaction (D61).
//!
//! One import at a time: what is checked before the first row is written holds until the last one. A dry run writes all
//! rows and takes them back. An account names nobody who comes after it, so a file says the same in one request as in several,
//! and the dry run of a whole file in one says what its import would, as long as nothing else happens in between.

mod rows;

use std::collections::{HashMap, HashSet};

use drawdown_entitlement_core::plan::{AccountImport, AccountRows, ImportFault, PersonImport, plan_import};
use drawdown_proto::entitlement::v1::{ImportAccountsResponse, ImportedAccount};
use drawdown_types::{Timestamp, UserId};

use super::{Act, Acts, Step, Told};
use crate::{
    Error,
    error::{Refused, Unfit},
    store::{self, Tx},
};

/// Imports accounts.
#[derive(Clone, Debug)]
pub(crate) struct ImportAccounts {
    pub(crate) accounts: Vec<AccountImport>,
    /// The cell of each.
    pub(crate) cells: Vec<u8>,
    pub(crate) note: String,
    pub(crate) validate_only: bool,
}

/// Who has which mail address, in small letters.
type People = HashMap<String, UserId>;

impl Act for ImportAccounts {
    type Reply = ImportAccountsResponse;

    const METHOD: &'static str = "ImportAccounts";

    async fn perform(&self, tx: &mut Tx, acts: &Acts, told: &Told) -> Result<Step<Self::Reply>, Error> {
        store::hold_imports_in_tx(tx).await?;
        let now = acts.now();
        let planned = plan_import(now, &self.accounts, &acts.rules).map_err(|faults| {
            let unfit = |fault: ImportFault| Unfit { field: fault.field, problem: fault.problem.to_string() };
            Refused::Import(faults.into_iter().map(unfit).collect())
        })?;
        let Some(settled) = &told.settled else { return Ok(Step::AskEach(self.questions(&planned))) };
        let mut people = self.registered(tx).await?;
        self.check_with_what_is_here(tx, acts, (&people, settled)).await?;
        let mut accounts = Vec::with_capacity(planned.len());
        for ((import, cell), rows) in self.accounts.iter().zip(&self.cells).zip(&planned) {
            let Some(people_new) = register(tx, import, &mut people).await? else { return Ok(Step::Again) };
            let writing = rows::Writing { now, cell: *cell, import, rows, people: &people, note: &self.note };
            let imported = writing.write(tx, acts).await?;
            accounts.push(ImportedAccount { people_new, ..imported });
        }
        let near = planned.iter().flat_map(AccountRows::edges).filter(|edge| *edge > now);
        if near.min().is_some_and(|edge| acts.came_too_near(edge)) {
            return Ok(Step::Again);
        }
        let reply = ImportAccountsResponse { accounts, written: !self.validate_only };
        if self.validate_only { Ok(Step::Validated(reply)) } else { Ok(Step::Done { reply, entry: None }) }
    }
}

impl ImportAccounts {
    /// Whether usage is settled, for the client ids of each account that has some.
    fn questions(&self, planned: &[AccountRows]) -> Vec<(Vec<String>, Timestamp)> {
        let of = |(import, rows): (&AccountImport, &AccountRows)| {
            let from = rows.unsettled_from.unwrap_or(Timestamp::MAX);
            (client_ids(import).map(|(_, id)| id.to_owned()).collect(), from)
        };
        self.accounts.iter().zip(planned).map(of).collect()
    }

    /// Everybody who is named and registered already.
    async fn registered(&self, tx: &mut Tx) -> Result<People, Error> {
        let apps = self.accounts.iter().flat_map(|import| &import.apps);
        let owners = apps.map(|app| app.owner_email.to_lowercase());
        let people = self.accounts.iter().flat_map(people_of).map(|person| person.email.to_lowercase());
        let mut emails: Vec<_> = owners.chain(people).collect();
        emails.sort_unstable();
        emails.dedup();
        store::users_by_email_in_tx(tx, &emails).await
    }

    async fn check_with_what_is_here(
        &self,
        tx: &mut Tx,
        acts: &Acts,
        (registered, settled): (&People, &[bool]),
    ) -> Result<(), Error> {
        let ids = self.accounts.iter().flat_map(client_ids);
        let ids: Vec<_> = ids.map(|(_, client_id)| client_id.to_owned()).collect();
        let taken = store::taken_client_ids_in_tx(tx, &ids).await?;
        let mut imported: HashSet<String> = HashSet::new();
        let mut unfit = Vec::new();
        let mut push = |field: String, problem: String| unfit.push(Unfit { field, problem });
        for (n, import) in self.accounts.iter().enumerate() {
            let at = format!("accounts[{n}]");
            imported.extend(people_of(import).map(|person| person.email.to_lowercase()));
            if let Some(cell) = self.cells.get(n).filter(|cell| !acts.memory.hears(**cell)) {
                push(format!("{at}.cell"), Refused::CellUnknown(*cell).to_string());
            }
            if settled.get(n).copied().unwrap_or_default() {
                push(format!("{at}.apps"), "usage of its client ids is settled".to_owned());
            }
            for (path, client_id) in client_ids(import).filter(|(_, client_id)| taken.contains(*client_id)) {
                push(format!("{at}.{path}"), format!("{client_id} was used here before"));
            }
            for (m, app) in import.apps.iter().enumerate() {
                let owner = app.owner_email.to_lowercase();
                if !owner.is_empty() && !registered.contains_key(&owner) && !imported.contains(&owner) {
                    let problem =
                        "is nobody of this account or of one before it, and nobody who is registered";
                    push(format!("{at}.apps[{m}].owner_email"), problem.to_owned());
                }
            }
        }
        if unfit.is_empty() { Ok(()) } else { Err(Refused::Import(unfit).into()) }
    }
}

/// The client ids of an account with their places in it.
fn client_ids(import: &AccountImport) -> impl Iterator<Item = (String, &str)> {
    import.apps.iter().enumerate().flat_map(|(n, app)| {
        app.credentials.iter().enumerate().map(move |(m, credential)| {
            (format!("apps[{n}].credentials[{m}].client_id"), credential.client_id.as_str())
        })
    })
}

fn people_of(import: &AccountImport) -> impl Iterator<Item = &PersonImport> {
    import.managers.iter().chain(import.teams.iter().flat_map(|team| &team.members))
}

/// Registers whom nobody registered yet, and says how many those were; none where somebody else did in between.
async fn register(tx: &mut Tx, import: &AccountImport, people: &mut People) -> Result<Option<u32>, Error> {
    let mut new = 0_u32;
    for person in people_of(import) {
        let email = person.email.to_lowercase();
        if people.contains_key(&email) {
            continue;
        }
        let user_id = UserId::generate();
        if !store::insert_user_in_tx(tx, user_id, &person.email, &person.name).await? {
            return Ok(None);
        }
        people.insert(email, user_id);
        new = new.saturating_add(1);
    }
    Ok(Some(new))
}
