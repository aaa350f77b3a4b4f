//! Making and ending principals and their keys. The text of a key lives in the answer and nowhere else: the row has
//! its hash, a retry and the audit log have nothing of it.

use drawdown_entitlement_core::plan::Actor;
use drawdown_proto::{
    entitlement::v1::{
        CreateKeyResponse, CreatePrincipalResponse, EndPrincipalResponse, RevokeKeyResponse,
        RotateKeyResponse,
    },
    scalar::timestamp_to_proto,
};
use drawdown_service::identity::{self, ApiKey, Roles, Scope};
use drawdown_types::{KeyId, PrincipalId, Timestamp, UserId};
use serde_json::{Value, json};

use super::{Act, Acts, Step, Told, existing};
use crate::{
    Error,
    error::Refused,
    grpc::encode_principal as encode,
    secret,
    store::{self, AuditEntry, KeyRecord, Lock, PrincipalRecord, Tx},
};

/// Two keys are good at once at most: one takes the place of the other.
const KEYS_MAX: i64 = 2;

/// Makes a principal.
#[derive(Clone, Debug)]
pub(crate) struct CreatePrincipal {
    pub(crate) name: String,
    pub(crate) roles: Roles,
    pub(crate) scope: Scope,
    pub(crate) user_id: Option<UserId>,
}

/// Ends a principal.
#[derive(Clone, Debug)]
pub(crate) struct EndPrincipal {
    pub(crate) principal_id: PrincipalId,
    pub(crate) note: String,
}

/// Makes a key.
#[derive(Clone, Debug)]
pub(crate) struct CreateKey {
    pub(crate) principal_id: PrincipalId,
    pub(crate) expires_at: Option<Timestamp>,
}

/// Makes a key that takes the place of another one.
#[derive(Clone, Debug)]
pub(crate) struct RotateKey {
    pub(crate) key_id: KeyId,
    pub(crate) old_until: Option<Timestamp>,
    pub(crate) expires_at: Option<Timestamp>,
}

/// Revokes a key.
#[derive(Clone, Debug)]
pub(crate) struct RevokeKey {
    pub(crate) key_id: KeyId,
    pub(crate) at: Option<Timestamp>,
}

fn entry(
    at: Timestamp,
    subject: String,
    principal: &PrincipalRecord,
    reason: Option<String>,
    (before, after): (Option<Value>, Value),
) -> AuditEntry {
    let account_id = principal.scope.account();
    AuditEntry { at, actor: Actor::Operator, reason, subject, account_id, before, after }
}

impl Act for CreatePrincipal {
    type Reply = CreatePrincipalResponse;

    const METHOD: &'static str = "CreatePrincipal";

    async fn perform(&self, tx: &mut Tx, acts: &Acts, _: &Told) -> Result<Step<Self::Reply>, Error> {
        if let Some(role) = self.roles.misfit(self.scope) {
            return Err(Refused::RoleMisfit(role).into());
        }
        if let Some(account_id) = self.scope.account() {
            existing::account(tx, account_id, Lock::No).await?;
        }
        if let Scope::Team { account_id, team_id } = self.scope {
            let team = existing::team(tx, team_id, Lock::No).await?;
            if team.account_id != account_id {
                return Err(Refused::TeamNotFound(team_id).into());
            }
        }
        if let Some(user_id) = self.user_id {
            existing::user(tx, user_id).await?;
        }
        let principal = PrincipalRecord {
            principal_id: PrincipalId::generate(),
            name: self.name.clone(),
            roles: self.roles,
            scope: self.scope,
            user_id: self.user_id,
            created_at: acts.now(),
            ended_at: None,
        };
        store::insert_principal_in_tx(tx, &principal, &identity::current().to_string()).await?;
        let after = json!({
            "name": principal.name,
            "roles": principal.roles.iter().map(|role| role.name()).collect::<Vec<_>>(),
            "team_id": match principal.scope {
                Scope::Team { team_id, .. } => Some(team_id),
                Scope::Platform | Scope::Account(_) => None,
            },
            "user_id": principal.user_id,
        });
        let subject = principal.principal_id.to_string();
        let entry = entry(principal.created_at, subject, &principal, None, (None, after));
        let reply = CreatePrincipalResponse { principal: Some(encode::principal(&principal)) };
        Ok(Step::Done { reply, entry: Some(entry) })
    }
}

impl Act for EndPrincipal {
    type Reply = EndPrincipalResponse;

    const METHOD: &'static str = "EndPrincipal";

    async fn perform(&self, tx: &mut Tx, acts: &Acts, _: &Told) -> Result<Step<Self::Reply>, Error> {
        let principal = existing::principal(tx, self.principal_id).await?;
        let now = acts.now().max(principal.created_at);
        let reply = |at| EndPrincipalResponse { ended_at: Some(timestamp_to_proto(at)) };
        if let Some(ended_at) = principal.ended_at {
            return Ok(Step::Done { reply: reply(ended_at), entry: None });
        }
        store::end_principal_in_tx(tx, self.principal_id, now).await?;
        let change = (Some(json!({ "ended_at": null })), json!({ "ended_at": now }));
        let entry = entry(now, self.principal_id.to_string(), &principal, Some(self.note.clone()), change);
        Ok(Step::Done { reply: reply(now), entry: Some(entry) })
    }
}

/// A key that was made, with the only copy of its text.
struct NewKey {
    record: KeyRecord,
    key: ApiKey,
}

