//! Teams as this process committed them last, so that a post does not load again what it knows.
//!
//! A balance row names the transaction that changed anything of its team last ([`Revision`]). The lock of a team
//! gives that name as it is now, and nothing of the team changes while the lock is held. So what is kept here
//! with the same name *is* what a load would find, whoever else wrote, read, restored or rolled back; with another
//! name, it is nothing.
//!
//! - A name is random: after a restore to an older state none comes again with another content.
//! - A post takes the entries of its teams out and puts them back after its commit. So a post that fails, or whose
//!   commit has no answer, has forgotten them, and of two posts at the same time one finds nothing.
//! - A team is kept only where its balance, live lots and usage states are all that a load gives: not with open
//!   holds, with debt settled out of turn, with a lot that leaves older debts, or with budgets. Of these a load
//!   brings more than a post leaves, and there are few.
//! - Who uses it least leaves first, beyond so many teams or so many states.

use std::sync::{Mutex, MutexGuard, PoisonError};

use drawdown_ledger_core::{Cycle, Team, UsageKey, UsageState};
use drawdown_types::{MicroTokens, TeamId};
use hashlink::LinkedHashMap;
use rustc_hash::{FxBuildHasher, FxHashMap};

use crate::store::teams::{Revision, StoredTeam};

/// What is known of a team's usage states: by key the state, or that there is none.
pub(super) type States = FxHashMap<UsageKey, Option<UsageState>>;

/// The same, by key.
pub type KnownStates = Vec<(UsageKey, Option<UsageState>)>;

/// A team as a commit left it.
#[derive(Debug)]
pub(super) struct Known {
    /// The commit.
    pub(super) revision: Revision,
    /// What a load would give.
    pub(super) stored: StoredTeam,
    /// Some of its states.
    pub(super) states: States,
}

/// Most that is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownLimits {
    /// Client ids whose newest window is committed.
    pub clients_max: usize,
    /// Teams; 0 to remember none.
    pub teams_max: usize,
    /// Usage states of all teams, present or known to be absent.
    pub states_max: usize,
}

/// The teams.
#[derive(Debug)]
pub struct KnownTeams {
    held: Mutex<Held>,
    limits: KnownLimits,
}

/// The least recently used team is the first.
#[derive(Debug, Default)]
struct Held {
    teams: LinkedHashMap<TeamId, Known, FxBuildHasher>,
    states: usize,
}

// === impl KnownTeams ===

impl KnownTeams {
    /// Knows nothing yet.
    #[must_use]
    pub fn new(limits: KnownLimits) -> Self {
        Self { held: Mutex::default(), limits }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes out what is known of `teams`, which are locked and stand at these revisions. What is known of another
    /// revision is forgotten.
    pub(super) fn take(&self, teams: &[(TeamId, Revision)]) -> FxHashMap<TeamId, Known> {
        let mut held = self.held();
        let taken = teams.iter().filter_map(|(team, revision)| {
            let known = held.take(*team)?;
            (known.revision == *revision).then_some((*team, known))
        });
        taken.collect()
    }

    /// Remembers teams as a commit left them, as far as they can be and fit.
    pub(super) fn put(&self, teams: impl IntoIterator<Item = Known>) {
        if self.limits.teams_max == 0 {
            return;
        }
        let kept: Vec<Known> = teams.into_iter().filter_map(Known::kept).collect();
        let mut held = self.held();
        for known in kept {
            if known.states.len() <= self.limits.states_max {
                held.put(known);
            }
        }
        while held.teams.len() > self.limits.teams_max || held.states > self.limits.states_max {
            held.take_oldest();
        }
    }

    /// What is known of a team, without using it: the revision, the team, and its states by key.
    #[must_use]
    pub fn look(&self, team: TeamId) -> Option<(Revision, StoredTeam, KnownStates)> {
        let held = self.held();
        let known = held.teams.get(&team)?;
        let mut states: Vec<_> = known.states.iter().map(|(key, state)| (*key, state.clone())).collect();
        states.sort_unstable_by_key(|(key, _)| *key);
        Some((known.revision, known.stored.clone(), states))
    }

    /// How many teams are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.held().teams.len()
    }

    /// Whether none is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

// === impl Held ===

impl Held {
    fn take(&mut self, team: TeamId) -> Option<Known> {
        let known = self.teams.remove(&team)?;
        self.states = self.states.saturating_sub(known.states.len());
        Some(known)
    }

