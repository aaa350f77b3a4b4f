//! What the ledger says after a run, read through its API: the demo prints it, tests compare it.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use drawdown_client::clients::ledger;
use drawdown_proto::{ledger::v1 as led, scalar::timestamp_from_proto};
use drawdown_types::Timestamp;

use crate::{
    lot_model::{ModelCharge, ModelLot},
    platform::{Channels, Platform},
};

/// Everything a run is judged by.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct Summary {
    /// One for each team, by name.
    pub teams: Vec<TeamReport>,
    /// Events that became charges.
    pub settled_events: i64,
    /// Events of client ids without a team.
    pub unattributed_events: i64,
    /// Lines that were no log lines.
    pub malformed_lines: u64,
    /// Lines that no rule meters.
    pub ignored_lines: u64,
    /// Violations found by `ledger verify`.
    pub verify_violations: i64,
    /// From the first event of the replay until the last one was settled, in ms.
    pub first_event_to_settled_ms: u64,
}

/// One team.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct TeamReport {
    /// Its name.
    pub name: String,
    /// `team_…`.
    pub team_id: String,
    /// Bought and granted, in micro-tokens.
    pub purchased_micros: i64,
    /// All charges, in micro-tokens.
    pub used_micros: i64,
    /// Forfeited, of closed lots, in micro-tokens.
    pub expired_micros: i64,
    /// Left in lots that expired and are not closed yet, in micro-tokens.
    pub closing_micros: i64,
    /// Open debt, in micro-tokens.
    pub uncharged_micros: i64,
    /// Left in open lots, in micro-tokens.
    pub available_micros: i64,
    /// Its lots in draw order.
    pub lots: Vec<LotReport>,
    /// Its apps by name and meter.
    pub apps: Vec<AppReport>,
}

/// One lot.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct LotReport {
    /// Its note.
    pub name: String,
    /// `lot_…`.
    pub lot_id: String,
    /// Its state.
    pub state: String,
    /// Micro-tokens at first.
    pub granted_micros: i64,
    /// What it paid.
    pub consumed_micros: i64,
    /// What it forfeited.
    pub expired_micros: i64,
    /// What is left.
    pub remaining_micros: i64,
    /// When it expires.
    pub expires_at: String,
}

/// One app's usage on one meter.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct AppReport {
    /// Its name.
    pub app: String,
    /// The meter.
    pub meter: String,
    /// Events.
    pub events: i64,
    /// Quantity in the meter's base unit.
    pub quantity: i64,
    /// Price in micro-tokens, paid or not.
    pub amount_micros: i64,
    /// What no lot covered when it was posted.
    pub uncharged_micros: i64,
}

const PAGE: u32 = 10_000;

/// All charges of a team, in posting order.
///
/// # Errors
/// Where the ledger does not answer.
pub async fn charges(channels: &Channels, team_id: &str) -> Result<Vec<led::Charge>> {
    let mut tokens = ledger::token(&channels.ledger);
    let (mut all, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = led::ListChargesRequest {
            team_id: team_id.to_owned(),
            page_size: PAGE,
            page_token,
            ..Default::default()
        };
        let page = tokens.list_charges(request).await.context("charges")?.into_inner();
        all.extend(page.charges);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(all);
        }
    }
}

/// Lots of a team.
///
/// # Errors
/// Where the ledger does not answer.
pub async fn lots(channels: &Channels, team_id: &str) -> Result<Vec<led::Lot>> {
    let request = led::ListLotsRequest { team_id: team_id.to_owned(), ..Default::default() };
    Ok(ledger::token(&channels.ledger).list_lots(request).await.context("lots")?.into_inner().lots)
}

/// Events in the unattributed bucket that nobody was charged for since.
///
/// # Errors
/// Where the ledger does not answer.
pub async fn unattributed_events(channels: &Channels) -> Result<i64> {
    let mut tokens = ledger::token(&channels.ledger);
    let filter = led::UnattributedFilter { state: led::ReviewState::Open.into(), ..Default::default() };
    let (mut events, mut page_token) = (0, String::new());
    loop {
        let request =
            led::ListUnattributedRequest { page_size: PAGE, page_token, filter: Some(filter.clone()) };
        let page = tokens.list_unattributed(request).await.context("unattributed")?.into_inner();
        events += page.usage.iter().map(|usage| usage.events).sum::<i64>();
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(events);
        }
    }
}

