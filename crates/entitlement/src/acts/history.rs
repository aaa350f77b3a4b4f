//! Taking scheduled changes back, and correcting a past (D23). Both leave the rows that they void, and a line in the
//! audit log that says why.

use drawdown_entitlement_core::plan::{
    Actor, Assignment, CorrectionFacts, CorrectionPlan, plan_cancellation, plan_correction,
};
use drawdown_proto::entitlement::v1::{CancelScheduledChangeResponse, CorrectAssignmentResponse};
use drawdown_types::{AccountId, AppId, CredentialId, TeamId, Timestamp};
use serde_json::{Value, json};

use super::{Act, Acts, Step, Told, existing, only_operator};
use crate::{
    Error,
    error::Refused,
    grpc::encode_history,
    store::{self, AuditEntry, ChangeKind, ChangeRef, Lock, Made, ScheduledRecord, Tx},
};

/// Takes a scheduled change back.
#[derive(Clone, Debug)]
pub(crate) struct CancelScheduledChange {
    pub(crate) change: ChangeRef,
    pub(crate) note: String,
}

/// Corrects which team an app had.
#[derive(Clone, Debug)]
pub(crate) struct CorrectAssignment {
    pub(crate) app_id: AppId,
    pub(crate) team_id: TeamId,
    pub(crate) from: Timestamp,
    pub(crate) to: Option<Timestamp>,
    pub(crate) note: String,
}

impl CancelScheduledChange {
    /// Holds what the change is of, and says whose that is.
    async fn hold(&self, tx: &mut Tx, acts: &Acts, found: &ScheduledRecord) -> Result<AccountId, Error> {
        let app_id = match found.kind {
            ChangeKind::Contract | ChangeKind::TrialEnd => {
                let account_id = AccountId::from_uuid(found.subject);
                return Ok(existing::account(tx, account_id, Lock::Held).await?.account_id);
            }
            ChangeKind::Assignment | ChangeKind::Transfer => AppId::from_uuid(found.subject),
            ChangeKind::Revocation => {
                let credential_id = CredentialId::from_uuid(found.subject);
                let app_id = store::app_of_credential_in_tx(tx, credential_id).await?;
                app_id.ok_or(Refused::CredentialNotFound(credential_id))?
            }
        };
        let app = existing::app(tx, app_id, Lock::Held).await?;
        Ok(app.owner_at(acts.now()).account_id)
    }

    async fn void(&self, tx: &mut Tx, found: &ScheduledRecord, now: Timestamp) -> Result<(), Error> {
        match found.kind {
            ChangeKind::Assignment | ChangeKind::Transfer => {
                let app_id = AppId::from_uuid(found.subject);
                store::void_assignments_in_tx(tx, app_id, &[found.from], now).await?;
                store::renew_adoption_in_tx(tx, app_id, now).await
            }
            ChangeKind::Contract => store::void_contract_in_tx(tx, found.number, now).await,
            ChangeKind::TrialEnd => {
                let account_id = AccountId::from_uuid(found.subject);
                // it may have come before another one that was scheduled
                let earlier = store::trial_end_before_in_tx(tx, account_id, found.from).await?;
                store::set_commercial_in_tx(tx, account_id, earlier).await
            }
            ChangeKind::Revocation => {
                store::void_revocation_in_tx(tx, CredentialId::from_uuid(found.subject), now).await
            }
        }
    }
}

impl Act for CancelScheduledChange {
    type Reply = CancelScheduledChangeResponse;

    const METHOD: &'static str = "CancelScheduledChange";

