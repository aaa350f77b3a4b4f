//! Lots of tokens, balances, charges and the journal.

use anyhow::Result;
use clap::{Args, Subcommand, ValueEnum};
use drawdown_client::{entitlement::accounts, ledger::token};
use drawdown_proto::{
    entitlement::v1::PreparePurchaseRequest,
    ledger::v1::{
        self as pb, GetBalanceRequest, GrantTokensRequest, ListChargesRequest, ListJournalRequest,
        ListLotsRequest, PurchaseTokensRequest,
    },
};
use drawdown_types::{MicroTokens, Timestamp};

use super::{
    Change, Connection, Pages,
    reports::{Filter, complete},
    wire,
};
use crate::output::{Column, json_of, name, number, text, tokens};

/// Buys and grants tokens
#[derive(Args, Debug)]
pub(crate) struct TokensCommand {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    action: TokensAction,
}

#[derive(Subcommand, Debug)]
enum TokensAction {
    /// Buys tokens for a team: one lot that expires one calendar year later
    #[command(
        after_help = "Examples:\n  drawdown tokens purchase 500 --account acct_01j2gv5gymfsfrn6rc3mq3yjjv\n  drawdown tokens purchase 500 --account acct_01j2gv5gymfsfrn6rc3mq3yjjv --team team_01j2gv5gymfsfrn6rc3mq3yjjv\n\nThe first purchase of an account that has no team creates its first one; with several teams one has to be named."
    )]
    Purchase {
        /// Whole tokens
        tokens: i64,
        /// The account
        #[arg(long, value_name = "ACCOUNT_ID")]
        account: String,
        /// The team of that account that will own the lot [default: its only one, or its first one]
        #[arg(long, value_name = "TEAM_ID", default_value = "", hide_default_value = true)]
        team: String,
        /// Set-up: the original instant [default: now]
        #[arg(long, value_name = "INSTANT")]
        purchased_at: Option<Timestamp>,
        /// A note
        #[arg(long, default_value = "")]
        note: String,
        #[command(flatten)]
        change: Change,
    },
    /// Grants tokens to a team
    #[command(
        after_help = "Example:\n  drawdown tokens grant 12.5 --pool promotional --expires-at 2026-12-31T00:00:00Z --note 'launch' --account acct_01j2gv5gymfsfrn6rc3mq3yjjv --team team_01j2gv5gymfsfrn6rc3mq3yjjv"
    )]
    Grant {
        /// Tokens, exact to a millionth
        tokens: MicroTokens,
        /// Where the lot comes from, which decides when it is drawn
        #[arg(long)]
        pool: Pool,
        #[command(flatten)]
        owner: Owner,
        /// First instant at which it may be drawn [default: now]
        #[arg(long, value_name = "INSTANT")]
        starts_at: Option<Timestamp>,
        /// First instant at which it may not
        #[arg(long, value_name = "INSTANT")]
        expires_at: Timestamp,
        /// It pays no usage from before it, not as debt either
        #[arg(long)]
        leaves_older_debts: bool,
        /// Why
        #[arg(long)]
        note: String,
        #[command(flatten)]
        change: Change,
    },
}

#[derive(Args, Debug)]
struct Owner {
    /// The account
    #[arg(long, value_name = "ACCOUNT_ID")]
    account: String,
    /// The team of that account that will own the lot
    #[arg(long, value_name = "TEAM_ID")]
    team: String,
}

/// Where a granted lot comes from.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Pool {
    /// A free allowance
    Free,
    /// Enterprise agreement
    Enterprise,
    /// Cloud credits
    Credit,
    /// A promotion
    Promotional,
}

/// Earlier instants of the books.
#[derive(Args, Clone, Copy, Debug)]
struct Then {
    /// Only what had taken effect by this instant of usage [default: everything recorded]
    #[arg(long, value_name = "INSTANT", conflicts_with = "at")]
    as_of: Option<Timestamp>,
    /// Only what was recorded by this instant [default: now]
    #[arg(long, value_name = "INSTANT", conflicts_with = "at")]
    recorded_until: Option<Timestamp>,
}

impl Then {
    fn wire(self) -> Option<pb::AsOf> {
        let asked = self.as_of.is_some() || self.recorded_until.is_some();
        asked.then(|| pb::AsOf { event: wire(self.as_of), recorded: wire(self.recorded_until) })
    }
}

/// Lists the lots of a team in the order they are drawn
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  drawdown lots team_01j2gv5gymfsfrn6rc3mq3yjjv\n  drawdown lots team_01j2gv5gymfsfrn6rc3mq3yjjv --as-of 2026-03-01T00:00:00Z --recorded-until 2026-03-02T00:00:00Z"
)]
pub(crate) struct LotsCommand {
    /// The team
    team_id: String,
    /// As of this later instant [default: now]
    #[arg(long, value_name = "INSTANT")]
    at: Option<Timestamp>,
    #[command(flatten)]
    then: Then,
    #[command(flatten)]
    connection: Connection,
}

