//! Meters and rate cards.

mod card;
mod what_if;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Subcommand, ValueEnum};
use drawdown_client::ledger::catalog;
use drawdown_proto::ledger::v1::{
    self as pb, CreateMeterRequest, ListMetersRequest, ListRateCardsRequest, Meter, PublishRateCardRequest,
};
use drawdown_types::MicroTokens;
use serde_json::{Map, Value};

use super::{Change, Connection, Pages};
use crate::output::{Column, json_of, name, number, print, text, tokens};

/// Meters: what is counted
#[derive(Args, Debug)]
pub(crate) struct MeterCommand {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    action: MeterAction,
}

#[derive(Subcommand, Debug)]
enum MeterAction {
    /// Registers a meter; its unit and aggregation never change
    #[command(
        after_help = "Examples:\n  drawdown meter create web.egress --unit byte --aggregation sum --dimension region\n  drawdown meter create web.seat --unit user --aggregation unique --per day --unique user --dimension user"
    )]
    Create {
        /// The slug, such as model-derivative.complex-job
        slug: String,
        /// The base unit, such as job, second, call or byte
        #[arg(long)]
        unit: String,
        /// How events become a quantity
        #[arg(long)]
        aggregation: Aggregation,
        /// What max and unique have one value for, UTC
        #[arg(long, value_name = "PERIOD", required_if_eq_any([("aggregation", "max"), ("aggregation", "unique")]))]
        per: Option<Period>,
        /// The dimension whose distinct values are counted; one of the dimensions
        #[arg(long, value_name = "NAME", required_if_eq("aggregation", "unique"))]
        unique: Option<String>,
        /// A dimension that events may carry; may be given up to 8 times
        #[arg(long = "dimension", value_name = "NAME")]
        dimensions: Vec<String>,
        /// What the gate does when the balance can not cover the usage
        #[arg(long, default_value = "soft")]
        limit: Limit,
        #[command(flatten)]
        change: Change,
    },
    /// Lists meters
    #[command(after_help = "Example:\n  drawdown meter list")]
    List {
        #[command(flatten)]
        pages: Pages,
    },
}

/// How events become a quantity.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Aggregation {
    /// Sum of quantities
    Sum,
    /// Number of events
    Count,
    /// Largest value of each period
    Max,
    /// Distinct values of a dimension in each period
    Unique,
}

/// What has one value.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Period {
    /// A day
    Day,
    /// A month
    Month,
}

/// What happens below zero.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Limit {
    /// Usage may go below zero
    Soft,
    /// Refused at the gate
    Hard,
}

/// Rate cards: what usage costs
#[derive(Args, Debug)]
pub(crate) struct RateCardCommand {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    action: RateCardAction,
}

#[derive(Subcommand, Debug)]
enum RateCardAction {
    /// Publishes a version of a rate card
    #[command(after_help = card::EXAMPLE)]
    Publish {
        /// The version as TOML
        file: PathBuf,
        /// Set-up: the version may begin in the past, as long as no usage of that time is settled
        #[arg(long)]
        set_up: bool,
        #[command(flatten)]
        change: Change,
    },
    /// Prints a whole card that comes with the program, as a file to publish
    #[command(after_help = "Example:\n  drawdown rate-card example 2025-12 > standard.toml")]
    Example {
        /// Which
        card: card::Shipped,
    },
    /// Prices a past month by other prices, without touching it
    #[command(after_help = what_if::EXAMPLE)]
    WhatIf(what_if::WhatIf),
    /// Lists versions with their prices
    #[command(after_help = "Example:\n  drawdown rate-card list")]
    List {
        #[command(flatten)]
        pages: Pages,
    },
}

const METER: [Column; 7] = [
    text("meter", "slug"),
    text("unit", "unit"),
    name("aggregation", "aggregation", "AGGREGATION_"),
    name("per", "period", "AGGREGATION_PERIOD_"),
    text("unique", "unique_dimension"),
    name("limit", "limit", "LIMIT_KIND_"),
    text("dimensions", "dimensions"),
];
const PRICE: [Column; 11] = [
    text("card", "card.name"),
    name("contract", "card.contract_kind", "CONTRACT_KIND_"),
    text("from", "card.effective_from"),
    text("meter", "meter"),
    tokens("tokens", "micros"),
    number("for units", "per_units"),
    text("tiers", "tiers_told"),
    number("charged unit", "charged_unit"),
    text("free", "free_told"),
    text("failed is free", "failed_is_free"),
    text("id", "card.rate_card_id"),
];

impl From<Aggregation> for pb::Aggregation {
    fn from(aggregation: Aggregation) -> Self {
        match aggregation {
            Aggregation::Sum => Self::Sum,
            Aggregation::Count => Self::Count,
            Aggregation::Max => Self::Max,
            Aggregation::Unique => Self::Unique,
        }
    }
}

