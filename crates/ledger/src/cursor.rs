//! Where a reader of notices goes on: a place in the order, sealed for one installation and one choice.

use drawdown_service::{Code, Refusal, page};

use crate::{
    reason,
    store::outbox::{Choice, Head},
};

/// The name of the list in a token's seal.
const LIST: &str = "notices";

/// Origin, choice, place.
type Body = (String, String, i64);

fn name(choice: &Choice) -> String {
    let mut kinds = choice.kinds.clone();
    kinds.sort_unstable();
    kinds.dedup();
    let id = |id: Option<String>| id.unwrap_or_default();
    let (account, team) = (choice.account.map(|id| id.to_string()), choice.team.map(|id| id.to_string()));
    format!("{}/{}/{}", id(account), id(team), kinds.join(","))
}

/// The cursor behind `position`.
pub(crate) fn seal(head: &Head, choice: &Choice, position: i64) -> String {
    page::encode::<Body>(LIST, &(head.origin.to_string(), name(choice), position))
}

/// The place behind which a reader goes on; `None` for the empty token of a first look. `field` names the token.
///
/// # Errors
/// A token that no list of notices gave out, one of another installation or choice, or one that lies before
/// what is kept.
pub(crate) fn open(
    field: &'static str,
    token: &str,
    head: &Head,
    choice: &Choice,
) -> Result<Option<i64>, Refusal> {
    let body: Option<Body> = page::decode(LIST, token).map_err(|refusal| {
        Refusal::new(refusal.code, refusal.reason, refusal.message)
            .violation(field, "must be a cursor of an answer before, or empty")
    })?;
    let Some((origin, of, position)) = body else { return Ok(None) };
    let foreign = |why: &str| {
        Err(Refusal::new(Code::InvalidArgument, reason::CURSOR_FOREIGN, "the cursor does not belong here")
            .violation(field, why))
    };
    if origin != head.origin.to_string() {
        return foreign("was given out by another installation, or before this one was reset");
    }
    if of != name(choice) {
        return foreign("was given out for another filter");
    }
    if position > head.position {
        return foreign("lies behind the last notice: the database was set back");
    }
    check_kept(field, head, position)?;
    Ok(Some(position))
}

/// Refuses a place behind which something was removed.
///
/// # Errors
/// [`reason::CURSOR_EXPIRED`].
pub(crate) fn check_kept(field: &'static str, head: &Head, position: i64) -> Result<(), Refusal> {
    if position >= head.removed {
        return Ok(());
    }
    let why = "notices behind the cursor were removed because of their age: begin without one";
    Err(Refusal::new(Code::FailedPrecondition, reason::CURSOR_EXPIRED, why)
        .violation(field, format!("lies at {position}, kept is what follows {}", head.removed))
        .metadata("removed_position", head.removed))
}
