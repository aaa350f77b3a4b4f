//! Lots after they were made, and holds.

use anyhow::Result;
use clap::{Args, Subcommand};
use drawdown_client::ledger::{hold, lot};
use drawdown_proto::ledger::v1::{
    AdjustLotRequest, ChargeBackLotRequest, ExtendHoldRequest, GetHoldRequest, ListHoldsRequest,
    MoveLotRequest, RefundLotRequest, ReleaseHoldRequest, ReserveTokensRequest,
};
use drawdown_types::MicroTokens;

use super::{
    Change, Connection, Pages,
    import::{EXAMPLE, ImportLots},
};
use crate::output::{Column, json_of, name, text, tokens};

/// Moves, adjusts, takes back and imports lots
#[derive(Args, Debug)]
pub(crate) struct LotCommand {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    action: LotAction,
}

#[derive(Args, Debug)]
struct Which {
    /// The lot
    lot_id: String,
    /// The account
    #[arg(long, value_name = "ACCOUNT_ID")]
    account: String,
    /// Why
    #[arg(long)]
    reason: String,
    #[command(flatten)]
    change: Change,
}

#[derive(Subcommand, Debug)]
enum LotAction {
    /// Moves what is left of a lot to another team of its account
    #[command(
        after_help = "Example:\n  drawdown lot move lot_01j2gv5gymfsfrn6rc3mq3yjjv --account acct_01j2gv5gymfsfrn6rc3mq3yjjv --from team_01j2gv5gymfsfrn6rc3mq3yjjv --to team_01j2gv5gymfsfrn6rc3mq3yjjw --reason 'a project moves'"
    )]
    Move {
        #[command(flatten)]
        which: Which,
        /// The team in which it lives
        #[arg(long, value_name = "TEAM_ID")]
        from: String,
        /// The team in which it shall live
        #[arg(long, value_name = "TEAM_ID")]
        to: String,
    },
    /// Makes an open or scheduled lot larger or smaller
    #[command(
        after_help = "Example:\n  drawdown lot adjust lot_01j2gv5gymfsfrn6rc3mq3yjjv --by=-2.5 --account acct_01j2gv5gymfsfrn6rc3mq3yjjv --team team_01j2gv5gymfsfrn6rc3mq3yjjv --reason 'granted twice'"
    )]
    Adjust {
        #[command(flatten)]
        which: Which,
        /// The team in which it lives
        #[arg(long, value_name = "TEAM_ID")]
        team: String,
        /// Tokens, exact to a millionth, above or below 0
        #[arg(long, allow_hyphen_values = true)]
        by: MicroTokens,
    },
    /// Takes back what is left of a bought lot, or a part of that
    #[command(
        after_help = "Example:\n  drawdown lot refund lot_01j2gv5gymfsfrn6rc3mq3yjjv --account acct_01j2gv5gymfsfrn6rc3mq3yjjv --team team_01j2gv5gymfsfrn6rc3mq3yjjv --reason 'ordered twice'"
    )]
    Refund {
        #[command(flatten)]
        which: Which,
        /// The team in which it lives
        #[arg(long, value_name = "TEAM_ID")]
        team: String,
        /// Tokens, exact to a millionth [default: all that is left]
        #[arg(long)]
        tokens: Option<MicroTokens>,
    },
    /// Takes back a whole bought lot: what it had paid is owed again by the teams that used it
    #[command(
        after_help = "Example:\n  drawdown lot charge-back lot_01j2gv5gymfsfrn6rc3mq3yjjv --account acct_01j2gv5gymfsfrn6rc3mq3yjjv --reason 'dispute 4711'"
    )]
    ChargeBack {
        #[command(flatten)]
        which: Which,
    },
    /// Imports lots and debts of another platform, with their original instants, and compares the sums
    #[command(after_help = EXAMPLE)]
    Import(ImportLots),
}

