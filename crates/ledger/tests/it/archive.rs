//! Months that leave: refused while anything needs them, written to files, checked, put back.

use drawdown_ledger::{
    archive::{self, Month},
    verify::Scope,
};
use drawdown_proto::ledger::v1::{
    ChargeFilter, ExportFormat, IssueStatementsRequest, ListChargesRequest, ListJournalRequest, PriceDraft,
    SummarizeUsageResponse, UsageKey, VerifyLedgerRequest, price_month_request as month_request,
    report_service_server::ReportService, token_service_server::TokenService,
};
use tonic::{Request, Status};

use crate::{
    earlier::as_of,
    explain::explain,
    export::{asked, days as days_of_march, reason_of_export},
    lots::charge_back,
    reports::{summarize, summary},
    what_if,
    world::{Buyer, World, at, calls, calls_at, price, proto, reason, request_id},
};

const KEEP: u32 = 4;

pub(crate) fn march() -> Month {
    "2026-03".parse().unwrap()
}

async fn statement(world: &World, buyer: Buyer, from: &str, to: &str) -> Result<(), Status> {
    let request = IssueStatementsRequest {
        account_id: buyer.account.to_string(),
        team_id: buyer.team.to_string(),
        from: proto(at(from)),
        to: proto(at(to)),
        request_id: request_id(),
    };
    world.reports.issue_statements(Request::new(request)).await.map(drop)
}

async fn needs(world: &World, month: Month, keep: u32) -> Vec<String> {
    let now = drawdown_types::Clock::now(&*world.clock);
    archive::needs(world.database.pool(), month, now, keep).await.unwrap()
}

pub(crate) async fn detach(world: &World, month: Month) -> anyhow::Result<()> {
    archive::detach(world.database.pool(), month, drawdown_types::Clock::now(&*world.clock), KEEP).await
}

async fn state(world: &World, month: &str) -> String {
    let listed = archive::list(world.database.pool()).await.unwrap();
    listed.into_iter().find(|listed| listed.month == month).map(|listed| listed.state).unwrap()
}

async fn days(world: &World, buyer: Buyer) -> SummarizeUsageResponse {
    let keys = [UsageKey::Day, UsageKey::Meter, UsageKey::App];
    let mut answer = summary(world, summarize(buyer, ChargeFilter::default(), &keys)).await.unwrap();
    answer.completeness = None;
    answer
}

/// Usage in March, April, June and August, paid from short lots and once owed; nothing else is done about it.
async fn months(world: &World) -> Buyer {
    world.priced().await;
    let (buyer, producer) = (world.buyer(), world.producer().await);
    world.grant(buyer, 4_000_000, None, "2026-03-20T00:00:00Z").await.unwrap();
    world.settle(producer, vec![calls(buyer, 3), calls(buyer, 2)]).await;
    world.settle(producer, vec![calls(buyer, 9)]).await;
    for month in ["04", "06", "08"] {
        world.clock.set(at(&format!("2026-{month}-10T10:00:30Z")));
        world.months.look().await.unwrap();
        world.settle(producer, vec![calls_at(buyer, 1, &format!("2026-{month}-10T10:00:00Z"))]).await;
    }
    buyer
}

#[tokio::test]
async fn a_month_stays_while_anything_needs_it() {
    let world = World::new().await;
    let buyer = months(&world).await;
    // Whoever is first in the list of reasons is dealt with, until nothing is left.
    let has = async |what: &str| {
        let needs = needs(&world, march(), KEEP).await;
        assert!(needs.iter().any(|need| need.contains(what)), "{what}: {needs:?}");
        assert!(detach(&world, march()).await.is_err());
    };
    has("owes for usage of it").await;
    has("are not rolled up").await;
    has("no clean verification").await;
    has("no statement").await;
    let april: Month = "2026-04".parse().unwrap();
    assert_eq!(needs(&world, april, KEEP).await[0], "2026_03 is older, and months go in order");
    assert_eq!(needs(&world, march(), 6).await[0], "it is one of the last 6 months");
    assert_eq!(needs(&world, "2025-12".parse().unwrap(), KEEP).await, ["there is no such month"]);
    let now = drawdown_types::Clock::now(&*world.clock);
    assert!(archive::needs(world.database.pool(), march(), now, 3).await.is_err());
    // Paying the debt brings a lot that is open and of now; a lot of then that is open is one more reason.
    world.grant(buyer, 90_000_000, None, "2026-09-01T00:00:00Z").await.unwrap();
    let owed = needs(&world, march(), KEEP).await;
    assert!(!owed.iter().any(|need| need.contains("owes")), "{owed:?}");
    world.compact.up_to(at("2026-08-01T00:00:00Z")).await.unwrap();
    assert!(world.verify(Scope::Full).await.is_clean());
    has("no statement").await;
    statement(&world, buyer, "2026-03-01T00:00:00Z", "2026-04-01T00:00:00Z").await.unwrap();
    assert_eq!(needs(&world, march(), KEEP).await, Vec::<String>::new());
    detach(&world, march()).await.unwrap();
    assert_eq!(state(&world, "2026-03").await, "detached");
    assert_eq!(state(&world, "2026-04").await, "attached");
}

