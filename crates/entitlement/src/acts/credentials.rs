//! Making credentials. The secret lives in the answer and nowhere else: the row has its hash, a retry
//! and the audit log have nothing of it.

use drawdown_entitlement_core::plan::{
    Actor, CredentialFacts, CredentialPlan, UsageQuestion, plan_credential,
};
use drawdown_proto::entitlement::v1::CreateCredentialResponse;
use drawdown_types::{AppId, CredentialId, Timestamp};
use serde_json::json;

use super::{Act, Acts, Step, Told, existing, only_operator_enters};
use crate::{
    Error,
    secret::{Secret, new_client_id},
    store::{self, AuditEntry, CredentialRecord, Lock, Made, NewCredentialRow, Tx},
};

/// Makes a credential of an app.
#[derive(Clone, Debug)]
pub(crate) struct CreateCredential {
    pub(crate) app_id: AppId,
    pub(crate) created_at: Option<Timestamp>,
}

/// A credential that was made, with the only copy of its secret.
pub(super) struct NewCredential {
    pub(super) record: CredentialRecord,
    pub(super) secret: Secret,
    pub(super) entry: AuditEntry,
}

/// What comes of making one.
pub(super) enum Making {
    Ask(UsageQuestion),
    /// The app changed its owner in between.
    Again,
    Made(Box<NewCredential>),
}

/// Makes a credential of `app_id` in the transaction given: locks the account, then the app.
pub(super) async fn make(
    tx: &mut Tx,
    acts: &Acts,
    app_id: AppId,
    created_at: Option<Timestamp>,
    (through, told): (&'static str, &Told),
) -> Result<Making, Error> {
    // which account is read without a lock, to lock the account before the app
    let app = existing::app(tx, app_id, Lock::No).await?;
    let account_id = app.owner_at(acts.now()).account_id;
    let account = existing::account(tx, account_id, Lock::Held).await?;
    let app = existing::app(tx, app_id, Lock::Held).await?;
    let now = acts.now();
    if app.owner_at(now).account_id != account_id {
        return Ok(Making::Again);
    }
    only_operator_enters(created_at.is_some_and(|at| at < now), "created_at")?;
    let facts = CredentialFacts {
        now,
        account_id,
        account_created_at: account.created_at,
        trial: account.trial,
        credentials: store::credentials_in_tx(tx, app_id, now).await?,
        answer: told.usage,
    };
    let new = match plan_credential(facts, created_at, &acts.rules)? {
        CredentialPlan::Ask(question) => return Ok(Making::Ask(question)),
        CredentialPlan::Create(new) => new,
    };
    if let Some(trial) = new.trial {
        store::set_trial_in_tx(tx, account_id, trial).await?;
    }
    let (credential_id, client_id, secret) = (CredentialId::generate(), new_client_id(), Secret::generate());
    let row = NewCredentialRow {
        credential_id,
        app_id,
        client_id: &client_id,
        secret_hmac: &acts.pepper.hash(&client_id, secret.expose()),
        created_at: new.created_at,
        known_from: new.known_from,
        made: Made { at: now, by: Actor::Operator, through },
    };
    store::insert_credential_in_tx(tx, row).await?;
    let first_team = store::first_team_in_tx(tx, app_id).await?;
    if let Some((team_id, from)) = first_team.filter(|(_, from)| new.known_from < *from) {
        // it is known in windows from before the app's first team: the ledger may have been told without it
        store::note_adoption_in_tx(tx, app_id, team_id, from, from).await?;
    }
    let trial_before = account.trial.trial.filter(|_| new.trial.is_some());
    let entry = AuditEntry {
        at: now,
        actor: Actor::Operator,
        reason: None,
        subject: credential_id.to_string(),
        account_id: Some(account_id),
        before: trial_before
            .map(|trial| json!({ "trial_started_at": trial.started_at, "trial_ends_at": trial.ends_at })),
        after: json!({
            "app_id": app_id,
            "client_id": client_id,
            "created_at": new.created_at,
            "trial_started_at": new.trial.map(|trial| trial.started_at),
            "trial_ends_at": new.trial.map(|trial| trial.ends_at),
        }),
    };
    let record = CredentialRecord {
        credential_id,
        app_id,
        client_id,
        created_at: new.created_at,
        known_from: new.known_from,
        revocation: None,
    };
    Ok(Making::Made(Box::new(NewCredential { record, secret, entry })))
}

impl Act for CreateCredential {
    type Reply = CreateCredentialResponse;

    const METHOD: &'static str = "CreateCredential";

    async fn perform(&self, tx: &mut Tx, acts: &Acts, told: &Told) -> Result<Step<Self::Reply>, Error> {
        let making = make(tx, acts, self.app_id, self.created_at, (Self::METHOD, told)).await?;
        let made = match making {
            Making::Ask(question) => return Ok(Step::Ask(question)),
            Making::Again => return Ok(Step::Again),
            Making::Made(made) => made,
        };
        let reply = CreateCredentialResponse {
            credential_id: made.record.credential_id.to_string(),
            client_id: made.record.client_id,
            client_secret: made.secret.expose().to_owned(),
        };
        Ok(Step::Done { reply, entry: Some(made.entry) })
    }

    fn kept(reply: &Self::Reply) -> Self::Reply {
        CreateCredentialResponse {
            credential_id: reply.credential_id.clone(),
            client_id: reply.client_id.clone(),
            client_secret: String::new(),
        }
    }
}
