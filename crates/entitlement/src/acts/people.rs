//! Registering people and giving them roles.

use drawdown_entitlement_core::plan::{Actor, Role, RoleFacts, RolePlan, plan_role};
use drawdown_proto::{
    entitlement::v1::{CreateUserResponse, SetRoleResponse, User},
    scalar::timestamp_to_proto,
};
use drawdown_types::UserId;
use serde_json::json;

use super::{Act, Acts, Step, Told, existing};
use crate::{
    Error,
    error::Refused,
    store::{self, AuditEntry, Scope, Tx},
};

/// Registers a person.
#[derive(Clone, Debug)]
pub(crate) struct CreateUser {
    pub(crate) email: String,
    pub(crate) name: String,
}

/// Gives a person a role.
#[derive(Clone, Debug)]
pub(crate) struct SetRole {
    pub(crate) user_id: UserId,
    pub(crate) role: Role,
    pub(crate) scope: Scope,
}

impl Act for CreateUser {
    type Reply = CreateUserResponse;

    const METHOD: &'static str = "CreateUser";

    async fn perform(&self, tx: &mut Tx, acts: &Acts, _: &Told) -> Result<Step<Self::Reply>, Error> {
        let user_id = UserId::generate();
        if !store::insert_user_in_tx(tx, user_id, &self.email, &self.name).await? {
            return Err(Refused::EmailTaken.into());
        }
        let entry = AuditEntry {
            at: acts.now(),
            actor: Actor::Operator,
            reason: None,
            subject: user_id.to_string(),
            account_id: None,
            before: None,
            after: json!({ "email": self.email, "name": self.name }),
        };
        let user = User { user_id: user_id.to_string(), email: self.email.clone(), name: self.name.clone() };
        Ok(Step::Done { reply: CreateUserResponse { user: Some(user) }, entry: Some(entry) })
    }
}

impl Act for SetRole {
    type Reply = SetRoleResponse;

    const METHOD: &'static str = "SetRole";

    async fn perform(&self, tx: &mut Tx, acts: &Acts, _: &Told) -> Result<Step<Self::Reply>, Error> {
        let Self { user_id, role, scope } = *self;
        let account_id = existing::held_scope(tx, scope).await?;
        existing::user(tx, user_id).await?;
        let primary_admin = match scope {
            Scope::Team(team_id) => store::primary_admin_in_tx(tx, team_id).await?,
            Scope::Account(_) => None,
        };
        let held = store::held_in_tx(tx, user_id, scope).await?;
        let facts = RoleFacts { now: acts.now(), user_id, held, primary_admin };
        let (ends_held, at) = match plan_role(facts, role)? {
            RolePlan::Unchanged { from } => {
                let reply = SetRoleResponse { from: Some(timestamp_to_proto(from)) };
                return Ok(Step::Done { reply, entry: None });
            }
            RolePlan::Begin { ends_held, at } => (ends_held, at),
        };
        if ends_held {
            store::end_role_in_tx(tx, user_id, scope, at).await?;
        }
        store::begin_role_in_tx(tx, user_id, scope, role, at).await?;
        let team_id = scope.team_id();
        let entry = AuditEntry {
            at,
            actor: Actor::Operator,
            reason: None,
            subject: user_id.to_string(),
            account_id: Some(account_id),
            before: held.map(|held| json!({ "role": store::role_text(held.role), "from": held.from })),
            after: json!({ "role": store::role_text(role), "team_id": team_id, "from": at }),
        };
        let reply = SetRoleResponse { from: Some(timestamp_to_proto(at)) };
        Ok(Step::Done { reply, entry: Some(entry) })
    }
}