#[tokio::test]
async fn a_lot_that_is_open_keeps_the_months_it_paid_in() {
    let world = World::new().await;
    world.priced().await;
    let (buyer, producer) = (world.buyer(), world.producer().await);
    let lot = world.purchase(buyer, 100, None).await.unwrap();
    world.settle(producer, vec![calls(buyer, 3)]).await;
    world.clock.set(at("2026-08-10T10:00:30Z"));
    world.months.look().await.unwrap();
    let open = needs(&world, march(), KEEP).await;
    let lot = drawdown_types::LotId::as_uuid(lot.lot_id.parse().unwrap());
    assert!(
        open.contains(&format!("lot {lot} of team {} is open and has rows in it", buyer.team.as_uuid())),
        "{open:?}"
    );
}

/// A team whose March can go.
pub(crate) async fn ready(world: &World) -> Buyer {
    let buyer = months(world).await;
    world.grant(buyer, 90_000_000, None, "2026-09-01T00:00:00Z").await.unwrap();
    world.compact.up_to(at("2026-08-01T00:00:00Z")).await.unwrap();
    statement(world, buyer, "2026-03-01T00:00:00Z", "2026-04-01T00:00:00Z").await.unwrap();
    assert!(world.verify(Scope::Full).await.is_clean());
    buyer
}

#[tokio::test]
async fn sums_go_on_without_the_month_and_what_needs_its_rows_is_refused() {
    let world = World::new().await;
    let buyer = ready(&world).await;
    let (before, journal) = (days(&world, buyer).await, world.journal(buyer).await);
    detach(&world, march()).await.unwrap();
    assert_eq!(days(&world, buyer).await, before);
    let charges = |filter: ChargeFilter| ListChargesRequest {
        team_id: buyer.team.to_string(),
        account_id: buyer.account.to_string(),
        filter: Some(filter),
        ..ListChargesRequest::default()
    };
    let list = async |filter| world.tokens.list_charges(Request::new(charges(filter))).await;
    assert_eq!(reason(list(ChargeFilter::default()).await), "MONTHS_ARCHIVED");
    let from = |text: &str| ChargeFilter { from: proto(at(text)), ..ChargeFilter::default() };
    assert_eq!(reason(list(from("2026-03-31T00:00:00Z")).await), "MONTHS_ARCHIVED");
    assert_eq!(list(from("2026-04-01T00:00:00Z")).await.unwrap().into_inner().charges.len(), 3);
    let rows = async |after_seq| {
        let request = ListJournalRequest {
            team_id: buyer.team.to_string(),
            after_seq,
            ..ListJournalRequest::default()
        };
        world.tokens.list_journal(Request::new(request)).await
    };
    assert_eq!(reason(rows(0).await), "MONTHS_ARCHIVED");
    let archived = journal
        .iter()
        .filter(|row| row.posted_at.unwrap().seconds < proto(at("2026-04-01T00:00:00Z")).unwrap().seconds)
        .count();
    let later = rows(i64::try_from(archived).unwrap()).await.unwrap().into_inner().rows;
    assert_eq!(later[..], journal[archived..]);
    let again = statement(&world, buyer, "2026-03-01T00:00:00Z", "2026-03-15T00:00:00Z").await;
    assert_eq!(reason(again), "MONTHS_ARCHIVED");
    statement(&world, buyer, "2026-04-01T00:00:00Z", "2026-05-01T00:00:00Z").await.unwrap();
    // Nothing can be said of everything any more, and all of what is new.
    let full = world.tokens.verify_ledger(Request::new(VerifyLedgerRequest { incremental: false })).await;
    assert_eq!(reason(full), "MONTHS_ARCHIVED");
    let producer = world.producer().await;
    let batch = world.batch(5, producer, vec![calls_at(buyer, 5, "2026-08-10T10:00:00Z")]).await;
    world.post(&batch).await.unwrap();
    world.compact.up_to(at("2026-08-20T00:00:00Z")).await.unwrap();
    let verified = world.verify(Scope::Incremental).await;
    assert!(verified.is_clean(), "{verified:?}");
    assert!(verified.effort.journal_rows > 0);
    // A team that has nothing there reads everything of its own.
    let other = world.buyer();
    world.purchase(other, 100, None).await.unwrap();
    assert_eq!(world.journal(other).await.len(), 1);
    // Back where it was, it is as if nothing had been.
    archive::attach(world.database.pool(), march(), None).await.unwrap();
    assert_eq!(world.journal(buyer).await[..archived], journal[..archived]);
    world.assert_clean().await;
}

