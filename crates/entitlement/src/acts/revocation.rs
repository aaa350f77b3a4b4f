//! Revoking credentials, and replacing them without a gap (D24, D51).

use drawdown_entitlement_core::plan::{Actor, RevocationFacts, RevocationPlan, plan_revocation};
use drawdown_proto::entitlement::v1::{RevokeCredentialResponse, RotateCredentialResponse};
use drawdown_types::{AccountId, CredentialId, Timestamp};
use serde_json::{Value, json};

use super::{
    Act, Acts, Step, Told,
    credentials::{self, Making},
    existing,
};
use crate::{
    Error,
    error::Refused,
    grpc::encode,
    store::{self, AuditEntry, CredentialRecord, Lock, Made, Tx},
};

/// Revokes a credential.
#[derive(Clone, Debug)]
pub(crate) struct RevokeCredential {
    pub(crate) credential_id: CredentialId,
    pub(crate) at: Option<Timestamp>,
}

/// Makes a credential that takes the place of another one.
#[derive(Clone, Debug)]
pub(crate) struct RotateCredential {
    pub(crate) credential_id: CredentialId,
    pub(crate) old_until: Option<Timestamp>,
}

/// What became of a credential.
enum Revoked {
    /// Nothing new.
    Unchanged,
    /// It has this end now.
    Written,
    /// Its edge came too near while it was written.
    Again,
}

/// Reads a credential under the lock of its app, and says whose the app is.
async fn hold(
    tx: &mut Tx,
    acts: &Acts,
    credential_id: CredentialId,
) -> Result<(CredentialRecord, AccountId), Error> {
    let app_id = existing::credential(tx, credential_id).await?.app_id;
    let app = existing::app(tx, app_id, Lock::Held).await?;
    let credential = existing::credential(tx, credential_id).await?;
    Ok((credential, app.owner_at(acts.now()).account_id))
}

/// Revokes `credential`, which is held, and changes it accordingly.
async fn revoke(
    tx: &mut Tx,
    acts: &Acts,
    credential: &mut CredentialRecord,
    at: Option<Timestamp>,
    made: Made,
) -> Result<Revoked, Error> {
    let facts = RevocationFacts { now: made.at, held: credential.revocation };
    let (replaces, revocation) = match plan_revocation(facts, at, &acts.rules)? {
        RevocationPlan::Unchanged(_) => return Ok(Revoked::Unchanged),
        RevocationPlan::Revoke { replaces, revocation } => (replaces, revocation),
    };
    if replaces {
        store::void_revocation_in_tx(tx, credential.credential_id, made.at).await?;
    }
    store::append_revocation_in_tx(tx, credential.credential_id, revocation, made).await?;
    if acts.came_too_near(revocation.unknown_from) {
        return Ok(Revoked::Again);
    }
    credential.revocation = Some(revocation);
    Ok(Revoked::Written)
}

fn end_of(credential: &CredentialRecord) -> Option<Value> {
    let end = credential.revocation?;
    Some(json!({ "revoked_at": end.revoked_at, "unknown_from": end.unknown_from }))
}

impl Act for RevokeCredential {
    type Reply = RevokeCredentialResponse;

    const METHOD: &'static str = "RevokeCredential";

    async fn perform(&self, tx: &mut Tx, acts: &Acts, _: &Told) -> Result<Step<Self::Reply>, Error> {
        let (mut credential, account_id) = hold(tx, acts, self.credential_id).await?;
        let (now, before) = (acts.now(), end_of(&credential));
        let made = Made { at: now, by: Actor::Operator, through: Self::METHOD };
        let entry = match revoke(tx, acts, &mut credential, self.at, made).await? {
            Revoked::Again => return Ok(Step::Again),
            Revoked::Unchanged => None,
            Revoked::Written => Some(AuditEntry {
                at: now,
                actor: Actor::Operator,
                reason: None,
                subject: self.credential_id.to_string(),
                account_id: Some(account_id),
                before,
                after: end_of(&credential).unwrap_or_default(),
            }),
        };
        let reply = RevokeCredentialResponse { credential: Some(encode::credential(credential)) };
        Ok(Step::Done { reply, entry })
    }
}

impl Act for RotateCredential {
    type Reply = RotateCredentialResponse;

    const METHOD: &'static str = "RotateCredential";

    async fn perform(&self, tx: &mut Tx, acts: &Acts, told: &Told) -> Result<Step<Self::Reply>, Error> {
        let app_id = existing::credential(tx, self.credential_id).await?.app_id;
        // makes it under the locks of account and app, so what is read of the old one from here on holds
        let mut new = match credentials::make(tx, acts, app_id, None, (Self::METHOD, told)).await? {
            Making::Ask(question) => return Ok(Step::Ask(question)),
            Making::Again => return Ok(Step::Again),
            Making::Made(made) => made,
        };
        let mut old = existing::credential(tx, self.credential_id).await?;
        let now = new.entry.at;
        if old.revocation.is_some_and(|end| end.revoked_at <= now) {
            return Err(Refused::CredentialRevoked(self.credential_id).into());
        }
        if let Some(until) = self.old_until {
            let made = Made { at: now, by: Actor::Operator, through: Self::METHOD };
            if let Revoked::Again = revoke(tx, acts, &mut old, Some(until), made).await? {
                return Ok(Step::Again);
            }
        }
        if let Value::Object(after) = &mut new.entry.after {
            after.insert(
                "replaces".to_owned(),
                json!({ "credential_id": old.credential_id, "end": end_of(&old) }),
            );
        }
        let reply = RotateCredentialResponse {
            credential: Some(encode::credential(new.record)),
            client_secret: new.secret.expose().to_owned(),
            old: Some(encode::credential(old)),
        };
        Ok(Step::Done { reply, entry: Some(new.entry) })
    }

    fn kept(reply: &Self::Reply) -> Self::Reply {
        RotateCredentialResponse { client_secret: String::new(), ..reply.clone() }
    }
}
