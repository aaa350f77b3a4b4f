//! What becomes of an account: its trial ends early (D20, D50), its contract changes (D57).
//!
//! Both decide about money, so both take effect at an edge: a trial at the first edge that a change may take, a
//! contract where a UTC month begins. A past is set-up (D61) and asks for settled usage of the whole account.

use drawdown_types::{AccountId, Timestamp};

use super::{Proof, UsageAnswer, UsageQuestion, UsageScope};
use crate::{Change, ContractKind, History, Rules, TrialTerms, calendar::month_edge};

/// What is known, read under the lock of the account.
#[derive(Clone, Copy, Debug)]
pub struct AccountFacts<'a> {
    /// The present instant.
    pub now: Timestamp,
    /// The account.
    pub account_id: AccountId,
    /// When it was opened.
    pub created_at: Timestamp,
    /// What decides about its trial.
    pub trial: TrialTerms,
    /// Its kinds of contract.
    pub contract: &'a History<ContractKind>,
    /// The ledger's answer, where it was asked.
    pub answer: Option<UsageAnswer>,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccountPlan<W> {
    /// Nothing: it is so already, or will be by itself.
    Unchanged {
        /// Since when, or from when on.
        from: Timestamp,
    },
    /// Ask the ledger, then plan again.
    Ask(UsageQuestion),
    /// Write this.
    Write(W),
}

/// An early end of a trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrialEnd {
    /// The edge from which on the account is commercial.
    pub from: Timestamp,
    /// It was entered for a past (D61).
    pub set_up: bool,
}

/// A new contract; it ends the open one at its edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContractChange {
    /// The kind.
    pub kind: ContractKind,
    /// The beginning of the month from which on it holds.
    pub from: Timestamp,
    /// It was entered for a past (D61).
    pub set_up: bool,
}

/// Why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccountRefusal {
    /// Further ahead than a change may be scheduled.
    #[error("the edge {edge} is later than {latest}, the latest that may be scheduled now")]
    TooFarAhead {
        /// The edge asked for.
        edge: Timestamp,
        /// The latest one allowed.
        latest: Timestamp,
    },
    /// Before there was such an account.
    #[error("the edge {edge} lies before the account was opened at {opened_at}")]
    BeforeAccount {
        /// The edge asked for.
        edge: Timestamp,
        /// When the account was opened.
        opened_at: Timestamp,
    },
    /// A contract begins at or after the edge: it would be cut, or history rewritten.
    #[error("the account has a contract that begins at {begins_at}, not before {edge}")]
    Overlap {
        /// The edge asked for.
        edge: Timestamp,
        /// Where the other contract begins.
        begins_at: Timestamp,
    },
    /// Usage of the account is settled in a window from the edge on.
    #[error("usage of the account from the edge {edge} on is settled")]
    SettledUsage {
        /// The edge asked for.
        edge: Timestamp,
    },
}

/// A past needs the ledger's word about all usage of the account.
fn ask<W>(facts: AccountFacts<'_>, edge: Timestamp, write: W) -> Result<AccountPlan<W>, AccountRefusal> {
    let question = UsageQuestion { scope: UsageScope::Account(facts.account_id), from: edge };
    match question.proof(facts.answer) {
        Proof::Missing => Ok(AccountPlan::Ask(question)),
        Proof::Settled => Err(AccountRefusal::SettledUsage { edge }),
        Proof::Clear => Ok(AccountPlan::Write(write)),
    }
}

