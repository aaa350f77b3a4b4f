//! What becomes of an account: suspended and not any more, out of its trial, under another contract.
//!
//! A suspension is the operator's alone (D56) and acts at once: it is asked for by the gate and decides about no
//! charge. Trial and contract decide about money and take effect at an edge.

use drawdown_entitlement_core::{
    ContractKind,
    plan::{AccountFacts, AccountPlan, Actor, UsageAnswer, plan_contract, plan_trial_end},
};
use drawdown_proto::{
    entitlement::v1::{ChangeContractResponse, EndTrialResponse, LiftSuspensionResponse, SuspendResponse},
    scalar::timestamp_to_proto,
};
use drawdown_types::{AccountId, TeamId, Timestamp};
use serde_json::json;

use super::{Act, Acts, Step, Told, existing, only_operator_enters};
use crate::{
    Error,
    grpc::encode,
    store::{self, AccountRecord, AuditEntry, Lock, Made, Scope, SuspensionRecord, TrialEndRecord, Tx},
};

/// Suspends an account or a team.
#[derive(Clone, Debug)]
pub(crate) struct Suspend {
    pub(crate) scope: Scope,
    pub(crate) note: String,
}

/// Lifts the suspension of an account or a team.
#[derive(Clone, Debug)]
pub(crate) struct LiftSuspension {
    pub(crate) scope: Scope,
    pub(crate) note: String,
}

/// Ends a trial.
#[derive(Clone, Debug)]
pub(crate) struct EndTrial {
    pub(crate) account_id: AccountId,
    pub(crate) from: Option<Timestamp>,
}

/// Changes the kind of contract.
#[derive(Clone, Debug)]
pub(crate) struct ChangeContract {
    pub(crate) account_id: AccountId,
    pub(crate) kind: ContractKind,
    pub(crate) from: Option<Timestamp>,
}

/// What is suspended, or not any more.
struct Subject {
    account_id: AccountId,
    team_id: Option<TeamId>,
}

impl Subject {
    /// Holds it, and reads the suspension that it has.
    async fn hold(tx: &mut Tx, scope: Scope) -> Result<(Self, Option<SuspensionRecord>), Error> {
        let account_id = existing::held_scope(tx, scope).await?;
        let team_id = scope.team_id();
        let held = store::suspension_in_tx(tx, account_id, team_id).await?;
        Ok((Self { account_id, team_id }, held))
    }

    fn entry(&self, at: Timestamp, note: &str, suspended: bool) -> AuditEntry {
        let state = |suspended| json!({ "suspended": suspended });
        AuditEntry {
            at,
            actor: Actor::Operator,
            reason: Some(note.to_owned()),
            subject: self.team_id.map_or_else(|| self.account_id.to_string(), |team_id| team_id.to_string()),
            account_id: Some(self.account_id),
            before: Some(state(!suspended)),
            after: state(suspended),
        }
    }
}

impl Act for Suspend {
    type Reply = SuspendResponse;

    const METHOD: &'static str = "Suspend";

    async fn perform(&self, tx: &mut Tx, acts: &Acts, _: &Told) -> Result<Step<Self::Reply>, Error> {
        let (subject, held) = Subject::hold(tx, self.scope).await?;
        if let Some(held) = held {
            let reply = SuspendResponse { suspension: Some(encode::suspension(held)) };
            return Ok(Step::Done { reply, entry: None });
        }
        let at = acts.now();
        store::begin_suspension_in_tx(tx, subject.account_id, subject.team_id, at, &self.note).await?;
        let begun = SuspensionRecord {
            suspension_id: 0,
            account_id: subject.account_id,
            team_id: subject.team_id,
            from: at,
            note: self.note.clone(),
            to: None,
            end_note: None,
        };
        let reply = SuspendResponse { suspension: Some(encode::suspension(begun)) };
        Ok(Step::Done { reply, entry: Some(subject.entry(at, &self.note, true)) })
    }
}

impl Act for LiftSuspension {
    type Reply = LiftSuspensionResponse;

    const METHOD: &'static str = "LiftSuspension";

