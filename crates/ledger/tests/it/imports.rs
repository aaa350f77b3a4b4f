//! Moving here from another platform (D61): lots with their past, debts in their order, all tied to what the other
//! platform said.

use drawdown_ledger::{
    grpc::Imports,
    verify::{REPLAY, Scope},
};
use drawdown_proto::ledger::v1::{
    Holdings, ImportTeamsRequest, ImportTeamsResponse, ImportedLot, LotState, NoticeKind, PoolKind,
    PriorDebt, TeamImport, import_service_server::ImportService,
};
use drawdown_types::OrderId;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

use crate::{
    corruption::DISARM,
    lots::charge_back,
    world::{Buyer, World, at, calls, calls_at, proto, reason, refusal, request_id},
};

const TOKEN: i64 = 1_000_000;

pub(crate) fn lot(pool: PoolKind, original: i64, left: i64, from: &str, to: &str) -> ImportedLot {
    ImportedLot {
        pool_kind: pool.into(),
        original_micros: original * TOKEN,
        left_micros: left * TOKEN,
        purchased_at: proto(at(from)),
        expires_at: proto(at(to)),
        leaves_older_debts: false,
        note: "from before".to_owned(),
        ..ImportedLot::default()
    }
}

/// A purchase of last September, a third of it left.
fn bought() -> ImportedLot {
    lot(PoolKind::Flex, 120, 40, "2025-09-01T08:00:10Z", "2026-09-01T08:00:10Z")
}

fn debt(tokens: i64, used_at: &str) -> PriorDebt {
    PriorDebt { amount_micros: tokens * TOKEN, used_at: proto(at(used_at)) }
}

/// Available, uncharged, scheduled and closing, in tokens.
pub(crate) fn holdings(available: i64, uncharged: i64, scheduled: i64, closing: i64) -> Option<Holdings> {
    Some(Holdings {
        available_micros: available * TOKEN,
        uncharged_micros: uncharged * TOKEN,
        balance_micros: (available - uncharged) * TOKEN,
        scheduled_micros: scheduled * TOKEN,
        closing_micros: closing * TOKEN,
    })
}

pub(crate) fn team(
    buyer: Buyer,
    lots: Vec<ImportedLot>,
    debts: Vec<PriorDebt>,
    expected: Option<Holdings>,
) -> TeamImport {
    let (account_id, team_id) = (buyer.account.to_string(), buyer.team.to_string());
    TeamImport { account_id, team_id, lots, debts, negative_since: None, expected }
}

pub(crate) fn request(teams: Vec<TeamImport>) -> ImportTeamsRequest {
    let reason = "moved from the old platform".to_owned();
    ImportTeamsRequest { teams, reason, validate_only: false, request_id: request_id() }
}

pub(crate) async fn import(
    world: &World,
    request: &ImportTeamsRequest,
) -> Result<ImportTeamsResponse, Status> {
    let imports = Imports::new(world.ledger.clone());
    imports.import_teams(Request::new(request.clone())).await.map(tonic::Response::into_inner)
}

async fn audited(world: &World) -> i64 {
    let count = "select count(*) from ledger.audit_log where action = 'team.import'";
    sqlx::query_scalar(count).fetch_one(world.database.pool()).await.unwrap()
}

/// Fields of a refusal with what is said of them.
fn said(status: &Status) -> Vec<(String, String)> {
    let details = status.get_error_details();
    let violations = details.bad_request().map(|bad| bad.field_violations.clone()).unwrap_or_default();
    violations.into_iter().map(|violation| (violation.field, violation.description)).collect()
}

