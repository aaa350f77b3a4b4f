//! Ends of roles, product assignments, and whose of them are listed.

use drawdown_entitlement_core::plan::Actor;
use drawdown_proto::entitlement::v1;
use drawdown_service::{Refusal, Violations};

use super::{Keyed, account::scope, keyed};
use crate::{
    acts::{AssignProduct, EndProduct, EndRole, Product},
    reason,
    store::{Scope, Whose},
};

pub(crate) fn end_role(request: &v1::EndRoleRequest) -> Result<Keyed<EndRole>, Refusal> {
    let mut violations = Violations::new();
    let user_id = violations.field("user_id", || request.user_id.parse());
    let scope = scope(&mut violations, &request.account_id, &request.team_id);
    let act = user_id.zip(scope).map(|(user_id, scope)| EndRole { user_id, scope });
    keyed(violations, act, request, &request.request_id)
}

pub(crate) fn assign_product(request: &v1::AssignProductRequest) -> Result<Keyed<AssignProduct>, Refusal> {
    let mut violations = Violations::new();
    let product = product(&mut violations, &request.team_id, &request.user_id, &request.by_user_id);
    keyed(violations, product.map(AssignProduct), request, &request.request_id)
}

pub(crate) fn end_product(request: &v1::EndProductAssignmentRequest) -> Result<Keyed<EndProduct>, Refusal> {
    let mut violations = Violations::new();
    let product = product(&mut violations, &request.team_id, &request.user_id, &request.by_user_id);
    keyed(violations, product.map(EndProduct), request, &request.request_id)
}

fn product(violations: &mut Violations, team_id: &str, user_id: &str, by: &str) -> Option<Product> {
    let team_id = violations.field("team_id", || team_id.parse());
    let user_id = violations.field("user_id", || user_id.parse());
    let actor = actor(violations, by);
    team_id.zip(user_id).zip(actor).map(|((team_id, user_id), actor)| Product { team_id, user_id, actor })
}

/// Who acts: the platform's operator where nobody is named.
pub(super) fn actor(violations: &mut Violations, by_user_id: &str) -> Option<Actor> {
    match by_user_id {
        "" => Some(Actor::Operator),
        text => violations.field("by_user_id", || text.parse()).map(Actor::User),
    }
}

/// A person, a team or an account: exactly one of them.
pub(crate) fn whose(user_id: &str, team_id: &str, account_id: &str) -> Result<Whose, Refusal> {
    let mut violations = Violations::new();
    let whose = match (user_id, team_id, account_id) {
        ("", "", "") => {
            violations.push("user_id", "must be given, or another one of the ids");
            None
        }
        (user_id, "", "") => violations.field("user_id", || user_id.parse()).map(Whose::User),
        ("", team_id, "") => {
            violations.field("team_id", || team_id.parse()).map(|team_id| Whose::Scope(Scope::Team(team_id)))
        }
        ("", "", account_id) => violations
            .field("account_id", || account_id.parse())
            .map(|account_id| Whose::Scope(Scope::Account(account_id))),
        _ => {
            violations.push("user_id", "only one of the ids can be given");
            None
        }
    };
    violations.finish(reason::REQUEST_INVALID, whose)
}
