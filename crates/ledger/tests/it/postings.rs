//! What a billing system pulls: everything once, whoever posts meanwhile, and the same again from every cursor.

use std::sync::Arc;

use drawdown_ledger::grpc::Postings;
use drawdown_proto::ledger::v1::{
    JournalRow, Line, ListPostingsRequest, ListPostingsResponse, PostedCharge, Posting, Price, posting::Fact,
    posting_service_server::PostingService,
};
use prost::Message as _;
use tonic::{Code, Request, Status};

use crate::{
    archive::{detach, march, ready},
    holds::reserve,
    reports::owing,
    world::{Buyer, World, batch, calls, price, refusal, sum, usage_at},
};

async fn ask(world: &World, request: ListPostingsRequest) -> Result<ListPostingsResponse, Status> {
    let service = Postings::new(Arc::clone(&world.ledger));
    service.list_postings(Request::new(request)).await.map(tonic::Response::into_inner)
}

fn of(buyer: Buyer) -> ListPostingsRequest {
    ListPostingsRequest { account_id: buyer.account.to_string(), ..ListPostingsRequest::default() }
}

/// Every page from a cursor on, up to another one or to what there is.
async fn pull(world: &World, begin: ListPostingsRequest) -> (Vec<Posting>, String) {
    let (mut all, mut request, mut is_promised) = (Vec::new(), begin, false);
    loop {
        let page = ask(world, request.clone()).await.unwrap();
        assert!(!is_promised || !page.postings.is_empty(), "more follows, and nothing comes");
        assert!(request.page_size == 0 || page.postings.len() <= usize::try_from(request.page_size).unwrap());
        assert!(!page.postings.is_empty() || !page.more, "a page that says nothing and goes on");
        all.extend(page.postings);
        request.cursor = page.cursor;
        is_promised = page.more;
        if !is_promised {
            return (all, request.cursor);
        }
    }
}

fn bytes(postings: &[Posting]) -> Vec<Vec<u8>> {
    postings.iter().map(Posting::encode_to_vec).collect()
}

fn charges(postings: &[Posting], buyer: Buyer) -> Vec<PostedCharge> {
    let of_team = postings.iter().filter(|posting| posting.team_id == buyer.team.to_string());
    of_team
        .filter_map(|posting| match posting.fact.clone() {
            Some(Fact::Charge(charge)) => Some(charge),
            Some(Fact::Row(_)) | None => None,
        })
        .collect()
}

/// All journal rows of a team, those of charges too.
fn rows(postings: &[Posting], buyer: Buyer) -> Vec<JournalRow> {
    let of_team = postings.iter().filter(|posting| posting.team_id == buyer.team.to_string());
    let mut rows: Vec<JournalRow> = of_team
        .flat_map(|posting| match posting.fact.clone() {
            Some(Fact::Charge(charge)) => charge.rows,
            Some(Fact::Row(row)) => vec![row],
            None => Vec::new(),
        })
        .collect();
    rows.sort_by_key(|row| row.seq);
    rows
}

/// What was pulled of a team is its charges and its journal, each once.
async fn assert_whole(world: &World, postings: &[Posting], buyer: Buyer) {
    assert_eq!(rows(postings, buyer), world.journal(buyer).await);
    let (told, listed) = (charges(postings, buyer), world.charges(buyer).await);
    assert_eq!(told.len(), listed.len());
    for (told, listed) in told.iter().zip(listed) {
        assert_eq!((told.charge_id.as_str(), told.seq), (listed.charge_id.as_str(), listed.seq));
        let told_of = (told.amount_micros, told.uncharged_micros, told.quantity, told.events, &told.corrects);
        let listed_of =
            (listed.amount_micros, listed.uncharged_micros, listed.quantity, listed.events, &listed.corrects);
        assert_eq!(told_of, listed_of);
        assert_eq!(
            (&told.app_id, &told.client_id, &told.meter),
            (&listed.app_id, &listed.client_id, &listed.meter)
        );
        assert_eq!((told.window_start, told.posted_at), (listed.window_start, listed.posted_at));
        let dimensions = told.dimensions.iter().map(|one| (one.name.clone(), one.value.clone()));
        assert_eq!(dimensions.collect::<std::collections::HashMap<_, _>>(), listed.dimensions);
        // What paid for it, and what it owes, are all of it.
        let owed = told.rows.iter().filter(|row| matches!(&*row.kind, "uncharged" | "cancellation"));
        let owed: i64 = owed.map(|row| row.amount_micros).sum();
        let moved: i64 = told.rows.iter().map(|row| row.amount_micros).sum();
        assert_eq!((moved, owed), (told.amount_micros.abs(), told.uncharged_micros.abs()), "{told:?}");
        assert_eq!(told.charged_micros, told.amount_micros - told.uncharged_micros);
    }
}