/// Shows the balance of a team
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  drawdown balance team_01j2gv5gymfsfrn6rc3mq3yjjv\n  drawdown balance team_01j2gv5gymfsfrn6rc3mq3yjjv --recorded-until 2026-03-02T00:00:00Z"
)]
pub(crate) struct BalanceCommand {
    /// The team
    team_id: String,
    /// As of this later instant [default: now]
    #[arg(long, value_name = "INSTANT")]
    at: Option<Timestamp>,
    #[command(flatten)]
    then: Then,
    #[command(flatten)]
    connection: Connection,
}

/// Lists the charges of a team in posting order
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  drawdown charges team_01j2gv5gymfsfrn6rc3mq3yjjv --meter web.call --from 2026-03-01 --to 2026-04-01 --limit 50"
)]
pub(crate) struct ChargesCommand {
    /// The team
    team_id: String,
    /// Refuses the team where it belongs to another account
    #[arg(long, value_name = "ACCOUNT_ID", default_value = "")]
    account: String,
    #[command(flatten)]
    filter: Filter,
    #[command(flatten)]
    pages: Pages,
    #[command(flatten)]
    connection: Connection,
}

/// Lists the journal of a team by sequence
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  drawdown journal team_01j2gv5gymfsfrn6rc3mq3yjjv --after 120 --kind netting"
)]
pub(crate) struct JournalCommand {
    /// The team
    team_id: String,
    /// Refuses the team where it belongs to another account
    #[arg(long, value_name = "ACCOUNT_ID", default_value = "")]
    account: String,
    /// Rows after this sequence
    #[arg(long, value_name = "SEQUENCE", default_value_t = 0)]
    after: i64,
    /// Rows up to this sequence [default: all]
    #[arg(long, value_name = "SEQUENCE", default_value_t = 0, hide_default_value = true)]
    up_to: i64,
    /// Only rows of these kinds
    #[arg(long)]
    kind: Vec<String>,
    /// Only rows of this lot
    #[arg(long, value_name = "LOT_ID", default_value = "")]
    lot: String,
    /// Only rows of this charge
    #[arg(long, value_name = "CHARGE_ID", default_value = "")]
    charge: String,
    /// Only rows posted from this instant on
    #[arg(long, value_name = "INSTANT")]
    posted_from: Option<Timestamp>,
    /// Only rows posted before this instant
    #[arg(long, value_name = "INSTANT")]
    posted_to: Option<Timestamp>,
    #[command(flatten)]
    pages: Pages,
    #[command(flatten)]
    connection: Connection,
}

const LOT: [Column; 10] = [
    text("lot", "lot_id"),
    name("pool", "pool_kind", "POOL_KIND_"),
    name("state", "state", "LOT_STATE_"),
    tokens("granted", "granted_micros"),
    tokens("remaining", "remaining_micros"),
    tokens("used", "consumed_micros"),
    tokens("expired", "expired_micros"),
    text("starts", "starts_at"),
    text("expires", "expires_at"),
    number("days left", "days_left"),
];
const BALANCE: [Column; 15] = [
    text("team", "team_id"),
    tokens("balance", "balance_micros"),
    tokens("available", "available_micros"),
    tokens("of open lots of", "granted_of_open_micros"),
    text("red", "red"),
    tokens("closing", "closing_micros"),
    tokens("scheduled", "scheduled_micros"),
    tokens("held", "held_micros"),
    tokens("uncharged", "uncharged_micros"),
    tokens("used", "used_micros"),
    tokens("purchased", "purchased_micros"),
    tokens("expired", "expired_micros"),
    tokens("void", "void_micros"),
    text("below zero since", "negative_since"),
    text("at", "at"),
];
const CHARGE: [Column; 9] = [
    text("charge", "charge_id"),
    text("window", "window_start"),
    text("app", "app_id"),
    text("meter", "meter"),
    number("events", "events"),
    number("quantity", "quantity"),
    tokens("tokens", "amount_micros"),
    tokens("uncharged", "open_micros"),
    text("posted", "posted_at"),
];
const JOURNAL: [Column; 8] = [
    number("seq", "seq"),
    text("kind", "kind"),
    text("from book", "debit_book"),
    text("to book", "credit_book"),
    tokens("tokens", "amount_micros"),
    text("lot", "lot_id"),
    text("charge", "charge_id"),
    text("effective", "effective_at"),
];