/// Plans that the account is commercial from `from` on, or from the first possible edge on.
///
/// # Errors
/// [`AccountRefusal`].
pub fn plan_trial_end(
    facts: AccountFacts<'_>,
    from: Option<Timestamp>,
    rules: &Rules,
) -> Result<AccountPlan<TrialEnd>, AccountRefusal> {
    let edge = rules.edge(facts.now, from);
    let latest = rules.latest_edge(facts.now);
    if edge > latest {
        return Err(AccountRefusal::TooFarAhead { edge, latest });
    }
    let ends_at = facts.trial.ends_at().or(facts.trial.commercial_from);
    if let Some(from) = ends_at.filter(|ends_at| *ends_at <= edge) {
        return Ok(AccountPlan::Unchanged { from });
    }
    if edge < rules.window.floor(facts.created_at) {
        return Err(AccountRefusal::BeforeAccount { edge, opened_at: facts.created_at });
    }
    let set_up = edge < rules.first_edge_after(facts.now);
    let end = TrialEnd { from: edge, set_up };
    if set_up { ask(facts, edge, end) } else { Ok(AccountPlan::Write(end)) }
}

/// Plans a contract of `kind` from the first month on that begins at or after `from`, or that can begin.
///
/// # Errors
/// [`AccountRefusal`].
pub fn plan_contract(
    facts: AccountFacts<'_>,
    kind: ContractKind,
    from: Option<Timestamp>,
    rules: &Rules,
) -> Result<AccountPlan<ContractChange>, AccountRefusal> {
    let edge = month_edge(rules.edge(facts.now, from));
    let latest = rules.latest_edge(facts.now);
    if from.is_some() && edge > latest {
        return Err(AccountRefusal::TooFarAhead { edge, latest });
    }
    match facts.contract.last() {
        Some(Change { from, value }) if *value == kind && *from <= edge => {
            return Ok(AccountPlan::Unchanged { from: *from });
        }
        Some(Change { from, .. }) if *from >= edge => {
            return Err(AccountRefusal::Overlap { edge, begins_at: *from });
        }
        Some(_) | None => {}
    }
    let set_up = edge < rules.first_edge_after(facts.now);
    let change = ContractChange { kind, from: edge, set_up };
    if set_up { ask(facts, edge, change) } else { Ok(AccountPlan::Write(change)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Trial;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn facts(history: &History<ContractKind>) -> AccountFacts<'_> {
        AccountFacts {
            now: at("2026-01-20T12:00:56Z"),
            account_id: AccountId::generate(),
            created_at: at("2025-12-01T00:00:30Z"),
            trial: TrialTerms {
                trial: Some(Trial::begin(at("2026-01-01T00:00:00Z"), &Rules::default())),
                commercial_from: None,
            },
            contract: history,
            answer: None,
        }
    }

    fn answered(facts: AccountFacts<'_>, edge: Timestamp, settled: bool) -> AccountFacts<'_> {
        let question = UsageQuestion { scope: UsageScope::Account(facts.account_id), from: edge };
        AccountFacts { answer: Some(UsageAnswer { question, settled }), ..facts }
    }

    fn opened_flex() -> History<ContractKind> {
        let opened = Change { from: at("2025-12-01T00:00:00Z"), value: ContractKind::Flex };
        History::from_changes([opened]).unwrap()
    }

    #[test]
    fn d50_a_trial_ends_at_an_edge_and_not_twice() {
        let (history, rules) = (opened_flex(), Rules::default());
        let facts = facts(&history);
        let end = |from| plan_trial_end(facts, from, &rules);
        let writes = |from, set_up| Ok(AccountPlan::Write(TrialEnd { from: at(from), set_up }));
        assert_eq!(end(None), writes("2026-01-20T12:02:00Z", false));
        assert_eq!(end(Some(at("2026-02-01T00:00:01Z"))), writes("2026-02-01T00:01:00Z", false));
        // by itself, ninety days after its beginning
        let own = Ok(AccountPlan::Unchanged { from: at("2026-04-01T00:00:00Z") });
        assert_eq!(end(Some(at("2026-04-01T00:00:00Z"))), own);
        let far = end(Some(at("2027-12-01T00:00:00Z")));
        assert!(matches!(far, Err(AccountRefusal::TooFarAhead { .. })), "{far:?}");
        // a scheduled end comes sooner, and never later
        let scheduled = AccountFacts {
            trial: TrialTerms { commercial_from: Some(at("2026-03-01T00:00:00Z")), ..facts.trial },
            ..facts
        };
        assert_eq!(plan_trial_end(scheduled, None, &rules), writes("2026-01-20T12:02:00Z", false));
        let later = plan_trial_end(scheduled, Some(at("2026-03-10T00:00:00Z")), &rules);
        assert_eq!(later, Ok(AccountPlan::Unchanged { from: at("2026-03-01T00:00:00Z") }));
        // before the first credential: there will be no trial
        let unbegun = AccountFacts { trial: TrialTerms::default(), ..facts };
        assert_eq!(plan_trial_end(unbegun, None, &rules), writes("2026-01-20T12:02:00Z", false));
    }

    #[test]
    fn d61_a_past_end_needs_that_nothing_is_settled() {
        let (history, rules) = (opened_flex(), Rules::default());
        let facts = facts(&history);
        let (from, edge) = (Some(at("2026-01-10T00:00:00Z")), at("2026-01-10T00:00:00Z"));
        let question = UsageQuestion { scope: UsageScope::Account(facts.account_id), from: edge };
        assert_eq!(plan_trial_end(facts, from, &rules), Ok(AccountPlan::Ask(question)));
        let settled = plan_trial_end(answered(facts, edge, true), from, &rules);
        assert_eq!(settled, Err(AccountRefusal::SettledUsage { edge }));
        let clear = plan_trial_end(answered(facts, edge, false), from, &rules);
        assert_eq!(clear, Ok(AccountPlan::Write(TrialEnd { from: edge, set_up: true })));
        let early = plan_trial_end(facts, Some(at("2025-11-30T23:59:00Z")), &rules);
        assert!(matches!(early, Err(AccountRefusal::BeforeAccount { .. })), "{early:?}");
    }

    #[test]
    fn d57_a_contract_changes_where_a_month_begins() {
        let (history, rules) = (opened_flex(), Rules::default());
        let facts = facts(&history);
        let change = |kind, from: Option<&str>| plan_contract(facts, kind, from.map(at), &rules);
        let writes =
            |kind, from, set_up| Ok(AccountPlan::Write(ContractChange { kind, from: at(from), set_up }));
        let enterprise = ContractKind::Enterprise;
        assert_eq!(change(enterprise, None), writes(enterprise, "2026-02-01T00:00:00Z", false));
        let later = change(enterprise, Some("2026-03-15T00:00:00Z"));
        assert_eq!(later, writes(enterprise, "2026-04-01T00:00:00Z", false));
        let same = change(ContractKind::Flex, None);
        assert_eq!(same, Ok(AccountPlan::Unchanged { from: at("2025-12-01T00:00:00Z") }));
        let edge = at("2026-01-01T00:00:00Z");
        let question = UsageQuestion { scope: UsageScope::Account(facts.account_id), from: edge };
        assert_eq!(change(enterprise, Some("2025-12-05T00:00:00Z")), Ok(AccountPlan::Ask(question)));
        let clear = plan_contract(answered(facts, edge, false), enterprise, Some(edge), &rules);
        assert_eq!(clear, writes(enterprise, "2026-01-01T00:00:00Z", true));
        let overlap = change(enterprise, Some("2025-12-01T00:00:00Z"));
        assert!(matches!(overlap, Err(AccountRefusal::Overlap { .. })), "{overlap:?}");
    }

    #[test]
    fn the_last_seconds_of_a_month_are_too_late_for_the_next_one() {
        let (history, rules) = (opened_flex(), Rules::default());
        for (now, edge) in [
            ("2026-01-31T23:59:55Z", "2026-02-01T00:00:00Z"),
            ("2026-01-31T23:59:56Z", "2026-03-01T00:00:00Z"),
        ] {
            let facts = AccountFacts { now: at(now), ..facts(&history) };
            let plan = plan_contract(facts, ContractKind::Enterprise, None, &rules);
            let change = ContractChange { kind: ContractKind::Enterprise, from: at(edge), set_up: false };
            assert_eq!(plan, Ok(AccountPlan::Write(change)), "{now}");
        }
    }
}
