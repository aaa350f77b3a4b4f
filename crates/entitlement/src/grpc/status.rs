//! Outcomes as statuses: one place, and every refusal named.

use drawdown_entitlement_core::plan::{
    AccountRefusal, AssignRefusal, CorrectionRefusal, CredentialRefusal, OpenRefusal, ProductRefusal,
    RevocationRefusal, RoleRefusal, Side, TransferRefusal,
};
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
    if let Refused::Import(unfit) = refused {
        let refusal = Refusal::new(Code::FailedPrecondition, reason::IMPORT_REFUSED, refused.to_string());
        return unfit.iter().fold(refusal, |refusal, unfit| refusal.violation(&unfit.field, &unfit.problem));
    }
    let (code, reason, field) = match refused {
        Refused::AccountNotFound(_) => (Code::NotFound, reason::ACCOUNT_UNKNOWN, "account_id"),
        Refused::CellUnknown(_) => (Code::FailedPrecondition, reason::CELL_UNKNOWN, "cell"),
        Refused::TeamNotFound(_) => (Code::NotFound, reason::TEAM_UNKNOWN, "team_id"),
        Refused::UserNotFound(_) => (Code::NotFound, reason::USER_UNKNOWN, "user_id"),
        Refused::AppNotFound(_) => (Code::NotFound, reason::APP_UNKNOWN, "app_id"),
        Refused::CredentialNotFound(_) => (Code::NotFound, reason::CREDENTIAL_UNKNOWN, "credential_id"),
        Refused::CredentialRevoked(_) => {
            (Code::FailedPrecondition, reason::CREDENTIAL_REVOKED, "credential_id")
        }
        Refused::EmailTaken => (Code::AlreadyExists, reason::EMAIL_TAKEN, "email"),
        Refused::OperatorNeeded { field, .. } => (Code::PermissionDenied, reason::OPERATOR_NEEDED, *field),
        Refused::RequestIdReused => (Code::AlreadyExists, reason::REQUEST_ID_CONFLICT, "request_id"),
        Refused::Open(OpenRefusal::InFuture { .. })
        | Refused::Credential(CredentialRefusal::InFuture { .. }) => {
            (Code::InvalidArgument, reason::INSTANT_IN_FUTURE, "created_at")
        }
        Refused::Open(OpenRefusal::BeforeAccount { .. })
        | Refused::Credential(CredentialRefusal::BeforeAccount { .. }) => {
            (Code::FailedPrecondition, reason::INSTANT_BEFORE_ACCOUNT, "created_at")
        }
        Refused::PrincipalNotFound(_)
        | Refused::PrincipalEnded(_)
        | Refused::RoleMisfit(_)
        | Refused::KeyNotFound(_)
        | Refused::KeyRevoked(_)
        | Refused::KeysTooMany(_)
        | Refused::InstantInPast => principal(refused),
        Refused::HubNotFound(_) => (Code::NotFound, reason::HUB_UNKNOWN, "hub_id"),
        Refused::HubOfOtherAccount(_) => (Code::FailedPrecondition, reason::HUB_OF_OTHER_ACCOUNT, "hub_id"),
        Refused::ChangeNotFound => (Code::NotFound, reason::CHANGE_UNKNOWN, "change_id"),
        Refused::ChangeOfTransfer => (Code::FailedPrecondition, reason::CHANGE_OF_TRANSFER, "change_id"),
        Refused::TooLate(_) => (Code::FailedPrecondition, reason::CHANGE_TOO_NEAR, "change_id"),
        Refused::Correction(refusal) => correction(refusal),
        Refused::TransferNotFound(_) => (Code::NotFound, reason::TRANSFER_UNKNOWN, "transfer_id"),
        Refused::Transfer(refusal) => transfer(refusal),
        Refused::Account(refusal) => account(refusal),
        Refused::Revocation(RevocationRefusal::InPast { .. }) => {
            (Code::InvalidArgument, reason::INSTANT_IN_PAST, "at")
        }
        Refused::Revocation(RevocationRefusal::TooFarAhead { .. }) => {
            (Code::FailedPrecondition, reason::CHANGE_TOO_FAR_AHEAD, "at")
        }
        Refused::Assign(refusal) => assign(refusal),
        Refused::Credential(CredentialRefusal::SettledUsage { .. }) => {
            (Code::FailedPrecondition, reason::WINDOW_SETTLED, "created_at")
        }
        Refused::Credential(CredentialRefusal::TooMany { .. }) => {
            (Code::FailedPrecondition, reason::CREDENTIALS_TOO_MANY, "app_id")
        }
        Refused::Product(ProductRefusal::NotAdmin(_)) => {
            (Code::PermissionDenied, reason::ADMIN_NEEDED, "by_user_id")
        }
        Refused::Product(ProductRefusal::NotOfTeam) => {
            (Code::FailedPrecondition, reason::USER_NOT_OF_TEAM, "user_id")
        }
        Refused::Role(RoleRefusal::PrimaryAdminTaken(_)) => {
            (Code::FailedPrecondition, reason::PRIMARY_ADMIN_TAKEN, "role")
        }
        Refused::Import(_) => (Code::FailedPrecondition, reason::IMPORT_REFUSED, "accounts"),
        Refused::TeamNotNamed => (Code::FailedPrecondition, reason::TEAM_NOT_NAMED, "team_id"),
        Refused::TeamNotOfAccount(_) => (Code::FailedPrecondition, reason::TEAM_NOT_OF_ACCOUNT, "team_id"),
        Refused::TrialActive => (Code::FailedPrecondition, reason::TRIAL_ACTIVE, "account_id"),
    };
    Refusal::new(code, reason, refused.to_string()).violation(field, refused)
}

