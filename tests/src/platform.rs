//! Enters a [`Scenario`] through the public API, as an operator would at set-up (D61).

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use drawdown_client::{
    channel::{Channel, ChannelOptions, connect},
    clients::{entitlement, ledger},
};
use drawdown_proto::{entitlement::v1 as ent, ledger::v1 as led, scalar::timestamp_to_proto};
use drawdown_types::Timestamp;

use crate::scenario::{APPS, CALL, EGRESS, LotSource, LotSpec, PriceSpec, Scenario, TEAMS};

/// Where the services of an installation listen.
#[derive(Debug, Clone)]
pub struct Endpoints {
    /// `http://…` of metering.
    pub metering: String,
    /// `http://…` of the ledger.
    pub ledger: String,
    /// `http://…` of entitlement.
    pub entitlement: String,
    /// `http://…` of the ledger of cell 1, where there are two cells.
    pub other_ledger: Option<String>,
    /// `http://…` of the second instance of metering, where there are two.
    pub other_metering: Option<String>,
}

/// Channels to all three services.
#[derive(Debug, Clone)]
pub struct Channels {
    /// To metering.
    pub metering: Channel,
    /// To the ledger.
    pub ledger: Channel,
    /// To entitlement.
    pub entitlement: Channel,
    /// To the ledger of cell 1, where there are two cells.
    pub other_ledger: Option<Channel>,
    /// To the second instance of metering, where there are two.
    pub other_metering: Option<Channel>,
}

impl Channels {
    /// Lazy channels to `endpoints`.
    ///
    /// # Errors
    /// Where an endpoint is no address.
    pub fn to(endpoints: &Endpoints) -> Result<Self> {
        let channel = |endpoint: &str| connect(&ChannelOptions::to(endpoint)).context(endpoint.to_owned());
        Ok(Self {
            metering: channel(&endpoints.metering)?,
            ledger: channel(&endpoints.ledger)?,
            entitlement: channel(&endpoints.entitlement)?,
            other_ledger: endpoints.other_ledger.as_deref().map(channel).transpose()?,
            other_metering: endpoints.other_metering.as_deref().map(channel).transpose()?,
        })
    }

    /// The same for each cell: with its ledger as the ledger.
    #[must_use]
    pub fn cells(&self) -> Vec<Self> {
        let at = |ledger: &Channel| Self { ledger: ledger.clone(), ..self.clone() };
        [&self.ledger].into_iter().chain(&self.other_ledger).map(at).collect()
    }

    /// The same, with the ledger that has an account.
    #[must_use]
    pub fn at(&self, account: &str) -> Self {
        let mut cells = self.cells();
        cells.swap_remove(self.cell_of(account))
    }

    /// Where there are two cells, the second account lives in the second one.
    fn cell_of(&self, account: &str) -> usize {
        usize::from(self.other_ledger.is_some() && account == "Lakeside")
    }

    /// The same, with the ledger that has a team.
    #[must_use]
    pub fn of_team(&self, team: &str) -> Self {
        let account = TEAMS.iter().find(|(name, _)| *name == team).map_or("", |(_, account)| account);
        self.at(account)
    }
}

/// What the set-up made: ids by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Platform {
    /// Account ids by account name.
    pub accounts: BTreeMap<String, String>,
    /// Team ids by team name.
    pub teams: BTreeMap<String, String>,
    /// App ids by app name.
    pub apps: BTreeMap<String, String>,
    /// Client ids by app name.
    pub clients: BTreeMap<String, String>,
    /// Lot ids by lot name.
    pub lots: BTreeMap<String, String>,
    /// The producer that usage comes from.
    pub producer: String,
}

fn request_id(kind: &str, name: &str) -> String {
    format!("set-up-{kind}-{}", name.replace([' ', ','], "-"))
}

fn wire(at: Timestamp) -> Option<prost_types::Timestamp> {
    Some(timestamp_to_proto(at))
}

