//! Which batches an answer stands on: it names them, and has what they brought and nothing else.

use std::sync::Arc;

use drawdown_proto::ledger::v1::{
    ChargeFilter, Completeness, ExportFormat, GetBalanceRequest, GetForecastRequest, ListJournalRequest,
    ListLotsRequest, SettledBatch, StreamChargesRequest, StreamJournalRequest,
    report_service_server::ReportService as _, token_service_server::TokenService as _,
};
use futures::StreamExt as _;
use tonic::Request;

use crate::{
    export::{asked, days},
    reports::{list, summarize},
    world::{Buyer, World, at, batch, calls, event, id_in, proto},
};

/// What one call costs, in micro-tokens.
const CALL: i64 = 500_000;
const LOT: i64 = 100_000_000;
const POSTS: i64 = 25;
/// As `EVENT_SHARDS` has it.
const FIRST_SLOT: u32 = 65_536;

/// An answer: what it is, on what it stands, and what it says was used.
type Answer = (&'static str, Vec<(u32, u64)>, i64);

fn of(completeness: Option<Completeness>) -> Vec<(u32, u64)> {
    let named = |SettledBatch { shard, batch }| (shard, batch);
    completeness.unwrap().settled.into_iter().map(named).collect()
}

/// Everything that tells what a team used, asked for one after the other. Its only lot has paid for all of it.
async fn answers(world: &World, buyer: Buyer) -> Vec<Answer> {
    let (account_id, team_id) = (buyer.account.to_string(), buyer.team.to_string());
    let request = GetBalanceRequest { team_id: team_id.clone(), ..GetBalanceRequest::default() };
    let balance = world.tokens.get_balance(Request::new(request)).await.unwrap().into_inner();
    let request = ListLotsRequest { team_id: team_id.clone(), ..ListLotsRequest::default() };
    let lots = world.tokens.list_lots(Request::new(request)).await.unwrap().into_inner();
    let request = list(buyer, ChargeFilter::default(), 0, "");
    let charges = world.tokens.list_charges(Request::new(request)).await.unwrap().into_inner();
    let request = ListJournalRequest { team_id: team_id.clone(), ..ListJournalRequest::default() };
    let journal = world.tokens.list_journal(Request::new(request)).await.unwrap().into_inner();
    let request = summarize(buyer, ChargeFilter::default(), &[]);
    let summary = world.reports.summarize_usage(Request::new(request)).await.unwrap().into_inner();
    let request = GetForecastRequest {
        account_id: account_id.clone(),
        team_id: team_id.clone(),
        micros_per_day: Some(1),
    };
    let forecast = world.reports.get_forecast(Request::new(request)).await.unwrap().into_inner();
    let paid = |rows: &[drawdown_proto::ledger::v1::JournalRow]| {
        rows.iter().filter(|row| row.kind == "charge").map(|row| row.amount_micros).sum()
    };
    let left: i64 = forecast.forecast.unwrap().lots.iter().map(|lot| lot.remaining_micros).sum();
    let mut answers = vec![
        ("balance", of(balance.completeness), balance.balance.unwrap().used_micros),
        ("lots", of(lots.completeness), lots.lots.iter().map(|lot| lot.consumed_micros).sum()),
        (
            "charges",
            of(charges.completeness),
            charges.charges.iter().map(|charge| charge.amount_micros).sum(),
        ),
        ("journal", of(journal.completeness), paid(&journal.rows)),
        ("summary", of(summary.completeness), summary.totals.unwrap().amount_micros),
        ("forecast", of(forecast.completeness), LOT - left),
    ];
    let request =
        StreamChargesRequest { account_id: account_id.clone(), team_id: team_id.clone(), filter: None };
    let mut stream = world.reports.stream_charges(Request::new(request)).await.unwrap().into_inner();
    while let Some(part) = stream.next().await {
        let part = part.unwrap();
        let used = part.charges.iter().map(|charge| charge.amount_micros).sum();
        answers.push(("stream of charges", of(part.completeness), used));
    }
    let request = StreamJournalRequest { account_id, team_id, ..StreamJournalRequest::default() };
    let mut stream = world.reports.stream_journal(Request::new(request)).await.unwrap().into_inner();
    while let Some(part) = stream.next().await {
        let part = part.unwrap();
        answers.push(("stream of the journal", of(part.completeness), paid(&part.rows)));
    }
    let request = asked(buyer, days(), ExportFormat::Csv);
    let mut file = world.reports.export_usage(Request::new(request)).await.unwrap().into_inner();
    while let Some(message) = file.next().await {
        if let Some(summary) = message.unwrap().summary {
            answers.push(("file", of(summary.completeness), summary.sums.unwrap().amount_micros));
        }
    }
    assert_eq!(answers.len(), 9);
    answers
}

async fn buyer_with_a_lot(world: &World) -> Buyer {
    world.priced().await;
    let buyer = world.buyer();
    world.grant(buyer, LOT, None, "2026-06-01T00:00:00Z").await.unwrap();
    buyer
}

#[tokio::test]
async fn an_answer_moves_with_the_batches_that_it_names() {
    let world = World::new().await;
    let buyer = buyer_with_a_lot(&world).await;
    let producer = world.producer().await;
    let check = async |named: &[(u32, u64)], used: i64| {
        for (what, stands_on, says) in answers(&world, buyer).await {
            assert_eq!((&stands_on[..], says), (named, used), "{what}");
        }
    };
    check(&[], 0).await;
    for (shard, events) in [(3, 2), (3, 5), (1, 7)] {
        let batch = world.batch(shard, producer, vec![calls(buyer, events)]).await;
        world.post(&batch).await.unwrap();
    }
    check(&[(1, 1), (3, 2)], 14 * CALL).await;
    // Usage of another team moves the batches alone.
    let other = world.buyer();
    world.post(&world.batch(3, producer, vec![calls(other, 9)]).await).await.unwrap();
    check(&[(1, 1), (3, 3)], 14 * CALL).await;
    world.record(&[event(&id_in(1, 0), 1, calls(buyer, 1))]).await.unwrap();
    check(&[(1, 1), (3, 3), (FIRST_SLOT + 1, 1)], 15 * CALL).await;
}

#[tokio::test]
async fn a_page_stands_on_what_the_first_one_stood_on() {
    let world = World::new().await;
    let buyer = buyer_with_a_lot(&world).await;
    let producer = world.producer().await;
    for events in 1..=3 {
        world.settle(producer, vec![calls(buyer, events)]).await;
    }
    let mut token = String::new();
    for page in 0..3 {
        let request = list(buyer, ChargeFilter::default(), 1, &token);
        let answer = world.tokens.list_charges(Request::new(request)).await.unwrap().into_inner();
        assert_eq!((of(answer.completeness), answer.charges.len()), (vec![(3, 3)], 1), "page {page}");
        token = answer.next_page_token;
        world.settle(producer, vec![calls(buyer, 1)]).await;
    }
    assert!(token.is_empty());
}

#[tokio::test]
async fn earlier_books_are_named_by_their_instant_and_not_by_batches() {
    let world = World::new().await;
    let buyer = buyer_with_a_lot(&world).await;
    let as_of = drawdown_proto::ledger::v1::AsOf { event: None, recorded: proto(at(crate::world::NOW)) };
    let request = GetBalanceRequest {
        team_id: buyer.team.to_string(),
        as_of: Some(as_of),
        ..GetBalanceRequest::default()
    };
    let answer = world.tokens.get_balance(Request::new(request)).await.unwrap().into_inner();
    assert!(answer.as_of.is_some() && answer.completeness.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_batches_are_posted_each_answer_has_those_that_it_names() {
    let world = Arc::new(World::new().await);
    let buyer = buyer_with_a_lot(&world).await;
    let mut writers = tokio::task::JoinSet::new();
    for shard in 0..2 {
        let world = Arc::clone(&world);
        writers.spawn(async move {
            let producer = world.producer().await;
            for _ in 0..POSTS {
                let batch = batch(&world.shard(shard).await, producer, vec![calls(buyer, 1)]);
                world.post(&batch).await.unwrap();
            }
        });
    }
    let mut between = 0;
    while !writers.is_empty() {
        for (what, stands_on, says) in answers(&world, buyer).await {
            let batches: u64 = stands_on.iter().map(|(_, batch)| batch).sum();
            let batches = i64::try_from(batches).unwrap();
            assert_eq!(says, batches * CALL, "{what} names {stands_on:?}");
            between += i64::from((1..2 * POSTS).contains(&batches));
        }
        while let Some(done) = writers.try_join_next() {
            done.unwrap();
        }
    }
    assert!(between > 0, "nothing was asked while something was posted");
}