#[tokio::test]
async fn lots_arrive_as_far_as_they_are_left_and_keep_their_past() {
    let world = World::new().await;
    world.priced().await;
    let (buyer, producer) = (world.buyer(), world.producer().await);
    let order_id = OrderId::generate().to_string();
    let lots = vec![
        ImportedLot { order_id: order_id.clone(), ..bought() },
        lot(PoolKind::Flex, 100, 60, "2025-09-01T08:00:10Z", "2026-09-01T08:00:10Z"),
        ImportedLot {
            starts_at: proto(at("2026-04-01T00:00:00Z")),
            ..lot(PoolKind::Promotional, 5, 5, "2026-01-01T00:00:00Z", "2026-06-01T00:00:00Z")
        },
        lot(PoolKind::Credit, 50, 7, "2025-03-10T06:00:00Z", "2026-03-10T06:00:00Z"),
    ];
    let wanted = request(vec![team(buyer, lots, vec![], holdings(100, 0, 5, 7))]);
    let answer = import(&world, &wanted).await.unwrap();
    assert!(answer.written);
    let imported = &answer.teams[0];
    let kinds: Vec<_> = imported.rows.iter().map(|row| (row.kind.as_str(), row.amount_micros)).collect();
    let row = |tokens| ("import", tokens * TOKEN);
    assert_eq!(kinds, [row(40), row(60), row(5), row(7)]);
    let states: Vec<_> = imported.lots.iter().map(|lot| (lot.state(), lot.original_micros / TOKEN)).collect();
    let (open, scheduled, closing) = (LotState::Open, LotState::Scheduled, LotState::Closing);
    assert_eq!(states, [(open, 120), (open, 100), (scheduled, 5), (closing, 50)]);
    assert_eq!(imported.lots[0].purchased_at, proto(at("2025-09-01T08:00:10Z")));
    assert_eq!(imported.lots[0].valid_from, proto(at("2025-09-01T08:00:00Z")), "its original window");
    assert_eq!(imported.balance, Some(world.balance(buyer).await));
    assert_eq!(world.lots(buyer).await.len(), 4);
    assert_eq!(audited(&world).await, 1);
    // D4: of equal expiry the smaller original size is drawn first; the closing lot pays late usage of its validity.
    world.settle(producer, vec![calls(buyer, 2), calls_at(buyer, 4, "2026-03-10T05:59:00Z")]).await;
    let lots = world.lots(buyer).await;
    let left = |id: &str| lots.iter().find(|lot| lot.lot_id == id).unwrap().remaining_micros / TOKEN;
    let left: Vec<i64> = imported.lots.iter().map(|lot| left(&lot.lot_id)).collect();
    assert_eq!(left, [40, 59, 5, 5]);
    world.assert_clean().await;
    // The order is known by now.
    let again =
        ImportedLot { order_id, ..lot(PoolKind::Flex, 1, 1, "2026-05-01T00:00:00Z", "2026-06-01T00:00:00Z") };
    let again = ImportedLot { purchased_at: proto(at("2026-03-10T12:00:30Z")), ..again };
    let other = world.buyer();
    let wanted = request(vec![team(other, vec![again], vec![], holdings(1, 0, 0, 0))]);
    assert_eq!(reason(import(&world, &wanted).await), "ORDER_KNOWN");
}

