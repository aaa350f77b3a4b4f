//! Outcomes as statuses: one place, and every refusal named.

use drawdown_entitlement_core::plan::{AssignRefusal, CredentialRefusal, OpenRefusal, RoleRefusal};
use drawdown_service::{
    Code, Refusal,
    refusal::{RETRY_AFTER_DEFAULT, internal, unavailable},
};
use tonic::Status;

use crate::{Error, error::Refused, reason};

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        match error {
            Error::Refused(refused) => refusal(&refused).into(),
            Error::Transient(_) => unavailable(error),
            Error::Permanent(_) | Error::Stored { .. } => internal(error),
            Error::Ledger(ref status) if !drawdown_client::is_transient(status) => internal(error),
            Error::Ledger(ref status) => {
                tracing::warn!(error = %status, "the ledger can not be asked for settled usage");
                let message = "the ledger can not say at the moment whether usage is settled";
                Refusal::new(Code::Unavailable, reason::LEDGER_UNAVAILABLE, message)
                    .retry_after(RETRY_AFTER_DEFAULT)
                    .into()
            }
            Error::Overtaken { attempts } => {
                let message = format!("other acts were in the way {attempts} times");
                Refusal::new(Code::Aborted, reason::OVERTAKEN, message).into()
            }
        }
    }
}

/// Code, reason and field of every refusal.
pub(super) fn refusal(refused: &Refused) -> Refusal {
    let (code, reason, field) = match refused {
        Refused::AccountNotFound(_) => (Code::NotFound, reason::ACCOUNT_UNKNOWN, "account_id"),
        Refused::CellUnknown(_) => (Code::FailedPrecondition, reason::CELL_UNKNOWN, "cell"),
        Refused::TeamNotFound(_) => (Code::NotFound, reason::TEAM_UNKNOWN, "team_id"),
        Refused::UserNotFound(_) => (Code::NotFound, reason::USER_UNKNOWN, "user_id"),
        Refused::AppNotFound(_) => (Code::NotFound, reason::APP_UNKNOWN, "app_id"),
        Refused::EmailTaken => (Code::AlreadyExists, reason::EMAIL_TAKEN, "email"),
        Refused::RequestIdReused => (Code::AlreadyExists, reason::REQUEST_ID_CONFLICT, "request_id"),
        Refused::Open(OpenRefusal::InFuture { .. })
        | Refused::Credential(CredentialRefusal::InFuture { .. }) => {
            (Code::InvalidArgument, reason::INSTANT_IN_FUTURE, "created_at")
        }
        Refused::Open(OpenRefusal::BeforeAccount { .. })
        | Refused::Credential(CredentialRefusal::BeforeAccount { .. }) => {
            (Code::FailedPrecondition, reason::INSTANT_BEFORE_ACCOUNT, "created_at")
        }
        Refused::Assign(AssignRefusal::AppAndTeamDiffer) => {
            (Code::FailedPrecondition, reason::APP_AND_TEAM_DIFFER, "team_id")
        }
        Refused::Assign(AssignRefusal::TooFarAhead { .. }) => {
            (Code::FailedPrecondition, reason::ASSIGNMENT_TOO_FAR_AHEAD, "from")
        }
        Refused::Assign(AssignRefusal::BeforeTeam { .. }) => {
            (Code::FailedPrecondition, reason::INSTANT_BEFORE_TEAM, "from")
        }
        Refused::Assign(AssignRefusal::Overlap { .. }) => {
            (Code::FailedPrecondition, reason::ASSIGNMENT_OVERLAP, "from")
        }
        Refused::Assign(AssignRefusal::SettledUsage { .. }) => {
            (Code::FailedPrecondition, reason::WINDOW_SETTLED, "from")
        }
        Refused::Credential(CredentialRefusal::SettledUsage { .. }) => {
            (Code::FailedPrecondition, reason::WINDOW_SETTLED, "created_at")
        }
        Refused::Credential(CredentialRefusal::TooMany { .. }) => {
            (Code::FailedPrecondition, reason::CREDENTIALS_TOO_MANY, "app_id")
        }
        Refused::Role(RoleRefusal::PrimaryAdminTaken(_)) => {
            (Code::FailedPrecondition, reason::PRIMARY_ADMIN_TAKEN, "role")
        }
    };
    Refusal::new(code, reason, refused.to_string()).violation(field, refused)
}