#[tokio::test]
async fn single_rows_of_an_archived_month_are_refused_by_name_wherever_they_are_needed() {
    let world = World::new().await;
    world.priced().await;
    let (buyer, producer) = (world.buyer(), world.producer().await);
    let lot = world.purchase(buyer, 100, None).await.unwrap();
    world.settle(producer, vec![calls(buyer, 3)]).await;
    let march_charge = world.charges(buyer).await[0].charge_id.clone();
    // The lot that paid in March is gone before the month is.
    world.clock.set(at("2027-03-20T00:00:00Z"));
    world.months.look().await.unwrap();
    world.close_due().await;
    world.settle(producer, vec![calls_at(buyer, 1, "2027-03-19T23:59:00Z")]).await;
    world.grant(buyer, 9_000_000, None, "2027-09-01T00:00:00Z").await.unwrap();
    world.compact.up_to(at("2027-03-20T00:00:00Z")).await.unwrap();
    statement(&world, buyer, "2026-03-01T00:00:00Z", "2026-04-01T00:00:00Z").await.unwrap();
    assert!(world.verify(Scope::Full).await.is_clean());
    let new_charge = world.charges(buyer).await[1].charge_id.clone();
    let recorded = |text: &str| as_of(None, Some(at(text)));
    let before = world.balance_then(buyer, recorded("2026-03-11T00:00:00Z")).await.unwrap();
    assert_eq!(before.balance.unwrap().available_micros, 98_500_000);
    detach(&world, march()).await.unwrap();
    let then = world.balance_then(buyer, recorded("2026-03-11T00:00:00Z")).await;
    assert_eq!(reason(then), "MONTHS_ARCHIVED");
    // Nothing of April was archived, and what was left then is known.
    let april = world.balance_then(buyer, recorded("2026-04-01T00:00:00Z")).await.unwrap();
    assert_eq!(april.balance.unwrap().available_micros, 98_500_000);
    let event = as_of(Some(at("2026-04-01T00:00:00Z")), None);
    assert_eq!(reason(world.balance_then(buyer, event).await), "MONTHS_ARCHIVED", "a day's slack");
    for charge_id in [&march_charge, &new_charge] {
        assert_eq!(reason(explain(&world, buyer, charge_id, String::new()).await), "MONTHS_ARCHIVED");
    }
    let format = ExportFormat::Csv;
    let exported = reason_of_export(&world, asked(buyer, days_of_march(), format)).await;
    assert_eq!(exported.as_deref(), Some("MONTHS_ARCHIVED"));
    let scope = month_request::Scope::TeamId(buyer.team.to_string());
    let draft = month_request::By::Draft(PriceDraft { prices: vec![price("call", 1, 1)] });
    assert_eq!(reason(what_if::ask(&world, scope, draft).await), "MONTHS_ARCHIVED");
    assert_eq!(reason(world.correct(buyer, &march_charge, 0, None).await), "MONTHS_ARCHIVED");
    assert_eq!(reason(charge_back(&world, &lot, buyer).await), "MONTHS_ARCHIVED");
    // Sums need no rows, unless they are of what was recorded before some of what is rolled up.
    let sums = |until: Option<&str>| {
        let until = until.and_then(|text| proto(at(text)));
        summarize(buyer, ChargeFilter { recorded_until: until, ..ChargeFilter::default() }, &[])
    };
    assert_eq!(summary(&world, sums(None)).await.unwrap().totals.unwrap().events, 4);
    assert_eq!(summary(&world, sums(Some("2027-03-20T00:00:00Z"))).await.unwrap().totals.unwrap().events, 4);
    world.compact.up_to(at("2027-04-20T00:00:00Z")).await.unwrap();
    assert_eq!(reason(summary(&world, sums(Some("2026-12-01T00:00:00Z"))).await), "MONTHS_ARCHIVED");
}