/// Enters everything; a second run with the same scenario changes nothing.
///
/// # Errors
/// The first refusal, with what was asked for.
pub async fn set_up(channels: &Channels, scenario: &Scenario) -> Result<Platform> {
    let mut platform = Platform::default();
    enter_hierarchy(channels, scenario, &mut platform).await?;
    for cell in channels.cells() {
        enter_catalog(&cell, scenario).await?;
    }
    for lot in &scenario.lots {
        let id = enter_lot(&channels.of_team(lot.team), &platform, lot)
            .await
            .with_context(|| format!("lot {}", lot.name))?;
        platform.lots.insert(lot.name.to_owned(), id);
    }
    platform.producer = ledger::settlement(&channels.ledger)
        .create_producer(led::CreateProducerRequest {
            name: "replay".to_owned(),
            request_id: request_id("producer", "replay"),
        })
        .await
        .context("producer")?
        .into_inner()
        .producer_id;
    Ok(platform)
}

async fn enter_hierarchy(channels: &Channels, scenario: &Scenario, platform: &mut Platform) -> Result<()> {
    let mut hierarchy = entitlement::hierarchy(&channels.entitlement);
    for account in ["Northwind", "Lakeside"] {
        let answer = hierarchy
            .create_account(ent::CreateAccountRequest {
                name: account.to_owned(),
                contract_kind: ent::ContractKind::Flex.into(),
                created_at: wire(scenario.founded),
                commercial: true,
                cell: u32::try_from(channels.cell_of(account))?,
                request_id: request_id("account", account),
            })
            .await
            .with_context(|| format!("account {account}"))?;
        let id = answer.into_inner().account.context("no account in the answer")?.account_id;
        platform.accounts.insert(account.to_owned(), id);
    }
    for (team, account) in TEAMS {
        let answer = hierarchy
            .create_team(ent::CreateTeamRequest {
                account_id: platform.accounts[account].clone(),
                name: team.to_owned(),
                created_at: wire(scenario.founded),
                request_id: request_id("team", team),
            })
            .await
            .with_context(|| format!("team {team}"))?;
        let id = answer.into_inner().team.context("no team in the answer")?.team_id;
        platform.teams.insert(team.to_owned(), id);
    }
    for app in APPS {
        let (app_id, client_id) = enter_app(channels, scenario, platform, app.name, app.team)
            .await
            .with_context(|| format!("app {}", app.name))?;
        platform.apps.insert(app.name.to_owned(), app_id);
        platform.clients.insert(app.name.to_owned(), client_id);
    }
    Ok(())
}

async fn enter_app(
    channels: &Channels,
    scenario: &Scenario,
    platform: &Platform,
    name: &str,
    team: &str,
) -> Result<(String, String)> {
    let mut hierarchy = entitlement::hierarchy(&channels.entitlement);
    let account = TEAMS.iter().find(|(candidate, _)| *candidate == team).context("no such team")?.1;
    let app = hierarchy
        .create_app(ent::CreateAppRequest {
            account_id: platform.accounts[account].clone(),
            owner_user_id: String::new(),
            name: name.to_owned(),
            request_id: request_id("app", name),
        })
        .await?
        .into_inner()
        .app
        .context("no app in the answer")?;
    let credential = hierarchy
        .create_credential(ent::CreateCredentialRequest {
            app_id: app.app_id.clone(),
            created_at: wire(scenario.founded),
            request_id: request_id("credential", name),
        })
        .await?
        .into_inner();
    hierarchy
        .assign_app(ent::AssignAppRequest {
            app_id: app.app_id.clone(),
            team_id: platform.teams[team].clone(),
            from: wire(scenario.founded),
            request_id: request_id("assignment", name),
        })
        .await?;
    Ok((app.app_id, credential.client_id))
}

/// The meters of the two cards: slug, unit, aggregation.
const METERS: [(&str, &str, led::Aggregation); 6] = [
    (CALL, "call", led::Aggregation::Count),
    (EGRESS, "byte", led::Aggregation::Sum),
    ("automation", "second", led::Aggregation::Sum),
    ("model-derivative.complex-job", "job", led::Aggregation::Count),
    ("model-derivative.simple-job", "job", led::Aggregation::Count),
    ("reality-capture", "photo", led::Aggregation::Sum),
];

