//! Hubs.

use drawdown_proto::entitlement::v1;
use drawdown_service::{Refusal, Violations};

use super::{Keyed, keyed, name, optional_id};
use crate::acts::{CreateHub, MoveApp};

pub(crate) fn create(request: &v1::CreateHubRequest) -> Result<Keyed<CreateHub>, Refusal> {
    let mut violations = Violations::new();
    let account_id = violations.field("account_id", || request.account_id.parse());
    let name = name(&mut violations, "name", &request.name);
    let act = account_id.zip(name).map(|(account_id, name)| CreateHub { account_id, name });
    keyed(violations, act, request, &request.request_id)
}

pub(crate) fn move_app(request: &v1::MoveAppRequest) -> Result<Keyed<MoveApp>, Refusal> {
    let mut violations = Violations::new();
    let app_id = violations.field("app_id", || request.app_id.parse());
    let hub_id = optional_id(&mut violations, "hub_id", &request.hub_id);
    let act = app_id.zip(hub_id).map(|(app_id, hub_id)| MoveApp { app_id, hub_id });
    keyed(violations, act, request, &request.request_id)
}
