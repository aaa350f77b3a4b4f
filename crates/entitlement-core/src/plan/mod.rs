//! What an admin act writes: facts in, rows or the reason of the refusal out.
//!
//! Doctrine: the facts are read under the locks of the act, so a plan holds when it is applied. The
//! only fact that nobody can lock is whether usage is settled: an act that enters a past (D61) is
//! planned once without the answer, which yields [`UsageQuestion`], and once more with it.
//! History is never rewritten by the way: a plan adds links at the end or is refused, but for a correction that says so.

mod account;
mod assign;
mod correct;
mod credential;
mod import;
mod open;
mod product;
mod revoke;
mod role;
mod transfer;

use drawdown_types::{AccountId, AppId, Timestamp};

pub use account::{
    AccountFacts, AccountPlan, AccountRefusal, ContractChange, TrialEnd, plan_contract, plan_trial_end,
};
pub use assign::{AssignFacts, AssignPlan, AssignRefusal, Assignment, plan_assign};
pub use correct::{
    Correction, CorrectionFacts, CorrectionPlan, CorrectionRefusal, TooLate, plan_cancellation,
    plan_correction,
};
pub use credential::{CredentialFacts, CredentialPlan, CredentialRefusal, NewCredential, plan_credential};
pub use import::{
    AccountImport, AccountRows, AppImport, AppRows, CredentialImport, ImportFault, ImportProblem,
    PersonImport, TeamImport, plan_import,
};
pub use open::{NewAccount, NewTeam, OpenRefusal, plan_account, plan_team};
pub use product::{
    Actor, ProductFacts, ProductPlan, ProductRefusal, Standing, plan_product, plan_product_end,
};
pub use revoke::{RevocationFacts, RevocationPlan, RevocationRefusal, plan_revocation};
pub use role::{Held, Role, RoleFacts, RolePlan, RoleRefusal, plan_role};
pub use transfer::{
    Acting, ConfirmFacts, ConfirmPlan, Invitation, Party, Side, Stage, TransferAct, TransferPlan,
    TransferRefusal, TransferState, plan_confirmation, plan_invitation, plan_team_choice, plan_transfer_step,
};

/// Whose usage a set-up act would change the answer for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UsageScope {
    /// All credentials of an app.
    App(AppId),
    /// All credentials of all apps of an account.
    Account(AccountId),
}

/// Asked before a set-up act (D61): is usage settled whose answer the act would change?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UsageQuestion {
    /// Whose usage.
    pub scope: UsageScope,
    /// In windows that start at or after this edge.
    pub from: Timestamp,
}

/// What the ledger answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UsageAnswer {
    /// What was asked.
    pub question: UsageQuestion,
    /// There is some.
    pub settled: bool,
}

/// Where a set-up act stands with its question.
enum Proof {
    Missing,
    Clear,
    Settled,
}

impl UsageQuestion {
    /// An answer counts for this very question only: another scope or edge proves nothing.
    fn proof(self, answer: Option<UsageAnswer>) -> Proof {
        match answer.filter(|answer| answer.question == self) {
            None => Proof::Missing,
            Some(UsageAnswer { settled: false, .. }) => Proof::Clear,
            Some(UsageAnswer { settled: true, .. }) => Proof::Settled,
        }
    }
}
