//! What hangs on the client ids: apps, teams and accounts.
//!
//! An app is a value that is exchanged whole in the entries of its client ids. A team and an account are one cell each,
//! shared by all that points at them: what they are is swapped inside, so a new balance is one store, whoever uses the
//! team. Each swap is of one pointer; a reader sees the one or the other.

use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use drawdown_entitlement_core::{
    Account, BilledTo, ContractKind, History, Resolution, Rules, TrialTerms,
    access::{AccountStanding, Caller, Moment, TeamStanding, Who},
    is_archived, is_known_at,
};
use drawdown_types::{AccountId, AppId, TeamId, Timestamp, UserId, Window};

use super::clients::Entry;

/// An account.
#[derive(Debug)]
pub(crate) struct AccountCell {
    pub(crate) facts: ArcSwap<AccountFacts>,
    /// What the ledger told.
    pub(crate) standing: ArcSwapOption<AccountStanding>,
}

/// What entitlement knows of an account.
#[derive(Clone, Debug)]
pub(crate) struct AccountFacts {
    pub(crate) account: Account,
    pub(crate) suspended: bool,
    /// Its contract managers, in order.
    pub(crate) managers: Box<[UserId]>,
}

/// A team.
#[derive(Debug)]
pub(crate) struct TeamCell {
    pub(crate) team_id: TeamId,
    pub(crate) account: Arc<AccountCell>,
    pub(crate) facts: ArcSwap<TeamFacts>,
    /// What the ledger told.
    pub(crate) standing: ArcSwapOption<TeamStanding>,
}

/// What entitlement knows of a team.
#[derive(Clone, Debug, Default)]
pub(crate) struct TeamFacts {
    pub(crate) suspended: bool,
    /// Its admins and who has a product assignment, in order.
    pub(crate) users: Box<[UserId]>,
}

/// Whose an app is.
#[derive(Clone, Debug)]
pub(crate) struct Ownership {
    pub(crate) account: Arc<AccountCell>,
    pub(crate) user_id: Option<UserId>,
}

/// An app.
#[derive(Debug)]
pub(crate) struct AppFacts {
    pub(crate) app_id: AppId,
    pub(crate) teams: History<Arc<TeamCell>>,
    /// Whose it was when it was registered.
    pub(crate) first: Ownership,
    /// Whose it is since transfers, where there were any.
    pub(crate) later: Option<Box<History<Ownership>>>,
    /// Whose hub it is in.
    pub(crate) hub: Option<Arc<AccountCell>>,
}

/// A client id at an instant: who asks, and where its money is.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) caller: Caller,
    pub(crate) team: Option<Arc<TeamCell>>,
    pub(crate) account: Option<Arc<AccountCell>>,
    /// The cell of the account.
    pub(crate) cell: u8,
    pub(crate) billed_to: Option<BilledTo>,
}

// === impl AccountCell ===

impl AccountCell {
    /// An account of which nothing is known yet but its cell. No app leads to it before something is.
    pub(crate) fn unknown(account_id: AccountId, cell: u8) -> Self {
        let account = Account {
            account_id,
            opened_as: ContractKind::Flex,
            contract: History::default(),
            trial: TrialTerms::default(),
            cell,
        };
        let facts = AccountFacts { account, suspended: false, managers: Box::default() };
        Self { facts: ArcSwap::from_pointee(facts), standing: ArcSwapOption::empty() }
    }
}

impl TeamCell {
    pub(crate) fn unknown(team_id: TeamId, account: Arc<AccountCell>) -> Self {
        Self { team_id, account, facts: ArcSwap::default(), standing: ArcSwapOption::empty() }
    }
}

// === impl AppFacts ===

impl AppFacts {
    fn owner_at(&self, edge: Timestamp) -> &Ownership {
        self.later.as_ref().and_then(|later| later.at(edge)).unwrap_or(&self.first)
    }

    /// The first change of team or owner after `edge`.
    fn changes_after(&self, edge: Timestamp) -> Timestamp {
        let later = self.later.as_ref().and_then(|later| later.next_after(edge));
        let teams = self.teams.next_after(edge);
        later.into_iter().chain(teams).min().unwrap_or(Timestamp::MAX)
    }
}

/// Who pays, by the rules of the directory.
pub(crate) fn resolve(entry: Option<&Entry>, window: Window, rules: &Rules) -> Resolution {
    let edge = window.start();
    let known = |entry: &&Entry| is_known_at(entry.known_from, entry.revocation.as_deref(), edge);
    let Some(entry) = entry.filter(known) else { return Resolution::UnknownClient };
    let Some(team) = entry.app.teams.at(edge) else { return Resolution::NoTeam };
    let account = team.account.facts.load();
    Resolution::BilledTo(BilledTo::at(entry.app.app_id, team.team_id, &account.account, window, rules))
}

/// Who asks. What decides about money is looked up by the window, what is access only at the instant (D51, D56).
pub(crate) fn find(
    entry: Option<&Entry>,
    moment: &Moment,
    (rules, hub_mode): (&Rules, bool),
    with_billed_to: bool,
) -> Found {
    let nobody = |caller| Found { caller, team: None, account: None, cell: 0, billed_to: None };
    let edge = moment.window.start();
    let Some(entry) = entry.filter(|entry| entry.known_from <= edge) else { return nobody(Caller::Unknown) };
    let revoked_at = entry.revocation.as_ref().map_or(Timestamp::MAX, |end| end.revoked_at);
    if revoked_at <= moment.now {
        return nobody(Caller::Revoked);
    }
    let app = &*entry.app;
    let owner = app.owner_at(edge);
    let team = app.teams.at(edge);
    let account = team.map_or(&owner.account, |team| &team.account);
    let facts = account.facts.load();
    let of_team = team.map(|team| team.facts.load());
    let hub = app.hub.as_ref().map(|hub| hub.facts.load().account.account_id);
    let may_use_tokens = owner.user_id.is_none_or(|user_id| {
        let holds = |users: &[UserId]| users.binary_search(&user_id).is_ok();
        holds(&facts.managers) || of_team.as_ref().is_some_and(|team| holds(&team.users))
    });
    let billed_to = team
        .filter(|_| with_billed_to)
        .map(|team| BilledTo::at(app.app_id, team.team_id, &facts.account, moment.window, rules));
    let in_trial = facts.account.trial.holds_at(moment.window, rules);
    let trial_ends = facts.account.trial.ends_at().filter(|_| in_trial).unwrap_or(Timestamp::MAX);
    let contract_changes = facts.account.contract.next_after(edge).unwrap_or(Timestamp::MAX);
    let who = Who {
        app_id: app.app_id,
        has_team: team.is_some(),
        account_suspended: facts.suspended,
        team_suspended: of_team.as_ref().is_some_and(|team| team.suspended),
        archived: is_archived(hub_mode, hub, owner.account.facts.load().account.account_id),
        in_trial,
        may_use_tokens,
        contract_kind: facts.account.kind_at(edge),
        changes_at: revoked_at.min(app.changes_after(edge)).min(trial_ends).min(contract_changes),
    };
    Found {
        caller: Caller::Known(who),
        cell: facts.account.cell,
        billed_to,
        team: team.map(Arc::clone),
        account: Some(Arc::clone(account)),
    }
}