impl From<Pool> for pb::PoolKind {
    fn from(pool: Pool) -> Self {
        match pool {
            Pool::Free => Self::Free,
            Pool::Enterprise => Self::Enterprise,
            Pool::Credit => Self::Credit,
            Pool::Promotional => Self::Promotional,
        }
    }
}

impl TokensCommand {
    pub(crate) async fn run(self) -> Result<()> {
        let session = self.connection.open()?;
        let mut client = token(&session.ledger);
        let answer = match self.action {
            TokensAction::Purchase { tokens, account, team, purchased_at, note, change } => {
                let request_id = change.id();
                let request = PreparePurchaseRequest {
                    account_id: account.clone(),
                    team_id: team,
                    request_id: request_id.clone(),
                    ..PreparePurchaseRequest::default()
                };
                let prepared = accounts(&session.entitlement).prepare_purchase(request).await?.into_inner();
                let request = PurchaseTokensRequest {
                    account_id: account,
                    team_id: prepared.team.unwrap_or_default().team_id,
                    tokens,
                    purchased_at: wire(purchased_at),
                    request_id,
                    note,
                };
                let answer = client.purchase_tokens(request).await?.into_inner();
                json_of("drawdown.ledger.v1.PurchaseTokensResponse", &answer)?
            }
            TokensAction::Grant {
                tokens,
                pool,
                owner,
                starts_at,
                expires_at,
                leaves_older_debts,
                note,
                change,
            } => {
                let request = GrantTokensRequest {
                    leaves_older_debts,
                    account_id: owner.account,
                    team_id: owner.team,
                    micros: tokens.as_micros(),
                    pool_kind: pb::PoolKind::from(pool).into(),
                    starts_at: wire(starts_at),
                    expires_at: wire(Some(expires_at)),
                    note,
                    request_id: change.id(),
                };
                let answer = client.grant_tokens(request).await?.into_inner();
                json_of("drawdown.ledger.v1.GrantTokensResponse", &answer)?
            }
        };
        session.output.record(&answer, "lot", &LOT)
    }
}

impl LotsCommand {
    pub(crate) async fn run(self) -> Result<()> {
        let session = self.connection.open()?;
        let (at, as_of) = (wire(self.at), self.then.wire());
        let request = ListLotsRequest { team_id: self.team_id, at, as_of, ..Default::default() };
        let answer = token(&session.ledger).list_lots(request).await?.into_inner();
        let answer = json_of("drawdown.ledger.v1.ListLotsResponse", &answer)?;
        session.output.table(&answer, "lots", &LOT)?;
        complete(&session, &answer)
    }
}

impl BalanceCommand {
    pub(crate) async fn run(self) -> Result<()> {
        let session = self.connection.open()?;
        let (at, as_of) = (wire(self.at), self.then.wire());
        let request = GetBalanceRequest { team_id: self.team_id, at, as_of, ..Default::default() };
        let answer = token(&session.ledger).get_balance(request).await?.into_inner();
        let answer = json_of("drawdown.ledger.v1.GetBalanceResponse", &answer)?;
        session.output.record(&answer, "balance", &BALANCE)?;
        complete(&session, &answer)
    }
}

impl ChargesCommand {
    pub(crate) async fn run(self) -> Result<()> {
        let session = self.connection.open()?;
        let client = token(&session.ledger);
        let filter = self.filter.wire();
        let answer = self
            .pages
            .collect("drawdown.ledger.v1.ListChargesResponse", "charges", |page_size, page_token| {
                let request = ListChargesRequest {
                    team_id: self.team_id.clone(),
                    page_size,
                    page_token,
                    filter: Some(filter.clone()),
                    account_id: self.account.clone(),
                };
                let mut client = client.clone();
                async move { client.list_charges(request).await }
            })
            .await?;
        session.output.table(&answer, "charges", &CHARGE)?;
        complete(&session, &answer)
    }
}

impl JournalCommand {
    pub(crate) async fn run(self) -> Result<()> {
        let session = self.connection.open()?;
        let client = token(&session.ledger);
        let filter = pb::JournalFilter {
            kinds: self.kind,
            lot_id: self.lot,
            charge_id: self.charge,
            up_to_seq: self.up_to,
            posted_from: wire(self.posted_from),
            posted_to: wire(self.posted_to),
        };
        let answer = self
            .pages
            .collect("drawdown.ledger.v1.ListJournalResponse", "rows", |page_size, page_token| {
                let request = ListJournalRequest {
                    team_id: self.team_id.clone(),
                    after_seq: self.after,
                    page_size,
                    page_token,
                    filter: Some(filter.clone()),
                    account_id: self.account.clone(),
                };
                let mut client = client.clone();
                async move { client.list_journal(request).await }
            })
            .await?;
        session.output.table(&answer, "rows", &JOURNAL)?;
        complete(&session, &answer)
    }
}
