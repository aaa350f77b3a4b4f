//! Setting and reading budgets (D59). A budget is set under the lock of its team, so it is in force for a
//! posting as a whole or not at all, and what was used before is counted exactly once.

use drawdown_ledger_core::{BudgetMonth, BudgetTerms, Plan, budget_set, month_of};
use drawdown_service::{Code, Refusal};
use drawdown_types::{AccountId, AppId, BudgetId, MicroTokens, TeamId, Timestamp};
use sqlx::{Postgres, Transaction};

use crate::{
    error::Error,
    reason,
    service::{Ledger, connection},
    store::{
        audit,
        budgets::{self, BudgetRead, Which},
        teams,
        write::{self, LotNote, Noted, PlanRows},
    },
    tokens::check_account,
};

/// A budget as decoded.
#[derive(Clone, Debug)]
pub(crate) struct BudgetOrder {
    /// The team's account.
    pub(crate) account_id: AccountId,
    /// The team.
    pub(crate) team_id: TeamId,
    /// The app, for a budget of one.
    pub(crate) app_id: Option<AppId>,
    /// What is allowed; absent to count only.
    pub(crate) terms: Option<BudgetTerms>,
}

impl Ledger {
    /// Sets a budget from the present month on. The open transaction is given back with it, to be committed
    /// with the answer.
    pub(crate) async fn set_budget(
        &self,
        order: &BudgetOrder,
    ) -> Result<(Transaction<'static, Postgres>, BudgetRead, Timestamp), Error> {
        let facts = self.team_facts(order.team_id).await?;
        check_account(facts.account_id, order.account_id)?;
        let mut tx = self.begin().await?;
        let at = connection(&mut tx);
        teams::lock_in_tx(at, vec![(order.account_id, order.team_id)]).await?;
        let now = self.clock.now();
        let (stored, _) = teams::load_in_tx(at, &[order.team_id], &[]).await?;
        let team = stored.first().ok_or_else(|| Error::Broken("a locked team is not there".to_owned()))?;
        check_account(team.team.balance.account_id, order.account_id)?;
        let now = team.team.balance.posted_at.map_or(now, |last| last.max(now));
        let known = budgets::find_in_tx(at, order.team_id, order.app_id).await?;
        let mut budget = BudgetMonth {
            budget_id: known.unwrap_or_else(BudgetId::generate),
            account_id: order.account_id,
            team_id: order.team_id,
            app_id: order.app_id,
            month: month_of(now).0,
            used: MicroTokens::ZERO,
            terms: order.terms.clone(),
        };
        let which = Which { budget: Some(budget.budget_id), ..Which::default() };
        let before = budgets::read(at, which, budget.month, 1).await?.pop();
        if known.is_none() {
            budgets::insert_in_tx(at, &budget).await?;
        }
        budgets::set_terms_in_tx(at, &budget, now).await?;
        let read = budgets::read(at, which, budget.month, 1).await?.pop();
        let read = read.ok_or_else(|| Error::Broken("a budget that was set is not there".to_owned()))?;
        budget.used = read.budget.used;
        let old = before.as_ref().and_then(|before| before.budget.terms.as_ref());
        let noted = Noted { notices: budget_set(&budget, old, now), ..Noted::at(now) };
        let rows = PlanRows {
            batch: (0, 0),
            charges: &[],
            plan: &Plan::default(),
            balances: &[],
            noted: &noted,
            note: &LotNote::default(),
            sub_batch: self.limits.sub_batch_lines,
        };
        write::write_in_tx(at, &rows).await?;
        let terms = budget.terms.as_ref();
        let detail = serde_json::json!({
            "team": budget.team_id.to_string(),
            "app": budget.app_id.map(|app| app.to_string()),
            "cap_micros": terms.map(|terms| terms.cap().as_micros()),
            "soft_percent": terms.map(BudgetTerms::soft),
            "hard": terms.map(BudgetTerms::hard),
        });
        audit::note_in_tx(at, now, "budget.set", &budget.budget_id.to_string(), &detail).await?;
        Ok((tx, read, now))
    }

    /// A budget in a month; without one in the present month.
    pub(crate) async fn budget(
        &self,
        budget: BudgetId,
        month: Option<Timestamp>,
    ) -> Result<BudgetRead, Error> {
        let which = Which { budget: Some(budget), ..Which::default() };
        let read = self.budgets_in(which, month, 1).await?.pop();
        read.ok_or_else(|| {
            Refusal::new(Code::NotFound, reason::BUDGET_UNKNOWN, "there is no such budget in that month")
                .violation("budget_id", format!("{budget} is not known, or was made in a later month"))
                .into()
        })
    }

    /// Budgets in a month; without one in the present month.
    pub(crate) async fn budgets_in(
        &self,
        which: Which,
        month: Option<Timestamp>,
        limit: i64,
    ) -> Result<Vec<BudgetRead>, Error> {
        let month = month.unwrap_or_else(|| month_of(self.clock.now()).0);
        let mut reader = self.pool.read_of(which.account).await?;
        budgets::read(&mut reader, which, month, limit).await
    }
}
