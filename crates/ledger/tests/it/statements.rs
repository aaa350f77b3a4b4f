//! Statements: tied, issued once, made again byte for byte, with what comes late in the next one.

use drawdown_proto::ledger::v1::{
    GetStatementRequest, IssueStatementsRequest, IssuedStatement, Line, ListStatementsRequest, LotState,
    Statement, StatementBalance, SummarizeUsageRequest, report_service_server::ReportService,
};
use drawdown_types::{AccountId, StatementId, TeamId};
use prost::Message as _;
use tonic::{Code, Request, Status};

use crate::lots::{charge_back, move_lot};
use crate::world::{Buyer, World, at, calls, calls_at, proto, reason, refusal, request_id};

pub(crate) const TENTH: (&str, &str) = ("2026-03-10T00:00:00Z", "2026-03-11T00:00:00Z");
const ELEVENTH: (&str, &str) = ("2026-03-11T00:00:00Z", "2026-03-12T00:00:00Z");

pub(crate) fn asked(buyer: Buyer, (from, to): (&str, &str)) -> IssueStatementsRequest {
    IssueStatementsRequest {
        account_id: buyer.account.to_string(),
        team_id: buyer.team.to_string(),
        from: proto(at(from)),
        to: proto(at(to)),
        request_id: request_id(),
    }
}

pub(crate) async fn issue(
    world: &World,
    request: IssueStatementsRequest,
) -> Result<Vec<IssuedStatement>, Status> {
    Ok(world.reports.issue_statements(Request::new(request)).await?.into_inner().statements)
}

async fn issued(world: &World, buyer: Buyer, period: (&str, &str)) -> Statement {
    let statement = issue(world, asked(buyer, period)).await.unwrap().remove(0).statement.unwrap();
    assert_tied(&statement);
    statement
}

async fn again(world: &World, account: AccountId, statement: &str) -> Result<IssuedStatement, Status> {
    let request = GetStatementRequest { account_id: account.to_string(), statement_id: statement.to_owned() };
    Ok(world.reports.get_statement(Request::new(request)).await?.into_inner().statement.unwrap())
}

/// What a reader with a pocket calculator finds: opening + movements = closing, and lots = books.
fn assert_tied(statement: &Statement) {
    let (opening, closing) = (statement.opening.unwrap(), statement.closing.unwrap());
    let books = |balance: &StatementBalance| {
        let lots = balance.available_micros + balance.scheduled_micros + balance.closing_micros;
        [
            ("issued", -balance.issued_micros),
            ("lot", lots),
            ("held", balance.held_micros),
            ("consumed", balance.used_micros),
            ("expired", balance.expired_micros),
            ("uncharged", -balance.uncharged_micros),
            ("void", balance.void_micros),
            ("moved", balance.moved_micros),
        ]
    };
    for ((book, before), (_, after)) in books(&opening).into_iter().zip(books(&closing)) {
        let side = |name: &str| i64::from(name == book);
        let moved: i64 = statement
            .movements
            .iter()
            .map(|movement| {
                (side(&movement.credit_book) - side(&movement.debit_book)) * movement.amount_micros
            })
            .sum();
        assert_eq!(before + moved, after, "{book} in {statement:?}");
    }
    for balance in [opening, closing] {
        assert_eq!(books(&balance).iter().map(|(_, sum)| sum).sum::<i64>(), 0);
        assert_eq!(balance.balance_micros, balance.available_micros - balance.uncharged_micros);
    }
    for lot in &statement.lots {
        for sums in [lot.opening.unwrap(), lot.closing.unwrap()] {
            let parts = [sums.remaining_micros, sums.held_micros, sums.used_micros, sums.expired_micros];
            assert_eq!(
                sums.received_micros,
                parts.iter().sum::<i64>() + sums.void_micros + sums.moved_micros
            );
        }
    }
    let rows: i64 = statement.movements.iter().map(|movement| movement.rows).sum();
    assert_eq!(rows, statement.closing_seq - statement.opening_seq);
}

