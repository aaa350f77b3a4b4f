//! The teams that usage is charged to, and the usage: every line is drawn from a seed, so that runs are
//! alike, and added up where it is drawn.

use std::time::Duration;

use anyhow::{Context, Result};
use drawdown_ledger::grpc::Tokens;
use drawdown_proto::{
    ledger::v1::{
        self, catalog_service_server::CatalogService as _, line, token_service_server::TokenService as _,
    },
    scalar::timestamp_to_proto,
};
use drawdown_types::{AccountId, AppId, TeamId, Timestamp, WindowSize};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use tonic::{Request, Status};

use super::{expected::Expected, world::LedgerWorld};
use crate::load::Bits;

/// Meters of the catalogue; each team uses some of them.
pub const METERS: usize = 10;
/// Largest quantity of a line.
const QUANTITY_MAX: u64 = 1024;
/// Regions: the one dimension of every meter.
const REGIONS: [&str; 4] = ["ap-south", "eu-west", "us-east", "us-west"];
const SET_UP_AT_ONCE: usize = 16;
/// How long before now prices and purchased lots begin.
const FOUNDED_BEFORE_SECS: i64 = 86_400;

/// What `meter` costs: micro-tokens and the base units they are for. Every unit costs something, so that
/// every charge has a journal row.
#[must_use]
pub fn price(meter: usize) -> (i64, i64) {
    let meter = i64::try_from(meter).unwrap_or_default();
    (1009 + 6 * meter, 7 + 2 * meter)
}

/// The slug of a meter.
#[must_use]
pub fn slug(meter: usize) -> String {
    format!("load.meter-{meter}")
}

/// An app with one credential.
#[derive(Debug, Clone)]
pub struct FleetApp {
    app_id: String,
    client_id: String,
}

/// A team with its apps, as the wire names them.
#[derive(Debug, Clone)]
pub struct FleetTeam {
    /// The account.
    pub account: AccountId,
    /// The team.
    pub team: TeamId,
    account_id: String,
    team_id: String,
    apps: Vec<FleetApp>,
    meters: usize,
    /// Everything bought and granted so far, in micro-tokens.
    pub issued: i64,
}

/// A lot for a team.
#[derive(Debug, Clone, Copy)]
pub struct LotSize {
    /// Whole tokens.
    pub tokens: i64,
    /// Which pool.
    pub pool: v1::PoolKind,
    /// Minutes from now until a granted lot expires; a bought one has its year (D2).
    pub minutes: i64,
}

/// All teams.
#[derive(Debug, Clone, Default)]
pub struct Fleet {
    /// The teams.
    pub teams: Vec<FleetTeam>,
}

/// A series: which app of which team uses which meter.
#[derive(Debug, Clone, Copy)]
pub struct Series {
    /// Index of the team.
    pub team: usize,
    /// Index of its app.
    pub app: usize,
    /// Index of the meter.
    pub meter: usize,
}

impl FleetTeam {
    fn new(account: AccountId, apps: usize, meters: usize) -> Self {
        let team = TeamId::generate();
        let app = |index: usize| FleetApp {
            app_id: AppId::generate().to_string(),
            client_id: format!("client-{team}-{index}"),
        };
        Self {
            account,
            team,
            account_id: account.to_string(),
            team_id: team.to_string(),
            apps: (0..apps).map(app).collect(),
            meters,
            issued: 0,
        }
    }

    /// `team_…`.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.team_id
    }

    /// `acct_…`.
    #[must_use]
    pub fn account_id(&self) -> &str {
        &self.account_id
    }

    /// `app_…` and the client id of one of its apps.
    #[must_use]
    pub fn app(&self, index: usize) -> (&str, &str) {
        let app = &self.apps[index];
        (&app.app_id, &app.client_id)
    }
}

// === impl Fleet ===

impl Fleet {
    /// Teams of `apps` apps each, four teams to an account; each uses `meters` meters.
    #[must_use]
    pub fn of(teams: usize, apps: usize, meters: usize) -> Self {
        let accounts: Vec<AccountId> = (0..teams.div_ceil(4)).map(|_| AccountId::generate()).collect();
        Self { teams: (0..teams).map(|index| FleetTeam::new(accounts[index / 4], apps, meters)).collect() }
    }

    /// The series at a place of the endless row that goes through all teams, then through their next app:
    /// as many lines as there are teams name each team once.
    #[must_use]
    pub fn series(&self, place: usize) -> Series {
        let team = place % self.teams.len();
        let of_team = &self.teams[team];
        let turn = place / self.teams.len();
        let app = turn % of_team.apps.len();
        let more = (turn / of_team.apps.len() + app) % of_team.meters;
        Series { team, app, meter: (team + more) % METERS }
    }

    /// Different series: the length of that row before it repeats.
    #[must_use]
    pub fn series_count(&self) -> usize {
        self.teams.iter().map(|team| team.apps.len() * team.meters).sum()
    }

