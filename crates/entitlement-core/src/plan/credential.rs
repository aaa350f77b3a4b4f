//! Making a credential of an app (D20, D24, D50, D61).
//!
//! The client id is new, so no usage of it can be settled. But the account's first credential
//! begins its trial: one that is entered for an instant before that moves the trial, and with it the
//! answer for windows of *other* credentials; that needs the ledger's word.

use drawdown_types::{AccountId, Timestamp};

use super::{Proof, UsageAnswer, UsageQuestion, UsageScope};
use crate::{Rules, Trial, TrialTerms};

/// What is known, read under the locks of the account and the app.
#[derive(Clone, Copy, Debug)]
pub struct CredentialFacts {
    /// The present instant.
    pub now: Timestamp,
    /// The app's account.
    pub account_id: AccountId,
    /// When it was opened.
    pub account_created_at: Timestamp,
    /// What decides about its trial.
    pub trial: TrialTerms,
    /// How many credentials the app has.
    pub credentials: u32,
    /// The ledger's answer, where it was asked.
    pub answer: Option<UsageAnswer>,
}

/// A new credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewCredential {
    /// Since when it is in force.
    pub created_at: Timestamp,
    /// The edge from which on its client id is known: rounded down, so that usage in the window in
    /// which it was made finds its team.
    pub known_from: Timestamp,
    /// The trial that it begins, or moves.
    pub trial: Option<Trial>,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CredentialPlan {
    /// Ask the ledger, then plan again.
    Ask(UsageQuestion),
    /// Write this.
    Create(NewCredential),
}

/// Why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialRefusal {
    /// The instant lies ahead.
    #[error("the instant {at} lies in the future")]
    InFuture {
        /// The instant given.
        at: Timestamp,
    },
    /// Before there was such an account.
    #[error("the instant {at} lies before the account was opened at {opened_at}")]
    BeforeAccount {
        /// The instant given.
        at: Timestamp,
        /// When the account was opened.
        opened_at: Timestamp,
    },
    /// The app has as many as it may have.
    #[error("the app has {max} credentials, the most it may have")]
    TooMany {
        /// How many that is.
        max: u32,
    },
    /// The trial would move, and usage of the account is settled there.
    #[error("the trial would begin at {at}, and usage of the account since then is settled")]
    SettledUsage {
        /// The instant given.
        at: Timestamp,
    },
}

/// Plans a credential that is in force since `created_at`, or since now.
///
/// # Errors
/// [`CredentialRefusal`].
pub fn plan_credential(
    facts: CredentialFacts,
    created_at: Option<Timestamp>,
    rules: &Rules,
) -> Result<CredentialPlan, CredentialRefusal> {
    let at = created_at.unwrap_or(facts.now);
    check_instant(at, facts.now, facts.account_created_at)?;
    check_number(facts.credentials, rules)?;
    let known_from = rules.window.floor(at);
    let moved = match facts.trial.trial {
        None => Some(Trial::begin(at, rules)),
        Some(trial) if at < trial.started_at => {
            let question = UsageQuestion { scope: UsageScope::Account(facts.account_id), from: known_from };
            match question.proof(facts.answer) {
                Proof::Missing => return Ok(CredentialPlan::Ask(question)),
                Proof::Settled => return Err(CredentialRefusal::SettledUsage { at }),
                Proof::Clear => Some(Trial::begin(at, rules)),
            }
        }
        Some(_) => None,
    };
    let trial = moved.filter(|trial| has_trial(*trial, facts.trial.commercial_from, rules));
    Ok(CredentialPlan::Create(NewCredential { created_at: at, known_from, trial }))
}

/// A credential is made between the opening of its account and now.
pub(super) fn check_instant(
    at: Timestamp,
    now: Timestamp,
    account_created_at: Timestamp,
) -> Result<(), CredentialRefusal> {
    if at > now {
        return Err(CredentialRefusal::InFuture { at });
    }
    if at < account_created_at {
        return Err(CredentialRefusal::BeforeAccount { at, opened_at: account_created_at });
    }
    Ok(())
}