fn moved(statement: &Statement) -> Vec<(String, bool, i64, i64)> {
    let movement = statement.movements.iter();
    movement.map(|m| (m.kind.clone(), m.earlier, m.rows, m.amount_micros)).collect()
}

fn line(kind: &str, earlier: bool, rows: i64, micros: i64) -> (String, bool, i64, i64) {
    (kind.to_owned(), earlier, rows, micros)
}

#[tokio::test]
async fn d54_opening_and_movements_give_the_closing_and_late_rows_come_in_the_next() {
    let world = World::new().await;
    world.priced().await;
    let (buyer, producer) = (world.buyer(), world.producer().await);
    world.purchase(buyer, 100, None).await.unwrap();
    world.grant(buyer, 5_000_000, None, "2026-03-10T20:00:00Z").await.unwrap();
    world.settle(producer, vec![calls(buyer, 6)]).await;
    world.clock.set(at("2026-03-11T00:00:00Z"));
    let first = issued(&world, buyer, TENTH).await;
    assert_eq!((first.opening_seq, first.closing_seq), (0, 3));
    assert_eq!(first.opening, Some(StatementBalance::default()));
    let expected = [
        line("purchase", false, 1, 100_000_000),
        line("grant", false, 1, 5_000_000),
        line("charge", false, 1, 3_000_000),
    ];
    assert_eq!(moved(&first), expected);
    let closing = first.closing.unwrap();
    // The grant has expired; until it closes a day later its rest still pays for what comes late.
    assert_eq!((closing.available_micros, closing.closing_micros), (100_000_000, 2_000_000));
    assert_eq!((closing.used_micros, closing.expired_micros), (3_000_000, 0));
    let states: Vec<_> = first.lots.iter().map(|lot| (lot.opening_state(), lot.closing_state())).collect();
    assert_eq!(states, [(LotState::Scheduled, LotState::Closing), (LotState::Scheduled, LotState::Open)]);
    assert_eq!(first.first_window_start, proto(at("2026-03-10T12:00:00Z")));
    assert_eq!(first.last_window_end, proto(at("2026-03-10T12:01:00Z")));
    let watermarks: Vec<_> = first.watermarks.iter().map(|mark| (mark.shard, mark.batch)).collect();
    assert_eq!(watermarks, [(crate::world::SHARD, 1)]);

    // Late usage of the tenth, usage of the eleventh, and the close of the grant.
    world.clock.set(at("2026-03-11T00:10:30Z"));
    world.settle(producer, vec![calls_at(buyer, 1, "2026-03-10T19:59:00Z")]).await;
    world.settle(producer, vec![calls_at(buyer, 2, "2026-03-11T00:10:00Z")]).await;
    world.clock.set(at("2026-03-12T06:00:00Z"));
    let second = issued(&world, buyer, ELEVENTH).await;
    assert_eq!(second.opening, first.closing);
    assert_eq!((second.opening_seq, second.closing_seq), (3, 6));
    let expected = [
        line("charge", false, 1, 1_000_000),
        line("charge", true, 1, 500_000),
        line("expiry", true, 1, 1_500_000),
    ];
    assert_eq!(moved(&second), expected);
    let closing = second.closing.unwrap();
    assert_eq!(
        (closing.available_micros, closing.closing_micros, closing.expired_micros),
        (99_000_000, 0, 1_500_000)
    );
    assert_eq!(second.first_window_start, proto(at("2026-03-10T19:59:00Z")));
    assert_eq!(second.watermarks[0].batch, 3);
    world.assert_clean().await;
}

