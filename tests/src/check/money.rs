//! Meters, prices and lots of the run, entered as an operator enters them.

use std::time::Instant;

use anyhow::{Context as _, Result};
use drawdown_client::{Channel, clients::ledger};
use drawdown_proto::{ledger::v1 as led, scalar::timestamp_to_proto};
use drawdown_types::MICROS_PER_TOKEN;
use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::directory::Directory;

/// What is asked about under load.
pub(super) const METER: &str = "check.call";
/// Refused when nothing is left: a token a call.
pub(super) const HARD_METER: &str = "check.hard";
const AT_ONCE: usize = 16;

/// Enters the meters and their prices.
pub(super) async fn enter_catalog(channel: &Channel, directory: &Directory) -> Result<()> {
    let mut catalog = ledger::catalog(channel);
    for (slug, limit) in [(METER, led::LimitKind::Soft), (HARD_METER, led::LimitKind::Hard)] {
        let meter = led::Meter {
            slug: slug.to_owned(),
            unit: "call".to_owned(),
            aggregation: led::Aggregation::Sum.into(),
            limit: limit.into(),
            ..led::Meter::default()
        };
        let request = led::CreateMeterRequest { meter: Some(meter), request_id: slug.to_owned() };
        catalog.create_meter(request).await.with_context(|| slug.to_owned())?;
    }
    let prices = [(METER, 1000), (HARD_METER, MICROS_PER_TOKEN)].map(|(meter, micros)| led::Price {
        meter: meter.to_owned(),
        micros,
        per_units: 1,
        ..led::Price::default()
    });
    let rate_card = led::RateCard {
        rate_card_id: String::new(),
        name: "check".to_owned(),
        contract_kind: led::ContractKind::Flex.into(),
        effective_from: Some(timestamp_to_proto(directory.founded)),
        prices: prices.to_vec(),
    };
    let request = led::PublishRateCardRequest {
        rate_card: Some(rate_card),
        set_up: true,
        request_id: "check-card".to_owned(),
    };
    catalog.publish_rate_card(request).await.context("rate card")?;
    Ok(())
}

/// Buys a lot for each team; gives how long that took, in seconds.
pub(super) async fn buy_lots(channel: &Channel, directory: &Directory) -> Result<f64> {
    let began = Instant::now();
    let orders: Vec<_> = (directory.teams.iter())
        .map(|team| led::PurchaseTokensRequest {
            account_id: team.account_id.to_string(),
            team_id: team.team_id.to_string(),
            tokens: team.tokens,
            purchased_at: None,
            request_id: format!("check-{}", team.team_id),
            note: "check".to_owned(),
        })
        .map(|request| {
            let mut tokens = ledger::token(channel);
            async move { tokens.purchase_tokens(request).await.map(drop) }
        })
        .collect();
    let bought = stream::iter(orders).buffer_unordered(AT_ONCE).try_collect::<Vec<()>>().await;
    bought.context("a lot is not bought")?;
    Ok(began.elapsed().as_secs_f64())
}
