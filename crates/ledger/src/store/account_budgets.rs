//! Budgets of accounts: what all teams of one use, each counting for itself (see `migrations/0051_account_budgets.sql`).

use drawdown_ledger_core::BudgetTerms;
use drawdown_types::{AccountId, BudgetId, MicroTokens, Timestamp};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    Instant,
    budgets::{BudgetRead, terms},
};
use crate::error::Error;

/// Waits until no balance of the account is on its way, and keeps others from being made.
pub async fn hold_in_tx(tx: &mut PgConnection, account: AccountId) -> Result<(), Error> {
    sqlx::query!("select pg_advisory_xact_lock(ledger.account_budget_key($1))", account.as_uuid())
        .execute(tx)
        .await?;
    Ok(())
}

/// The last posted instant of the account's teams, which are locked.
pub async fn posted_at_in_tx(tx: &mut PgConnection, account: AccountId) -> Result<Option<Timestamp>, Error> {
    let last = sqlx::query_scalar!(
        r#"select max(posted_at) as "last: Instant" from ledger.balance where account_id = $1"#,
        account.as_uuid(),
    )
    .fetch_one(tx)
    .await?;
    Ok(last.map(Timestamp::from))
}

/// Gives each team of the account that has none a budget that counts from `month` on, with what is used in it already,
/// and makes the account's own where there is none. All teams are locked. Those that got one have another revision
/// afterwards, and who keeps standings hears of all.
pub async fn count_in_tx(
    tx: &mut PgConnection,
    account: AccountId,
    new: BudgetId,
    month: Timestamp,
    now: Timestamp,
) -> Result<(), Error> {
    sqlx::query!(
        "with made as (
             insert into ledger.budget (account_id, team_id, budget_id, app_id, from_month)
             select b.account_id, b.team_id, gen_random_uuid(), null, $2
             from ledger.balance b
             where b.account_id = $1
               and not exists (select from ledger.budget g where g.team_id = b.team_id and g.app_id is null)
             returning account_id, team_id, budget_id
         ), terms as (
             insert into ledger.budget_terms (account_id, team_id, budget_id, from_month, cap_micros, soft_percent, hard)
             select account_id, team_id, budget_id, $2, null, '{}', false from made
         ), used as (
             -- Once in the life of a budget: the charges of the month are read one by one.
             insert into ledger.budget_month (account_id, team_id, budget_id, month, used_micros)
             select m.account_id, m.team_id, m.budget_id,
                    date_trunc('month', c.window_start at time zone 'UTC') at time zone 'UTC',
                    sum(c.amount_micros)::bigint
             from made m
             join ledger.charge c
               on c.account_id = m.account_id and c.team_id = m.team_id and c.window_start >= $2
             group by 1, 2, 3, 4
         ), revised as (
             update ledger.balance b set revision = gen_random_uuid() from made m where b.team_id = m.team_id
         ), changed as (
             insert into ledger.standing_change (changed_at, teams)
             select $4, array_agg(team_id) from ledger.balance where account_id = $1 having count(*) > 0
         )
         insert into ledger.account_budget (account_id, budget_id, from_month) values ($1, $3, $2)
         on conflict (account_id) do nothing",
        account.as_uuid(),
        Instant(month) as _,
        new.as_uuid(),
        Instant(now) as _,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Sets what the account's budget allows from a month on.
pub async fn set_terms_in_tx(
    tx: &mut PgConnection,
    account: AccountId,
    month: Timestamp,
    terms: Option<&BudgetTerms>,
) -> Result<(), Error> {
    let soft = terms.map(BudgetTerms::soft).unwrap_or_default().iter().copied().map(i16::try_from);
    let soft: Vec<i16> = soft.collect::<Result<_, _>>().map_err(|e| Error::Broken(e.to_string()))?;
    sqlx::query!(
        "insert into ledger.account_budget_terms (account_id, from_month, cap_micros, soft_percent, hard)
         values ($1, $2, $3, $4, $5)
         on conflict (account_id, from_month) do update
             set cap_micros = excluded.cap_micros, soft_percent = excluded.soft_percent, hard = excluded.hard",
        account.as_uuid(),
        Instant(month) as _,
        terms.map(|terms| terms.cap().as_micros()),
        &soft,
        terms.is_some_and(BudgetTerms::hard),
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Whose budgets.
#[derive(Clone, Copy, Debug)]
pub enum Whose<'a> {
    /// Of these accounts.
    Accounts(&'a [AccountId]),
    /// This one.
    Budget(BudgetId),
}

/// Budgets of accounts as they stand in a month, by id; without those that came later.
pub async fn read(
    connection: &mut PgConnection,
    whose: Whose<'_>,
    month: Timestamp,
) -> Result<Vec<BudgetRead>, Error> {
    let (accounts, budget): (Option<Vec<Uuid>>, _) = match whose {
        Whose::Accounts(accounts) => (Some(accounts.iter().map(|account| account.as_uuid()).collect()), None),
        Whose::Budget(budget) => (None, Some(budget.as_uuid())),
    };
    let rows = sqlx::query!(
        r#"select a.budget_id, a.account_id, a.from_month, t.cap_micros as "cap_micros?",
                  t.soft_percent as "soft_percent!", t.hard as "hard!", u.used as "used_micros!"
           from ledger.account_budget a
           cross join lateral (
               select cap_micros, soft_percent, hard from ledger.account_budget_terms t
               where t.account_id = a.account_id and t.from_month <= $1
               order by t.from_month desc limit 1) t
           cross join lateral (
               select coalesce(sum(m.used_micros), 0)::bigint as used
               from ledger.budget g
               join ledger.budget_month m
                 on m.account_id = g.account_id and m.team_id = g.team_id and m.budget_id = g.budget_id
               where g.account_id = a.account_id and g.app_id is null and m.month = $1) u
           where a.from_month <= $1
             and ($2::uuid[] is null or a.account_id = any($2))
             and ($3::uuid is null or a.budget_id = $3)
           order by a.budget_id"#,
        Instant(month) as _,
        accounts.as_deref(),
        budget,
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
                team_id: None,
                app_id: None,
                month,
                used: MicroTokens::from_micros(row.used_micros),
                terms: terms(row.cap_micros, &soft, row.hard)?,
                from_month: row.from_month.0,
            })
        })
        .collect()
}
