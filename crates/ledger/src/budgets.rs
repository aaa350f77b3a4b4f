//! Setting and reading budgets (D59). A budget is set under the lock of its team, so it is in force for a
//! posting as a whole or not at all, and what was used before is counted exactly once.

use drawdown_ledger_core::{BudgetMonth, BudgetTerms, Plan, budget_set, month_of};
use drawdown_service::{Code, Refusal};
use drawdown_types::{AccountId, AppId, BudgetId, MicroTokens, TeamId, Timestamp};
use sqlx::{PgConnection, Postgres, Transaction};

use crate::{
    audited,
    error::Error,
    reason,
    service::{Ledger, connection},
    store::{
        account_budgets::{self, Whose},
        audit,
        budgets::{self, BudgetRead, Which},
        scope, teams,
        write::{self, LotNote, Noted, PlanRows},
    },
    tokens::check_account,
};

/// A budget as decoded.
#[derive(Clone, Debug)]
pub(crate) struct BudgetOrder {
    /// The team's account.
    pub(crate) account_id: AccountId,
    /// The team; none for the account's own budget.
    pub(crate) team_id: Option<TeamId>,
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
        let Some(team_id) = order.team_id else { return self.set_account_budget(order).await };
        let facts = self.team_facts(team_id).await?;
        check_account(facts.account_id, order.account_id)?;
        let mut tx = self.begin().await?;
        let at = connection(&mut tx);
        teams::lock_in_tx(at, vec![(order.account_id, team_id)]).await?;
        let now = self.clock.now();
        let (stored, _) = teams::load_in_tx(at, &[team_id], &[]).await?;
        let team = stored.first().ok_or_else(|| Error::Broken("a locked team is not there".to_owned()))?;
        check_account(team.team.balance.account_id, order.account_id)?;
        let now = team.team.balance.posted_at.map_or(now, |last| last.max(now));
        let known = budgets::find_in_tx(at, team_id, order.app_id).await?;
        let mut budget = BudgetMonth {
            budget_id: known.unwrap_or_else(BudgetId::generate),
            account_id: order.account_id,
            team_id,
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
        budget.used = read.used;
        let old = before.as_ref().and_then(|before| before.terms.as_ref());
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
        note_in_tx(at, before.as_ref(), &read, now).await?;
        Ok((tx, read, now))
    }

    /// Sets the budget of an account: all its teams are locked, so what they use is counted as a whole or not at all.
    async fn set_account_budget(
        &self,
        order: &BudgetOrder,
    ) -> Result<(Transaction<'static, Postgres>, BudgetRead, Timestamp), Error> {
        let account = order.account_id;
        let max = self.limits.reports.teams_max;
        let mut tx = self.begin().await?;
        let at = connection(&mut tx);
        account_budgets::hold_in_tx(at, account).await?;
        let teams = scope::teams_in_tx(at, account, i64::from(max).saturating_add(1)).await?;
        if u32::try_from(teams.len()).unwrap_or(u32::MAX) > max {
            let why = format!("the account has more than {max} teams: set budgets of teams");
            return Err(Refusal::new(Code::ResourceExhausted, reason::TEAMS_TOO_MANY, why).into());
        }
        teams::lock_known_in_tx(at, &teams)
            .await?
            .ok_or_else(|| Error::Broken("a balance is not there any more".to_owned()))?;
        let (now, last) = (self.clock.now(), account_budgets::posted_at_in_tx(at, account).await?);
        let now = last.map_or(now, |last| last.max(now));
        let month = month_of(now).0;
        let before = account_budgets::read(at, Whose::Accounts(&[account]), month).await?.pop();
        account_budgets::count_in_tx(at, account, BudgetId::generate(), month, now).await?;
        account_budgets::set_terms_in_tx(at, account, month, order.terms.as_ref()).await?;
        let read = account_budgets::read(at, Whose::Accounts(&[account]), month).await?.pop();
        let read = read.ok_or_else(|| Error::Broken("a budget that was set is not there".to_owned()))?;
        note_in_tx(at, before.as_ref(), &read, now).await?;
        Ok((tx, read, now))
    }

    /// A budget in a month; without one in the present month.
    pub(crate) async fn budget(
        &self,
        budget: BudgetId,
        month: Option<Timestamp>,
    ) -> Result<BudgetRead, Error> {
        let which = Which { budget: Some(budget), ..Which::default() };
        let mut read = self.budgets_in(which, month, 1).await?.pop();
        if read.is_none() {
            let month = month.unwrap_or_else(|| month_of(self.clock.now()).0);
            let mut reader = self.pool.read().await?;
            read = account_budgets::read(&mut reader, Whose::Budget(budget), month).await?.pop();
        }
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
        let mut read = budgets::read(&mut reader, which, month, limit).await?;
        // The account's own has its place among them, by id.
        if let (Some(account), None) = (which.account, which.team) {
            let own = account_budgets::read(&mut reader, Whose::Accounts(&[account]), month).await?;
            read.extend(own.into_iter().filter(|own| which.after.is_none_or(|after| after < own.budget_id)));
            read.sort_unstable_by_key(|budget| budget.budget_id);
            read.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        }
        Ok(read)
    }
}

async fn note_in_tx(
    at: &mut PgConnection,
    before: Option<&BudgetRead>,
    budget: &BudgetRead,
    now: Timestamp,
) -> Result<(), Error> {
    let shows = |budget: &BudgetRead| serde_json::json!({ "budget": audited::budget(budget.terms.as_ref(), budget.used) });
    let line = audit::Line {
        action: "budget.set",
        subject: budget.budget_id.to_string(),
        detail: serde_json::json!({
            "account": budget.account_id.to_string(),
            "team": budget.team_id.map(|team| team.to_string()),
            "app": budget.app_id.map(|app| app.to_string()),
        }),
        before: before.map(shows),
        after: shows(budget),
    };
    audit::note_in_tx(at, now, line).await
}
