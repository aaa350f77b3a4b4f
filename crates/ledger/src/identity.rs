//! Whose things are: entitlement says it of all but budgets, which the ledger has.

use std::sync::Arc;

use drawdown_service::identity::{Kind, Named, Owner, Owners, Sources};
use drawdown_types::BudgetId;
use futures::future::BoxFuture;

use crate::store::{budgets, pool::Pool};

struct WithBudgets {
    entitlement: Arc<dyn Owners>,
    pool: Pool,
}

/// The sources of this service's gate: `entitlement`, and its own budgets.
pub(crate) fn sources(entitlement: Sources, pool: Pool) -> Sources {
    let Sources { keys, owners } = entitlement;
    Sources { keys, owners: Arc::new(WithBudgets { entitlement: owners, pool }) }
}

impl Owners for WithBudgets {
    fn owners(&self, things: Vec<Named>) -> BoxFuture<'_, anyhow::Result<Vec<Vec<Owner>>>> {
        Box::pin(async move {
            let budget = |(kind, text): &Named| match kind {
                Kind::Budget => text.parse::<BudgetId>().ok(),
                _ => None,
            };
            let asked: Vec<Option<BudgetId>> = things.iter().map(budget).collect();
            let mut owners = self.entitlement.owners(things).await?;
            for (budget, of) in asked.into_iter().zip(&mut owners) {
                let Some(budget) = budget else { continue };
                of.extend(budgets::owner(&self.pool, budget).await?.map(
                    |(account_id, team_id)| match team_id {
                        Some(team_id) => Owner::Team { account_id, team_id },
                        None => Owner::Account(account_id),
                    },
                ));
            }
            Ok(owners)
        })
    }
}
