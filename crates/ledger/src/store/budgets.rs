//! Budgets and what was used of them. Everything of a team's budgets is guarded by the lock of the team.

use drawdown_ledger_core::{BudgetMonth, BudgetTerms};
use drawdown_types::{AccountId, AppId, BudgetId, MicroTokens, TeamId, Timestamp};
use serde::Deserialize;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Instant, pool::Pool};
use crate::error::Error;

/// A budget in a month: of an account, a team or an app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BudgetRead {
    /// Its name, the same in every month.
    pub budget_id: BudgetId,
    /// The account.
    pub account_id: AccountId,
    /// The team; none for the account's own.
    pub team_id: Option<TeamId>,
    /// The app, for a budget of one.
    pub app_id: Option<AppId>,
    /// First instant of the month.
    pub month: Timestamp,
    /// Used in its windows so far.
    pub used: MicroTokens,
    /// What is allowed; none where usage is counted only.
    pub terms: Option<BudgetTerms>,
    /// The first month that is counted.
    pub from_month: Timestamp,
}

/// Which budgets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Which {
    /// This one.
    pub budget: Option<BudgetId>,
    /// Of this account.
    pub account: Option<AccountId>,
    /// Of this team.
    pub team: Option<TeamId>,
    /// After this one.
    pub after: Option<BudgetId>,
}

/// A team's budgets in the months of a post, as one text of JSON: few teams have any.
#[derive(Deserialize)]
struct Loaded {
    budget_id: String,
    app_id: Option<String>,
    month: Timestamp,
    used_micros: i64,
    cap_micros: Option<i64>,
    soft_percent: Vec<u16>,
    hard: bool,
}

pub(super) fn terms(cap: Option<i64>, soft: &[u16], hard: bool) -> Result<Option<BudgetTerms>, Error> {
    cap.map(|cap| BudgetTerms::new(MicroTokens::from_micros(cap), soft, hard))
        .transpose()
        .map_err(|e| Error::stored("terms of a budget")(e.into()))
}

/// The budgets of a team from the text of a statement.
pub(super) fn parse(account_id: AccountId, team_id: TeamId, text: &str) -> Result<Vec<BudgetMonth>, Error> {
    let loaded: Vec<Loaded> = serde_json::from_str(text).map_err(|e| Error::stored("budgets")(e.into()))?;
    let uuid = |text: &str| Uuid::parse_str(text).map_err(|e| Error::stored("id of a budget")(e.into()));
    let budget = |loaded: Loaded| {
        Ok(BudgetMonth {
            budget_id: BudgetId::from_uuid(uuid(&loaded.budget_id)?),
            account_id,
            team_id,
            app_id: loaded.app_id.as_deref().map(uuid).transpose()?.map(AppId::from_uuid),
            month: loaded.month,
            used: MicroTokens::from_micros(loaded.used_micros),
            terms: terms(loaded.cap_micros, &loaded.soft_percent, loaded.hard)?,
        })
    };
    loaded.into_iter().map(budget).collect()
}

/// Whose a budget is: of a team, or of a whole account.
pub(crate) async fn owner(
    pool: &Pool,
    budget: BudgetId,
) -> Result<Option<(AccountId, Option<TeamId>)>, Error> {
    let mut reader = pool.read().await?;
    let found = sqlx::query!(
        r#"select account_id as "account_id!", team_id as "team_id?" from ledger.budget where budget_id = $1
         union all select account_id, null from ledger.account_budget where budget_id = $1"#,
        budget.as_uuid(),
    )
    .fetch_optional(&mut *reader)
    .await?;
    Ok(found.map(|row| (AccountId::from_uuid(row.account_id), row.team_id.map(TeamId::from_uuid))))
}

/// The budget of a team, or of one of its apps. The team is locked.
pub async fn find_in_tx(
    tx: &mut PgConnection,
    team: TeamId,
    app: Option<AppId>,
) -> Result<Option<BudgetId>, Error> {
    let found = sqlx::query_scalar!(
        "select budget_id from ledger.budget where team_id = $1 and app_id is not distinct from $2",
        team.as_uuid(),
        app.map(AppId::as_uuid),
    )
    .fetch_optional(tx)
    .await?;
    Ok(found.map(BudgetId::from_uuid))
}