/// There is room for one more beside those that are not revoked.
pub(super) const fn check_number(credentials: u32, rules: &Rules) -> Result<(), CredentialRefusal> {
    if credentials >= rules.credentials_per_app_max {
        return Err(CredentialRefusal::TooMany { max: rules.credentials_per_app_max });
    }
    Ok(())
}

/// An account that is commercial since before its first credential never has a trial.
pub(super) fn has_trial(trial: Trial, commercial_from: Option<Timestamp>, rules: &Rules) -> bool {
    let known_from = rules.window.floor(trial.started_at);
    commercial_from.is_none_or(|commercial| commercial > known_from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_secs(1_767_268_800 + seconds).unwrap()
    }

    fn facts() -> CredentialFacts {
        CredentialFacts {
            now: at(90),
            account_id: AccountId::generate(),
            account_created_at: at(-86_410),
            trial: TrialTerms::default(),
            credentials: 0,
            answer: None,
        }
    }

    fn plan(facts: CredentialFacts, created_at: Option<i64>) -> Result<CredentialPlan, CredentialRefusal> {
        plan_credential(facts, created_at.map(at), &Rules::default())
    }

    fn created(
        created_at: i64,
        known_from: i64,
        trial: Option<i64>,
    ) -> Result<CredentialPlan, CredentialRefusal> {
        let trial = trial.map(|start| Trial::begin(at(start), &Rules::default()));
        let (created_at, known_from) = (at(created_at), at(known_from));
        Ok(CredentialPlan::Create(NewCredential { created_at, known_from, trial }))
    }

    #[test]
    fn the_first_credential_begins_the_trial_and_later_ones_leave_it() {
        let mut facts = facts();
        assert_eq!(plan(facts, None), created(90, 60, Some(90)));
        facts.trial.trial = Some(Trial::begin(at(0), &Rules::default()));
        assert_eq!(plan(facts, None), created(90, 60, None));
        assert_eq!(plan(facts, Some(0)), created(0, 0, None));
    }

    #[test]
    fn a_commercial_account_never_begins_one() {
        let mut facts = facts();
        facts.trial.commercial_from = Some(at(-86_400 - 60));
        assert_eq!(plan(facts, None), created(90, 60, None));
        // opened in this very window
        facts.trial.commercial_from = Some(at(60));
        assert_eq!(plan(facts, None), created(90, 60, None));
        facts.trial.commercial_from = Some(at(120));
        assert_eq!(plan(facts, None), created(90, 60, Some(90)));
    }

    #[test]
    fn moving_the_trial_needs_that_nothing_is_settled() {
        let mut facts = facts();
        facts.trial.trial = Some(Trial::begin(at(0), &Rules::default()));
        let question = UsageQuestion { scope: UsageScope::Account(facts.account_id), from: at(-60) };
        assert_eq!(plan(facts, Some(-1)), Ok(CredentialPlan::Ask(question)));
        facts.answer = Some(UsageAnswer { question, settled: true });
        assert_eq!(plan(facts, Some(-1)), Err(CredentialRefusal::SettledUsage { at: at(-1) }));
        facts.answer = Some(UsageAnswer { question, settled: false });
        assert_eq!(plan(facts, Some(-1)), created(-1, -60, Some(-1)));
    }

    #[test]
    fn impossible_instants_and_too_many_are_refused() {
        let mut facts = facts();
        assert_eq!(plan(facts, Some(91)), Err(CredentialRefusal::InFuture { at: at(91) }));
        assert_eq!(
            plan(facts, Some(-86_411)),
            Err(CredentialRefusal::BeforeAccount { at: at(-86_411), opened_at: at(-86_410) })
        );
        facts.credentials = 99;
        assert!(plan(facts, None).is_ok());
        facts.credentials = 100;
        assert_eq!(plan(facts, None), Err(CredentialRefusal::TooMany { max: 100 }));
    }
}