/// The prices of the 2022-11 card (D13).
const CARD_2022_11: [PriceSpec; 4] = [
    PriceSpec { meter: "automation", micros: 2_000_000, per_units: 3600, failed_is_free: false },
    PriceSpec { meter: "model-derivative.complex-job", micros: 500_000, per_units: 1, failed_is_free: false },
    PriceSpec { meter: "model-derivative.simple-job", micros: 100_000, per_units: 1, failed_is_free: false },
    PriceSpec { meter: "reality-capture", micros: 1_000_000, per_units: 50, failed_is_free: false },
];

async fn enter_catalog(channels: &Channels, scenario: &Scenario) -> Result<()> {
    let mut catalog = ledger::catalog(&channels.ledger);
    for (slug, unit, aggregation) in METERS {
        let meter = led::Meter {
            slug: slug.to_owned(),
            unit: unit.to_owned(),
            aggregation: aggregation.into(),
            dimensions: Vec::new(),
            limit: led::LimitKind::Soft.into(),
            ..led::Meter::default()
        };
        let request = led::CreateMeterRequest { meter: Some(meter), request_id: request_id("meter", slug) };
        catalog.create_meter(request).await.with_context(|| format!("meter {slug}"))?;
    }
    let cards: [(&str, Timestamp, &[PriceSpec]); 3] = [
        ("2022-11", scenario.founded, &CARD_2022_11),
        ("web", scenario.founded, &scenario.prices_before),
        ("web", scenario.price_change, &scenario.prices_after),
    ];
    for (name, from, prices) in cards {
        let rate_card = led::RateCard {
            rate_card_id: String::new(),
            name: name.to_owned(),
            contract_kind: led::ContractKind::Flex.into(),
            effective_from: wire(from),
            prices: prices.iter().map(price).collect(),
        };
        let request = led::PublishRateCardRequest {
            rate_card: Some(rate_card),
            set_up: true,
            request_id: request_id("card", &format!("{name}-{from}")),
        };
        catalog.publish_rate_card(request).await.with_context(|| format!("card {name} from {from}"))?;
    }
    Ok(())
}

fn price(spec: &PriceSpec) -> led::Price {
    led::Price {
        meter: spec.meter.to_owned(),
        micros: spec.micros,
        per_units: spec.per_units,
        failed_is_free: spec.failed_is_free,
        ..led::Price::default()
    }
}

async fn enter_lot(channels: &Channels, platform: &Platform, lot: &LotSpec) -> Result<String> {
    let account = TEAMS.iter().find(|(team, _)| *team == lot.team).context("no such team")?.1;
    let mut tokens = ledger::token(&channels.ledger);
    let account_id = platform.accounts[account].clone();
    let team_id = platform.teams[lot.team].clone();
    let made = match lot.source {
        LotSource::Purchase => {
            let request = led::PurchaseTokensRequest {
                account_id,
                team_id,
                tokens: lot.tokens,
                purchased_at: wire(lot.at),
                request_id: request_id("lot", lot.name),
                note: lot.name.to_owned(),
            };
            tokens.purchase_tokens(request).await?.into_inner().lot
        }
        LotSource::Promotion | LotSource::Credit => {
            let kind = match lot.source {
                LotSource::Credit => led::PoolKind::Credit,
                LotSource::Promotion | LotSource::Purchase => led::PoolKind::Promotional,
            };
            let request = led::GrantTokensRequest {
                leaves_older_debts: false,
                account_id,
                team_id,
                micros: lot.tokens * drawdown_types::MICROS_PER_TOKEN,
                pool_kind: kind.into(),
                starts_at: wire(lot.at),
                expires_at: lot.expires_at.and_then(wire),
                note: lot.name.to_owned(),
                request_id: request_id("lot", lot.name),
            };
            tokens.grant_tokens(request).await?.into_inner().lot
        }
    };
    Ok(made.context("no lot in the answer")?.lot_id)
}
