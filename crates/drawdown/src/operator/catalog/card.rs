//! A version of a rate card as a file: prices in tokens, as people write them.

use std::path::Path;

use anyhow::{Context, Result};
use drawdown_proto::{
    ledger::v1::{ContractKind, Price, PriceTier, RateCard},
    scalar::timestamp_to_proto,
};
use drawdown_service::{Problem, config::Problems};
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
  failed_is_free = true
  free_quota = 1073741824     # base units of each month that cost nothing
  # what lies above so many base units of a month, and above the quota, has a price of its own
  tiers = [{ above = 10737418240, tokens = \"0.008\" }]

  [[prices]]
  meter = \"web.render\"
  tokens = \"3\"
  per_units = 3600
  charged_unit = 1200         # only whole units are charged; the unfinished part runs into the next month

  [[prices]]
  meter = \"web.preview\"
  free_quota = 100
  free_only = true            # nothing is ever charged: what is above the quota is only recorded

Two whole cards come with the program: drawdown rate-card example 2025-12";

/// The cards that come with the program.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(super) enum Shipped {
    /// November 2022
    #[value(name = "2022-11")]
    November2022,
    /// December 2025: charged units that roll over
    #[value(name = "2025-12")]
    December2025,
}

impl Shipped {
    /// Its file.
    pub(super) const fn file(self) -> &'static str {
        match self {
            Self::November2022 => include_str!("../../../cards/2022-11.toml"),
            Self::December2025 => include_str!("../../../cards/2025-12.toml"),
        }
    }
}

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
    #[serde(default = "nothing")]
    tokens: String,
    #[serde(default = "one")]
    per_units: i64,
    #[serde(default)]
    failed_is_free: bool,
    #[serde(default)]
    tiers: Vec<TierFile>,
    charged_unit: Option<i64>,
    #[serde(default)]
    free_quota: i64,
    #[serde(default)]
    free_only: bool,
}

/// A price is given, unless the meter is free only.
fn nothing() -> String {
    "0".to_owned()
}

const fn one() -> i64 {
    1
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TierFile {
    above: i64,
    tokens: String,
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
    let mut problems = Problems::new();
    let instant = match &file.effective_from {
        Instant::Text(text) => text.clone(),
        Instant::Own(at) => at.to_string(),
    };
    let from = problems.field("effective_from", instant.parse::<Timestamp>());
    let prices = file.prices.into_iter().enumerate();
    let prices: Vec<Option<Price>> =
        prices.map(|(index, price)| read_price(&mut problems, index, price)).collect();
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

fn read_price(problems: &mut Problems, index: usize, price: PriceFile) -> Option<Price> {
    let field = format!("prices[{index}]");
    let amount = problems.field(&format!("{field}.tokens"), price.tokens.parse::<MicroTokens>());
    let mut tiers = Vec::with_capacity(price.tiers.len());
    for (place, tier) in price.tiers.into_iter().enumerate() {
        let tokens =
            problems.field(&format!("{field}.tiers[{place}].tokens"), tier.tokens.parse::<MicroTokens>());
        tiers.extend(tokens.map(|tokens| PriceTier { above: tier.above, micros: tokens.as_micros() }));
    }
    Some(Price {
        meter: price.meter,
        micros: amount?.as_micros(),
        per_units: price.per_units,
        failed_is_free: price.failed_is_free,
        tiers,
        charged_unit: price.charged_unit,
        free_quota: price.free_quota,
        free_only: price.free_only,
    })
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
        let lines = lines.take_while(|line| !line.starts_with("Two"));
        lines.map(|line| format!("{}\n", line.trim_start())).collect()
    }

    #[test]
    fn the_example_of_the_help_is_a_card() {
        let card = parse(&example()).unwrap();
        assert_eq!((card.name.as_str(), card.contract_kind()), ("web", ContractKind::Flex));
        let prices: Vec<_> = card.prices.iter().map(|price| (price.micros, price.per_units)).collect();
        assert_eq!(prices, [(500, 1), (10_000, 1_048_576), (3_000_000, 3_600), (0, 1)]);
        let [_, egress, render, preview] = card.prices.as_slice() else { panic!() };
        assert_eq!(egress.tiers, [PriceTier { above: 10_737_418_240, micros: 8_000 }]);
        assert_eq!((egress.free_quota, render.charged_unit), (1_073_741_824, Some(1_200)));
        assert_eq!((preview.free_only, preview.free_quota), (true, 100));
    }

    #[test]
    fn d13_the_cards_that_are_shipped_are_those_of_the_domain() {
        let of = |shipped: Shipped| {
            let card = parse(shipped.file()).unwrap();
            let prices = card.prices.iter();
            let prices =
                prices.map(|p| (p.meter.clone(), p.micros, p.per_units, p.charged_unit)).collect::<Vec<_>>();
            (card.name, card.effective_from.map(|at| at.to_string()), prices)
        };
        let price = |meter: &str, micros, per_units, unit| (meter.to_owned(), micros, per_units, unit);
        let rest = [
            price("model-derivative.complex-job", 500_000, 1, None),
            price("model-derivative.simple-job", 100_000, 1, None),
            price("reality-capture", 1_000_000, 50, None),
        ];
        let card = |at: &str, automation| {
            let prices: Vec<_> = std::iter::once(automation).chain(rest.clone()).collect();
            ("standard".to_owned(), Some(at.to_owned()), prices)
        };
        let automation = price("automation", 2_000_000, 3_600, None);
        assert_eq!(of(Shipped::November2022), card("2022-11-01T00:00:00Z", automation));
        let automation = price("automation", 3_000_000, 3_600, Some(1_200));
        assert_eq!(of(Shipped::December2025), card("2025-12-01T00:00:00Z", automation));
    }

    #[test]
    fn bad_cards_are_told_with_their_places() {
        for (from, to, expected) in [
            ("\"0.0005\"", "\"0.00000005\"", "prices[0].tokens"),
            ("\"0.008\"", "\"much\"", "prices[1].tiers[0].tokens"),
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