    fn take_oldest(&mut self) {
        if let Some((_, known)) = self.teams.pop_front() {
            self.states = self.states.saturating_sub(known.states.len());
        }
    }

    /// As the most recently used one.
    fn put(&mut self, known: Known) {
        let team = known.stored.team.balance.team_id;
        self.take(team);
        self.states = self.states.saturating_add(known.states.len());
        self.teams.insert(team, known);
    }
}

// === impl Known ===

impl Known {
    /// As a load would give it, where that is all of it.
    fn kept(mut self) -> Option<Self> {
        let StoredTeam { team, budgets, has_budgets, .. } = &mut self.stored;
        let Team { balance, lots, holds, settled_ahead, items } = team;
        holds.retain(|hold| hold.ended.is_none());
        lots.retain(|lot| lot.closed_at.is_none() && lot.moved_to.is_none());
        let whole = holds.is_empty()
            && balance.held == MicroTokens::ZERO
            && balance.debt_ahead == MicroTokens::ZERO
            && !lots.iter().any(|lot| lot.leaves_older_debts)
            && !*has_budgets;
        if !whole {
            return None;
        }
        // Without holds and such lots no item of the debt is loaded; nor what is settled ahead, where nothing is.
        settled_ahead.clear();
        items.clear();
        budgets.clear();
        self.forget_old_months();
        Some(self)
    }