/// Runs every invariant; returns the violations, each as a sentence, and their number.
///
/// # Errors
/// Where the ledger does not answer.
pub async fn verify(channels: &Channels) -> Result<(i64, Vec<String>)> {
    let answer = ledger::token(&channels.ledger).verify_ledger(led::VerifyLedgerRequest::default()).await;
    let invariants = answer.context("verify")?.into_inner().invariants;
    anyhow::ensure!(!invariants.is_empty(), "verify checked nothing");
    let broken = invariants.iter().filter(|invariant| invariant.violations > 0);
    let sentences = broken.map(|i| format!("{}: {} ({:?})", i.name, i.statement, i.examples)).collect();
    Ok((invariants.iter().map(|invariant| invariant.violations).sum(), sentences))
}

/// Reads everything the ledger knows of `platform`.
///
/// # Errors
/// Where the ledger does not answer or names an app that the platform does not have.
pub async fn summarize(channels: &Channels, platform: &Platform) -> Result<Summary> {
    let mut summary = Summary::default();
    for (name, team_id) in &platform.teams {
        let team = team_report(&channels.of_team(name), platform, name, team_id).await?;
        summary.settled_events += team.apps.iter().map(|app| app.events).sum::<i64>();
        summary.teams.push(team);
    }
    summary.unattributed_events = unattributed_events(channels).await?;
    for cell in channels.cells() {
        summary.verify_violations += verify(&cell).await?.0;
    }
    Ok(summary)
}

async fn team_report(
    channels: &Channels,
    platform: &Platform,
    name: &str,
    team_id: &str,
) -> Result<TeamReport> {
    let request = led::GetBalanceRequest { team_id: team_id.to_owned(), ..Default::default() };
    let answer = ledger::token(&channels.ledger).get_balance(request).await.context("balance")?;
    let balance = answer.into_inner().balance.context("no balance in the answer")?;
    let mut apps: BTreeMap<(String, String), AppReport> = BTreeMap::new();
    for charge in charges(channels, team_id).await? {
        let known = platform.apps.iter().find(|(_, id)| **id == charge.app_id);
        let app = known.with_context(|| format!("unknown app {}", charge.app_id))?.0;
        let row = apps.entry((app.clone(), charge.meter.clone())).or_insert_with(|| AppReport {
            app: app.clone(),
            meter: charge.meter.clone(),
            ..AppReport::default()
        });
        row.events += charge.events;
        row.quantity += charge.quantity;
        row.amount_micros += charge.amount_micros;
        row.uncharged_micros += charge.uncharged_micros;
    }
    let lots = lots(channels, team_id).await?;
    Ok(TeamReport {
        name: name.to_owned(),
        team_id: team_id.to_owned(),
        purchased_micros: balance.purchased_micros,
        used_micros: balance.used_micros,
        expired_micros: balance.expired_micros,
        closing_micros: balance.closing_micros,
        uncharged_micros: balance.uncharged_micros,
        available_micros: balance.available_micros,
        lots: lots.into_iter().map(lot_report).collect(),
        apps: apps.into_values().collect(),
    })
}

fn lot_report(lot: led::Lot) -> LotReport {
    let expires_at = instant(lot.expires_at.as_ref()).to_string();
    LotReport {
        state: lot.state().as_str_name().trim_start_matches("LOT_STATE_").to_lowercase(),
        name: lot.note,
        lot_id: lot.lot_id,
        granted_micros: lot.granted_micros,
        consumed_micros: lot.consumed_micros,
        expired_micros: lot.expired_micros,
        remaining_micros: lot.remaining_micros,
        expires_at,
    }
}

fn instant(at: Option<&prost_types::Timestamp>) -> Timestamp {
    at.and_then(|at| timestamp_from_proto(at).ok()).unwrap_or(Timestamp::EPOCH)
}

/// A lot as the naive model takes it: fresh.
#[must_use]
pub fn model_lot(lot: &led::Lot) -> ModelLot {
    let rank = match lot.pool_kind() {
        led::PoolKind::Free => 0,
        led::PoolKind::Enterprise => 1,
        led::PoolKind::Credit => 2,
        led::PoolKind::Promotional => 3,
        led::PoolKind::Flex | led::PoolKind::Unspecified => 4,
    };
    ModelLot {
        id: lot.lot_id.clone(),
        pool_rank: rank,
        granted: lot.granted_micros,
        purchased_at: instant(lot.purchased_at.as_ref()),
        starts_at: instant(lot.starts_at.as_ref()),
        expires_at: instant(lot.expires_at.as_ref()),
        paid: 0,
    }
}

/// A charge as the naive model takes it.
#[must_use]
pub fn model_charge(charge: &led::Charge) -> ModelCharge {
    ModelCharge {
        window_start: instant(charge.window_start.as_ref()),
        posted_at: instant(charge.posted_at.as_ref()),
        amount: charge.amount_micros,
    }
}