const LOT: [Column; 9] = [
    text("lot", "lot_id"),
    text("team", "team_id"),
    name("state", "state", "LOT_STATE_"),
    tokens("granted", "granted_micros"),
    tokens("remaining", "remaining_micros"),
    tokens("used", "consumed_micros"),
    tokens("moved", "moved_micros"),
    tokens("void", "void_micros"),
    text("expires", "expires_at"),
];

impl LotCommand {
    pub(crate) async fn run(self) -> Result<()> {
        let session = self.connection.open()?;
        let mut client = lot(&session.ledger);
        let answer = match self.action {
            LotAction::Move { which, from, to } => {
                let request = MoveLotRequest {
                    account_id: which.account,
                    lot_id: which.lot_id,
                    from_team_id: from,
                    to_team_id: to,
                    reason: which.reason,
                    request_id: which.change.id(),
                };
                let answer = client.move_lot(request).await?.into_inner();
                json_of("drawdown.ledger.v1.MoveLotResponse", &answer)?
            }
            LotAction::Adjust { which, team, by } => {
                let request = AdjustLotRequest {
                    account_id: which.account,
                    team_id: team,
                    lot_id: which.lot_id,
                    delta_micros: by.as_micros(),
                    reason: which.reason,
                    request_id: which.change.id(),
                };
                let answer = client.adjust_lot(request).await?.into_inner();
                json_of("drawdown.ledger.v1.AdjustLotResponse", &answer)?
            }
            LotAction::Refund { which, team, tokens } => {
                let request = RefundLotRequest {
                    account_id: which.account,
                    team_id: team,
                    lot_id: which.lot_id,
                    micros: tokens.map_or(0, MicroTokens::as_micros),
                    reason: which.reason,
                    request_id: which.change.id(),
                };
                let answer = client.refund_lot(request).await?.into_inner();
                json_of("drawdown.ledger.v1.RefundLotResponse", &answer)?
            }
            LotAction::ChargeBack { which } => {
                let request = ChargeBackLotRequest {
                    account_id: which.account,
                    lot_id: which.lot_id,
                    reason: which.reason,
                    request_id: which.change.id(),
                };
                let answer = client.charge_back_lot(request).await?.into_inner();
                let answer = json_of("drawdown.ledger.v1.ChargeBackLotResponse", &answer)?;
                return session.output.table(&answer, "lots", &LOT);
            }
            LotAction::Import(import) => return import.run(&session).await,
        };
        session.output.record(&answer, "lot", &LOT)
    }
}

/// Sets tokens of a team aside and lets go of them
#[derive(Args, Debug)]
pub(crate) struct HoldCommand {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    action: HoldAction,
}

#[derive(Args, Debug)]
struct WhichHold {
    /// The hold
    hold_id: String,
    /// The team
    #[arg(long, value_name = "TEAM_ID")]
    team: String,
}

