//! The teams of a post and the states of its usage: as this process knows them, else loaded.

use drawdown_ledger_core::{Plan, UsageKey, UsageState};
use drawdown_types::TeamId;
use rustc_hash::{FxBuildHasher, FxHashMap};
use sqlx::PgConnection;

use super::{
    Poster,
    known::{Known, States},
};
use crate::{
    error::Error,
    store::{
        teams::{self, Revision, StoredTeam, Wanted},
        write::TeamUsage,
    },
};

/// What a post works on.
pub(super) struct Loaded {
    /// The locked teams, by team id.
    pub(super) stored: Vec<StoredTeam>,
    /// The states asked for that exist.
    pub(super) states: Vec<UsageState>,
    /// How many of the teams the database was asked for.
    pub(super) from_database: usize,
    /// Everything known of the teams' states, asked for or not.
    known: States,
}

impl Poster {
    /// The locked teams, which stand at these revisions, by team id, with what is wanted of them. No statement, where all of
    /// it is known.
    pub(super) async fn load_in_tx(
        &self,
        tx: &mut PgConnection,
        locked: &[(TeamId, Revision)],
        wanted: &Wanted<'_>,
    ) -> Result<Loaded, Error> {
        let mut keys: Vec<UsageKey> = wanted.keys.to_vec();
        keys.sort_unstable();
        let mut remembered = self.known.take(locked);
        let (mut stored, mut missing) = (Vec::with_capacity(locked.len()), Vec::new());
        let mut known = States::with_capacity_and_hasher(keys.len(), FxBuildHasher);
        for (team, _) in locked {
            let Some(of_team) = remembered.remove(team) else {
                missing.push(*team);
                continue;
            };
            if keys_of(&keys, *team).iter().all(|key| of_team.states.contains_key(key)) {
                stored.push(of_team.stored);
            } else {
                missing.push(*team);
            }
            // What is known of other states stays so beside what is loaded now: it is of the same revision.
            known.extend(of_team.states);
        }
        if !missing.is_empty() {
            let asked = missing.iter().flat_map(|team| keys_of(&keys, *team));
            let asked: Vec<UsageKey> = asked.copied().collect();
            let (loaded, states) =
                teams::load_wanted_in_tx(tx, &missing, &Wanted { keys: &asked, ..*wanted }).await?;
            known.extend(asked.into_iter().map(|key| (key, None)));
            known.extend(states.into_iter().map(|state| (state.key, Some(state))));
            stored.extend(loaded);
            stored.sort_unstable_by_key(|stored| stored.team.balance.team_id);
        }
        let states = keys.iter().filter_map(|key| known.get(key)?.clone()).collect();
        Ok(Loaded { stored, states, from_database: missing.len(), known })
    }
}

impl Loaded {
    /// The teams as they are after a commit of this revision that wrote `plan`, and `usage` beside each of them.
    pub(super) fn committed(self, plan: &Plan, usage: &[TeamUsage], revision: Revision) -> Vec<Known> {
        let changed = plan.states.iter().map(|state| (state.key, Some(state.clone())));
        let mut known = self.known;
        known.extend(changed);
        let mut by_team: FxHashMap<TeamId, States> =
            FxHashMap::with_capacity_and_hasher(self.stored.len(), FxBuildHasher);
        for (key, state) in known {
            by_team.entry(key.team_id).or_default().insert(key, state);
        }
        let teams = self.stored.into_iter().zip(usage).map(|(mut stored, usage)| {
            (stored.charges, stored.last_window, stored.watch) =
                (usage.charges, usage.last_window, usage.watch);
            let states = by_team.remove(&stored.team.balance.team_id).unwrap_or_default();
            Known { revision, stored, states }
        });
        teams.collect()
    }
}

/// The keys of a team, of keys in order.
fn keys_of(keys: &[UsageKey], team: TeamId) -> &[UsageKey] {
    let from = keys.partition_point(|key| key.team_id < team);
    let keys = keys.get(from..).unwrap_or_default();
    let to = keys.partition_point(|key| key.team_id == team);
    keys.get(..to).unwrap_or_default()
}