    async fn perform(&self, tx: &mut Tx, acts: &Acts, _: &Told) -> Result<Step<Self::Reply>, Error> {
        let (subject, held) = Subject::hold(tx, self.scope).await?;
        let Some(held) = held else {
            return Ok(Step::Done { reply: LiftSuspensionResponse { suspension: None }, entry: None });
        };
        // an instant read before a lock was free may lie before the suspension that it waited for
        let at = acts.now().max(held.from);
        store::end_suspension_in_tx(tx, held.suspension_id, at, &self.note).await?;
        let ended = SuspensionRecord { to: Some(at), end_note: Some(self.note.clone()), ..held };
        let reply = LiftSuspensionResponse { suspension: Some(encode::suspension(ended)) };
        Ok(Step::Done { reply, entry: Some(subject.entry(at, &self.note, false)) })
    }
}

fn facts(account: &AccountRecord, now: Timestamp, answer: Option<UsageAnswer>) -> AccountFacts<'_> {
    AccountFacts {
        now,
        account_id: account.account_id,
        created_at: account.created_at,
        trial: account.trial,
        contract: &account.contract,
        answer,
    }
}

impl Act for EndTrial {
    type Reply = EndTrialResponse;

    const METHOD: &'static str = "EndTrial";

    async fn perform(&self, tx: &mut Tx, acts: &Acts, told: &Told) -> Result<Step<Self::Reply>, Error> {
        let account = existing::account(tx, self.account_id, Lock::Held).await?;
        let now = acts.now();
        let reply = |from| EndTrialResponse { from: Some(timestamp_to_proto(from)) };
        let end = match plan_trial_end(facts(&account, now, told.usage), self.from, &acts.rules)? {
            AccountPlan::Unchanged { from } => return Ok(Step::Done { reply: reply(from), entry: None }),
            AccountPlan::Ask(question) => {
                only_operator_enters(true, "from")?;
                return Ok(Step::Ask(question));
            }
            AccountPlan::Write(end) => end,
        };
        let made = Made { at: now, by: Actor::Operator, through: Self::METHOD };
        store::set_commercial_in_tx(tx, self.account_id, Some(TrialEndRecord::new(end.from, made))).await?;
        if !end.set_up && acts.came_too_near(end.from) {
            return Ok(Step::Again);
        }
        let entry = AuditEntry {
            at: now,
            actor: Actor::Operator,
            reason: None,
            subject: self.account_id.to_string(),
            account_id: Some(self.account_id),
            before: Some(json!({
                "commercial_from": account.trial.commercial_from,
                "trial_ends_at": account.trial.ends_at(),
            })),
            after: json!({ "commercial_from": end.from, "set_up": end.set_up }),
        };
        Ok(Step::Done { reply: reply(end.from), entry: Some(entry) })
    }
}

impl Act for ChangeContract {
    type Reply = ChangeContractResponse;

    const METHOD: &'static str = "ChangeContract";

    async fn perform(&self, tx: &mut Tx, acts: &Acts, told: &Told) -> Result<Step<Self::Reply>, Error> {
        let account = existing::account(tx, self.account_id, Lock::Held).await?;
        let now = acts.now();
        let reply = |from| ChangeContractResponse { from: Some(timestamp_to_proto(from)) };
        let change = match plan_contract(facts(&account, now, told.usage), self.kind, self.from, &acts.rules)?
        {
            AccountPlan::Unchanged { from } => return Ok(Step::Done { reply: reply(from), entry: None }),
            AccountPlan::Ask(question) => return Ok(Step::Ask(question)),
            AccountPlan::Write(change) => change,
        };
        let made = Made { at: now, by: Actor::Operator, through: Self::METHOD };
        store::append_contract_in_tx(tx, self.account_id, change.kind, change.from, made).await?;
        if !change.set_up && acts.came_too_near(change.from) {
            return Ok(Step::Again);
        }
        let before = account.contract.last();
        let entry = AuditEntry {
            at: now,
            actor: Actor::Operator,
            reason: None,
            subject: self.account_id.to_string(),
            account_id: Some(self.account_id),
            before: before
                .map(|last| json!({ "contract_kind": store::kind_text(last.value), "from": last.from })),
            after: json!({
                "contract_kind": store::kind_text(change.kind),
                "from": change.from,
                "set_up": change.set_up,
            }),
        };
        Ok(Step::Done { reply: reply(change.from), entry: Some(entry) })
    }
}