/// Makes a budget that counts from a month on, with what is used in it already. The team is locked, so no
/// charge is written in between. The team has another revision afterwards.
pub async fn insert_in_tx(tx: &mut PgConnection, new: &BudgetMonth) -> Result<(), Error> {
    let (account, team) = (new.account_id.as_uuid(), new.team_id.as_uuid());
    let (budget, app) = (new.budget_id.as_uuid(), new.app_id.map(AppId::as_uuid));
    sqlx::query!(
        "with team as (update ledger.balance set revision = gen_random_uuid() where team_id = $2)
         insert into ledger.budget (account_id, team_id, budget_id, app_id, from_month) values ($1, $2, $3, $4, $5)",
        account,
        team,
        budget,
        app,
        Instant(new.month) as _,
    )
    .execute(&mut *tx)
    .await?;
    // Once in the life of a budget: the charges of the month are read one by one.
    sqlx::query!(
        "insert into ledger.budget_month (account_id, team_id, budget_id, month, used_micros)
         select $1, $2, $3, date_trunc('month', window_start at time zone 'UTC') at time zone 'UTC',
                sum(amount_micros)::bigint
         from ledger.charge
         where account_id = $1 and team_id = $2 and ($4::uuid is null or app_id = $4) and window_start >= $5
         group by 4",
        account,
        team,
        budget,
        app,
        Instant(new.month) as _,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Sets what a budget allows from a month on. The team is locked, and has another revision afterwards; who keeps its
/// standing hears of it.
pub async fn set_terms_in_tx(
    tx: &mut PgConnection,
    budget: &BudgetMonth,
    now: Timestamp,
) -> Result<(), Error> {
    let terms = budget.terms.as_ref();
    let soft = terms.map(BudgetTerms::soft).unwrap_or_default().iter().copied().map(i16::try_from);
    let soft: Vec<i16> = soft.collect::<Result<_, _>>().map_err(|e| Error::Broken(e.to_string()))?;
    sqlx::query!(
        "with team as (update ledger.balance set revision = gen_random_uuid() where team_id = $2),
         changed as (insert into ledger.standing_change (changed_at, teams) values ($8, array[$2]))
         insert into ledger.budget_terms (account_id, team_id, budget_id, from_month, cap_micros, soft_percent, hard)
         values ($1, $2, $3, $4, $5, $6, $7)
         on conflict (account_id, team_id, budget_id, from_month) do update
             set cap_micros = excluded.cap_micros, soft_percent = excluded.soft_percent, hard = excluded.hard",
        budget.account_id.as_uuid(),
        budget.team_id.as_uuid(),
        budget.budget_id.as_uuid(),
        Instant(budget.month) as _,
        terms.map(|terms| terms.cap().as_micros()),
        &soft,
        terms.is_some_and(BudgetTerms::hard),
        Instant(now) as _,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Budgets as they stand in a month, by id, at most `limit`; without those that came later.
pub async fn read(
    connection: &mut PgConnection,
    which: Which,
    month: Timestamp,
    limit: i64,
) -> Result<Vec<BudgetRead>, Error> {
    let rows = sqlx::query!(
        r#"select b.budget_id, b.account_id, b.team_id, b.app_id, b.from_month,
                  coalesce(m.used_micros, 0) as "used_micros!", t.cap_micros as "cap_micros?",
                  t.soft_percent as "soft_percent!", t.hard as "hard!"
           from ledger.budget b
           cross join lateral (
               select cap_micros, soft_percent, hard from ledger.budget_terms t
               where t.account_id = b.account_id and t.team_id = b.team_id and t.budget_id = b.budget_id
                 and t.from_month <= $1
               order by t.from_month desc limit 1) t
           left join ledger.budget_month m
             on m.account_id = b.account_id and m.team_id = b.team_id and m.budget_id = b.budget_id and m.month = $1
           where b.from_month <= $1
             and ($2::uuid is null or b.budget_id = $2)
             and ($3::uuid is null or b.account_id = $3)
             and ($4::uuid is null or b.team_id = $4)
             and ($5::uuid is null or b.budget_id > $5)
           order by b.budget_id limit $6"#,
        Instant(month) as _,
        which.budget.map(BudgetId::as_uuid),
        which.account.map(AccountId::as_uuid),
        which.team.map(TeamId::as_uuid),
        which.after.map(BudgetId::as_uuid),
        limit,
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|row| {
            let soft: Result<Vec<u16>, _> = row.soft_percent.iter().copied().map(u16::try_from).collect();
            let soft = soft.map_err(|e| Error::stored("level of a budget")(e.into()))?;
            Ok(BudgetRead {
                budget_id: BudgetId::from_uuid(row.budget_id),
                account_id: AccountId::from_uuid(row.account_id),
                team_id: Some(TeamId::from_uuid(row.team_id)),
                app_id: row.app_id.map(AppId::from_uuid),
                month,
                used: MicroTokens::from_micros(row.used_micros),
                terms: terms(row.cap_micros, &soft, row.hard)?,
                from_month: row.from_month.0,
            })
        })
        .collect()
}