    async fn perform(&self, tx: &mut Tx, acts: &Acts, _: &Told) -> Result<Step<Self::Reply>, Error> {
        let unknown = || Refused::ChangeNotFound;
        let before = store::scheduled_in_tx(tx, self.change, acts.now()).await?.ok_or_else(unknown)?;
        let account_id = self.hold(tx, acts, &before).await?;
        let now = acts.now();
        let found = store::scheduled_in_tx(tx, self.change, now).await?.ok_or_else(unknown)?;
        if found.kind == ChangeKind::Transfer {
            return Err(Refused::ChangeOfTransfer.into());
        }
        if found.kind == ChangeKind::Contract {
            // a tenant can not schedule one, so a tenant can not take one back either
            only_operator("take a change of contract back", "change_id")?;
        }
        // a secret may have stopped before the edge
        let from = if found.acts_from <= now { now } else { found.from };
        plan_cancellation(now, from, &acts.rules)?;
        self.void(tx, &found, now).await?;
        if acts.came_too_near(found.from) {
            return Ok(Step::Again);
        }
        let change = encode_history::scheduled(&found);
        let entry = AuditEntry {
            at: now,
            actor: Actor::Operator,
            reason: Some(self.note.clone()),
            subject: change.subject.clone(),
            account_id: Some(account_id),
            before: Some(json!({
                "change_id": change.change_id,
                "object": change.object,
                "from": found.from,
                "made_at": found.made_at,
                "made_by": found.made_by,
            })),
            after: json!({ "change_id": Value::Null }),
        };
        Ok(Step::Done { reply: CancelScheduledChangeResponse { change: Some(change) }, entry: Some(entry) })
    }
}

impl Act for CorrectAssignment {
    type Reply = CorrectAssignmentResponse;

    const METHOD: &'static str = "CorrectAssignment";

    async fn perform(&self, tx: &mut Tx, acts: &Acts, told: &Told) -> Result<Step<Self::Reply>, Error> {
        let app = existing::app(tx, self.app_id, Lock::Held).await?;
        let team = existing::team(tx, self.team_id, Lock::No).await?;
        let history = store::assignments_in_tx(tx, self.app_id).await?;
        let now = acts.now();
        let facts = CorrectionFacts {
            now,
            app_id: self.app_id,
            app_account: app.first.account_id,
            later_accounts: &app.later.map(|owner| owner.account_id),
            team_id: self.team_id,
            team_account: team.account_id,
            team_created_at: team.created_at,
            history: &history,
            first_team_told: store::adoption_begun_in_tx(tx, self.app_id, now).await?,
            answer: told.usage,
        };
        let correction = match plan_correction(facts, self.from, self.to, &acts.rules)? {
            CorrectionPlan::Unchanged => {
                let reply = CorrectAssignmentResponse { assignments: encode_history::assignments(&history) };
                return Ok(Step::Done { reply, entry: None });
            }
            CorrectionPlan::Ask(question) => return Ok(Step::Ask(question)),
            CorrectionPlan::Write(correction) => correction,
        };
        store::void_assignments_in_tx(tx, self.app_id, &correction.voided, now).await?;
        let made = Made { at: now, by: Actor::Operator, through: Self::METHOD };
        for change in &correction.added {
            let link = Assignment {
                app_id: self.app_id,
                team_id: change.value,
                from: change.from,
                set_up: change.from <= now,
            };
            store::append_assignment_in_tx(tx, &link, made).await?;
        }
        if correction.changes_first {
            store::renew_adoption_in_tx(tx, self.app_id, now).await?;
        }
        let after = store::assignments_in_tx(tx, self.app_id).await?;
        let links = |history: &drawdown_entitlement_core::History<TeamId>| {
            let link = |link: drawdown_entitlement_core::Link<'_, TeamId>| json!({ "team_id": link.value, "from": link.from, "to": link.to });
            Value::Array(history.links().map(link).collect())
        };
        let entry = AuditEntry {
            at: now,
            actor: Actor::Operator,
            reason: Some(self.note.clone()),
            subject: self.app_id.to_string(),
            account_id: Some(team.account_id),
            before: Some(json!({ "assignments": links(&history) })),
            after: json!({ "assignments": links(&after) }),
        };
        let reply = CorrectAssignmentResponse { assignments: encode_history::assignments(&after) };
        Ok(Step::Done { reply, entry: Some(entry) })
    }
}
