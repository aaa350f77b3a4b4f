//! What gates are told of teams, accounts and meters (D21, D48, D58), computed from what is stored.
//!
//! Nothing here is kept: each answer is read anew, by keys, and told ahead as far as time alone changes it, so that
//! whoever has it computes what the ledger would answer. An account has no grace while one of its teams is past its
//! deadline, so the teams of an account that are below zero are read with each of its teams.

use std::collections::{HashMap, HashSet};

use drawdown_ledger_core::{
    Ahead, BudgetMonth, ContractKind, Cycle, PriceBook, UsageKey, UsageState, ahead, month_of, no_grace,
};
use drawdown_types::{AccountId, MeterSlug, PriceId, TeamId, Timestamp};

use crate::{
    error::Error,
    service::Ledger,
    store::{
        account_budgets::{self, Whose},
        budgets::BudgetRead,
        catalog::{self, Meter},
        standings::{self, Look},
        teams::{self, StoredTeam, Wanted},
    },
};

/// A team.
#[derive(Clone, Debug)]
pub(crate) struct TeamStanding {
    /// The team.
    pub(crate) team_id: TeamId,
    /// Its account.
    pub(crate) account_id: AccountId,
    /// Its balance.
    pub(crate) ahead: Ahead,
    /// Its budgets in the present month.
    pub(crate) budgets: Vec<BudgetMonth>,
    /// What it used in the present month at prices with a free quota.
    pub(crate) quotas: Vec<UsageState>,
    /// Journal rows posted so far.
    pub(crate) version: i64,
}

/// An account.
#[derive(Clone, Debug)]
pub(crate) struct AccountStanding {
    /// The account.
    pub(crate) account_id: AccountId,
    /// When none of its teams has grace.
    pub(crate) no_grace: Vec<(Timestamp, Option<Timestamp>)>,
    /// Its budget in the present month, where it has one.
    pub(crate) budget: Option<BudgetRead>,
}

/// Teams with their accounts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Standings {
    /// By team id.
    pub(crate) teams: Vec<TeamStanding>,
    /// By account id.
    pub(crate) accounts: Vec<AccountStanding>,
}

/// All meters with their prices.
#[derive(Debug)]
pub(crate) struct MeterStandings {
    /// The version of the catalogue.
    pub(crate) version: i64,
    /// By slug.
    pub(crate) meters: Vec<Meter>,
    /// What they cost.
    pub(crate) prices: PriceBook,
}

// === impl Ledger ===

impl Ledger {
    /// Looks what changed since a snapshot; without one, where the feed stands.
    pub(crate) async fn look_at_feed(&self, since: Option<&str>, teams_max: usize) -> Result<Look, Error> {
        let teams_max = i64::try_from(teams_max).unwrap_or(i64::MAX);
        standings::look(&mut *self.pool.read().await?, since, teams_max).await
    }

    /// The next teams by id, for a list of all.
    pub(crate) async fn next_teams(&self, after: Option<TeamId>, limit: u32) -> Result<Vec<TeamId>, Error> {
        standings::page(&mut *self.pool.read().await?, after, limit.into()).await
    }

    /// The standings of teams and of their accounts from `now` on. Teams that nothing was posted to are left out.
    pub(crate) async fn standings(&self, ids: &[TeamId], now: Timestamp) -> Result<Standings, Error> {
        if ids.is_empty() {
            return Ok(Standings::default());
        }
        let mut reader = self.pool.probe_of(None).await?;
        let version = catalog::version_in_tx(&mut reader).await?;
        let catalogue = self.poster().catalogue.of_version(&mut reader, version).await?;
        let prices = with_quota(&catalogue.prices, catalogue.meters.keys(), now);
        let cycle = Cycle::of(now);
        let keys = ids.iter().flat_map(|team_id| {
            prices.iter().map(|price_id| UsageKey { team_id: *team_id, price_id: *price_id, cycle })
        });
        let keys: Vec<_> = keys.collect();
        let wanted = Wanted { keys: &keys, months: &[month_of(now).0], ..Wanted::default() };
        let (mut stored, states) = teams::load_wanted_in_tx(&mut reader, ids, &wanted).await?;
        let mut accounts: Vec<_> = stored.iter().map(|stored| stored.team.balance.account_id).collect();
        accounts.sort_unstable();
        accounts.dedup();
        // Nothing of a later statement is older than what an earlier one saw.
        let negative = standings::below_zero(&mut reader, &accounts).await?;
        let named: HashSet<_> = stored.iter().map(|stored| stored.team.balance.team_id).collect();
        let others = negative.into_iter().map(|(_, team)| team).filter(|team| !named.contains(team));
        let others: Vec<_> = others.collect();
        let (others, _) = teams::load_in_tx(&mut reader, &others, &[]).await?;
        let month = month_of(now).0;
        let budgets = account_budgets::read(&mut reader, Whose::Accounts(&accounts), month).await?;
        drop(reader);
        stored.sort_unstable_by_key(|stored| stored.team.balance.team_id);
        let teams = self.team_standings(stored, states, now);
        let mut accounts = self.account_standings(&accounts, &teams, &others, now);
        for budget in budgets {
            let place = accounts.binary_search_by_key(&budget.account_id, |account| account.account_id);
            if let Some(account) = place.ok().and_then(|place| accounts.get_mut(place)) {
                account.budget = Some(budget);
            }
        }
        Ok(Standings { teams, accounts })
    }