/// A principal that is good, locked.
async fn hold(tx: &mut Tx, principal_id: PrincipalId) -> Result<PrincipalRecord, Error> {
    let principal = existing::principal(tx, principal_id).await?;
    match principal.ended_at {
        None => Ok(principal),
        Some(_) => Err(Refused::PrincipalEnded(principal_id).into()),
    }
}

/// Makes a key of a principal that is locked.
async fn make(
    tx: &mut Tx,
    acts: &Acts,
    principal: &PrincipalRecord,
    expires_at: Option<Timestamp>,
    now: Timestamp,
) -> Result<NewKey, Error> {
    if expires_at.is_some_and(|at| at <= now) {
        return Err(Refused::InstantInPast.into());
    }
    if store::good_keys_in_tx(tx, principal.principal_id, now).await? >= KEYS_MAX {
        return Err(Refused::KeysTooMany(principal.principal_id).into());
    }
    let key = secret::new_key().ok_or_else(|| Error::stored("key", "a new secret has another length"))?;
    let record = KeyRecord {
        key_id: key.key_id(),
        principal_id: principal.principal_id,
        created_at: now,
        ends_at: expires_at,
    };
    let hmac = acts.pepper.hash_key(&key.digest());
    store::insert_key_in_tx(tx, &record, &hmac, &identity::current().to_string()).await?;
    Ok(NewKey { record, key })
}

impl Act for CreateKey {
    type Reply = CreateKeyResponse;

    const METHOD: &'static str = "CreateKey";

    async fn perform(&self, tx: &mut Tx, acts: &Acts, _: &Told) -> Result<Step<Self::Reply>, Error> {
        let principal = hold(tx, self.principal_id).await?;
        let now = acts.now().max(principal.created_at);
        let new = make(tx, acts, &principal, self.expires_at, now).await?;
        let after = json!({ "principal_id": self.principal_id, "expires_at": self.expires_at });
        let entry = entry(now, new.record.key_id.to_string(), &principal, None, (None, after));
        let reply =
            CreateKeyResponse { key: Some(encode::key(&new.record)), text: new.key.to_text().to_string() };
        Ok(Step::Done { reply, entry: Some(entry) })
    }

    fn kept(reply: &Self::Reply) -> Self::Reply {
        CreateKeyResponse { key: reply.key.clone(), text: String::new() }
    }
}

/// A key under the lock of its principal.
async fn hold_key(tx: &mut Tx, key_id: KeyId) -> Result<(KeyRecord, PrincipalRecord), Error> {
    let principal_id = existing::key(tx, key_id).await?.principal_id;
    let principal = existing::principal(tx, principal_id).await?;
    // read again: what was read before the lock may have ended
    Ok((existing::key(tx, key_id).await?, principal))
}

impl Act for RotateKey {
    type Reply = RotateKeyResponse;

    const METHOD: &'static str = "RotateKey";

    async fn perform(&self, tx: &mut Tx, acts: &Acts, _: &Told) -> Result<Step<Self::Reply>, Error> {
        let (mut old, principal) = hold_key(tx, self.key_id).await?;
        if principal.ended_at.is_some() {
            return Err(Refused::PrincipalEnded(principal.principal_id).into());
        }
        let now = acts.now().max(old.created_at);
        if old.ends_at.is_some_and(|at| at <= now) {
            return Err(Refused::KeyRevoked(self.key_id).into());
        }
        let new = make(tx, acts, &principal, self.expires_at, now).await?;
        if let Some(until) = self.old_until {
            bring_forward(tx, &mut old, until, now).await?;
        }
        let after = json!({
            "principal_id": principal.principal_id,
            "expires_at": self.expires_at,
            "replaces": { "key_id": old.key_id, "ends_at": old.ends_at },
        });
        let entry = entry(now, new.record.key_id.to_string(), &principal, None, (None, after));
        let reply = RotateKeyResponse {
            key: Some(encode::key(&new.record)),
            text: new.key.to_text().to_string(),
            old: Some(encode::key(&old)),
        };
        Ok(Step::Done { reply, entry: Some(entry) })
    }

    fn kept(reply: &Self::Reply) -> Self::Reply {
        RotateKeyResponse { text: String::new(), key: reply.key.clone(), old: reply.old.clone() }
    }
}

/// Ends a key at `at`, where that is earlier than what it has; whether it was.
async fn bring_forward(
    tx: &mut Tx,
    key: &mut KeyRecord,
    at: Timestamp,
    now: Timestamp,
) -> Result<bool, Error> {
    if at < now {
        return Err(Refused::InstantInPast.into());
    }
    if key.ends_at.is_some_and(|ends_at| ends_at <= at) {
        return Ok(false);
    }
    store::end_key_in_tx(tx, key.key_id, at).await?;
    key.ends_at = Some(at);
    Ok(true)
}

impl Act for RevokeKey {
    type Reply = RevokeKeyResponse;

    const METHOD: &'static str = "RevokeKey";

    async fn perform(&self, tx: &mut Tx, acts: &Acts, _: &Told) -> Result<Step<Self::Reply>, Error> {
        let (mut key, principal) = hold_key(tx, self.key_id).await?;
        let now = acts.now().max(key.created_at);
        let before = key.ends_at;
        let changed = bring_forward(tx, &mut key, self.at.unwrap_or(now), now).await?;
        let entry = changed.then(|| {
            let change = (Some(json!({ "ends_at": before })), json!({ "ends_at": key.ends_at }));
            entry(now, self.key_id.to_string(), &principal, None, change)
        });
        Ok(Step::Done { reply: RevokeKeyResponse { key: Some(encode::key(&key)) }, entry })
    }
}
