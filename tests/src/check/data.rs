//! The platform of `bench check`, written by plain statements while nothing serves: a million credentials through the
//! API would take hours. What each credential is to be told follows from its number.
//!
//! Four credentials an app, five apps a team, two teams an account. Of ten teams one is in grace and one past its
//! deadline; all others have tokens. Ids are hashes of numbers, so that one statement can name what another made.

use anyhow::{Context, Result};
use drawdown_client::clients::ledger;
use drawdown_proto::{
    entitlement::v1::{AccessAnswer, AccessLevel, AccessReason},
    ledger::v1 as led,
    scalar::timestamp_to_proto,
};
use drawdown_types::{Clock as _, SystemClock, Timestamp};
use sqlx::{
    AssertSqlSafe, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use crate::platform::Channels;

/// A meter that may take a team below zero.
pub const SOFT: &str = "call";
/// A meter that is refused when the balance can not cover it.
pub const HARD: &str = "render";
/// What one base unit of either costs, in micro-tokens.
pub const PRICE_MICROS: i64 = 1_000;

const CREDENTIALS_PER_TEAM: usize = 20;
const LOT_MICROS: i64 = 1_000_000_000;
const DEBT_MICROS: i64 = 5_000_000;
const DAY_SECS: i64 = 86_400;

/// The client id of the n-th credential.
#[must_use]
pub fn client_id(number: usize) -> String {
    format!("bench-{number:07}")
}

/// What the n-th credential is to be told of [`SOFT`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expected {
    /// The verdict.
    pub allowed: bool,
    /// Where the team stands.
    pub level: AccessLevel,
    /// Why.
    pub reason: AccessReason,
    /// Its balance, in micro-tokens.
    pub balance_micros: i64,
}

impl Expected {
    /// Of the n-th credential.
    #[must_use]
    pub const fn of(number: usize) -> Self {
        match number / CREDENTIALS_PER_TEAM % 10 {
            2 => Self {
                allowed: true,
                level: AccessLevel::Grace,
                reason: AccessReason::InGrace,
                balance_micros: -DEBT_MICROS,
            },
            5 => Self {
                allowed: false,
                level: AccessLevel::Limited,
                reason: AccessReason::GraceOver,
                balance_micros: -DEBT_MICROS,
            },
            _ => Self {
                allowed: true,
                level: AccessLevel::Full,
                reason: AccessReason::InFull,
                balance_micros: LOT_MICROS,
            },
        }
    }

    /// The answer is this one, made of data that is not too old.
    #[must_use]
    pub fn is(&self, answer: &AccessAnswer) -> bool {
        answer.allowed == self.allowed
            && answer.level() == self.level
            && answer.reason() == self.reason
            && answer.balance_micros == Some(self.balance_micros)
            && !answer.stale
    }
}

/// An operator's session.
///
/// # Errors
/// Where the server does not take it.
pub async fn operator(url: &str) -> Result<PgPool> {
    let options: PgConnectOptions = url.parse()?;
    Ok(PgPoolOptions::new().max_connections(1).connect_with(options).await?)
}

/// Meters and prices, through the ledger.
///
/// # Errors
/// The first refusal.
pub async fn set_up_meters(channels: &Channels) -> Result<()> {
    let mut catalog = ledger::catalog(&channels.ledger);
    for (slug, limit) in [(SOFT, led::LimitKind::Soft), (HARD, led::LimitKind::Hard)] {
        let meter = led::Meter {
            slug: slug.to_owned(),
            unit: slug.to_owned(),
            aggregation: led::Aggregation::Sum.into(),
            limit: limit.into(),
            ..led::Meter::default()
        };
        let request_id = format!("bench-meter-{slug}");
        catalog
            .create_meter(led::CreateMeterRequest { meter: Some(meter), request_id })
            .await
            .context("meter")?;
    }
    let price = |meter: &str| led::Price {
        meter: meter.to_owned(),
        micros: PRICE_MICROS,
        per_units: 1,
        ..led::Price::default()
    };
    let rate_card = led::RateCard {
        name: "bench".to_owned(),
        contract_kind: led::ContractKind::Flex.into(),
        effective_from: Some(timestamp_to_proto("2020-01-01T00:00:00Z".parse()?)),
        prices: vec![price(SOFT), price(HARD)],
        ..led::RateCard::default()
    };
    let request = led::PublishRateCardRequest {
        rate_card: Some(rate_card),
        set_up: true,
        request_id: "bench-card".to_owned(),
    };
    catalog.publish_rate_card(request).await.context("rate card")?;
    Ok(())
}

