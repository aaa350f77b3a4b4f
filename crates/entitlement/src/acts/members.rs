//! Ending roles, and product assignments (D27). All of it is access, so it acts at once.

use drawdown_entitlement_core::plan::{
    Actor, ProductFacts, ProductPlan, Standing, plan_product, plan_product_end,
};
use drawdown_proto::entitlement::v1::{AssignProductResponse, EndProductAssignmentResponse, EndRoleResponse};
use drawdown_types::{AccountId, TeamId, Timestamp, UserId};
use serde_json::{Value, json};

use super::{Act, Acts, Step, Told, existing};
use crate::{
    Error,
    grpc::encode,
    store::{self, AuditEntry, ProductRecord, RoleRecord, Scope, Tx},
};

/// Ends the role of a person.
#[derive(Clone, Debug)]
pub(crate) struct EndRole {
    pub(crate) user_id: UserId,
    pub(crate) scope: Scope,
}

/// A person and a team, and who acts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Product {
    pub(crate) team_id: TeamId,
    pub(crate) user_id: UserId,
    pub(crate) actor: Actor,
}

/// Makes a product assignment.
#[derive(Clone, Debug)]
pub(crate) struct AssignProduct(pub(crate) Product);

/// Ends a product assignment.
#[derive(Clone, Debug)]
pub(crate) struct EndProduct(pub(crate) Product);

impl Act for EndRole {
    type Reply = EndRoleResponse;

    const METHOD: &'static str = "EndRole";

    async fn perform(&self, tx: &mut Tx, acts: &Acts, _: &Told) -> Result<Step<Self::Reply>, Error> {
        let Self { user_id, scope } = *self;
        let account_id = existing::held_scope(tx, scope).await?;
        existing::user(tx, user_id).await?;
        let Some(held) = store::held_in_tx(tx, user_id, scope).await? else {
            return Ok(Step::Done { reply: EndRoleResponse { role: None }, entry: None });
        };
        // an instant read before a lock was free may lie before the role that it waited for
        let mut at = acts.now().max(held.from);
        let product = match scope.team_id() {
            Some(team_id) => store::product_in_tx(tx, team_id, user_id).await?,
            None => None,
        };
        if let Some(product) = &product {
            at = at.max(product.from);
            store::end_product_in_tx(tx, product.assignment_id, at).await?;
        }
        store::end_role_in_tx(tx, user_id, scope, at).await?;
        let entry = AuditEntry {
            at,
            actor: Actor::Operator,
            reason: None,
            subject: user_id.to_string(),
            account_id: Some(account_id),
            before: Some(json!({
                "role": store::role_text(held.role),
                "team_id": scope.team_id(),
                "from": held.from,
                "product_assigned": product.is_some(),
            })),
            after: json!({ "role": Value::Null, "to": at }),
        };
        let ended = RoleRecord { role_id: 0, user_id, scope, role: held.role, from: held.from, to: Some(at) };
        let reply = EndRoleResponse { role: Some(encode::role_held(&ended)) };
        Ok(Step::Done { reply, entry: Some(entry) })
    }
}

/// What is known about a product assignment, under the lock of its team.
struct Known {
    account_id: AccountId,
    held: Option<ProductRecord>,
    facts: ProductFacts,
}

impl Product {
    async fn hold(self, tx: &mut Tx, acts: &Acts) -> Result<Known, Error> {
        let Self { team_id, user_id, actor } = self;
        let account_id = existing::held_scope(tx, Scope::Team(team_id)).await?;
        existing::user(tx, user_id).await?;
        let actor_standing = match actor {
            Actor::Operator => Standing::default(),
            Actor::User(by) => {
                existing::user(tx, by).await?;
                store::standing_in_tx(tx, by, team_id, account_id).await?
            }
        };
        let role = store::held_in_tx(tx, user_id, Scope::Team(team_id)).await?.map(|held| held.role);
        let held = store::product_in_tx(tx, team_id, user_id).await?;
        let held_since = held.map(|held| held.from);
        let facts = ProductFacts { now: acts.now(), actor, actor_standing, role, held_since };
        Ok(Known { account_id, held, facts })
    }

    fn entry(self, at: Timestamp, account_id: AccountId, assigned: bool) -> AuditEntry {
        let state = |assigned| json!({ "team_id": self.team_id, "product_assigned": assigned });
        AuditEntry {
            at,
            actor: self.actor,
            reason: None,
            subject: self.user_id.to_string(),
            account_id: Some(account_id),
            before: Some(state(!assigned)),
            after: state(assigned),
        }
    }
}

impl Act for AssignProduct {
    type Reply = AssignProductResponse;

    const METHOD: &'static str = "AssignProduct";

    async fn perform(&self, tx: &mut Tx, acts: &Acts, _: &Told) -> Result<Step<Self::Reply>, Error> {
        let Self(product) = *self;
        let known = product.hold(tx, acts).await?;
        let ProductPlan::Write { at } = plan_product(known.facts)? else {
            let reply = AssignProductResponse { assignment: known.held.as_ref().map(encode::product) };
            return Ok(Step::Done { reply, entry: None });
        };
        store::begin_product_in_tx(tx, (product.team_id, product.user_id), at, product.actor).await?;
        let begun = ProductRecord {
            assignment_id: 0,
            team_id: product.team_id,
            user_id: product.user_id,
            from: at,
            made_by: product.actor,
            to: None,
        };
        let reply = AssignProductResponse { assignment: Some(encode::product(&begun)) };
        Ok(Step::Done { reply, entry: Some(product.entry(at, known.account_id, true)) })
    }
}

impl Act for EndProduct {
    type Reply = EndProductAssignmentResponse;

    const METHOD: &'static str = "EndProductAssignment";

    async fn perform(&self, tx: &mut Tx, acts: &Acts, _: &Told) -> Result<Step<Self::Reply>, Error> {
        let Self(product) = *self;
        let known = product.hold(tx, acts).await?;
        let (ProductPlan::Write { at }, Some(held)) = (plan_product_end(known.facts)?, known.held) else {
            return Ok(Step::Done { reply: EndProductAssignmentResponse { assignment: None }, entry: None });
        };
        store::end_product_in_tx(tx, held.assignment_id, at).await?;
        let ended = ProductRecord { to: Some(at), ..held };
        let reply = EndProductAssignmentResponse { assignment: Some(encode::product(&ended)) };
        Ok(Step::Done { reply, entry: Some(product.entry(at, known.account_id, false)) })
    }
}