impl From<Period> for pb::AggregationPeriod {
    fn from(period: Period) -> Self {
        match period {
            Period::Day => Self::Day,
            Period::Month => Self::Month,
        }
    }
}

impl From<Limit> for pb::LimitKind {
    fn from(limit: Limit) -> Self {
        match limit {
            Limit::Soft => Self::Soft,
            Limit::Hard => Self::Hard,
        }
    }
}

impl MeterCommand {
    pub(crate) async fn run(self) -> Result<()> {
        let session = self.connection.open()?;
        let mut client = catalog(&session.ledger);
        match self.action {
            MeterAction::Create { slug, unit, aggregation, per, unique, dimensions, limit, change } => {
                let meter = Meter {
                    slug,
                    unit,
                    aggregation: pb::Aggregation::from(aggregation).into(),
                    dimensions,
                    limit: pb::LimitKind::from(limit).into(),
                    period: per
                        .map_or(pb::AggregationPeriod::Unspecified, pb::AggregationPeriod::from)
                        .into(),
                    unique_dimension: unique.unwrap_or_default(),
                };
                let request = CreateMeterRequest { meter: Some(meter), request_id: change.id() };
                let answer = client.create_meter(request).await?.into_inner();
                let answer = json_of("drawdown.ledger.v1.CreateMeterResponse", &answer)?;
                session.output.record(&answer, "meter", &METER)
            }
            MeterAction::List { pages } => {
                let answer = pages
                    .collect("drawdown.ledger.v1.ListMetersResponse", "meters", |page_size, page_token| {
                        let mut client = client.clone();
                        async move { client.list_meters(ListMetersRequest { page_size, page_token }).await }
                    })
                    .await?;
                session.output.table(&answer, "meters", &METER)
            }
        }
    }
}

impl RateCardCommand {
    pub(crate) async fn run(self) -> Result<()> {
        if let RateCardAction::Example { card } = self.action {
            return print(card.file());
        }
        let session = self.connection.open()?;
        let mut client = catalog(&session.ledger);
        let answer = match self.action {
            RateCardAction::Example { .. } => return Ok(()),
            RateCardAction::WhatIf(question) => return question.run(&session).await,
            RateCardAction::Publish { file, set_up, change } => {
                let rate_card = Some(card::read(&file)?);
                let request = PublishRateCardRequest { rate_card, set_up, request_id: change.id() };
                let answer = client.publish_rate_card(request).await?.into_inner();
                json_of("drawdown.ledger.v1.PublishRateCardResponse", &answer)?
            }
            RateCardAction::List { pages } => {
                pages
                    .collect(
                        "drawdown.ledger.v1.ListRateCardsResponse",
                        "rate_cards",
                        |page_size, page_token| {
                            let mut client = client.clone();
                            async move {
                                client.list_rate_cards(ListRateCardsRequest { page_size, page_token }).await
                            }
                        },
                    )
                    .await?
            }
        };
        if session.json {
            return session.output.value_or_line(&answer, "");
        }
        let prices = serde_json::json!({ "prices": prices(&answer) });
        session.output.table(&prices, "prices", &PRICE)
    }
}

/// One row for each price, with its card.
fn prices(answer: &Value) -> Vec<Value> {
    let one = answer.get("rate_card").map(std::slice::from_ref);
    let cards = one.or_else(|| answer.get("rate_cards").and_then(Value::as_array).map(Vec::as_slice));
    let mut rows = Vec::new();
    for card in cards.unwrap_or_default() {
        let prices = card.get("prices").and_then(Value::as_array).cloned().unwrap_or_default();
        for mut price in prices {
            if let Some(price) = price.as_object_mut() {
                price.insert("card".to_owned(), card.clone());
                let told = [("tiers_told", tiers(price)), ("free_told", free(price))];
                price.extend(told.map(|(name, text)| (name.to_owned(), text.into())));
            }
            rows.push(price);
        }
    }
    rows
}

/// Where further tiers begin and what they cost, in words.
fn tiers(price: &Map<String, Value>) -> String {
    let whole = |tier: &Value, field: &str| tier.get(field).and_then(Value::as_i64).unwrap_or_default();
    let tier = |tier: &Value| {
        let tokens = MicroTokens::from_micros(whole(tier, "micros"));
        format!("{tokens} above {}", whole(tier, "above"))
    };
    let tiers = price.get("tiers").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    tiers.iter().map(tier).collect::<Vec<_>>().join(", ")
}

/// The free part of a month, in words.
fn free(price: &Map<String, Value>) -> String {
    let only = price.get("free_only").and_then(Value::as_bool).unwrap_or_default();
    match price.get("free_quota").and_then(Value::as_i64).unwrap_or_default() {
        0 => String::new(),
        quota if only => format!("{quota} only"),
        quota => quota.to_string(),
    }
}