/// Writes `credentials` of them, a multiple of 200, with everything behind them. Nothing serves meanwhile.
///
/// # Errors
/// Where the server refuses.
pub async fn write(operator: &PgPool, credentials: usize) -> Result<()> {
    let now = SystemClock.now();
    let at = |days: i64| -> Result<Timestamp> {
        Ok(Timestamp::from_micros(now.as_micros() - days * DAY_SECS * 1_000_000)?)
    };
    let edge = |days: i64| -> Result<Timestamp> { Ok(drawdown_types::WindowSize::MINUTE.floor(at(days)?)) };
    let (founded, expires) = (edge(100)?, edge(-300)?);
    let (grace, over) = (at(1)?, at(40)?);
    let teams = credentials / CREDENTIALS_PER_TEAM;
    let (apps, accounts) = (credentials / 4, teams / 2);
    let statements = format!(
        "begin;
         insert into entitlement.account (account_id, name, created_at, commercial_from, commercial_made_at, commercial_made_by)
         select md5('account ' || n)::uuid, 'account ' || n, '{founded}', '{founded}', '{founded}', 'bench'
         from generate_series(0, {accounts} - 1) n;
         insert into entitlement.account_contract (account_id, valid_from, kind, made_at, made_by, made_through)
         select md5('account ' || n)::uuid, '{founded}', 'flex', '{founded}', 'bench', 'bench'
         from generate_series(0, {accounts} - 1) n;
         insert into entitlement.team (team_id, account_id, name, created_at)
         select md5('team ' || n)::uuid, md5('account ' || n / 2)::uuid, 'team ' || n, '{founded}'
         from generate_series(0, {teams} - 1) n;
         insert into entitlement.app (app_id, account_id, name)
         select md5('app ' || n)::uuid, md5('account ' || n / 10)::uuid, 'app ' || n
         from generate_series(0, {apps} - 1) n;
         insert into entitlement.app_team (app_id, valid_from, team_id, set_up, made_at, made_by, made_through)
         select md5('app ' || n)::uuid, '{founded}', md5('team ' || n / 5)::uuid, true, '{founded}', 'bench', 'bench'
         from generate_series(0, {apps} - 1) n;
         insert into entitlement.credential (
             credential_id, app_id, client_id, secret_hmac, created_at, known_from, made_at, made_by, made_through)
         select md5('credential ' || n)::uuid, md5('app ' || n / 4)::uuid, 'bench-' || lpad(n::text, 7, '0'),
                sha256(n::text::bytea), '{founded}', '{founded}', '{founded}', 'bench', 'bench'
         from generate_series(0, {credentials} - 1) n;
         -- Books of a team that was granted one lot, or owes one debt; without the journal that says how it came to it.
         insert into ledger.balance (
             account_id, team_id, lot_micros, issued_micros, consumed_micros, debt_opened_micros, version, transactions,
             posted_at, negative_since)
         select md5('account ' || n / 2)::uuid, md5('team ' || n)::uuid, case when owes then 0 else {LOT_MICROS} end,
                case when owes then 0 else {LOT_MICROS} end, case when owes then {DEBT_MICROS} else 0 end,
                case when owes then {DEBT_MICROS} else 0 end, 1, 1, since, case when owes then since end
         from (select n, n % 10 in (2, 5) as owes,
                      (case n % 10 when 2 then '{grace}' when 5 then '{over}' else '{founded}' end)::timestamptz as since
               from generate_series(0, {teams} - 1) n) t;
         insert into ledger.lot (
             account_id, team_id, lot_id, pool_kind, original_micros, granted_micros, remaining_micros, purchased_at,
             starts_at, valid_from, expires_at, closes_at, leaves_older_debts, note)
         select md5('account ' || n / 2)::uuid, md5('team ' || n)::uuid, md5('lot ' || n)::uuid, 'promotional',
                {LOT_MICROS}, {LOT_MICROS}, {LOT_MICROS}, '{founded}', '{founded}', '{founded}', '{expires}',
                '{expires}'::timestamptz + interval '7 days', false, 'bench'
         from generate_series(0, {teams} - 1) n where n % 10 not in (2, 5);
         commit;
         vacuum analyze"
    );
    for statement in statements.split(";\n") {
        sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(operator).await.context("bulk load")?;
    }
    Ok(())
}
