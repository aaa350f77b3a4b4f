//! Charges that are taken back.

use anyhow::Result;
use clap::Args;
use drawdown_client::ledger::corrections;
use drawdown_proto::ledger::v1::{CorrectChargeRequest, InsteadUsage};
use drawdown_types::{MicroTokens, Timestamp};

use super::{Change, Connection, wire};
use crate::output::{Column, json_of, number, text, tokens};

/// What to take back, and what to charge instead.
#[derive(Args, Debug)]
pub(crate) struct Correction {
    /// The charge
    charge_id: String,
    /// The account of its team
    #[arg(long, value_name = "ACCOUNT_ID")]
    account: String,
    /// The team that bears it
    #[arg(long, value_name = "TEAM_ID")]
    team: String,
    /// Why
    #[arg(long)]
    reason: String,
    /// How much of it, in base units of its meter [default: all that stands]
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    quantity: i64,
    /// What to charge instead, in base units; the rest is as in the charge unless said otherwise
    #[arg(long, value_name = "QUANTITY")]
    instead: Option<i64>,
    /// The team that pays instead
    #[arg(long, value_name = "TEAM_ID", requires = "instead", default_value = "", hide_default_value = true)]
    to_team: String,
    /// The app of the usage
    #[arg(long, value_name = "APP_ID", requires = "instead", default_value = "", hide_default_value = true)]
    to_app: String,
    /// The client id of the usage
    #[arg(
        long,
        value_name = "CLIENT_ID",
        requires = "instead",
        default_value = "",
        hide_default_value = true
    )]
    to_client: String,
    /// The meter of the usage
    #[arg(long, value_name = "METER", requires = "instead", default_value = "", hide_default_value = true)]
    to_meter: String,
    /// The start of the window of the usage
    #[arg(long, value_name = "INSTANT", requires = "instead")]
    to_window: Option<Timestamp>,
    /// Shows what would be written, and writes nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    change: Change,
    #[command(flatten)]
    connection: Connection,
}

const CHARGE: [Column; 7] = [
    text("charge", "charge_id"),
    text("team", "team_id"),
    text("meter", "meter"),
    text("window", "window_start"),
    number("quantity", "quantity"),
    tokens("amount", "amount_micros"),
    tokens("uncharged", "uncharged_micros"),
];

impl Correction {
    pub(crate) async fn run(self) -> Result<()> {
        let session = self.connection.open()?;
        let instead = self.instead.map(|quantity| InsteadUsage {
            team_id: self.to_team,
            app_id: self.to_app,
            client_id: self.to_client,
            meter: self.to_meter,
            window_start: wire(self.to_window),
            quantity,
            failed: None,
        });
        let request = CorrectChargeRequest {
            account_id: self.account,
            team_id: self.team,
            charge_id: self.charge_id,
            quantity: self.quantity,
            instead,
            reason: self.reason,
            request_id: self.change.id(),
            validate_only: self.dry_run,
        };
        let answer = corrections(&session.ledger).correct_charge(request).await?.into_inner();
        let beside = answer.instead.as_ref().map(|new| {
            let amount = MicroTokens::from_micros(new.amount_micros);
            format!(
                "instead: {} of {}, {} units, {amount} tokens\n",
                new.charge_id, new.team_id, new.quantity
            )
        });
        let answer = json_of("drawdown.ledger.v1.CorrectChargeResponse", &answer)?;
        session.output.record(&answer, "taken_back", &CHARGE)?;
        session.output.beside(&beside.unwrap_or_default())
    }
}
