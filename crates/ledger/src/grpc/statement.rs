//! Statements on the wire: their form is what is digested, so it changes only with a new format.

use drawdown_ledger_core::{Book, LotStatement, LotSums, MovementSum, StatementBalance};
use drawdown_proto::{ledger::v1, scalar::timestamp_to_proto};
use drawdown_service::page;
use drawdown_types::{AccountId, TeamId, Timestamp};
use prost::Message as _;
use sha2::{Digest as _, Sha256};

use super::{
    decode_report,
    encode::{lot_state, pool_kind, unsigned},
};
use crate::{
    error::Error,
    reports::{Made, Period, Scope},
    service::{Ledger, Once},
    store::{
        idempotency::RequestKey,
        statements::{self, Issued},
    },
};

/// What of an issue or a question comes first in a list.
type Place = (TeamId, Timestamp, Timestamp);

pub(super) async fn issue(
    ledger: &Ledger,
    request: &v1::IssueStatementsRequest,
) -> Result<v1::IssueStatementsResponse, Error> {
    let (whose, period) = decode_report::issue(request)?;
    let key = RequestKey::new("IssueStatements", &request.request_id, &request.encode_to_vec());
    let key = match ledger.once(key).await? {
        Once::Answered(response) => return Ok(response),
        Once::New(key) => key,
    };
    let mut statements = Vec::new();
    for team in ledger.statement_teams(whose).await? {
        statements.push(issue_one(ledger, whose.account_id, team, period).await?);
    }
    let response = v1::IssueStatementsResponse { statements };
    ledger.commit_once(ledger.begin().await?, key, response, ledger.clock.now()).await
}

/// The statement of a team's period: the one that was issued, or a new one.
async fn issue_one(
    ledger: &Ledger,
    account: AccountId,
    team: TeamId,
    period: Period,
) -> Result<v1::IssuedStatement, Error> {
    if let Some(issued) =
        statements::of_period(&mut *ledger.pool.read_of(Some(account)).await?, (account, team), period)
            .await?
    {
        return again(ledger, issued).await;
    }
    let made = ledger.draft_statement(account, team, period).await?;
    let statement = form(ledger, &made);
    let digest = digest(&statement);
    if ledger.keep_statement(&made, digest.clone()).await? {
        return Ok(v1::IssuedStatement { statement: Some(statement), digest });
    }
    match statements::of_period(&mut *ledger.pool.read_of(Some(account)).await?, (account, team), period)
        .await?
    {
        Some(issued) => again(ledger, issued).await,
        None => Err(Error::Broken("a statement was kept and is not there".to_owned())),
    }
}

pub(super) async fn get(
    ledger: &Ledger,
    request: &v1::GetStatementRequest,
) -> Result<v1::GetStatementResponse, Error> {
    let (account, statement) = decode_report::statement(request)?;
    let issued = ledger.issued_statement(account, statement).await?;
    Ok(v1::GetStatementResponse { statement: Some(again(ledger, issued).await?) })
}

/// Makes an issued statement again; it is the same, or something is wrong with the ledger.
async fn again(ledger: &Ledger, issued: Issued) -> Result<v1::IssuedStatement, Error> {
    let made = ledger.remake_statement(issued.issue).await?;
    let statement = form(ledger, &made);
    let digest = digest(&statement);
    if digest == issued.digest {
        return Ok(v1::IssuedStatement { statement: Some(statement), digest });
    }
    let name = made.issue.statement_id;
    Err(Error::Broken(format!("{name} can not be made again: its rows or lots are not what they were")))
}

pub(super) async fn list(
    ledger: &Ledger,
    request: &v1::ListStatementsRequest,
    rows: i64,
) -> Result<v1::ListStatementsResponse, Error> {
    let Scope { account_id, team_id } = decode_report::statements(request)?;
    if let Some(team) = team_id {
        ledger.check_team_of(team, account_id).await?;
    }
    let list = format!("statements/{account_id}/{}", request.team_id);
    let after: Option<Place> = page::decode(&list, &request.page_token)?;
    let found = statements::list(
        &mut *ledger.pool.read_of(Some(account_id)).await?,
        account_id,
        team_id,
        after,
        rows,
    )
    .await?;
    let full = i64::try_from(found.len()).unwrap_or(i64::MAX) >= rows;
    let last = found.last().filter(|_| full);
    let next = last.map(|last| (last.issue.team_id, last.issue.from, last.issue.to));
    Ok(v1::ListStatementsResponse {
        statements: found.iter().map(head).collect(),
        next_page_token: next.map(|next| page::encode(&list, &next)).unwrap_or_default(),
    })
}