#[tokio::test]
async fn a_debt_keeps_its_place_and_its_clock_and_later_purchases_pay_it_first() {
    let world = World::new().await;
    world.priced().await;
    let (buyer, producer) = (world.buyer(), world.producer().await);
    let debts = vec![debt(30, "2026-02-20T10:00:00Z"), debt(20, "2026-03-01T10:00:30Z")];
    let mut wanted = team(buyer, vec![], debts, holdings(0, 50, 0, 0));
    wanted.negative_since = proto(at("2026-02-20T10:05:00Z"));
    let answer = import(&world, &request(vec![wanted])).await.unwrap();
    let rows: Vec<_> =
        answer.teams[0].rows.iter().map(|row| (row.kind.as_str(), row.debt_to_micros)).collect();
    assert_eq!(rows, [("prior_debt", 30 * TOKEN), ("prior_debt", 50 * TOKEN)]);
    let balance = world.balance(buyer).await;
    assert_eq!((balance.balance_micros, balance.used_micros), (-50 * TOKEN, 50 * TOKEN));
    assert_eq!(balance.negative_since, proto(at("2026-02-20T10:05:00Z")), "the grace clock goes on (D48)");
    // Told once, with the deadline of the original clock: 14 days.
    let told = world.told(None).await;
    let below: Vec<_> = told.iter().filter(|notice| notice.kind() == NoticeKind::BelowZero).collect();
    assert_eq!(below.len(), 1, "{told:?}");
    world.settle(producer, vec![calls(buyer, 20)]).await;
    assert_eq!(world.balance(buyer).await.uncharged_micros, 60 * TOKEN);
    let small = world.grant(buyer, 55 * TOKEN, None, "2026-12-01T00:00:00Z").await.unwrap();
    let charge = world.charges(buyer).await.remove(0);
    assert_eq!(charge.open_micros, 5 * TOKEN, "50 went to the debt from before");
    world.assert_clean().await;
    let lot = world.purchase(buyer, 100, None).await.unwrap();
    assert_eq!(world.balance(buyer).await.balance_micros, 95 * TOKEN);
    let netted: Vec<_> = (world.journal(buyer).await.into_iter())
        .filter(|row| row.kind == "netting")
        .map(|row| (row.lot_id, row.debt_from_micros / TOKEN, row.debt_to_micros / TOKEN))
        .collect();
    assert_eq!(netted, [(small.lot_id, 0, 55), (lot.lot_id, 55, 60)]);
    world.assert_clean().await;
}

#[tokio::test]
async fn d44_a_chargeback_makes_a_debt_from_before_owed_again() {
    let world = World::new().await;
    let buyer = world.buyer();
    let wanted = team(buyer, vec![], vec![debt(30, "2026-02-20T10:00:00Z")], holdings(0, 30, 0, 0));
    import(&world, &request(vec![wanted])).await.unwrap();
    let lot = world.purchase(buyer, 100, None).await.unwrap();
    assert_eq!(world.balance(buyer).await.balance_micros, 70 * TOKEN);
    let (_, owed) = charge_back(&world, &lot, buyer).await.unwrap();
    assert_eq!((owed, world.balance(buyer).await.uncharged_micros), (30 * TOKEN, 30 * TOKEN));
    let back = world.journal(buyer).await.pop().unwrap();
    assert_eq!((back.kind.as_str(), back.charge_id.as_str()), ("chargeback", ""));
    world.assert_clean().await;
}

#[tokio::test]
async fn what_is_available_pays_what_is_owed_so_other_sums_do_not_tie() {
    let world = World::new().await;
    let buyer = world.buyer();
    let debts = || vec![debt(3, "2026-02-20T10:00:00Z"), debt(4, "2026-02-20T10:00:00Z")];
    let wanted = request(vec![team(buyer, vec![bought()], debts(), holdings(40, 0, 0, 0))]);
    let refused = import(&world, &wanted).await.unwrap_err();
    let why = "available would be 33 tokens, expected are 40".to_owned();
    assert_eq!(said(&refused), [("teams[0].expected.available_micros".to_owned(), why)]);
    assert_eq!(refusal(&refused).1, "IMPORT_NOT_TIED");
    assert_eq!((world.journal(buyer).await.len(), audited(&world).await), (0, 0));
    // Nothing is owed any more, so there is nothing since when.
    let mut since = team(buyer, vec![bought()], debts(), holdings(33, 0, 0, 0));
    since.negative_since = proto(at("2026-02-20T10:00:00Z"));
    let refused = import(&world, &request(vec![since])).await.unwrap_err();
    assert_eq!(refusal(&refused).2, ["teams[0].negative_since"]);
    let wanted = request(vec![team(buyer, vec![bought()], debts(), holdings(33, 0, 0, 0))]);
    import(&world, &wanted).await.unwrap();
    let balance = world.balance(buyer).await;
    assert_eq!((balance.available_micros, balance.uncharged_micros), (33 * TOKEN, 0));
    world.assert_clean().await;
}