#[tokio::test]
async fn d54_a_statement_is_made_again_byte_for_byte_whatever_was_posted_since() {
    let world = World::new().await;
    world.priced().await;
    let (buyer, producer) = (world.buyer(), world.producer().await);
    world.grant(buyer, 4_000_000, None, "2026-03-10T20:00:00Z").await.unwrap();
    world.settle(producer, vec![calls(buyer, 50)]).await;
    world.clock.set(at("2026-03-11T00:00:00Z"));
    let first = issue(&world, asked(buyer, TENTH)).await.unwrap().remove(0);
    let bytes = first.statement.as_ref().unwrap().encode_to_vec();
    let id = first.statement.as_ref().unwrap().statement_id.clone();
    // A lot that pays debts, late usage, a lot that closes, and the next statement.
    world.purchase(buyer, 100, None).await.unwrap();
    world.clock.set(at("2026-03-12T00:00:00Z"));
    world
        .settle(
            producer,
            vec![calls_at(buyer, 7, "2026-03-10T12:30:00Z"), calls_at(buyer, 7, "2026-03-11T10:00:00Z")],
        )
        .await;
    let second = issued(&world, buyer, ELEVENTH).await;
    world.settle(producer, vec![calls_at(buyer, 3, "2026-03-11T23:00:00Z")]).await;
    assert_eq!(again(&world, buyer.account, &id).await.unwrap().statement.unwrap().encode_to_vec(), bytes);
    // The period has one statement, under whatever request.
    assert_eq!(issue(&world, asked(buyer, TENTH)).await.unwrap(), [first]);
    // Where a statement begins to add up is of no matter: without the first the second is the same.
    let sql = format!(
        "alter table ledger.statement disable trigger all;
         delete from ledger.statement where closing_seq = {}",
        second.opening_seq
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(world.database.pool()).await.unwrap();
    assert_eq!(reason(again(&world, buyer.account, &id).await), "STATEMENT_UNKNOWN");
    let remade = again(&world, buyer.account, &second.statement_id).await.unwrap();
    assert_eq!(remade.statement, Some(second));
    world.assert_clean().await;
}

#[tokio::test]
async fn a_changed_row_is_found_and_never_stated() {
    let world = World::new().await;
    world.priced().await;
    let (buyer, producer) = (world.buyer(), world.producer().await);
    world.purchase(buyer, 100, None).await.unwrap();
    world.settle(producer, vec![calls(buyer, 4)]).await;
    world.clock.set(at("2026-03-12T00:00:00Z"));
    let first = issued(&world, buyer, TENTH).await;
    let sql = "alter table ledger.charge disable trigger all;
               update ledger.charge set amount_micros = amount_micros + 1 where lot_id is not null";
    sqlx::raw_sql(sql).execute(world.database.pool()).await.unwrap();
    assert_eq!(reason(again(&world, buyer.account, &first.statement_id).await), "INTERNAL");
    assert_eq!(reason(issue(&world, asked(buyer, (TENTH.0, ELEVENTH.1))).await), "INTERNAL");
    // From the end of the first statement on everything is as it was.
    assert_eq!(issued(&world, buyer, ELEVENTH).await.opening, first.closing);
}

#[tokio::test]
async fn statements_follow_each_other_without_a_gap() {
    let world = World::new().await;
    world.priced().await;
    let (buyer, producer) = (world.buyer(), world.producer().await);
    let mut last: Option<Statement> = None;
    for day in 10..22_u64 {
        let window = format!("2026-03-{day}T12:00:00Z");
        world.clock.set(at(&format!("2026-03-{day}T12:00:30Z")));
        let late = format!("2026-03-{:02}T13:00:00Z", day - 1);
        let mut lines: Vec<Line> = vec![calls_at(buyer, 1 + day * 7 % 5, &window)];
        if day % 2 == 0 {
            lines.push(calls_at(buyer, 3, &late));
        }
        world.settle(producer, lines).await;
        if day % 3 == 0 {
            let expiry = format!("2026-03-{}T12:30:00Z", day + day % 2);
            world.grant(buyer, 3_400_000, None, &expiry).await.unwrap();
        }
        world.clock.set(at(&format!("2026-03-{}T00:00:00Z", day + 1)));
        let period = (format!("2026-03-{day}T00:00:00Z"), format!("2026-03-{}T00:00:00Z", day + 1));
        let statement = issued(&world, buyer, (&period.0, &period.1)).await;
        if let Some(last) = last {
            assert_eq!((statement.opening, statement.opening_seq), (last.closing, last.closing_seq));
        }
        last = Some(statement);
    }
    let whole = issued(&world, buyer, ("2026-03-10T00:00:00Z", "2026-03-22T00:00:00Z")).await;
    assert_eq!(whole.closing, last.unwrap().closing);
    assert_eq!(whole.closing_seq, world.balance(buyer).await.version);
    assert!(moved(&whole).iter().any(|(kind, ..)| kind == "netting"));
    world.assert_clean().await;
}

#[tokio::test]
async fn d40_nothing_is_posted_into_a_period_that_was_stated() {
    let world = World::new().await;
    world.priced().await;
    let (buyer, producer) = (world.buyer(), world.producer().await);
    world.grant(buyer, 4_000_000, None, "2026-03-10T12:10:00Z").await.unwrap();
    world.clock.set(at("2026-03-11T12:11:00Z"));
    let period = ("2026-03-10T00:00:00Z", "2026-03-11T12:11:00Z");
    let first = issued(&world, buyer, period).await;
    // The lot may close at 12:10 of the eleventh, once everything received by then is settled: not yet.
    assert_eq!(first.closing.unwrap().closing_micros, 4_000_000);
    // Another machine's clock is behind.
    world.clock.set(at("2026-03-11T12:01:00Z"));
    world.settle(producer, vec![calls(buyer, 1)]).await;
    world.purchase(buyer, 100, None).await.unwrap();
    world.clock.set(at("2026-03-11T12:30:00Z"));
    let second = issued(&world, buyer, (period.1, "2026-03-11T12:30:00Z")).await;
    assert_eq!((second.opening, second.opening_seq), (first.closing, first.closing_seq));
    assert_eq!(second.closing_seq, world.balance(buyer).await.version);
    assert_eq!(second.closing.unwrap().expired_micros, 3_500_000);
    world.assert_clean().await;
}

#[tokio::test]
async fn an_account_gets_a_statement_for_each_team() {
    let world = World::new().await;
    world.priced().await;
    let (one, producer) = (world.buyer(), world.producer().await);
    let two = Buyer { account: one.account, ..world.buyer() };
    world.know(two, None, None);
    let stranger = world.buyer();
    for buyer in [one, two, stranger] {
        world.purchase(buyer, 100, None).await.unwrap();
    }
    world.settle(producer, vec![calls(two, 4)]).await;
    world.clock.set(at("2026-03-12T00:00:00Z"));
    let request = IssueStatementsRequest { team_id: String::new(), ..asked(one, TENTH) };
    let statements = issue(&world, request.clone()).await.unwrap();
    let teams: Vec<_> = statements.iter().map(|issued| issued.statement.clone().unwrap().team_id).collect();
    assert_eq!(teams, [one.team.to_string(), two.team.to_string()]);
    assert_eq!(issue(&world, request.clone()).await.unwrap(), statements);
    let other =
        IssueStatementsRequest { to: request.from, from: proto(at("2026-03-09T00:00:00Z")), ..request };
    assert_eq!(reason(issue(&world, other).await), "REQUEST_ID_CONFLICT");
    issued(&world, one, ELEVENTH).await;
    let list = |team: &str, page_token: &str| ListStatementsRequest {
        account_id: one.account.to_string(),
        team_id: team.to_owned(),
        page_size: 2,
        page_token: page_token.to_owned(),
    };
    let page = |request| async {
        Ok::<_, Status>(world.reports.list_statements(Request::new(request)).await?.into_inner())
    };
    let first = page(list("", "")).await.unwrap();
    let second = page(list("", &first.next_page_token)).await.unwrap();
    let heads: Vec<_> = first.statements.iter().chain(&second.statements).collect();
    let expected = [(one, TENTH), (one, ELEVENTH), (two, TENTH)];
    assert_eq!(heads.len(), expected.len());
    for (head, (buyer, (from, _))) in heads.into_iter().zip(expected) {
        assert_eq!((&head.team_id, head.from), (&buyer.team.to_string(), proto(at(from))));
    }
    assert_eq!(second.next_page_token, "");
    let team = one.team.to_string();
    assert_eq!(page(list(&team, "")).await.unwrap().statements.len(), 2);
    assert_eq!(reason(page(list(&team, &first.next_page_token)).await), "PAGE_TOKEN_INVALID");
    assert_eq!(reason(page(list(&stranger.team.to_string(), "")).await), "TEAM_UNKNOWN");
}

#[tokio::test]
async fn what_can_not_be_stated_is_refused() {
    let world = World::new().await;
    let (buyer, other) = (world.buyer(), world.buyer());
    world.purchase(buyer, 100, None).await.unwrap();
    let cases = [
        (asked(buyer, (TENTH.1, TENTH.0)), Code::InvalidArgument, "REQUEST_INVALID", "to"),
        (asked(buyer, (TENTH.0, TENTH.0)), Code::InvalidArgument, "REQUEST_INVALID", "to"),
        (asked(buyer, TENTH), Code::FailedPrecondition, "PERIOD_NOT_OVER", "to"),
        (
            asked(Buyer { account: other.account, ..buyer }, ("2026-03-09T00:00:00Z", TENTH.0)),
            Code::NotFound,
            "TEAM_UNKNOWN",
            "team_id",
        ),
        (
            asked(Buyer { team: TeamId::generate(), ..buyer }, ("2026-03-09T00:00:00Z", TENTH.0)),
            Code::NotFound,
            "TEAM_UNKNOWN",
            "team_id",
        ),
    ];
    for (request, code, reason, field) in cases {
        let status = issue(&world, request).await.unwrap_err();
        assert_eq!(refusal(&status), (code, reason.to_owned(), vec![field.to_owned()]));
    }
    let request = IssueStatementsRequest::default();
    let (_, _, fields) = refusal(&issue(&world, request).await.unwrap_err());
    assert_eq!(fields, ["request_id", "account_id", "from", "to"]);
    let first = issued(&world, buyer, ("2026-03-09T00:00:00Z", TENTH.0)).await;
    assert_eq!(first.opening, first.closing);
    assert_eq!(reason(again(&world, other.account, &first.statement_id).await), "STATEMENT_UNKNOWN");
    let unknown = StatementId::generate().to_string();
    assert_eq!(reason(again(&world, buyer.account, &unknown).await), "STATEMENT_UNKNOWN");
    // A team that nothing was ever posted to has a statement of nothing.
    let nothing = issued(&world, other, ("2026-03-09T00:00:00Z", TENTH.0)).await;
    assert_eq!((nothing.closing_seq, nothing.lots.len()), (0, 0));
}

#[tokio::test]
async fn d44_d46_moved_lots_and_chargebacks_tie_and_what_is_owed_again_is_open() {
    let world = World::new().await;
    world.priced().await;
    let (left, producer) = (world.buyer(), world.producer().await);
    let right = world.sibling(left);
    let lot = world.purchase(left, 100, None).await.unwrap();
    world.settle(producer, vec![calls(left, 20), calls(right, 30), calls(left, 4)]).await;
    move_lot(&world, &lot, left, right).await.unwrap();
    world.settle(producer, vec![calls(right, 10)]).await;
    world.grant(left, 3_000_000, None, "2026-04-01T00:00:00Z").await.unwrap();
    world.clock.set(at("2026-03-11T06:00:00Z"));
    charge_back(&world, &lot, left).await.unwrap();
    world.clock.set(at("2026-03-12T00:00:00Z"));
    for buyer in [left, right] {
        let (first, second) = (issued(&world, buyer, TENTH).await, issued(&world, buyer, ELEVENTH).await);
        assert_eq!(second.opening, first.closing);
        let owed = world.balance(buyer).await.uncharged_micros;
        assert_eq!(second.closing.unwrap().uncharged_micros, owed);
        assert!(owed > 0 && moved(&second).iter().any(|(kind, ..)| kind == "chargeback"));
        let charges = world.charges(buyer).await;
        assert_eq!(charges.iter().map(|charge| charge.open_micros).sum::<i64>(), owed);
        let request = SummarizeUsageRequest {
            account_id: buyer.account.to_string(),
            team_id: buyer.team.to_string(),
            ..SummarizeUsageRequest::default()
        };
        let answer = world.reports.summarize_usage(Request::new(request)).await.unwrap().into_inner();
        assert_eq!(answer.totals.unwrap().open_micros, owed);
    }
    world.assert_clean().await;
}
