//! A past month by other prices.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, ValueEnum};
use drawdown_client::ledger::what_if;
use drawdown_proto::{
    ledger::v1::{self as pb, PriceDraft, PriceMonthRequest, price_month_request},
    scalar::timestamp_to_proto,
};
use drawdown_service::Problem;
use drawdown_types::Timestamp;

use super::{super::Session, card};
use crate::{
    failure::BadConfiguration,
    output::{Column, json_of, number, text, tokens},
};

pub(super) const EXAMPLE: &str = "Examples:
  drawdown rate-card what-if --account acct_… --month 2026-03 --in-force enterprise
  drawdown rate-card what-if --team team_… --month 2026-03 --file draft.toml";

/// Whose month, and by which prices.
#[derive(Args, Debug)]
#[group(id = "question")]
pub(super) struct WhatIf {
    #[command(flatten)]
    scope: Scope,
    /// The month, UTC, as 2026-03
    #[arg(long)]
    month: String,
    #[command(flatten)]
    by: By,
}

#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
struct Scope {
    /// One team
    #[arg(long, value_name = "TEAM")]
    team: Option<String>,
    /// Every team of an account
    #[arg(long, value_name = "ACCOUNT")]
    account: Option<String>,
}

#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
struct By {
    /// A published version, by its id
    #[arg(long, value_name = "CARD")]
    card: Option<String>,
    /// A card that is not published, as a file
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// What was in force for a contract kind
    #[arg(long, value_name = "CONTRACT")]
    in_force: Option<Contract>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Contract {
    /// Buys tokens as it goes
    Flex,
    /// Enterprise agreement
    Enterprise,
}

const METER: [Column; 7] = [
    text("team", "team_id"),
    text("meter", "meter"),
    number("quantity", "quantity"),
    tokens("cost", "cost_micros"),
    tokens("would cost", "would_cost_micros"),
    tokens("difference", "difference_micros"),
    text("notes", "notes_told"),
];

impl WhatIf {
    pub(super) async fn run(self, session: &Session) -> Result<()> {
        let request = self.request()?;
        let answer = what_if(&session.ledger).price_month(request).await?.into_inner();
        let mut told = json_of("drawdown.ledger.v1.PriceMonthResponse", &answer)?;
        if session.json {
            return session.output.value_or_line(&told, "");
        }
        let meters = told.get_mut("meters").and_then(serde_json::Value::as_array_mut);
        for (row, meter) in meters.into_iter().flatten().zip(&answer.meters) {
            let notes: Vec<_> = meter.notes().map(note).collect();
            if let Some(row) = row.as_object_mut() {
                row.insert("notes_told".to_owned(), notes.join(", ").into());
            }
        }
        session.output.table(&told, "meters", &METER)
    }

    fn request(self) -> Result<PriceMonthRequest> {
        let month = format!("{}-01T00:00:00Z", self.month);
        let month: Timestamp = month.parse().map_err(|_| {
            let why = format!("{:?} is no month such as 2026-03", self.month);
            BadConfiguration(vec![Problem::new("--month", why)])
        })?;
        let scope = match self.scope {
            Scope { team: Some(team), .. } => price_month_request::Scope::TeamId(team),
            Scope { account, .. } => price_month_request::Scope::AccountId(account.unwrap_or_default()),
        };
        let by = match self.by {
            By { card: Some(card), .. } => price_month_request::By::RateCardId(card),
            By { file: Some(file), .. } => {
                price_month_request::By::Draft(PriceDraft { prices: card::read(&file)?.prices })
            }
            By { in_force, .. } => {
                let kind = match in_force {
                    Some(Contract::Flex) => pb::ContractKind::Flex,
                    Some(Contract::Enterprise) => pb::ContractKind::Enterprise,
                    None => pb::ContractKind::Unspecified,
                };
                price_month_request::By::InForce(kind.into())
            }
        };
        Ok(PriceMonthRequest { scope: Some(scope), month: Some(timestamp_to_proto(month)), by: Some(by) })
    }
}

const fn note(note: pb::WhatIfNote) -> &'static str {
    match note {
        pb::WhatIfNote::Unspecified => "",
        pb::WhatIfNote::Unpriced => "no price for some of it",
        pb::WhatIfNote::DoesNotFit => "does not fit",
        pb::WhatIfNote::CarriedOver => "unfinished units carried over",
    }
}
