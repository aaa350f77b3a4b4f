//! Where the tokens of a purchase go (D37). The purchase itself is the ledger's.

use drawdown_entitlement_core::plan::{Actor, Role, plan_team};
use drawdown_proto::entitlement::v1::PreparePurchaseResponse;
use drawdown_types::{AccountId, TeamId, UserId};
use serde_json::json;

use super::{Act, Acts, Step, Told, existing};
use crate::{
    Error,
    error::Refused,
    grpc::encode,
    store::{self, AuditEntry, Lock, Scope, TeamRecord, Tx},
};

/// Names the team of a purchase, and creates the first one of an account.
#[derive(Clone, Debug)]
pub(crate) struct PreparePurchase {
    pub(crate) account_id: AccountId,
    pub(crate) team_id: Option<TeamId>,
    pub(crate) team_name: Option<String>,
    pub(crate) by: Option<UserId>,
}

impl Act for PreparePurchase {
    type Reply = PreparePurchaseResponse;

    const METHOD: &'static str = "PreparePurchase";

    async fn perform(&self, tx: &mut Tx, acts: &Acts, _: &Told) -> Result<Step<Self::Reply>, Error> {
        // two first purchases at once make one team
        let account = existing::account(tx, self.account_id, Lock::Held).await?;
        let found = |team| {
            let reply = PreparePurchaseResponse { team: Some(encode::team(team)), created: false };
            Ok(Step::Done { reply, entry: None })
        };
        if let Some(team_id) = self.team_id {
            let team = existing::team(tx, team_id, Lock::No).await?;
            return if team.account_id == self.account_id {
                found(team)
            } else {
                Err(Refused::TeamNotOfAccount(team_id).into())
            };
        }
        // two are enough to know that there is more than one
        let first = TeamId::from_uuid(uuid::Uuid::nil());
        let mut teams = store::teams_of_account_in_tx(tx, self.account_id, first, 2).await?;
        match (teams.pop(), teams.pop()) {
            (Some(_), Some(_)) => Err(Refused::TeamNotNamed.into()),
            (Some(team), None) => found(team),
            (None, _) => self.create(tx, acts, account).await,
        }
    }
}

impl PreparePurchase {
    async fn create(
        &self,
        tx: &mut Tx,
        acts: &Acts,
        account: store::AccountRecord,
    ) -> Result<Step<PreparePurchaseResponse>, Error> {
        let now = acts.now();
        // of every other purchase the ledger says so
        if account.trial.holds_at(acts.rules.window.window_of(now), &acts.rules) {
            return Err(Refused::TrialActive.into());
        }
        if let Some(buyer) = self.by {
            existing::user(tx, buyer).await?;
        }
        let new = plan_team(now, account.created_at, None)?;
        let team = TeamRecord {
            team_id: TeamId::generate(),
            account_id: self.account_id,
            name: self.team_name.clone().unwrap_or(account.name),
            created_at: new.created_at,
            suspended_since: None,
        };
        store::insert_team_in_tx(tx, team.team_id, self.account_id, &team.name, &new).await?;
        if let Some(buyer) = self.by {
            store::begin_role_in_tx(tx, buyer, Scope::Team(team.team_id), Role::PrimaryAdmin, now).await?;
        }
        let entry = AuditEntry {
            at: now,
            actor: self.by.map_or(Actor::Operator, Actor::User),
            reason: None,
            subject: team.team_id.to_string(),
            account_id: Some(self.account_id),
            before: None,
            after: json!({ "name": team.name, "created_at": new.created_at, "primary_admin": self.by }),
        };
        let reply = PreparePurchaseResponse { team: Some(encode::team(team)), created: true };
        Ok(Step::Done { reply, entry: Some(entry) })
    }
}