#[tokio::test]
async fn a_rehearsal_answers_what_would_be_written_and_writes_nothing() {
    let world = World::new().await;
    let buyer = world.buyer();
    let teams =
        vec![team(buyer, vec![bought()], vec![debt(50, "2026-02-20T10:00:00Z")], holdings(0, 10, 0, 0))];
    let real = request(teams);
    let rehearsal = ImportTeamsRequest { validate_only: true, request_id: String::new(), ..real.clone() };
    let told = import(&world, &rehearsal).await.unwrap();
    assert!(!told.written);
    assert_eq!((world.journal(buyer).await.len(), audited(&world).await), (0, 0));
    let done = import(&world, &real).await.unwrap();
    let facts = |answer: &ImportTeamsResponse| -> Vec<_> {
        let rows = answer.teams[0].rows.iter();
        rows.map(|row| (row.seq, row.kind.clone(), row.amount_micros, row.debt_to_micros)).collect()
    };
    assert_eq!(facts(&told), facts(&done));
    assert_eq!(told.teams[0].balance, done.teams[0].balance);
    let kinds: Vec<_> = facts(&done).into_iter().map(|(_, kind, ..)| kind).collect();
    assert_eq!(kinds, ["import", "prior_debt", "netting"]);
}

#[tokio::test]
async fn an_import_that_is_sent_twice_has_one_effect() {
    let world = World::new().await;
    let buyer = world.buyer();
    let wanted = request(vec![team(buyer, vec![bought()], vec![], holdings(40, 0, 0, 0))]);
    let first = import(&world, &wanted).await.unwrap();
    assert_eq!(import(&world, &wanted).await.unwrap(), first);
    assert_eq!((world.lots(buyer).await.len(), audited(&world).await), (1, 1));
    let other = ImportTeamsRequest { reason: "another".to_owned(), ..wanted.clone() };
    assert_eq!(reason(import(&world, &other).await), "REQUEST_ID_CONFLICT");
    // Another id is another import, which does not tie: the team holds 40 already.
    let twice = ImportTeamsRequest { request_id: request_id(), ..wanted };
    assert_eq!(reason(import(&world, &twice).await), "IMPORT_NOT_TIED");
    world.assert_clean().await;
}

#[tokio::test]
async fn instants_whose_usage_is_settled_are_refused() {
    let world = World::new().await;
    world.priced().await;
    let (buyer, producer) = (world.buyer(), world.producer().await);
    world.settle(producer, vec![calls_at(buyer, 2, "2026-03-10T11:00:00Z")]).await;
    let late = lot(PoolKind::Credit, 5, 5, "2026-03-10T11:01:00Z", "2026-06-01T00:00:00Z");
    let debts = vec![debt(1, "2026-03-10T11:00:59Z"), debt(1, "2026-03-10T11:01:00Z")];
    let wanted = request(vec![team(buyer, vec![bought(), late.clone()], debts, holdings(42, 0, 0, 0))]);
    let refused = import(&world, &wanted).await.unwrap_err();
    let fields = ["teams[0].lots[0].purchased_at", "teams[0].debts[0].used_at"].map(str::to_owned).to_vec();
    assert_eq!(refusal(&refused), (Code::FailedPrecondition, "WINDOW_SETTLED".to_owned(), fields));
    // What concerns later windows is taken, and pays the debt that is there.
    let wanted = request(vec![team(buyer, vec![late], vec![], holdings(4, 0, 0, 0))]);
    import(&world, &wanted).await.unwrap();
    assert_eq!(world.charges(buyer).await[0].open_micros, 0);
    world.assert_clean().await;
}