/// An account with usage that is paid, owed, netted, corrected, free and held, in two teams.
async fn lively(world: &World) -> [Buyer; 2] {
    world.priced().await;
    let buyer = world.buyer();
    let sibling = world.sibling(buyer);
    owing(world, buyer).await;
    let charge = world.charges(buyer).await.remove(3);
    world.correct(buyer, &charge.charge_id, 0, None).await.unwrap();
    world.purchase(sibling, 100, None).await.unwrap();
    reserve(world, sibling, 5_000_000, 0, 60_000).await.unwrap();
    let producer = world.producer().await;
    world.settle(producer, vec![calls(sibling, 7), calls(buyer, 1)]).await;
    [buyer, sibling]
}

#[tokio::test]
async fn everything_is_told_once_whatever_the_pages() {
    let world = World::new().await;
    let buyers = lively(&world).await;
    let (whole, end) = pull(&world, of(buyers[0])).await;
    for buyer in buyers {
        assert_whole(&world, &whole, buyer).await;
    }
    for page_size in [1, 2, 3, 7, 50, 10_000] {
        let begin = ListPostingsRequest { page_size, ..of(buyers[0]) };
        let (again, _) = pull(&world, begin).await;
        assert_eq!(bytes(&again), bytes(&whole), "pages of {page_size}");
    }
    let one = ListPostingsRequest { team_id: buyers[1].team.to_string(), page_size: 2, ..of(buyers[0]) };
    let (of_team, _) = pull(&world, one).await;
    assert!(of_team.iter().all(|posting| posting.team_id == buyers[1].team.to_string()));
    assert_whole(&world, &of_team, buyers[1]).await;
    let (nothing, same) = pull(&world, ListPostingsRequest { cursor: end.clone(), ..of(buyers[0]) }).await;
    assert_eq!((nothing, same), (Vec::new(), end));
}

#[tokio::test]
async fn a_page_says_that_more_follows_where_it_does() {
    let world = World::new().await;
    let [buyer, sibling] = lively(&world).await;
    let whole = pull(&world, of(buyer)).await.0.len();
    let page = |size: usize| {
        let page_size = u32::try_from(size).unwrap();
        ask(&world, ListPostingsRequest { page_size, ..of(buyer) })
    };
    for size in 1..=whole + 1 {
        let told = page(size).await.unwrap();
        assert_eq!((told.postings.len(), told.more), (size.min(whole), size < whole), "pages of {size}");
    }
    // What was posted, and that nobody has cut into slices yet, follows too.
    let producer = world.producer().await;
    world.settle(producer, vec![calls(sibling, 1)]).await;
    let told = page(whole).await.unwrap();
    assert_eq!((told.postings.len(), told.more), (whole, true));
}

