//! A version of a rate card as a file: prices in tokens, as people write them.

use std::path::Path;

use anyhow::{Context, Result};
use drawdown_proto::{
    ledger::v1::{ContractKind, Price, RateCard},
    scalar::timestamp_to_proto,
};
use drawdown_service::Problem;
use drawdown_types::{MicroTokens, Timestamp};
use serde::Deserialize;

use crate::failure::BadConfiguration;

pub(super) const EXAMPLE: &str = "Example:
  drawdown rate-card publish web.toml

  # web.toml: a price is tokens for so many base units, exact to a millionth of a token
  name = \"web\"
  contract = \"flex\"                        # or \"enterprise\"
  effective_from = \"2026-01-01T00:00:00Z\"  # rounded up to the edge of a window

  [[prices]]
  meter = \"web.call\"
  tokens = \"0.0005\"
  per_units = 1

  [[prices]]
  meter = \"web.egress\"
  tokens = \"0.01\"
  per_units = 1048576
  failed_is_free = true";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CardFile {
    name: String,
    contract: Contract,
    effective_from: Instant,
    prices: Vec<PriceFile>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Contract {
    Flex,
    Enterprise,
}

/// An instant as text or as TOML's own date and time.
#[derive(Deserialize)]
#[serde(untagged)]
enum Instant {
    Text(String),
    Own(toml::value::Datetime),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PriceFile {
    meter: String,
    tokens: String,
    per_units: i64,
    #[serde(default)]
    failed_is_free: bool,
}

/// Reads a file; what the ledger checks is left to the ledger.
pub(super) fn read(path: &Path) -> Result<RateCard> {
    let text = std::fs::read_to_string(path).with_context(|| format!("can not read {}", path.display()))?;
    parse(&text).map_err(|problems| {
        let file = path.display().to_string();
        BadConfiguration(problems.into_iter().map(|problem| problem.within(&file)).collect()).into()
    })
}

fn parse(text: &str) -> Result<RateCard, Vec<Problem>> {
    let file: CardFile = toml::from_str(text)
        .map_err(|error| vec![Problem::new(place(text, error.span()), error.message())])?;
    let mut problems = drawdown_service::config::Problems::new();
    let instant = match &file.effective_from {
        Instant::Text(text) => text.clone(),
        Instant::Own(at) => at.to_string(),
    };
    let from = problems.field("effective_from", instant.parse::<Timestamp>());
    let prices: Vec<Option<Price>> = file
        .prices
        .into_iter()
        .enumerate()
        .map(|(index, price)| {
            let amount =
                problems.field(&format!("prices[{index}].tokens"), price.tokens.parse::<MicroTokens>())?;
            Some(Price {
                meter: price.meter,
                micros: amount.as_micros(),
                per_units: price.per_units,
                failed_is_free: price.failed_is_free,
            })
        })
        .collect();
    let kind = match file.contract {
        Contract::Flex => ContractKind::Flex,
        Contract::Enterprise => ContractKind::Enterprise,
    };
    let card = from.map(|from| RateCard {
        rate_card_id: String::new(),
        name: file.name,
        contract_kind: kind.into(),
        effective_from: Some(timestamp_to_proto(from)),
        prices: prices.into_iter().flatten().collect(),
    });
    problems.finish(card)
}

fn place(text: &str, span: Option<std::ops::Range<usize>>) -> String {
    let before = span.and_then(|span| text.get(..span.start)).unwrap_or_default();
    format!("line {}", before.matches('\n').count().saturating_add(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> String {
        let lines = EXAMPLE.lines().skip_while(|line| !line.trim_start().starts_with('#'));
        lines.map(|line| format!("{}\n", line.trim_start())).collect()
    }

    #[test]
    fn the_example_of_the_help_is_a_card() {
        let card = parse(&example()).unwrap();
        assert_eq!((card.name.as_str(), card.contract_kind()), ("web", ContractKind::Flex));
        let prices: Vec<_> = card.prices.iter().map(|price| (price.micros, price.per_units)).collect();
        assert_eq!(prices, [(500, 1), (10_000, 1_048_576)]);
    }

    #[test]
    fn bad_cards_are_told_with_their_places() {
        for (from, to, expected) in [
            ("\"0.0005\"", "\"0.00000005\"", "prices[0].tokens"),
            ("2026-01-01T00:00:00Z", "soon", "effective_from"),
            ("\"flex\"", "\"free\"", "line "),
            ("per_units", "units", "line "),
        ] {
            let problems = parse(&example().replacen(from, to, 1)).unwrap_err();
            assert!(problems[0].field.starts_with(expected), "{problems:?}");
        }
    }

    #[test]
    fn an_instant_may_be_written_as_toml_does() {
        let card = parse(&example().replace("\"2026-01-01T00:00:00Z\"", "2026-01-01T00:00:00Z")).unwrap();
        assert_eq!(card.effective_from.map(|at| at.seconds), Some(1_767_225_600));
    }
}
