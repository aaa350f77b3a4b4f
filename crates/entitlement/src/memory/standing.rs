//! What a ledger tells, put where it is looked up. Each tells of the teams and accounts of its own cell only.

use std::{collections::HashSet, sync::Arc};

use drawdown_entitlement_core::access::{AccountStanding, Heard, TeamStanding};
use drawdown_types::{AccountId, TeamId, Timestamp};

use super::{
    Catalogue, Memory,
    cells::{AccountCell, TeamCell},
};

/// Standings that the ledger sent together, decoded.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) teams: Vec<(TeamId, AccountId, TeamStanding)>,
    pub(crate) accounts: Vec<(AccountId, AccountStanding)>,
    pub(crate) catalogue: Option<Catalogue>,
    /// The limit itself may be none.
    pub(crate) debt_limit_micros: Option<Option<i64>>,
    /// Everything that was committed by then is told.
    pub(crate) as_of: Option<Timestamp>,
}

/// Teams and accounts that a whole list named.
#[derive(Debug, Default)]
pub(crate) struct Listed {
    teams: HashSet<TeamId>,
    accounts: HashSet<AccountId>,
}

impl Told {
    fn is_news(&self) -> bool {
        !self.teams.is_empty() || !self.accounts.is_empty() || self.catalogue.is_some()
    }
}

impl Listed {
    pub(crate) fn add(&mut self, told: &Told) {
        self.teams.extend(told.teams.iter().map(|(team_id, ..)| *team_id));
        self.accounts.extend(told.accounts.iter().map(|(account_id, _)| *account_id));
    }
}

impl Memory {
    /// Takes over what the ledger of a cell sent. Money first, then its instant: an answer must not look younger than it is.
    pub(crate) fn told(&self, cell: u8, told: Told) {
        let news = told.is_news();
        for (team_id, account_id, standing) in told.teams {
            let team = self.registry().team_in(team_id, account_id, cell);
            team.standing.store(Some(Arc::new(standing)));
        }
        for (account_id, standing) in told.accounts {
            let account = self.registry().account_in(account_id, cell);
            account.standing.store(Some(Arc::new(standing)));
        }
        let catalogue = told.catalogue.map(Arc::new);
        self.ledgers.change(cell, |ledger| {
            if let Some(catalogue) = &catalogue {
                ledger.catalogue = Some(Arc::clone(catalogue));
            }
            let heard = ledger.heard;
            let known_limit = || heard.and_then(|heard| heard.debt_limit_micros);
            let debt_limit_micros = told.debt_limit_micros.unwrap_or_else(known_limit);
            if let Some(as_of) = told.as_of.or_else(|| heard.map(|heard| heard.as_of)) {
                ledger.heard = Some(Heard { as_of, debt_limit_micros });
            }
        });
        if news {
            if let Some(as_of) = told.as_of {
                self.metrics.changed("ledger", self.clock.now().saturating_since(as_of));
            }
            self.has_changed();
        }
    }

    /// A whole list was told by the ledger of a cell: what of the cell it did not name has nothing and owes nothing.
    pub(crate) fn listed(&self, cell: u8, listed: &Listed) {
        let registry = self.registry();
        let is_its = |account: &AccountCell| account.facts.load().account.cell == cell;
        let gone = |team: &&Arc<TeamCell>| is_its(&team.account) && !listed.teams.contains(&team.team_id);
        for team in registry.teams.values().filter(gone) {
            team.standing.store(None);
        }
        let gone = |(id, account): &(&AccountId, &Arc<AccountCell>)| {
            is_its(account) && !listed.accounts.contains(id)
        };
        for (_, account) in registry.accounts.iter().filter(gone) {
            account.standing.store(None);
        }
        drop(registry);
        self.has_changed();
    }
}