const fn assign(refusal: &AssignRefusal) -> (Code, &'static str, &'static str) {
    let (reason, field) = match refusal {
        AssignRefusal::AppAndTeamDiffer => (reason::APP_AND_TEAM_DIFFER, "team_id"),
        AssignRefusal::TooFarAhead { .. } => (reason::ASSIGNMENT_TOO_FAR_AHEAD, "from"),
        AssignRefusal::BeforeTeam { .. } => (reason::INSTANT_BEFORE_TEAM, "from"),
        AssignRefusal::Overlap { .. } => (reason::ASSIGNMENT_OVERLAP, "from"),
        AssignRefusal::SettledUsage { .. } => (reason::WINDOW_SETTLED, "from"),
    };
    (Code::FailedPrecondition, reason, field)
}

const fn principal(refused: &Refused) -> (Code, &'static str, &'static str) {
    match refused {
        Refused::PrincipalEnded(_) => (Code::FailedPrecondition, reason::PRINCIPAL_ENDED, "principal_id"),
        Refused::RoleMisfit(_) => (Code::InvalidArgument, reason::ROLE_MISFIT, "roles"),
        Refused::KeyNotFound(_) => (Code::NotFound, reason::KEY_UNKNOWN, "key_id"),
        Refused::KeyRevoked(_) => (Code::FailedPrecondition, reason::KEY_REVOKED, "key_id"),
        Refused::KeysTooMany(_) => (Code::FailedPrecondition, reason::KEYS_TOO_MANY, "principal_id"),
        Refused::InstantInPast => (Code::InvalidArgument, reason::INSTANT_IN_PAST, "at"),
        _ => (Code::NotFound, reason::PRINCIPAL_UNKNOWN, "principal_id"),
    }
}

const fn account(refusal: &AccountRefusal) -> (Code, &'static str, &'static str) {
    let reason = match refusal {
        AccountRefusal::TooFarAhead { .. } => reason::CHANGE_TOO_FAR_AHEAD,
        AccountRefusal::BeforeAccount { .. } => reason::INSTANT_BEFORE_ACCOUNT,
        AccountRefusal::Overlap { .. } => reason::CONTRACT_OVERLAP,
        AccountRefusal::SettledUsage { .. } => reason::WINDOW_SETTLED,
    };
    (Code::FailedPrecondition, reason, "from")
}

const fn transfer(refusal: &TransferRefusal) -> (Code, &'static str, &'static str) {
    let (reason, field) = match refusal {
        TransferRefusal::NotPermitted(_) => {
            return (Code::PermissionDenied, reason::TRANSFER_NOT_PERMITTED, "by_user_id");
        }
        TransferRefusal::Open { .. } => (reason::TRANSFER_OPEN, "app_id"),
        TransferRefusal::OwnsApp(_) => (reason::USER_OWNS_APP, "to_user_id"),
        TransferRefusal::Over(_) => (reason::TRANSFER_OVER, "transfer_id"),
        TransferRefusal::OutOfOrder(_) => (reason::TRANSFER_OUT_OF_ORDER, "transfer_id"),
        TransferRefusal::SameTeam => (reason::TRANSFER_SAME_TEAM, "team_id"),
        TransferRefusal::NoProduct(_) => (reason::PRODUCT_NOT_ASSIGNED, "team_id"),
        TransferRefusal::NoTeam => (reason::APP_WITHOUT_TEAM, "app_id"),
        TransferRefusal::Suspended(side) => (reason::SUSPENDED, side_field(*side)),
        TransferRefusal::InTrial(side) => (reason::TRANSFER_IN_TRIAL, side_field(*side)),
        TransferRefusal::BelowZero(side) => (reason::BALANCE_BELOW_ZERO, side_field(*side)),
        TransferRefusal::OtherCell(side, _) => (reason::CELL_UNREACHED, side_field(*side)),
        TransferRefusal::Overlap { .. } => (reason::ASSIGNMENT_OVERLAP, "app_id"),
    };
    (Code::FailedPrecondition, reason, field)
}

/// The field of a request that names a side, or would.
const fn side_field(side: Side) -> &'static str {
    match side {
        Side::Giving => "app_id",
        Side::Receiving => "team_id",
    }
}

const fn correction(refusal: &CorrectionRefusal) -> (Code, &'static str, &'static str) {
    let (reason, field) = match refusal {
        CorrectionRefusal::NotPast { .. } => {
            return (Code::InvalidArgument, reason::INSTANT_IN_FUTURE, "from");
        }
        CorrectionRefusal::Empty { .. } => return (Code::InvalidArgument, reason::INTERVAL_EMPTY, "to"),
        CorrectionRefusal::AppAndTeamDiffer => (reason::APP_AND_TEAM_DIFFER, "team_id"),
        CorrectionRefusal::BeforeTeam { .. } => (reason::INSTANT_BEFORE_TEAM, "from"),
        CorrectionRefusal::LeavesGap(_) => (reason::CORRECTION_LEAVES_GAP, "to"),
        CorrectionRefusal::FirstTeamTold => (reason::FIRST_TEAM_TOLD, "from"),
        CorrectionRefusal::SettledUsage { .. } => (reason::WINDOW_SETTLED, "from"),
    };
    (Code::FailedPrecondition, reason, field)
}