fn head(issued: &Issued) -> v1::StatementHead {
    let issue = &issued.issue;
    v1::StatementHead {
        statement_id: issue.statement_id.to_string(),
        team_id: issue.team_id.to_string(),
        from: Some(timestamp_to_proto(issue.from)),
        to: Some(timestamp_to_proto(issue.to)),
        issued_at: Some(timestamp_to_proto(issue.issued_at)),
    }
}

fn digest(statement: &v1::Statement) -> Vec<u8> {
    Sha256::digest(statement.encode_to_vec()).to_vec()
}

/// Format 1.
fn form(ledger: &Ledger, made: &Made) -> v1::Statement {
    let Made { issue, statement, windows, .. } = made;
    let size = ledger.settings.window_size;
    let last_window = windows.and_then(|(_, last)| size.starting_at(last));
    let watermark = |&(shard, batch): &(i32, i64)| v1::ShardWatermark {
        shard: u32::try_from(shard).unwrap_or_default(),
        batch: unsigned(batch),
    };
    v1::Statement {
        statement_id: issue.statement_id.to_string(),
        account_id: issue.account_id.to_string(),
        team_id: issue.team_id.to_string(),
        from: Some(timestamp_to_proto(issue.from)),
        to: Some(timestamp_to_proto(issue.to)),
        issued_at: Some(timestamp_to_proto(issue.issued_at)),
        format: u32::try_from(issue.format).unwrap_or_default(),
        opening_seq: issue.opening_seq,
        closing_seq: issue.closing_seq,
        first_window_start: windows.map(|(first, _)| timestamp_to_proto(first)),
        last_window_end: last_window.map(|window| timestamp_to_proto(window.end(size))),
        watermarks: issue.watermarks.0.iter().map(watermark).collect(),
        opening: Some(balance(&statement.opening)),
        movements: statement.movements.iter().map(movement).collect(),
        closing: Some(balance(&statement.closing)),
        lots: statement.lots.iter().map(lot).collect(),
    }
}

fn balance(balance: &StatementBalance) -> v1::StatementBalance {
    let book = |book| balance.books.get(book).as_micros();
    v1::StatementBalance {
        balance_micros: balance.balance.as_micros(),
        available_micros: balance.available.as_micros(),
        scheduled_micros: balance.scheduled.as_micros(),
        closing_micros: balance.closing.as_micros(),
        held_micros: book(Book::Held),
        uncharged_micros: balance.uncharged.as_micros(),
        used_micros: book(Book::Consumed),
        issued_micros: book(Book::Issued).saturating_neg(),
        expired_micros: book(Book::Expired),
        void_micros: book(Book::Void),
        moved_micros: book(Book::Moved),
    }
}

fn movement(sum: &MovementSum) -> v1::Movement {
    v1::Movement {
        kind: sum.kind.as_str().to_owned(),
        debit_book: sum.debit.as_str().to_owned(),
        credit_book: sum.credit.as_str().to_owned(),
        earlier: sum.earlier,
        rows: sum.rows,
        amount_micros: sum.amount.as_micros(),
    }
}

fn lot(line: &LotStatement) -> v1::LotStatement {
    let lot = &line.lot;
    v1::LotStatement {
        lot_id: lot.lot_id.to_string(),
        pool_kind: pool_kind(lot.pool_kind).into(),
        purchased_at: Some(timestamp_to_proto(lot.purchased_at)),
        starts_at: Some(timestamp_to_proto(lot.starts_at)),
        expires_at: Some(timestamp_to_proto(lot.expires_at)),
        opening_state: lot_state(line.opening_state).into(),
        opening: Some(sums(&line.opening)),
        closing_state: lot_state(line.closing_state).into(),
        closing: Some(sums(&line.closing)),
    }
}

const fn sums(sums: &LotSums) -> v1::LotSums {
    v1::LotSums {
        received_micros: sums.received.as_micros(),
        remaining_micros: sums.remaining.as_micros(),
        held_micros: sums.held.as_micros(),
        used_micros: sums.used.as_micros(),
        expired_micros: sums.expired.as_micros(),
        void_micros: sums.void.as_micros(),
        moved_micros: sums.moved.as_micros(),
    }
}
