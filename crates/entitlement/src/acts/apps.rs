//! Registering apps and assigning them to teams.

use drawdown_entitlement_core::plan::{Actor, AssignFacts, AssignPlan, plan_assign};
use drawdown_proto::{
    entitlement::v1::{AssignAppResponse, CreateAppResponse},
    scalar::timestamp_to_proto,
};
use drawdown_types::{AccountId, AppId, TeamId, Timestamp, UserId};
use serde_json::json;

use super::{Act, Acts, Step, Told, existing, only_operator_enters};
use crate::{
    Error,
    grpc::encode,
    store::{self, AppListing, AuditEntry, Lock, Made, Tx},
};

/// Registers an app.
#[derive(Clone, Debug)]
pub(crate) struct CreateApp {
    pub(crate) account_id: AccountId,
    pub(crate) owner: Option<UserId>,
    pub(crate) name: String,
}

/// Assigns an app to a team.
#[derive(Clone, Debug)]
pub(crate) struct AssignApp {
    pub(crate) app_id: AppId,
    pub(crate) team_id: TeamId,
    pub(crate) from: Option<Timestamp>,
}

impl Act for CreateApp {
    type Reply = CreateAppResponse;

    const METHOD: &'static str = "CreateApp";

    async fn perform(&self, tx: &mut Tx, acts: &Acts, _: &Told) -> Result<Step<Self::Reply>, Error> {
        existing::account(tx, self.account_id, Lock::No).await?;
        if let Some(owner) = self.owner {
            existing::user(tx, owner).await?;
        }
        let app_id = AppId::generate();
        store::insert_app_in_tx(tx, app_id, self.account_id, self.owner, &self.name).await?;
        let entry = AuditEntry {
            at: acts.now(),
            actor: Actor::Operator,
            reason: None,
            subject: app_id.to_string(),
            account_id: Some(self.account_id),
            before: None,
            after: json!({ "name": self.name, "owner_user_id": self.owner }),
        };
        let app = AppListing {
            app_id,
            account_id: self.account_id,
            owner: self.owner,
            name: self.name.clone(),
            team_id: None,
            client_ids: Vec::new(),
            editors: Vec::new(),
            hub: None,
        };
        let reply = CreateAppResponse { app: Some(encode::app(app, acts.limits.hub_mode)) };
        Ok(Step::Done { reply, entry: Some(entry) })
    }
}

impl Act for AssignApp {
    type Reply = AssignAppResponse;

    const METHOD: &'static str = "AssignApp";

    async fn perform(&self, tx: &mut Tx, acts: &Acts, told: &Told) -> Result<Step<Self::Reply>, Error> {
        let app = existing::app(tx, self.app_id, Lock::Held).await?;
        let team = existing::team(tx, self.team_id, Lock::No).await?;
        let history = store::assignments_in_tx(tx, self.app_id).await?;
        let now = acts.now();
        let later_accounts = app.later.map(|owner| owner.account_id);
        let facts = AssignFacts {
            now,
            app_id: self.app_id,
            app_account: app.first.account_id,
            later_accounts: &later_accounts,
            team_id: self.team_id,
            team_account: team.account_id,
            team_created_at: team.created_at,
            history: &history,
            answer: told.usage,
        };
        let reply = |from| AssignAppResponse { from: Some(timestamp_to_proto(from)) };
        let link = match plan_assign(facts, self.from, &acts.rules)? {
            AssignPlan::Unchanged { from } => return Ok(Step::Done { reply: reply(from), entry: None }),
            AssignPlan::Ask(question) => {
                only_operator_enters(true, "from")?;
                return Ok(Step::Ask(question));
            }
            AssignPlan::Append(link) => link,
        };
        let made = Made { at: now, by: Actor::Operator, through: Self::METHOD };
        store::append_assignment_in_tx(tx, &link, made).await?;
        if history.last().is_none() {
            // what it used before is charged to its first team, once that is in force (D49)
            store::note_adoption_in_tx(tx, self.app_id, link.team_id, link.from, link.from).await?;
        }
        if !link.set_up && acts.came_too_near(link.from) {
            return Ok(Step::Again);
        }
        let entry = AuditEntry {
            at: now,
            actor: Actor::Operator,
            reason: None,
            subject: self.app_id.to_string(),
            account_id: Some(app.owner_at(link.from).account_id),
            before: history.last().map(|open| json!({ "team_id": open.value, "from": open.from })),
            after: json!({ "team_id": link.team_id, "from": link.from, "set_up": link.set_up }),
        };
        Ok(Step::Done { reply: reply(link.from), entry: Some(entry) })
    }
}