    /// Months come and go: only the states of the newest two are of use, and those without a month.
    fn forget_old_months(&mut self) {
        let newest = self.states.keys().map(|key| key.cycle).max();
        let before = self.states.keys().map(|key| key.cycle).filter(|cycle| Some(*cycle) < newest).max();
        let useful = |cycle| Some(cycle) == newest || Some(cycle) == before || cycle == Cycle::ENDLESS;
        self.states.retain(|key, _| useful(key.cycle));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use drawdown_ledger_core::{Hold, Lot, PoolKind, Watch};
    use drawdown_types::{AccountId, HoldId, LotId, PriceId, Timestamp};

    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn known(team: TeamId, revision: Revision, cycles: &[&str]) -> Known {
        let stored = StoredTeam {
            team: Team::new(AccountId::generate(), team),
            charges: 0,
            last_window: None,
            watch: Watch::default(),
            budgets: Vec::new(),
            has_budgets: false,
        };
        let price_id = PriceId::generate();
        let key = |cycle: &&str| UsageKey { team_id: team, price_id, cycle: Cycle::of(at(cycle)) };
        let states = cycles.iter().map(|cycle| (key(cycle), None)).collect();
        Known { revision, stored, states }
    }

    fn lot(team: &Team) -> Lot {
        let from = at("2026-03-01T00:00:00Z");
        Lot {
            lot_id: LotId::generate(),
            account_id: team.balance.account_id,
            team_id: team.balance.team_id,
            pool_kind: PoolKind::Free,
            original: MicroTokens::from_micros(1),
            granted: MicroTokens::from_micros(1),
            remaining: MicroTokens::from_micros(1),
            held: MicroTokens::ZERO,
            consumed: MicroTokens::ZERO,
            expired: MicroTokens::ZERO,
            void: MicroTokens::ZERO,
            moved: MicroTokens::ZERO,
            purchased_at: from,
            starts_at: from,
            valid_from: from,
            expires_at: from.checked_add(DAY).unwrap(),
            closes_at: from.checked_add(DAY).unwrap(),
            closed_at: None,
            moved_to: None,
            leaves_older_debts: false,
        }
    }

    fn limits(teams_max: usize, states_max: usize) -> KnownLimits {
        KnownLimits { clients_max: 0, teams_max, states_max }
    }

    fn team_ids<const N: usize>() -> [TeamId; N] {
        std::array::from_fn(|_| TeamId::generate())
    }

    #[test]
    fn only_the_same_revision_is_known_and_another_one_is_forgotten() {
        let teams = KnownTeams::new(limits(10, 10));
        let (team, first, second) = (TeamId::generate(), Revision::generate(), Revision::generate());
        teams.put([known(team, first, &["2026-03-01T00:00:00Z"])]);
        assert!(teams.take(&[(TeamId::generate(), first)]).is_empty());
        assert_eq!(teams.take(&[(team, first)]).len(), 1);
        assert!(teams.take(&[(team, first)]).is_empty(), "it was taken out");
        teams.put([known(team, first, &[])]);
        assert!(teams.take(&[(team, second)]).is_empty());
        assert!(teams.take(&[(team, first)]).is_empty(), "another revision makes it useless for ever");
    }

    #[test]
    fn the_least_recently_used_leave_beyond_either_limit() {
        let teams = KnownTeams::new(limits(3, 5));
        let (ids, revision) = (team_ids::<4>(), Revision::generate());
        let march = ["2026-03-01T00:00:00Z"];
        teams.put(ids[..3].iter().map(|team| known(*team, revision, &march)));
        // The first one is used again.
        teams.put(teams.take(&[(ids[0], revision)]).into_values());
        teams.put([known(ids[3], revision, &march)]);
        let known_ids = |teams: &KnownTeams| -> Vec<bool> {
            ids.iter().map(|team| teams.look(*team).is_some()).collect()
        };
        assert_eq!(known_ids(&teams), [true, false, true, true]);
        // Two months each for two teams, beside one of one: five states fit, six do not.
        let both = ["2026-03-01T00:00:00Z", "2026-02-01T00:00:00Z"];
        teams.put([known(ids[0], revision, &both), known(ids[2], revision, &both)]);
        assert_eq!(known_ids(&teams), [true, false, true, true]);
        teams.put([known(ids[3], revision, &both)]);
        assert_eq!(known_ids(&teams), [false, false, true, true]);
        assert_eq!(teams.held().states, 4);
    }

    #[test]
    fn a_limit_of_zero_remembers_nothing() {
        for none in [limits(0, 10), limits(10, 0)] {
            let teams = KnownTeams::new(none);
            teams.put([known(TeamId::generate(), Revision::generate(), &["2026-03-01T00:00:00Z"])]);
            assert!(teams.is_empty());
        }
    }

    #[test]
    fn states_of_months_before_the_newest_two_are_forgotten() {
        let team = TeamId::generate();
        let months = ["2026-01-01T00:00:00Z", "2026-03-01T00:00:00Z", "2026-02-01T00:00:00Z"];
        let mut known = known(team, Revision::generate(), &months);
        let endless = UsageKey { team_id: team, price_id: PriceId::generate(), cycle: Cycle::ENDLESS };
        known.states.insert(endless, None);
        let mut left: Vec<_> = known.kept().unwrap().states.into_keys().map(|key| key.cycle).collect();
        left.sort_unstable();
        assert_eq!(left, [Cycle::ENDLESS, Cycle::of(at(months[2])), Cycle::of(at(months[1]))]);
    }

    #[test]
    fn closed_lots_are_left_out_as_a_load_leaves_them_out() {
        let mut known = known(TeamId::generate(), Revision::generate(), &[]);
        let open = lot(&known.stored.team);
        let closed = Lot { closed_at: Some(open.closes_at), ..lot(&known.stored.team) };
        let moved = Lot { moved_to: Some(TeamId::generate()), ..lot(&known.stored.team) };
        known.stored.team.lots = vec![closed, open.clone(), moved];
        assert_eq!(known.kept().unwrap().stored.team.lots, [open]);
    }

    #[test]
    fn a_team_of_which_a_load_brings_more_is_not_kept() {
        let kept = |change: &dyn Fn(&mut StoredTeam)| {
            let mut known = known(TeamId::generate(), Revision::generate(), &[]);
            known.stored.team.lots = vec![lot(&known.stored.team)];
            change(&mut known.stored);
            known.kept().is_some()
        };
        let one = MicroTokens::from_micros(1);
        let hold = |stored: &StoredTeam, ended| Hold {
            hold_id: HoldId::generate(),
            team_id: stored.team.balance.team_id,
            app_id: None,
            window: at("2026-03-01T00:00:00Z"),
            made_at: at("2026-03-01T00:00:00Z"),
            expires_at: at("2026-03-02T00:00:00Z"),
            parts: Vec::new(),
            ended,
        };
        let end = Some((at("2026-03-01T12:00:00Z"), drawdown_ledger_core::HoldEnd::Released));
        assert!(kept(&|_| {}));
        assert!(kept(&|stored| stored.team.balance.debt_opened = one), "debt alone is no more than its sums");
        assert!(kept(&|stored| stored.team.holds = vec![hold(stored, end)]));
        assert!(!kept(&|stored| stored.team.holds = vec![hold(stored, None)]));
        assert!(!kept(&|stored| stored.team.balance.held = one));
        assert!(!kept(&|stored| stored.team.balance.debt_ahead = one));
        assert!(!kept(&|stored| stored.team.lots[0].leaves_older_debts = true));
        assert!(!kept(&|stored| stored.has_budgets = true));
    }
}
