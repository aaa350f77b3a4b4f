//! Rotation and revocation.

use drawdown_proto::entitlement::v1;
use drawdown_service::{Refusal, Violations};

use super::{Keyed, instant, keyed};
use crate::acts::{RevokeCredential, RotateCredential};

pub(crate) fn revoke(request: &v1::RevokeCredentialRequest) -> Result<Keyed<RevokeCredential>, Refusal> {
    let mut violations = Violations::new();
    let credential_id = violations.field("credential_id", || request.credential_id.parse());
    let at = instant(&mut violations, "at", request.at.as_ref());
    let act = credential_id.zip(at).map(|(credential_id, at)| RevokeCredential { credential_id, at });
    keyed(violations, act, request, &request.request_id)
}

pub(crate) fn rotate(request: &v1::RotateCredentialRequest) -> Result<Keyed<RotateCredential>, Refusal> {
    let mut violations = Violations::new();
    let credential_id = violations.field("credential_id", || request.credential_id.parse());
    let old_until = instant(&mut violations, "old_until", request.old_until.as_ref());
    let act = credential_id
        .zip(old_until)
        .map(|(credential_id, old_until)| RotateCredential { credential_id, old_until });
    keyed(violations, act, request, &request.request_id)
}