#[tokio::test]
async fn a_lot_that_is_past_its_close_arrives_and_is_forfeited_at_once() {
    let world = World::new().await;
    let buyer = world.buyer();
    let over = lot(PoolKind::Promotional, 9, 6, "2025-03-01T00:00:00Z", "2026-03-01T00:00:00Z");
    let debts = vec![debt(2, "2026-02-20T10:00:00Z")];
    // It was valid when the debt was made, but only an open lot pays debts.
    let wanted = request(vec![team(buyer, vec![over], debts, holdings(0, 2, 0, 0))]);
    let answer = import(&world, &wanted).await.unwrap();
    let kinds: Vec<_> = answer.teams[0].rows.iter().map(|row| row.kind.as_str()).collect();
    assert_eq!(kinds, ["import", "prior_debt", "expiry"]);
    assert_eq!(answer.teams[0].lots[0].state(), LotState::Closed);
    let balance = world.balance(buyer).await;
    assert_eq!((balance.expired_micros, balance.purchased_micros), (6 * TOKEN, 6 * TOKEN));
    world.assert_clean().await;
}

#[tokio::test]
async fn teams_of_several_accounts_arrive_together_or_not_at_all() {
    let world = World::new().await;
    let (one, other) = (world.buyer(), world.buyer());
    let good = || team(one, vec![bought()], vec![], holdings(40, 0, 0, 0));
    let bad = team(other, vec![bought()], vec![], holdings(41, 0, 0, 0));
    let refused = import(&world, &request(vec![good(), bad.clone()])).await.unwrap_err();
    assert_eq!(refusal(&refused).2, ["teams[1].expected.available_micros"]);
    assert_eq!(world.lots(one).await.len(), 0);
    let fixed = TeamImport { expected: holdings(40, 0, 0, 0), ..bad };
    let answer = import(&world, &request(vec![good(), fixed])).await.unwrap();
    let teams: Vec<_> = answer.teams.iter().map(|team| team.team_id.clone()).collect();
    assert_eq!(teams, [one.team.to_string(), other.team.to_string()]);
    assert_eq!(audited(&world).await, 2);
    world.assert_clean().await;
}

#[tokio::test]
async fn every_wrong_field_is_named_at_once() {
    let world = World::new().await;
    let (buyer, other) = (world.buyer(), world.buyer());
    let wrong = ImportedLot { pool_kind: 0, purchased_at: None, ..bought() };
    let ordered = ImportedLot { order_id: OrderId::generate().to_string(), ..bought() };
    let granted = ImportedLot { pool_kind: PoolKind::Free.into(), ..ordered.clone() };
    let expected = Some(Holdings { available_micros: 5, uncharged_micros: 6, ..Holdings::default() });
    let teams = vec![
        team(buyer, vec![wrong, ordered.clone(), ordered, granted], vec![PriorDebt::default()], expected),
        team(buyer, vec![bought()], vec![], None),
        team(buyer, vec![bought()], vec![], holdings(40, 0, 0, 0)),
        team(buyer, vec![bought()], vec![], holdings(40, 0, 0, 0)),
    ];
    let request_id = String::new();
    let wanted = ImportTeamsRequest { teams, reason: String::new(), validate_only: false, request_id };
    let (code, _, fields) = refusal(&import(&world, &wanted).await.unwrap_err());
    let expected = [
        "request_id",
        "reason",
        "teams[0].expected.balance_micros",
        "teams[0].lots[0].pool_kind",
        "teams[0].lots[0].purchased_at",
        "teams[0].lots[2].order_id",
        "teams[0].lots[3].order_id",
        "teams[0].debts[0].used_at",
        "teams[1].expected",
        "teams[2].team_id",
        "teams[3].team_id",
    ];
    assert_eq!((code, fields), (Code::InvalidArgument, expected.map(str::to_owned).to_vec()));
    // What only the team and the instant can tell.
    let lots = vec![
        lot(PoolKind::Credit, 5, 6, "2026-04-01T00:00:00Z", "2026-04-01T00:00:00Z"),
        lot(PoolKind::Credit, 1_000_000_001, 0, "2026-01-01T00:00:00Z", "2026-04-01T00:00:00Z"),
    ];
    let debts = vec![debt(1, "2026-03-11T00:00:00Z"), debt(0, "2026-03-01T00:00:00Z")];
    let mut late = team(buyer, lots, debts, holdings(0, 0, 0, 0));
    late.negative_since = proto(at("2026-03-10T13:00:00Z"));
    let empty = team(other, vec![], vec![], holdings(0, 0, 0, 0));
    let fields = refusal(&import(&world, &request(vec![late, empty])).await.unwrap_err()).2;
    let expected = [
        "teams[0].lots[0].left_micros",
        "teams[0].lots[0].expires_at",
        "teams[0].lots[0].purchased_at",
        "teams[0].lots[1].left_micros",
        "teams[0].lots[1].original_micros",
        "teams[0].debts[0].used_at",
        "teams[0].debts[1].amount_micros",
        "teams[0].debts[1].used_at",
        "teams[0].negative_since",
        "teams[1]",
    ];
    assert_eq!(fields, expected);
    assert_eq!(refusal(&import(&world, &request(vec![])).await.unwrap_err()).2, ["teams"]);
}

