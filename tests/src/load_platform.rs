//! The platform of benches: one account, some teams, a thousand apps on ten meters, tokens for all.

use std::sync::Arc;

use anyhow::{Context, Result};
use drawdown_client::clients::{entitlement, ledger};
use drawdown_proto::{entitlement::v1 as ent, ledger::v1 as led, scalar::timestamp_to_proto};
use drawdown_types::{Clock as _, SystemClock, Timestamp};
use futures::{StreamExt as _, TryStreamExt as _, stream};

use crate::{
    load::{DIMENSION, LoadSeries},
    platform::Channels,
    report::charges,
};

/// Size of the platform.
#[derive(Debug, Clone, Copy)]
pub struct LoadSize {
    /// Teams.
    pub teams: usize,
    /// Apps, spread over the teams.
    pub apps: usize,
    /// Meters; each app uses all of them.
    pub meters: usize,
}

/// What was set up.
#[derive(Debug)]
pub struct LoadPlatform {
    /// Team ids.
    pub teams: Vec<String>,
    /// Every app on every meter.
    pub series: Vec<LoadSeries>,
    /// The producer.
    pub producer: String,
}

const SET_UP_AT_ONCE: usize = 16;
const TOKENS_PER_TEAM: i64 = 1_000_000;

fn wire(at: Timestamp) -> Option<prost_types::Timestamp> {
    Some(timestamp_to_proto(at))
}

/// Enters the platform.
///
/// # Errors
/// The first refusal.
pub async fn set_up(channels: &Channels, size: LoadSize) -> Result<LoadPlatform> {
    let founded = Timestamp::from_micros(SystemClock.now().as_micros() - 10 * 86_400 * 1_000_000)?;
    let mut hierarchy = entitlement::hierarchy(&channels.entitlement);
    let account = hierarchy
        .create_account(ent::CreateAccountRequest {
            name: "Load".to_owned(),
            contract_kind: ent::ContractKind::Flex.into(),
            created_at: wire(founded),
            commercial: true,
            cell: 0,
            request_id: "load-account".to_owned(),
        })
        .await?
        .into_inner()
        .account
        .context("no account")?
        .account_id;
    let meters: Vec<String> = (0..size.meters).map(|i| format!("load.meter-{i}")).collect();
    enter_meters(channels, &meters, founded).await?;
    let mut teams = Vec::new();
    for index in 0..size.teams {
        teams.push(enter_team(channels, &account, index, founded).await?);
    }
    let clients: Vec<String> = stream::iter(0..size.apps)
        .map(|index| enter_app(channels, &account, &teams[index % teams.len()], index, founded))
        .buffered(SET_UP_AT_ONCE)
        .try_collect()
        .await?;
    let producer = ledger::settlement(&channels.ledger)
        .create_producer(led::CreateProducerRequest {
            name: "load".to_owned(),
            request_id: "load-producer".to_owned(),
        })
        .await?
        .into_inner()
        .producer_id;
    let shared =
        |texts: &[String]| texts.iter().map(|text| Arc::from(text.as_str())).collect::<Vec<Arc<str>>>();
    let (shared_meters, shared_clients) = (shared(&meters), shared(&clients));
    let series = shared_meters.iter().flat_map(|meter| {
        shared_clients.iter().map(|client| LoadSeries {
            client_id: Arc::clone(client),
            meter: Arc::clone(meter),
            dimension: None,
            events: 0,
            quantity: 0,
        })
    });
    Ok(LoadPlatform { teams, series: series.collect(), producer })
}

async fn enter_meters(channels: &Channels, meters: &[String], founded: Timestamp) -> Result<()> {
    let mut catalog = ledger::catalog(&channels.ledger);
    for slug in meters {
        let meter = led::Meter {
            slug: slug.clone(),
            unit: "unit".to_owned(),
            aggregation: led::Aggregation::Sum.into(),
            dimensions: vec![DIMENSION.to_owned()],
            limit: led::LimitKind::Soft.into(),
            ..led::Meter::default()
        };
        let request = led::CreateMeterRequest { meter: Some(meter), request_id: slug.clone() };
        catalog.create_meter(request).await?;
    }
    let prices = meters.iter().map(|meter| led::Price {
        meter: meter.clone(),
        micros: 3,
        per_units: 7,
        failed_is_free: false,
        ..led::Price::default()
    });
    let rate_card = led::RateCard {
        rate_card_id: String::new(),
        name: "load".to_owned(),
        contract_kind: led::ContractKind::Flex.into(),
        effective_from: wire(founded),
        prices: prices.collect(),
    };
    let request = led::PublishRateCardRequest {
        rate_card: Some(rate_card),
        set_up: true,
        request_id: "load-card".to_owned(),
    };
    catalog.publish_rate_card(request).await?;
    Ok(())
}

async fn enter_team(channels: &Channels, account: &str, index: usize, founded: Timestamp) -> Result<String> {
    let team = entitlement::hierarchy(&channels.entitlement)
        .create_team(ent::CreateTeamRequest {
            account_id: account.to_owned(),
            name: format!("load-{index}"),
            created_at: wire(founded),
            request_id: format!("load-team-{index}"),
        })
        .await?
        .into_inner()
        .team
        .context("no team")?
        .team_id;
    let request = led::PurchaseTokensRequest {
        account_id: account.to_owned(),
        team_id: team.clone(),
        tokens: TOKENS_PER_TEAM,
        purchased_at: wire(founded),
        request_id: format!("load-lot-{index}"),
        note: "load".to_owned(),
    };
    ledger::token(&channels.ledger).purchase_tokens(request).await?;
    Ok(team)
}

async fn enter_app(
    channels: &Channels,
    account: &str,
    team: &str,
    index: usize,
    founded: Timestamp,
) -> Result<String> {
    let mut hierarchy = entitlement::hierarchy(&channels.entitlement);
    let app_id = hierarchy
        .create_app(ent::CreateAppRequest {
            account_id: account.to_owned(),
            owner_user_id: String::new(),
            name: format!("load-{index}"),
            request_id: format!("load-app-{index}"),
        })
        .await?
        .into_inner()
        .app
        .context("no app")?
        .app_id;
    let credential = ent::CreateCredentialRequest {
        app_id: app_id.clone(),
        created_at: wire(founded),
        request_id: format!("load-credential-{index}"),
    };
    let client_id = hierarchy.create_credential(credential).await?.into_inner().client_id;
    let assignment = ent::AssignAppRequest {
        app_id,
        team_id: team.to_owned(),
        from: wire(founded),
        request_id: format!("load-assignment-{index}"),
    };
    hierarchy.assign_app(assignment).await?;
    Ok(client_id)
}

/// Events and quantity that the ledger has charged, over all teams.
///
/// # Errors
/// Where the ledger does not answer.
pub async fn ledger_totals(channels: &Channels, platform: &LoadPlatform) -> Result<(u64, u64)> {
    let (mut events, mut quantity) = (0_i64, 0_i64);
    for team in &platform.teams {
        for charge in charges(channels, team).await? {
            events += charge.events;
            quantity += charge.quantity;
        }
    }
    Ok((u64::try_from(events)?, u64::try_from(quantity)?))
}
