//! The journal as it is read: filters, pages, streams.

use drawdown_proto::ledger::v1::{
    JournalFilter, JournalRow, ListJournalRequest, ListJournalResponse, StreamJournalRequest,
    report_service_server::ReportService, token_service_server::TokenService,
};
use drawdown_types::AccountId;
use futures::StreamExt as _;
use tonic::{Request, Status};

use crate::world::{Buyer, World, at, calls, calls_at, proto, reason, refusal};

/// Debts, lots that pay them, charges, an expiry: on three days.
async fn busy(world: &World) -> Buyer {
    world.priced().await;
    let (buyer, producer) = (world.buyer(), world.producer().await);
    world.settle(producer, vec![calls(buyer, 3), calls(buyer, 5)]).await;
    world.grant(buyer, 2_500_000, None, "2026-03-11T12:00:00Z").await.unwrap();
    world.grant(buyer, 9_000_000, None, "2026-03-10T18:00:00Z").await.unwrap();
    world.settle(producer, vec![calls(buyer, 1), calls(buyer, 2)]).await;
    world.clock.set(at("2026-03-11T12:00:30Z"));
    world.settle(producer, vec![calls_at(buyer, 4, "2026-03-11T11:59:00Z")]).await;
    world.clock.set(at("2026-03-12T12:00:30Z"));
    world.purchase(buyer, 100, None).await.unwrap();
    world.settle(producer, vec![calls_at(buyer, 6, "2026-03-12T12:00:00Z")]).await;
    buyer
}

fn asked(buyer: Buyer, filter: JournalFilter, page_size: u32, page_token: &str) -> ListJournalRequest {
    ListJournalRequest {
        team_id: buyer.team.to_string(),
        after_seq: 0,
        page_size,
        page_token: page_token.to_owned(),
        filter: Some(filter),
        account_id: buyer.account.to_string(),
    }
}

async fn list(world: &World, request: ListJournalRequest) -> Result<ListJournalResponse, Status> {
    Ok(world.tokens.list_journal(Request::new(request)).await?.into_inner())
}

type Fits = Box<dyn Fn(&JournalRow) -> bool>;

fn filters(all: &[JournalRow]) -> Vec<(JournalFilter, Fits)> {
    let none = JournalFilter::default;
    let (lot, charge) = (all[2].lot_id.clone(), all[0].charge_id.clone());
    let (day, next) = (proto(at("2026-03-11T00:00:00Z")), proto(at("2026-03-12T12:00:30Z")));
    let kinds = vec!["netting".to_owned(), "expiry".to_owned()];
    vec![
        (none(), Box::new(|_| true)),
        (JournalFilter { kinds, ..none() }, Box::new(|row| row.kind == "netting" || row.kind == "expiry")),
        (JournalFilter { lot_id: lot.clone(), ..none() }, Box::new(move |row| row.lot_id == lot)),
        (JournalFilter { charge_id: charge.clone(), ..none() }, Box::new(move |row| row.charge_id == charge)),
        (JournalFilter { up_to_seq: 4, ..none() }, Box::new(|row| row.seq <= 4)),
        (
            JournalFilter { posted_from: day, posted_to: next, ..none() },
            Box::new(move |row| {
                let posted = row.posted_at.unwrap().seconds;
                day.unwrap().seconds <= posted && posted < next.unwrap().seconds
            }),
        ),
    ]
}

#[tokio::test]
async fn a_filter_finds_its_rows_in_pages_of_one_state() {
    let world = World::new().await;
    let buyer = busy(&world).await;
    let producer = world.producer().await;
    let all = world.journal(buyer).await;
    assert!(all.len() >= 12, "{all:#?}");
    for (filter, fits) in filters(&all) {
        let expected: Vec<_> = all.iter().filter(|row| fits(row)).cloned().collect();
        assert!(!expected.is_empty(), "{filter:?}");
        let whole = list(&world, asked(buyer, filter.clone(), 0, "")).await.unwrap();
        assert_eq!(whole.rows[..expected.len()], expected, "{filter:?}");
        let (mut found, mut token) = (Vec::new(), String::new());
        loop {
            let page = list(&world, asked(buyer, filter.clone(), 2, &token)).await.unwrap();
            assert!(page.completeness == whole.completeness && page.rows.len() <= 2);
            found.extend(page.rows);
            token = page.next_page_token;
            if token.is_empty() {
                break;
            }
            world.settle(producer, vec![calls_at(buyer, 1, "2026-03-12T12:00:00Z")]).await;
        }
        assert_eq!(found, whole.rows, "{filter:?}");
    }
    let after = ListJournalRequest { after_seq: 5, ..asked(buyer, JournalFilter::default(), 3, "") };
    let rows = list(&world, after).await.unwrap().rows;
    assert_eq!(rows.iter().map(|row| row.seq).collect::<Vec<_>>(), [6, 7, 8]);
    world.assert_clean().await;
}

#[tokio::test]
async fn a_stream_is_the_list() {
    let world = World::with(|options| {
        options.reports.stream_rows = drawdown_service::config::Count::of(3);
    })
    .await;
    let buyer = busy(&world).await;
    let all = world.journal(buyer).await;
    for (filter, fits) in filters(&all) {
        let request = StreamJournalRequest {
            account_id: buyer.account.to_string(),
            team_id: buyer.team.to_string(),
            after_seq: 1,
            filter: Some(filter),
        };
        let mut stream = world.reports.stream_journal(Request::new(request)).await.unwrap().into_inner();
        let mut found = Vec::new();
        while let Some(part) = stream.next().await {
            let part = part.unwrap();
            assert!(part.rows.len() <= 3 && part.completeness.is_some());
            found.extend(part.rows);
        }
        let expected: Vec<_> = all.iter().filter(|row| row.seq > 1 && fits(row)).cloned().collect();
        assert_eq!(found, expected);
    }
}

#[tokio::test]
async fn what_can_not_be_listed_is_refused() {
    let world = World::new().await;
    let buyer = busy(&world).await;
    let filter = JournalFilter {
        kinds: vec!["netting".to_owned(), "nothing".to_owned()],
        lot_id: "lot_x".to_owned(),
        charge_id: buyer.team.to_string(),
        up_to_seq: 3,
        posted_from: proto(at("2026-03-12T00:00:00Z")),
        posted_to: proto(at("2026-03-11T00:00:00Z")),
    };
    let request = ListJournalRequest { after_seq: 3, ..asked(buyer, filter, 0, "") };
    let (_, why, fields) = refusal(&list(&world, request).await.unwrap_err());
    assert_eq!(why, "REQUEST_INVALID");
    let expected =
        ["lot_id", "charge_id", "up_to_seq", "posted_to", "kinds[1]"].map(|name| format!("filter.{name}"));
    assert_eq!(fields, expected);
    let token = list(&world, asked(buyer, JournalFilter::default(), 2, "")).await.unwrap().next_page_token;
    let kinds = JournalFilter { kinds: vec!["charge".to_owned()], ..JournalFilter::default() };
    assert_eq!(reason(list(&world, asked(buyer, kinds, 2, &token)).await), "PAGE_TOKEN_INVALID");
    let after = ListJournalRequest { after_seq: 1, ..asked(buyer, JournalFilter::default(), 2, &token) };
    assert_eq!(reason(list(&world, after).await), "PAGE_TOKEN_INVALID");
    let stranger = Buyer { account: AccountId::generate(), ..buyer };
    let foreign = asked(stranger, JournalFilter::default(), 2, &token);
    assert_eq!(reason(list(&world, foreign).await), "TEAM_UNKNOWN");
}