#[tokio::test]
async fn d50_who_was_in_a_trial_bought_nothing_then() {
    let world = World::new().await;
    let buyer = world.buyer();
    world.know(buyer, Some(at("2025-08-01T00:00:00Z")), Some(at("2025-10-01T00:00:00Z")));
    let wanted = request(vec![team(buyer, vec![bought()], vec![], holdings(40, 0, 0, 0))]);
    assert_eq!(reason(import(&world, &wanted).await), "TRIAL_ACTIVE");
    let debts = vec![debt(1, "2025-09-30T00:00:00Z")];
    let wanted = request(vec![team(buyer, vec![], debts, holdings(0, 1, 0, 0))]);
    assert_eq!(reason(import(&world, &wanted).await), "TRIAL_ACTIVE");
    let stranger = Buyer { account: world.buyer().account, ..buyer };
    let wanted = request(vec![team(stranger, vec![bought()], vec![], holdings(40, 0, 0, 0))]);
    assert_eq!(reason(import(&world, &wanted).await), "TEAM_NOT_OF_ACCOUNT");
}

#[tokio::test]
async fn damage_to_what_was_imported_is_found() {
    for (sql, seen_by) in [
        (
            "update ledger.journal set amount_micros = amount_micros + 1 where kind = 'import'",
            vec!["balance_is_its_journal", "lot_is_its_journal", REPLAY],
        ),
        (
            "update ledger.journal set amount_micros = amount_micros + 1 where kind = 'prior_debt'",
            vec!["balance_is_its_journal", REPLAY],
        ),
        (
            "update ledger.journal set debt_from_micros = debt_from_micros + 1, debt_to_micros = debt_to_micros + 1 where kind = 'prior_debt'",
            vec!["debts_are_a_queue", REPLAY],
        ),
        // The grace clock is what the rows say.
        ("update ledger.balance set negative_since = negative_since + interval '1 day'", vec![REPLAY]),
        ("update ledger.journal set effective_at = now() where kind = 'prior_debt'", vec![REPLAY]),
    ] {
        let world = World::new().await;
        let buyer = world.buyer();
        let mut wanted =
            team(buyer, vec![bought()], vec![debt(50, "2026-02-20T10:00:00Z")], holdings(0, 10, 0, 0));
        wanted.negative_since = proto(at("2026-02-21T00:00:00Z"));
        import(&world, &request(vec![wanted])).await.unwrap();
        assert!(world.verify(Scope::Full).await.point.is_some());
        world.grant(buyer, TOKEN, None, "2026-12-01T00:00:00Z").await.unwrap();
        assert!(world.verify(Scope::Incremental).await.is_clean());
        sqlx::raw_sql(DISARM).execute(world.database.pool()).await.unwrap();
        sqlx::raw_sql(sql).execute(world.database.pool()).await.unwrap();
        let found: Vec<_> = world.violated().await.into_iter().map(|verdict| verdict.name).collect();
        assert_eq!(found, seen_by, "{sql}");
    }
}
