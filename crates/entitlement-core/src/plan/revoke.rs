//! Revoking a credential (D24, D51).
//!
//! Its secret is refused from the instant given on: access acts at once. Its client id is unknown from an edge
//! on, since it decides who pays; usage of earlier windows stays with its app. A revocation that is scheduled
//! gives way to another one as long as neither of its two instants is too near.

use drawdown_types::Timestamp;

use crate::{Revocation, Rules};

/// What is known, read under the lock of the app.
#[derive(Clone, Copy, Debug)]
pub struct RevocationFacts {
    /// The present instant.
    pub now: Timestamp,
    /// The revocation that the credential has.
    pub held: Option<Revocation>,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RevocationPlan {
    /// Nothing: it is revoked, or about to be, or scheduled for this very instant.
    Unchanged(Revocation),
    /// Void the scheduled one, where there is one, and write this one.
    Revoke {
        /// Another one is scheduled.
        replaces: bool,
        /// The new one.
        revocation: Revocation,
    },
}

/// Why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RevocationRefusal {
    /// What a credential was good for in the past stays.
    #[error("the instant {at} lies in the past")]
    InPast {
        /// The instant given.
        at: Timestamp,
    },
    /// Further ahead than a change may be scheduled.
    #[error("the edge {edge} is later than {latest}, the latest that may be scheduled now")]
    TooFarAhead {
        /// The edge asked for.
        edge: Timestamp,
        /// The latest one allowed.
        latest: Timestamp,
    },
}

/// Plans that a credential is revoked at `at`, or now.
///
/// # Errors
/// [`RevocationRefusal`].
pub fn plan_revocation(
    facts: RevocationFacts,
    at: Option<Timestamp>,
    rules: &Rules,
) -> Result<RevocationPlan, RevocationRefusal> {
    let revoked_at = at.unwrap_or(facts.now);
    if revoked_at < facts.now {
        return Err(RevocationRefusal::InPast { at: revoked_at });
    }
    let first = rules.first_edge_after(facts.now);
    let too_near = |held: &Revocation| held.revoked_at <= facts.now || held.unknown_from < first;
    if let Some(held) = facts.held.filter(too_near) {
        return Ok(RevocationPlan::Unchanged(held));
    }
    let revocation = Revocation { revoked_at, unknown_from: rules.window.ceil(revoked_at).max(first) };
    let latest = rules.latest_edge(facts.now);
    if revocation.unknown_from > latest {
        return Err(RevocationRefusal::TooFarAhead { edge: revocation.unknown_from, latest });
    }
    if facts.held == Some(revocation) {
        return Ok(RevocationPlan::Unchanged(revocation));
    }
    Ok(RevocationPlan::Revoke { replaces: facts.held.is_some(), revocation })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_secs(1_767_268_800 + seconds).unwrap()
    }

    fn ends(revoked_at: i64, unknown_from: i64) -> Revocation {
        Revocation { revoked_at: at(revoked_at), unknown_from: at(unknown_from) }
    }

    #[test]
    fn d51_the_secret_stops_at_once_and_the_client_id_at_an_edge() {
        let revokes = |replaces, revocation| Ok(RevocationPlan::Revoke { replaces, revocation });
        for (now, held, asked, plan) in [
            (0, None, None, revokes(false, ends(0, 60))),
            (56, None, None, revokes(false, ends(56, 120))),
            (0, None, Some(0), revokes(false, ends(0, 60))),
            (0, None, Some(61), revokes(false, ends(61, 120))),
            (0, None, Some(3600), revokes(false, ends(3600, 3600))),
            (0, Some(ends(3600, 3600)), None, revokes(true, ends(0, 60))),
            (0, Some(ends(3600, 3600)), Some(7200), revokes(true, ends(7200, 7200))),
            (0, Some(ends(3600, 3600)), Some(3600), Ok(RevocationPlan::Unchanged(ends(3600, 3600)))),
            (0, Some(ends(-10, 60)), None, Ok(RevocationPlan::Unchanged(ends(-10, 60)))),
            (56, Some(ends(57, 60)), Some(7200), Ok(RevocationPlan::Unchanged(ends(57, 60)))),
            (0, None, Some(-1), Err(RevocationRefusal::InPast { at: at(-1) })),
        ] {
            let facts = RevocationFacts { now: at(now), held };
            assert_eq!(
                plan_revocation(facts, asked.map(at), &Rules::default()),
                plan,
                "{now} {held:?} {asked:?}"
            );
        }
        let facts = RevocationFacts { now: at(0), held: None };
        let far = plan_revocation(facts, Some(at(401 * 86_400)), &Rules::default());
        assert!(matches!(far, Err(RevocationRefusal::TooFarAhead { .. })), "{far:?}");
    }
}