#[tokio::test]
async fn files_hold_the_month_and_give_it_back() {
    let world = World::new().await;
    let buyer = ready(&world).await;
    let (charges, journal) = (world.charges(buyer).await, world.journal(buyer).await);
    let (pool, dir) = (world.database.pool(), tempfile::tempdir().unwrap());
    let now = drawdown_types::Clock::now(&*world.clock);
    assert!(archive::write(pool, march(), dir.path(), now).await.is_err(), "it is not detached");
    detach(&world, march()).await.unwrap();
    assert!(archive::drop_tables(pool, march(), dir.path(), now).await.is_err(), "nothing is written");
    let files = archive::write(pool, march(), dir.path(), now).await.unwrap();
    let end = proto(at("2026-04-01T00:00:00Z")).unwrap().seconds;
    let posted = journal.iter().filter(|row| row.posted_at.unwrap().seconds < end).count();
    let rows: Vec<_> = files.iter().map(|file| file.rows).collect();
    // Two of the charges are their own journal rows.
    assert_eq!(rows, [3, i64::try_from(posted).unwrap() - 2]);
    assert_eq!(archive::write(pool, march(), dir.path(), now).await.unwrap(), files, "the same bytes again");
    assert_eq!(archive::check(pool, march(), dir.path()).await.unwrap(), files);
    // One digit, and it is another file.
    let path = &files[0].path;
    let right = std::fs::read_to_string(path).unwrap();
    std::fs::write(path, right.replacen(",3,", ",4,", 1)).unwrap();
    assert!(archive::check(pool, march(), dir.path()).await.is_err());
    assert!(archive::drop_tables(pool, march(), dir.path(), now).await.is_err());
    std::fs::write(path, right).unwrap();
    archive::drop_tables(pool, march(), dir.path(), now).await.unwrap();
    assert_eq!(state(&world, "2026-03").await, "dropped");
    assert!(archive::attach(pool, march(), None).await.is_err(), "the rows are in files");
    let elsewhere = tempfile::tempdir().unwrap();
    assert!(archive::attach(pool, march(), Some(elsewhere.path())).await.is_err());
    archive::attach(pool, march(), Some(dir.path())).await.unwrap();
    assert_eq!(state(&world, "2026-03").await, "attached");
    assert_eq!((world.charges(buyer).await, world.journal(buyer).await), (charges, journal));
    world.assert_clean().await;
    // It can go again.
    detach(&world, march()).await.unwrap();
}

#[tokio::test]
async fn months_go_and_come_in_order() {
    let world = World::new().await;
    let buyer = ready(&world).await;
    let april: Month = "2026-04".parse().unwrap();
    statement(&world, buyer, "2026-04-01T00:00:00Z", "2026-05-01T00:00:00Z").await.unwrap();
    assert!(world.verify(Scope::Full).await.is_clean());
    assert!(detach(&world, april).await.is_err());
    detach(&world, march()).await.unwrap();
    detach(&world, april).await.unwrap();
    assert!(archive::attach(world.database.pool(), march(), None).await.is_err());
    assert!(world.verify(Scope::Incremental).await.is_clean());
    archive::attach(world.database.pool(), april, None).await.unwrap();
    archive::attach(world.database.pool(), march(), None).await.unwrap();
    world.assert_clean().await;
}
