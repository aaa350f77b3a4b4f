//! Opening accounts and teams.

use drawdown_entitlement_core::{
    Change, ContractKind, History, TrialTerms,
    plan::{Actor, plan_account, plan_team},
};
use drawdown_proto::entitlement::v1::{CreateAccountResponse, CreateTeamResponse};
use drawdown_types::{AccountId, TeamId, Timestamp};
use serde_json::json;

use super::{Act, Acts, Step, Told, existing, only_operator_enters};
use crate::{
    Error,
    error::Refused,
    grpc::encode,
    store::{self, AccountRecord, AuditEntry, Lock, Made, TeamRecord, Tx},
};

/// Opens an account.
#[derive(Clone, Debug)]
pub(crate) struct CreateAccount {
    pub(crate) name: String,
    pub(crate) kind: ContractKind,
    pub(crate) created_at: Option<Timestamp>,
    pub(crate) commercial: bool,
    pub(crate) cell: u8,
}

/// Creates a team of an account.
#[derive(Clone, Debug)]
pub(crate) struct CreateTeam {
    pub(crate) account_id: AccountId,
    pub(crate) name: String,
    pub(crate) created_at: Option<Timestamp>,
}

impl Act for CreateAccount {
    type Reply = CreateAccountResponse;

    const METHOD: &'static str = "CreateAccount";

    async fn perform(&self, tx: &mut Tx, acts: &Acts, _: &Told) -> Result<Step<Self::Reply>, Error> {
        if !acts.memory.hears(self.cell) {
            return Err(Refused::CellUnknown(self.cell).into());
        }
        let now = acts.now();
        let new = plan_account(now, self.created_at, self.commercial, &acts.rules)?;
        let account_id = AccountId::generate();
        let made = Made { at: now, by: Actor::Operator, through: Self::METHOD };
        store::insert_account_in_tx(tx, account_id, &self.name, (self.kind, self.cell), &new, made).await?;
        let contract = History::from_changes([Change { from: new.contract_from, value: self.kind }]);
        let account = AccountRecord {
            account_id,
            name: self.name.clone(),
            created_at: new.created_at,
            opened_as: self.kind,
            contract: contract.unwrap_or_default(),
            trial: TrialTerms { trial: None, commercial_from: new.commercial_from },
            cell: self.cell,
            suspended_since: None,
        };
        let entry = AuditEntry {
            at: now,
            actor: Actor::Operator,
            reason: None,
            subject: account_id.to_string(),
            account_id: Some(account_id),
            before: None,
            after: json!({
                "name": self.name,
                "contract_kind": store::kind_text(self.kind),
                "created_at": new.created_at,
                "commercial_from": new.commercial_from,
                "cell": self.cell,
            }),
        };
        let reply = CreateAccountResponse { account: Some(encode::account(&account, now)) };
        Ok(Step::Done { reply, entry: Some(entry) })
    }
}

impl Act for CreateTeam {
    type Reply = CreateTeamResponse;

    const METHOD: &'static str = "CreateTeam";

    async fn perform(&self, tx: &mut Tx, acts: &Acts, _: &Told) -> Result<Step<Self::Reply>, Error> {
        let account = existing::account(tx, self.account_id, Lock::No).await?;
        let now = acts.now();
        only_operator_enters(self.created_at.is_some_and(|at| at < now), "created_at")?;
        let new = plan_team(now, account.created_at, self.created_at)?;
        let team = TeamRecord {
            team_id: TeamId::generate(),
            account_id: self.account_id,
            name: self.name.clone(),
            created_at: new.created_at,
            suspended_since: None,
        };
        store::insert_team_in_tx(tx, team.team_id, self.account_id, &self.name, &new).await?;
        let entry = AuditEntry {
            at: now,
            actor: Actor::Operator,
            reason: None,
            subject: team.team_id.to_string(),
            account_id: Some(self.account_id),
            before: None,
            after: json!({ "name": self.name, "created_at": new.created_at }),
        };
        let reply = CreateTeamResponse { team: Some(encode::team(team)) };
        Ok(Step::Done { reply, entry: Some(entry) })
    }
}