#[tokio::test]
async fn from_every_cursor_on_the_same_comes_again_byte_for_byte() {
    let world = World::new().await;
    let [buyer, sibling] = lively(&world).await;
    let (mut cursors, mut told, mut cursor) = (vec![String::new()], Vec::new(), String::new());
    for round in 1..=3 {
        loop {
            let page = ListPostingsRequest { cursor: cursor.clone(), page_size: 4, ..of(buyer) };
            let page = ask(&world, page).await.unwrap();
            told.extend(page.postings);
            cursor = page.cursor;
            cursors.push(cursor.clone());
            if !page.more {
                break;
            }
        }
        let producer = world.producer().await;
        world.settle(producer, vec![calls(sibling, round), calls(buyer, round)]).await;
    }
    let (last, told) = (cursors.last().unwrap().clone(), bytes(&told));
    for (place, cursor) in cursors.iter().enumerate() {
        for page_size in [0, 3] {
            let (cursor, until) = (cursor.clone(), last.clone());
            let (again, end) =
                pull(&world, ListPostingsRequest { cursor, until, page_size, ..of(buyer) }).await;
            let from = told.len() - again.len();
            assert_eq!(bytes(&again), told[from..], "from cursor {place}");
            assert_eq!(end, last);
        }
    }
    // What was posted since lies behind the cursor, and is told from it on.
    let (rest, _) = pull(&world, ListPostingsRequest { cursor: last, ..of(buyer) }).await;
    assert_eq!(rest.len(), 2);
    let (whole, _) = pull(&world, of(buyer)).await;
    assert_eq!(bytes(&whole), [told, bytes(&rest)].concat());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_missed_or_doubled_while_others_post() {
    const ROUNDS: u64 = 8;
    let world = Arc::new(World::new().await);
    world.priced().await;
    let first = world.buyer();
    let mut buyers = vec![first];
    buyers.extend((0..5).map(|_| world.sibling(first)));
    let mut writers = tokio::task::JoinSet::new();
    for shard in 0..4 {
        let (world, mut buyers) = (Arc::clone(&world), buyers.clone());
        buyers.rotate_left(usize::try_from(shard).unwrap());
        writers.spawn(async move {
            let producer = world.producer().await;
            for round in 1..=ROUNDS {
                let lines: Vec<Line> = buyers.iter().map(|buyer| calls(*buyer, round)).collect();
                let batch = batch(&world.shard(shard).await, producer, lines);
                world.post(&batch).await.unwrap();
                world.grant(buyers[0], 1_000_000, None, "2026-06-01T00:00:00Z").await.unwrap();
            }
        });
    }
    // Two that pull at once, in other pages, cut each other's slices.
    let mut pullers = Vec::new();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    for page_size in [3, 40] {
        let (world, stopped) = (Arc::clone(&world), stopped.clone());
        pullers.push(tokio::spawn(async move {
            let (mut all, mut cursor) = (Vec::new(), String::new());
            loop {
                let is_last = *stopped.borrow();
                let begin = ListPostingsRequest { cursor, page_size, ..of(first) };
                let (more, end) = pull(&world, begin).await;
                all.extend(more);
                cursor = end;
                if is_last {
                    return all;
                }
            }
        }));
    }
    while let Some(done) = writers.join_next().await {
        done.unwrap();
    }
    stop.send(true).unwrap();
    let (whole, _) = pull(&world, of(first)).await;
    for puller in pullers {
        assert_eq!(bytes(&puller.await.unwrap()), bytes(&whole));
    }
    for buyer in buyers {
        assert_whole(&world, &whole, buyer).await;
    }
    world.assert_clean().await;
}

#[tokio::test]
async fn cursors_of_others_are_refused() {
    let world = World::new().await;
    let [buyer, sibling] = lively(&world).await;
    let (_, cursor) = pull(&world, of(buyer)).await;
    let foreign = |field: &str| (Code::InvalidArgument, "CURSOR_FOREIGN".to_owned(), vec![field.to_owned()]);
    let other = world.buyer();
    for (request, expected) in [
        (ListPostingsRequest { cursor: cursor.clone(), ..of(other) }, foreign("cursor")),
        (
            ListPostingsRequest { cursor: cursor.clone(), team_id: sibling.team.to_string(), ..of(buyer) },
            foreign("cursor"),
        ),
        (ListPostingsRequest { until: cursor.clone(), ..of(other) }, foreign("until")),
        (
            ListPostingsRequest { cursor: "00".to_owned(), ..of(buyer) },
            (
                Code::InvalidArgument,
                "PAGE_TOKEN_INVALID".to_owned(),
                vec!["page_token".to_owned(), "cursor".to_owned()],
            ),
        ),
        (
            ListPostingsRequest { cursor: cursor.clone(), new_only: true, ..of(buyer) },
            (Code::InvalidArgument, "REQUEST_INVALID".to_owned(), vec!["cursor".to_owned()]),
        ),
        (
            ListPostingsRequest { account_id: "acct_".to_owned(), team_id: "x".to_owned(), ..of(buyer) },
            (
                Code::InvalidArgument,
                "REQUEST_INVALID".to_owned(),
                vec!["account_id".to_owned(), "team_id".to_owned()],
            ),
        ),
    ] {
        let refused = ask(&world, request.clone()).await.unwrap_err();
        let (code, reason, fields) = refusal(&refused);
        assert_eq!((code, reason.as_str()), (expected.0, expected.1.as_str()), "{request:?} {refused:?}");
        assert_eq!(fields.last(), expected.2.last(), "{request:?}");
    }
    // Another history of the same account: it was set back to before the cursor, and went on.
    let set_back = World::new().await;
    set_back.priced().await;
    set_back.know(buyer, None, None);
    set_back.purchase(buyer, 100, None).await.unwrap();
    pull(&set_back, of(buyer)).await;
    let refused = ask(&set_back, ListPostingsRequest { cursor, ..of(buyer) }).await.unwrap_err();
    assert_eq!(refusal(&refused), foreign("cursor"));
}

#[tokio::test]
async fn who_wants_only_what_is_new_begins_at_the_end() {
    let world = World::new().await;
    let [buyer, _] = lively(&world).await;
    let begun = ask(&world, ListPostingsRequest { new_only: true, ..of(buyer) }).await.unwrap();
    assert_eq!((begun.postings.len(), begun.more), (0, false));
    let producer = world.producer().await;
    world.settle(producer, vec![calls(buyer, 2)]).await;
    let (new, _) = pull(&world, ListPostingsRequest { cursor: begun.cursor, ..of(buyer) }).await;
    assert_eq!(charges(&new, buyer).iter().map(|charge| charge.quantity).collect::<Vec<_>>(), [2]);
    let nobody = ask(&world, of(world.buyer())).await.unwrap();
    assert_eq!((nobody.postings.len(), nobody.more), (0, false));
}

#[tokio::test]
async fn charges_say_how_many_whole_units_they_pay() {
    let world = World::new().await;
    world.priced().await;
    world.meter("automation", drawdown_proto::ledger::v1::Aggregation::Sum).await.unwrap();
    let units = Price { charged_unit: Some(1_200), ..price("automation", 3_000_000, 3_600) };
    world.publish("jobs", "2020-01-01T00:00:00Z", vec![units], true).await.unwrap();
    let (buyer, producer) = (world.buyer(), world.producer().await);
    for seconds in [1_000, 1_500, 100] {
        let line = usage_at(buyer, "automation", sum(seconds), "2026-03-10T11:00:00Z");
        world.settle(producer, vec![line, calls(buyer, 1)]).await;
    }
    let (all, _) = pull(&world, of(buyer)).await;
    let told = charges(&all, buyer);
    let told: Vec<_> = told.iter().map(|charge| (charge.meter.as_str(), charge.charged_units)).collect();
    let calls = ("call", None);
    let mut expected = Vec::new();
    for units in [0, 2, 0] {
        expected.extend([("automation", Some(units)), calls]);
    }
    assert_eq!(told, expected);
}

#[tokio::test]
async fn what_is_archived_is_refused_by_name_and_the_rest_goes_on() {
    let world = World::new().await;
    let buyer = ready(&world).await;
    let (whole, _) = pull(&world, of(buyer)).await;
    let march_rows = whole.iter().take_while(|posting| match &posting.fact {
        Some(Fact::Charge(charge)) => charge.posted_at.unwrap().seconds < 1_775_001_600,
        Some(Fact::Row(_)) | None => false,
    });
    assert!(march_rows.count() > 0);
    let (_, end) = pull(&world, of(buyer)).await;
    detach(&world, march()).await.unwrap();
    let refused = ask(&world, of(buyer)).await.unwrap_err();
    assert_eq!(refusal(&refused).1, "MONTHS_ARCHIVED");
    let producer = world.producer().await;
    world.settle(producer, vec![calls(buyer, 2)]).await;
    let (new, _) = pull(&world, ListPostingsRequest { cursor: end, ..of(buyer) }).await;
    assert_eq!(charges(&new, buyer).len(), 1);
}
