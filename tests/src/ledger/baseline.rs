//! What the ledger's posting is compared with, on the same server, in tables of a schema of their own.
//!
//! - The **ceiling**: the rows of a batch by one statement, an insert of UNNEST arrays into a table with the
//!   columns and the primary key of `ledger.charge`, and one update of the balances. No journal, no lots, no
//!   prices, no gate, no checks: nothing can be charged with less.
//! - The **naive** way, what people write first: one transaction for each charge that inserts it, takes its
//!   amount from the first lot that has it and from the balance. Many clients at once, each with a session.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

use anyhow::{Context, Result};
use drawdown_ledger::store::Instant;
use drawdown_proto::ledger::v1;
use drawdown_types::{AppId, ChargeId, PriceId, Timestamp};
use sqlx::{
    AssertSqlSafe, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use uuid::Uuid;

use super::{
    fleet::{Fleet, METERS, price, slug, window_of},
    writer::quantity,
};
use crate::load::Bits;

/// Clients of the naive way.
pub const CLIENTS: usize = 64;

/// The tables of both.
#[derive(Debug)]
pub struct Baselines {
    bare: PgPool,
    naive: PgPool,
    next: AtomicI64,
    price_id: Uuid,
}

/// The rows of one batch, as arrays: made before the clock runs, as the ledger's message is.
#[derive(Debug, Default)]
pub struct BareRows {
    accounts: Vec<Uuid>,
    teams: Vec<Uuid>,
    seqs: Vec<i64>,
    posted: Vec<Instant>,
    charges: Vec<Uuid>,
    apps: Vec<Uuid>,
    clients: Vec<String>,
    meters: Vec<String>,
    windows: Vec<Instant>,
    dimensions: Vec<String>,
    events: Vec<i64>,
    quantities: Vec<i64>,
    amounts: Vec<i64>,
    prices: Vec<Uuid>,
    sum_teams: Vec<Uuid>,
    sums: Vec<i64>,
}

// === impl Baselines ===

impl Baselines {
    /// Makes the tables and gives each team of both fleets a balance and three lots.
    ///
    /// # Errors
    /// Where the server refuses.
    pub async fn set_up(url: &str, fleets: &[&Fleet]) -> Result<Self> {
        let options: PgConnectOptions = url.parse()?;
        let clients = u32::try_from(CLIENTS)?;
        let bare = PgPoolOptions::new().max_connections(1).connect_with(options.clone()).await?;
        let naive = PgPoolOptions::new().max_connections(clients).connect_with(options).await?;
        for schema in ["bare", "naive"] {
            let tables = format!(
                "create schema {schema};
                 create table {schema}.charge (like ledger.charge including defaults);
                 create table {schema}.balance (
                     account_id uuid not null, team_id uuid primary key, available_micros bigint not null,
                     consumed_micros bigint not null default 0, charges bigint not null default 0
                 ) with (fillfactor = 50);
                 create table {schema}.lot (
                     lot_id uuid primary key default gen_random_uuid(), team_id uuid not null,
                     place integer not null, remaining_micros bigint not null
                 ) with (fillfactor = 50);
                 create index on {schema}.lot (team_id, place);
                 create sequence {schema}.seq;"
            );
            sqlx::raw_sql(AssertSqlSafe(tables)).execute(&bare).await.context("tables of a baseline")?;
            let key: String = sqlx::query_scalar(
                "select pg_get_constraintdef(oid) from pg_constraint
                 where conrelid = 'ledger.charge'::regclass and contype = 'p'",
            )
            .fetch_one(&bare)
            .await?;
            let key = format!("alter table {schema}.charge add {key}");
            sqlx::raw_sql(AssertSqlSafe(key)).execute(&bare).await.context("key of a baseline")?;
        }
        let baselines =
            Self { bare, naive, next: AtomicI64::new(1), price_id: PriceId::generate().as_uuid() };
        for fleet in fleets {
            baselines.move_in(fleet).await?;
        }
        Ok(baselines)
    }

    async fn move_in(&self, fleet: &Fleet) -> Result<()> {
        let accounts: Vec<Uuid> = fleet.teams.iter().map(|team| team.account.as_uuid()).collect();
        let teams: Vec<Uuid> = fleet.teams.iter().map(|team| team.team.as_uuid()).collect();
        for schema in ["bare", "naive"] {
            let rows = format!(
                "with teams as (select * from unnest($1::uuid[], $2::uuid[]) as t (account_id, team_id)),
                 lots as (
                     insert into {schema}.lot (team_id, place, remaining_micros)
                     select team_id, place, 1000000::bigint * 10 ^ (place * 4)
                     from teams cross join generate_series(1, 3) as place)
                 insert into {schema}.balance (account_id, team_id, available_micros)
                 select account_id, team_id, 4000000000000000 from teams"
            );
            sqlx::query(AssertSqlSafe(rows)).bind(&accounts).bind(&teams).execute(&self.bare).await?;
        }
        Ok(())
    }

    /// The rows that a batch of `lines` of `fleet` would be, priced by the line.
    #[must_use]
    pub fn rows(&self, fleet: &Fleet, places: &[usize], lines: &[v1::Line], now: Timestamp) -> BareRows {
        let mut rows = BareRows::default();
        let mut sums = std::collections::BTreeMap::<Uuid, i64>::new();
        let mut order: Vec<usize> = (0..lines.len()).collect();
        order.sort_by_key(|index| fleet.teams[fleet.series(places[*index]).team].team);
        for index in order {
            let (series, line) = (fleet.series(places[index]), &lines[index]);
            let team = &fleet.teams[series.team];
            let (micros, per_units) = price(series.meter);
            let quantity = quantity(line);
            let amount = quantity * micros / per_units;
            rows.accounts.push(team.account.as_uuid());
            rows.teams.push(team.team.as_uuid());
            rows.seqs.push(self.next.fetch_add(1, Ordering::Relaxed));
            rows.posted.push(Instant(now));
            rows.charges.push(ChargeId::generate().as_uuid());
            rows.apps.push(team.team.as_uuid());
            rows.clients.push(line.client_id.clone());
            rows.meters.push(line.meter.clone());
            rows.windows.push(Instant(window_of(now)));
            rows.dimensions.push(serde_json::to_string(&line.dimensions).unwrap_or_default());
            rows.events.push(i64::try_from(line.events).unwrap_or_default());
            rows.quantities.push(quantity);
            rows.amounts.push(amount);
            rows.prices.push(self.price_id);
            *sums.entry(team.team.as_uuid()).or_default() += amount;
        }
        (rows.sum_teams, rows.sums) = sums.into_iter().unzip();
        rows
    }

    /// Writes the rows of one batch by one statement; gives the time that took.
    ///
    /// # Errors
    /// Where the server refuses.
    pub async fn write(&self, rows: &BareRows) -> Result<Duration> {
        let started = std::time::Instant::now();
        sqlx::query(BARE)
            .bind(&rows.accounts)
            .bind(&rows.teams)
            .bind(&rows.seqs)
            .bind(&rows.posted[..])
            .bind(&rows.charges)
            .bind(&rows.apps)
            .bind(&rows.clients)
            .bind(&rows.meters)
            .bind(&rows.windows[..])
            .bind(&rows.dimensions)
            .bind(&rows.events)
            .bind(&rows.quantities)
            .bind(&rows.amounts)
            .bind(&rows.prices)
            .bind(&rows.sum_teams)
            .bind(&rows.sums)
            .execute(&self.bare)
            .await
            .context("ceiling")?;
        Ok(started.elapsed())
    }

    /// Charges teams one transaction at a time, with all clients at once, for `length`; gives what was
    /// committed and the time until the last client was done.
    ///
    /// # Errors
    /// Where a transaction fails.
    pub async fn charge_for(&self, fleet: &Fleet, length: Duration, seed: u64) -> Result<(u64, Duration)> {
        let started = std::time::Instant::now();
        let clients = (0..CLIENTS).map(|client| self.client(fleet, started, length, seed + client as u64));
        let charged = futures::future::try_join_all(clients).await.context("naive charge")?;
        Ok((charged.into_iter().sum(), started.elapsed()))
    }

    async fn client(
        &self,
        fleet: &Fleet,
        started: std::time::Instant,
        length: Duration,
        seed: u64,
    ) -> Result<u64> {
        let mut bits = Bits(seed);
        let (app, mut charged) = (AppId::generate().as_uuid(), 0);
        while started.elapsed() < length {
            let drawn = bits.draw();
            let team = &fleet.teams[usize::try_from(drawn >> 33)? % fleet.teams.len()];
            let meter = usize::try_from((drawn >> 16) & 0xffff)? % METERS;
            let (micros, per_units) = price(meter);
            let quantity = 1 + i64::try_from(drawn % 1024)?;
            let amount = quantity * micros / per_units;
            let mut tx = self.naive.begin().await?;
            sqlx::query(NAIVE_CHARGE)
                .bind(team.account.as_uuid())
                .bind(team.team.as_uuid())
                .bind(ChargeId::generate().as_uuid())
                .bind(app)
                .bind(team.id())
                .bind(slug(meter))
                .bind(quantity)
                .bind(amount)
                .bind(self.price_id)
                .execute(&mut *tx)
                .await?;
            sqlx::query(NAIVE_LOT).bind(team.team.as_uuid()).bind(amount).execute(&mut *tx).await?;
            sqlx::query(NAIVE_BALANCE).bind(team.team.as_uuid()).bind(amount).execute(&mut *tx).await?;
            tx.commit().await?;
            charged += 1;
        }
        Ok(charged)
    }
}

const BARE: &str = "with charges as (
    insert into bare.charge (
        account_id, team_id, seq, posted_at, charge_id, app_id, client_id, meter, failed, window_start,
        dimensions, shard, batch, events, quantity, amount_micros, uncharged_micros, price_id, journal_seq)
    select account_id, team_id, seq, posted_at, charge_id, app_id, client_id, meter, false, window_start,
           dimensions::jsonb, 1, 1, events, quantity, amount_micros, 0, price_id, seq
    from unnest(
        $1::uuid[], $2::uuid[], $3::bigint[], $4::timestamptz[], $5::uuid[], $6::uuid[], $7::text[], $8::text[],
        $9::timestamptz[], $10::text[], $11::bigint[], $12::bigint[], $13::bigint[], $14::uuid[]
    ) as c (account_id, team_id, seq, posted_at, charge_id, app_id, client_id, meter, window_start,
            dimensions, events, quantity, amount_micros, price_id))
update bare.balance b
set available_micros = available_micros - s.amount, consumed_micros = consumed_micros + s.amount,
    charges = charges + 1
from unnest($15::uuid[], $16::bigint[]) as s (team_id, amount)
where b.team_id = s.team_id";

const NAIVE_CHARGE: &str = "insert into naive.charge (
    account_id, team_id, seq, posted_at, charge_id, app_id, client_id, meter, failed, window_start,
    dimensions, shard, batch, events, quantity, amount_micros, uncharged_micros, price_id, journal_seq)
values ($1, $2, nextval('naive.seq'), now(), $3, $4, $5, $6, false, date_trunc('minute', now()),
        '{\"region\": \"eu-west\"}', 1, 1, 1, $7, $8, 0, $9, 1)";

/// The lock is taken by the row that is changed and held until the commit, as short as this way allows.
const NAIVE_LOT: &str = "update naive.lot set remaining_micros = remaining_micros - $2
where lot_id = (
    select lot_id from naive.lot where team_id = $1 and remaining_micros >= $2 order by place limit 1 for update)";

const NAIVE_BALANCE: &str = "update naive.balance
set available_micros = available_micros - $2, consumed_micros = consumed_micros + $2, charges = charges + 1
where team_id = $1";