    /// Draws the usage of a series in a window and adds it to what is expected.
    pub fn line(
        &self,
        series: Series,
        window: Timestamp,
        bits: &mut Bits,
        expected: &mut Expected,
    ) -> v1::Line {
        let team = &self.teams[series.team];
        let app = &team.apps[series.app];
        let drawn = bits.draw();
        let quantity = i64::try_from(1 + drawn % QUANTITY_MAX).unwrap_or(1);
        let events = 1 + (drawn >> 32) % 16;
        let region = REGIONS[series.app % REGIONS.len()];
        expected.add(series.team, series.meter, window, events, quantity);
        v1::Line {
            client_id: app.client_id.clone(),
            meter: slug(series.meter),
            failed: false,
            dimensions: [("region".to_owned(), region.to_owned())].into(),
            hold_id: String::new(),
            window_start: Some(timestamp_to_proto(window)),
            received_window_start: Some(timestamp_to_proto(window)),
            events,
            state: Some(line::State::Sum(v1::SumState { quantity })),
            attribution: Some(line::Attribution::Payer(v1::Payer {
                account_id: team.account_id.clone(),
                team_id: team.team_id.clone(),
                app_id: app.app_id.clone(),
                contract_kind: v1::ContractKind::Flex.into(),
                in_trial: false,
            })),
        }
    }

    /// Tells the world of the teams and gives each its lots.
    ///
    /// # Errors
    /// The first refusal.
    pub async fn move_in(&mut self, world: &LedgerWorld, lots: &[LotSize]) -> Result<()> {
        for team in &self.teams {
            world.known.know(team.account, team.team);
        }
        let (now, tokens) = (world.clock().now(), &world.handlers.tokens);
        // Teams at once, the lots of a team one after the other: the draw order is that of the list.
        let orders: Vec<_> = (self.teams.iter())
            .map(|team| async move {
                for lot in lots {
                    issue(tokens, team, *lot, now).await?;
                }
                Ok::<(), Status>(())
            })
            .collect();
        let issued = stream::iter(orders).buffer_unordered(SET_UP_AT_ONCE).try_collect::<Vec<()>>().await;
        issued.context("lots of the set-up")?;
        for team in &mut self.teams {
            team.issued += lots.iter().map(|lot| lot.tokens * 1_000_000).sum::<i64>();
        }
        Ok(())
    }
}

/// The start of the window that `at` lies in.
#[must_use]
pub fn window_of(at: Timestamp) -> Timestamp {
    WindowSize::MINUTE.floor(at)
}

/// Buys or grants a lot.
///
/// # Errors
/// Where the ledger refuses.
pub async fn issue(tokens: &Tokens, team: &FleetTeam, lot: LotSize, now: Timestamp) -> Result<(), Status> {
    let request_id = AppId::generate().to_string();
    if lot.pool == v1::PoolKind::Flex {
        let request = v1::PurchaseTokensRequest {
            account_id: team.account_id.clone(),
            team_id: team.team_id.clone(),
            tokens: lot.tokens,
            purchased_at: None,
            request_id,
            note: "bought".to_owned(),
        };
        tokens.purchase_tokens(Request::new(request)).await?;
        return Ok(());
    }
    let life = Duration::from_secs(u64::try_from(lot.minutes * 60).unwrap_or_default());
    let expires_at = now.checked_add(life).unwrap_or(Timestamp::MAX);
    let request = v1::GrantTokensRequest {
        leaves_older_debts: false,
        account_id: team.account_id.clone(),
        team_id: team.team_id.clone(),
        micros: lot.tokens * 1_000_000,
        pool_kind: lot.pool.into(),
        starts_at: None,
        expires_at: Some(timestamp_to_proto(expires_at)),
        note: "granted".to_owned(),
        request_id,
    };
    tokens.grant_tokens(Request::new(request)).await?;
    Ok(())
}

/// Enters the meters and one rate card for all of them, in force since yesterday.
///
/// # Errors
/// The first refusal.
pub async fn enter_catalog(world: &LedgerWorld) -> Result<()> {
    let catalog = &world.handlers.catalog;
    for meter in 0..METERS {
        let meter = v1::Meter {
            slug: slug(meter),
            unit: "unit".to_owned(),
            aggregation: v1::Aggregation::Sum.into(),
            dimensions: vec!["region".to_owned()],
            limit: v1::LimitKind::Soft.into(),
            ..v1::Meter::default()
        };
        let request = v1::CreateMeterRequest { request_id: meter.slug.clone(), meter: Some(meter) };
        catalog.create_meter(Request::new(request)).await.context("meter")?;
    }
    let founded = world.clock().now().as_micros() - FOUNDED_BEFORE_SECS * 1_000_000;
    let prices = (0..METERS).map(|meter| {
        let (micros, per_units) = price(meter);
        v1::Price { meter: slug(meter), micros, per_units, ..v1::Price::default() }
    });
    let rate_card = v1::RateCard {
        rate_card_id: String::new(),
        name: "load".to_owned(),
        contract_kind: v1::ContractKind::Flex.into(),
        effective_from: Some(timestamp_to_proto(window_of(Timestamp::from_micros(founded)?))),
        prices: prices.collect(),
    };
    let request = v1::PublishRateCardRequest {
        rate_card: Some(rate_card),
        set_up: true,
        request_id: "card".to_owned(),
    };
    catalog.publish_rate_card(Request::new(request)).await.context("rate card")?;
    Ok(())
}
