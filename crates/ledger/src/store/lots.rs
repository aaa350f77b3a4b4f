//! A lot across the teams it lived in, for commands that concern all of it.

use std::collections::HashSet;

use drawdown_ledger_core::{Balance, LotJournal};
use drawdown_types::{AccountId, LotId, OrderId, TeamId};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{journal, write::LotNote};
use crate::error::Error;

/// The teams of an account in which a lot has a row, by id.
pub async fn teams_in_tx(
    tx: &mut PgConnection,
    account: AccountId,
    lot: LotId,
) -> Result<Vec<TeamId>, Error> {
    let teams = sqlx::query_scalar!(
        "select team_id from ledger.lot where lot_id = $1 and account_id = $2 order by team_id",
        lot.as_uuid(),
        account.as_uuid(),
    )
    .fetch_all(tx)
    .await?;
    Ok(teams.into_iter().map(TeamId::from_uuid).collect())
}

/// What a lot was made with; nothing where there is no such lot.
pub async fn note_in_tx(tx: &mut PgConnection, account: AccountId, lot: LotId) -> Result<LotNote, Error> {
    let row = sqlx::query!(
        "select order_id, note from ledger.lot where lot_id = $1 and account_id = $2 limit 1",
        lot.as_uuid(),
        account.as_uuid(),
    )
    .fetch_optional(tx)
    .await?;
    Ok(row.map_or_else(LotNote::default, |row| LotNote {
        order_id: row.order_id.map(OrderId::from_uuid),
        note: row.note,
        ..LotNote::default()
    }))
}

/// One of `orders` that has bought a lot already, if one has.
pub async fn known_order_in_tx(tx: &mut PgConnection, orders: &[OrderId]) -> Result<Option<OrderId>, Error> {
    let orders: Vec<Uuid> = orders.iter().map(|order| order.as_uuid()).collect();
    let known = sqlx::query_scalar!(
        r#"select order_id as "order_id!" from ledger.lot where order_id = any($1) order by order_id limit 1"#,
        &orders,
    )
    .fetch_optional(tx)
    .await?;
    Ok(known.map(OrderId::from_uuid))
}

/// The history of a lot in a team: its own rows, and those that opened the debt it netted or is open, which it may
/// net when the team is rolled forward.
pub async fn journal_in_tx(
    tx: &mut PgConnection,
    balance: &Balance,
    lot: LotId,
) -> Result<LotJournal, Error> {
    let (account, team) = (balance.account_id, balance.team_id);
    let rows = journal::journal_rows(tx, account, team, Some(lot), 0).await?;
    let netted = rows.iter().filter_map(|row| row.debt).collect::<Vec<_>>();
    let from = netted.iter().map(|debt| debt.from).min();
    let to = netted.iter().map(|debt| debt.to).max();
    let mut items = match from.zip(to) {
        None => Vec::new(),
        Some((from, to)) => journal::debt_rows(&mut *tx, account, team, from, to).await?,
    };
    if balance.debt_paid < balance.debt_opened {
        let open =
            journal::debt_rows(&mut *tx, account, team, balance.debt_paid, balance.debt_opened).await?;
        let known: HashSet<i64> = items.iter().map(|row| row.seq).collect();
        items.extend(open.into_iter().filter(|row| !known.contains(&row.seq)));
        items.sort_unstable_by_key(|row| row.seq);
    }
    Ok(LotJournal { rows, items })
}