#[derive(Subcommand, Debug)]
enum HoldAction {
    /// Sets tokens of open lots aside, all or nothing unless less will do
    #[command(
        after_help = "Example:\n  drawdown hold reserve 12.5 --lasts-ms 600000 --account acct_01j2gv5gymfsfrn6rc3mq3yjjv --team team_01j2gv5gymfsfrn6rc3mq3yjjv"
    )]
    Reserve {
        /// Tokens, exact to a millionth
        tokens: MicroTokens,
        /// The least that will do [default: all of it]
        #[arg(long)]
        at_least: Option<MicroTokens>,
        /// How long it lasts by itself, in milliseconds
        #[arg(long)]
        lasts_ms: i64,
        /// The account
        #[arg(long, value_name = "ACCOUNT_ID")]
        account: String,
        /// The team
        #[arg(long, value_name = "TEAM_ID")]
        team: String,
        /// The app whose usage it is for [default: any of the team]
        #[arg(long, value_name = "APP_ID", default_value = "")]
        app: String,
        /// A note
        #[arg(long, default_value = "")]
        note: String,
        #[command(flatten)]
        change: Change,
    },
    /// Lets a hold last longer, with more tokens or none
    #[command(
        after_help = "Example:\n  drawdown hold extend hold_01j2gv5gymfsfrn6rc3mq3yjjv --lasts-ms 600000 --team team_01j2gv5gymfsfrn6rc3mq3yjjv"
    )]
    Extend {
        #[command(flatten)]
        which: WhichHold,
        /// How long it lasts from now on by itself, in milliseconds
        #[arg(long)]
        lasts_ms: i64,
        /// Tokens to take in addition
        #[arg(long, default_value = "0")]
        more: MicroTokens,
        #[command(flatten)]
        change: Change,
    },
    /// Ends a hold: what is left of it goes back to its lots
    #[command(
        after_help = "Example:\n  drawdown hold release hold_01j2gv5gymfsfrn6rc3mq3yjjv --team team_01j2gv5gymfsfrn6rc3mq3yjjv"
    )]
    Release {
        #[command(flatten)]
        which: WhichHold,
        #[command(flatten)]
        change: Change,
    },
    /// Shows a hold
    #[command(
        after_help = "Example:\n  drawdown hold show hold_01j2gv5gymfsfrn6rc3mq3yjjv --team team_01j2gv5gymfsfrn6rc3mq3yjjv"
    )]
    Show {
        #[command(flatten)]
        which: WhichHold,
    },
    /// Lists the open holds of a team
    #[command(after_help = "Example:\n  drawdown hold list team_01j2gv5gymfsfrn6rc3mq3yjjv")]
    List {
        /// The team
        team_id: String,
        #[command(flatten)]
        pages: Pages,
    },
}

const HOLD: [Column; 7] = [
    text("hold", "hold_id"),
    name("state", "state", "HOLD_STATE_"),
    tokens("taken", "taken_micros"),
    tokens("remaining", "remaining_micros"),
    text("app", "app_id"),
    text("made", "made_at"),
    text("expires", "expires_at"),
];

impl HoldCommand {
    pub(crate) async fn run(self) -> Result<()> {
        let session = self.connection.open()?;
        let mut client = hold(&session.ledger);
        let answer = match self.action {
            HoldAction::Reserve { tokens, at_least, lasts_ms, account, team, app, note, change } => {
                let request = ReserveTokensRequest {
                    account_id: account,
                    team_id: team,
                    app_id: app,
                    micros: tokens.as_micros(),
                    at_least_micros: at_least.map_or(0, MicroTokens::as_micros),
                    lasts_ms,
                    note,
                    request_id: change.id(),
                };
                let answer = client.reserve_tokens(request).await?.into_inner();
                json_of("drawdown.ledger.v1.ReserveTokensResponse", &answer)?
            }
            HoldAction::Extend { which, lasts_ms, more, change } => {
                let request = ExtendHoldRequest {
                    team_id: which.team,
                    hold_id: which.hold_id,
                    lasts_ms,
                    more_micros: more.as_micros(),
                    request_id: change.id(),
                };
                let answer = client.extend_hold(request).await?.into_inner();
                json_of("drawdown.ledger.v1.ExtendHoldResponse", &answer)?
            }
            HoldAction::Release { which, change } => {
                let request = ReleaseHoldRequest {
                    team_id: which.team,
                    hold_id: which.hold_id,
                    request_id: change.id(),
                };
                let answer = client.release_hold(request).await?.into_inner();
                json_of("drawdown.ledger.v1.ReleaseHoldResponse", &answer)?
            }
            HoldAction::Show { which } => {
                let request = GetHoldRequest { team_id: which.team, hold_id: which.hold_id };
                let answer = client.get_hold(request).await?.into_inner();
                json_of("drawdown.ledger.v1.GetHoldResponse", &answer)?
            }
            HoldAction::List { team_id, pages } => {
                let list = |page_size, page_token| {
                    let request = ListHoldsRequest { team_id: team_id.clone(), page_size, page_token };
                    let mut client = client.clone();
                    async move { client.list_holds(request).await }
                };
                let answer = pages.collect("drawdown.ledger.v1.ListHoldsResponse", "holds", list).await?;
                return session.output.table(&answer, "holds", &HOLD);
            }
        };
        session.output.record(&answer, "hold", &HOLD)
    }
}