    fn ahead(&self, stored: &StoredTeam, now: Timestamp) -> Ahead {
        let settled = |at| self.settled_until(at);
        ahead(&stored.team, now, settled, self.limits.standings.steps_max, &self.settings)
    }

    fn team_standings(
        &self,
        stored: Vec<StoredTeam>,
        states: Vec<UsageState>,
        now: Timestamp,
    ) -> Vec<TeamStanding> {
        let mut quotas: HashMap<TeamId, Vec<UsageState>> = HashMap::new();
        for state in states {
            quotas.entry(state.key.team_id).or_default().push(state);
        }
        let standing = |stored: StoredTeam| TeamStanding {
            team_id: stored.team.balance.team_id,
            account_id: stored.team.balance.account_id,
            ahead: self.ahead(&stored, now),
            quotas: quotas.remove(&stored.team.balance.team_id).unwrap_or_default(),
            version: stored.team.balance.version,
            budgets: stored.budgets,
        };
        stored.into_iter().map(standing).collect()
    }

    /// `others` are the teams of these accounts that are below zero and not among `teams`.
    fn account_standings(
        &self,
        accounts: &[AccountId],
        teams: &[TeamStanding],
        others: &[StoredTeam],
        now: Timestamp,
    ) -> Vec<AccountStanding> {
        let others: Vec<_> =
            others.iter().map(|other| (other.team.balance.account_id, self.ahead(other, now))).collect();
        let mut of_account: HashMap<AccountId, Vec<&Ahead>> = HashMap::new();
        let all = teams.iter().map(|team| (team.account_id, &team.ahead));
        for (account, ahead) in all.chain(others.iter().map(|(account, ahead)| (*account, ahead))) {
            of_account.entry(account).or_default().push(ahead);
        }
        let standing = |account_id: &AccountId| AccountStanding {
            account_id: *account_id,
            budget: None,
            no_grace: no_grace(
                of_account.get(account_id).into_iter().flatten().copied(),
                &self.notice_rules,
                self.settings.window_size,
            ),
        };
        accounts.iter().map(standing).collect()
    }

    /// All meters with their prices, of one version of the catalogue.
    pub(crate) async fn meter_standings(&self) -> Result<MeterStandings, Error> {
        let (version, meters, cards) = catalog::load(&self.pool).await?;
        let aggregations = meters.iter().map(|meter| (meter.slug.clone(), meter.aggregation)).collect();
        Ok(MeterStandings { version, meters, prices: PriceBook::with_meters(cards, aggregations) })
    }
}

/// Prices in force that have a free quota, whoever's.
fn with_quota<'a>(
    prices: &PriceBook,
    meters: impl Iterator<Item = &'a MeterSlug>,
    now: Timestamp,
) -> Vec<PriceId> {
    let in_force = meters.flat_map(|meter| {
        ContractKind::ALL.into_iter().filter_map(move |kind| prices.in_force(kind, meter, now))
    });
    let with_quota = in_force.filter(|price| price.terms.free_quota() > 0);
    let mut found: Vec<_> = with_quota.map(|price| price.price_id).collect();
    found.sort_unstable();
    found.dedup();
    found
}
