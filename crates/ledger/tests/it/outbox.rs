//! How facts are handed out: in one order for everybody, at least once, and none is missed.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use drawdown_ledger::{Options, jobs::relay::Relay, service::Ledger};
use drawdown_proto::ledger::v1::{
    ListNoticesRequest, ListNoticesResponse, Notice, NoticeFilter, NoticeKind, ResetAllShardsRequest,
    WatchNoticesRequest, WatchNoticesResponse, notice_service_server::NoticeService,
    settlement_service_server::SettlementService,
};
use drawdown_types::{AccountId, TeamId};
use futures::{Stream, StreamExt as _};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status};

use crate::world::{Buyer, DAY, World, batch, calls, reason, refusal};

type Messages = std::pin::Pin<Box<dyn Stream<Item = Result<WatchNoticesResponse, Status>> + Send>>;

fn of_account(buyer: Buyer) -> NoticeFilter {
    NoticeFilter { account_id: buyer.account.to_string(), ..NoticeFilter::default() }
}

fn positions(notices: &[Notice]) -> Vec<i64> {
    notices.iter().map(|notice| notice.position).collect()
}

async fn watch(world: &World, request: WatchNoticesRequest) -> Result<Messages, Status> {
    Ok(world.notices.watch_notices(Request::new(request)).await?.into_inner())
}

fn from(cursor: &str) -> WatchNoticesRequest {
    WatchNoticesRequest { cursor: cursor.to_owned(), ..WatchNoticesRequest::default() }
}

async fn list(world: &World, request: ListNoticesRequest) -> Result<ListNoticesResponse, Status> {
    Ok(world.notices.list_notices(Request::new(request)).await?.into_inner())
}

/// As many lots for as many teams: one fact each.
async fn lots(world: &World, count: usize) -> Vec<Buyer> {
    let buyers: Vec<Buyer> = (0..count).map(|_| world.buyer()).collect();
    for buyer in &buyers {
        world.purchase(*buyer, 100, None).await.unwrap();
    }
    buyers
}

fn another_relay(world: &World) -> Relay {
    let config = Options::default().validate().unwrap();
    Relay::new(Arc::<Ledger>::clone(&world.ledger), config.notices.relay)
}

#[tokio::test]
async fn what_commits_late_is_not_missed_by_who_has_read_further() {
    let world = World::new().await;
    let buyer = world.buyer();
    let insert =
        "insert into ledger.outbox (account_id, team_id, key, notice_id, kind, occurred_at, noted_at, detail)
                  values ($1, $2, $3, gen_random_uuid(), 'back_at_zero', now(), now(),
                          '{\"kind\":\"back_at_zero\",\"balance\":0,\"since\":\"2026-03-10T12:00:00Z\"}')
                  returning entry";
    let mut entries = Vec::new();
    let mut early = world.database.pool().begin().await.unwrap();
    let mut late = world.database.pool().begin().await.unwrap();
    for (tx, key) in [(&mut early, "early"), (&mut late, "late")] {
        let (account, team) = (buyer.account.as_uuid(), TeamId::generate().as_uuid());
        let entry: i64 =
            sqlx::query_scalar(insert).bind(account).bind(team).bind(key).fetch_one(&mut **tx).await.unwrap();
        entries.push(entry);
    }
    assert!(entries[0] < entries[1], "the one that drew its number first commits last");
    late.commit().await.unwrap();
    let first = world.told(None).await;
    assert_eq!(positions(&first), [1]);
    let mut stream = watch(&world, from("")).await.unwrap();
    let cursor = stream.next().await.unwrap().unwrap().cursor;
    early.commit().await.unwrap();
    world.relay.look().await.unwrap();
    let rest = watch(&world, from(&cursor)).await.unwrap().next().await.unwrap().unwrap();
    assert_eq!(positions(&rest.notices), [2]);
    assert_ne!(rest.notices[0].team_id, first[0].team_id);
    // The stream that was open all along gets it too.
    assert_eq!(stream.next().await.unwrap().unwrap().notices, rest.notices);
}

#[tokio::test]
async fn writers_and_relays_at_once_leave_one_order_without_a_gap() {
    let world = Arc::new(World::new().await);
    world.priced().await;
    let buyers: Vec<Buyer> = (0..6).map(|_| world.buyer()).collect();
    let mut tasks = tokio::task::JoinSet::new();
    for shard in 0..4_u32 {
        let (world, buyers) = (Arc::clone(&world), buyers.clone());
        tasks.spawn(async move {
            let producer = world.producer().await;
            for round in 0..5 {
                let lines = buyers.iter().map(|buyer| calls(*buyer, 1 + round)).collect();
                world.post(&batch(&world.shard(shard).await, producer, lines)).await.unwrap();
                // Bought, used up, bought again: every round has something to tell.
                world.purchase(buyers[usize::try_from(shard).unwrap()], 100, None).await.unwrap();
            }
        });
    }
    for _ in 0..2 {
        let world = Arc::clone(&world);
        tasks.spawn(async move {
            let relay = another_relay(&world);
            for _ in 0..20 {
                relay.look().await.unwrap();
                tokio::task::yield_now().await;
            }
        });
    }
    let mut stream = watch(&world, from("")).await.unwrap();
    tasks.join_all().await;
    world.relay.look().await.unwrap();
    let all = world.told(None).await;
    let count = i64::try_from(all.len()).unwrap();
    assert_eq!(positions(&all), (1..=count).collect::<Vec<_>>());
    let mut streamed = Vec::new();
    while streamed.len() < all.len() {
        streamed.extend(stream.next().await.unwrap().unwrap().notices);
    }
    assert_eq!(streamed, all);
    assert_eq!(all.iter().map(|notice| &notice.notice_id).collect::<BTreeSet<_>>().len(), all.len());
    for buyer in &buyers {
        let team = buyer.team.to_string();
        let sql =
            "select coalesce(array_agg(position order by entry), '{}') from ledger.outbox where team_id = $1";
        let by_entry: Vec<i64> = sqlx::query_scalar(sql)
            .bind(buyer.team.as_uuid())
            .fetch_one(world.database.pool())
            .await
            .unwrap();
        let of_team: Vec<_> = all.iter().filter(|notice| notice.team_id == team).cloned().collect();
        assert_eq!(positions(&of_team), by_entry, "a team's facts are in order of posting");
        let zeros = of_team.iter().map(Notice::kind);
        let zeros: Vec<_> =
            zeros.filter(|kind| matches!(kind, NoticeKind::BelowZero | NoticeKind::BackAtZero)).collect();
        assert!(zeros.windows(2).all(|pair| pair[0] != pair[1]), "{zeros:?}");
        assert_eq!(zeros.first(), Some(&NoticeKind::BelowZero).filter(|_| !zeros.is_empty()));
    }
    world.assert_clean().await;
}

#[tokio::test]
async fn a_stream_that_dies_is_resumed_where_its_reader_was() {
    let world = World::with(|options| {
        options.notices.message_rows_max = drawdown_service::config::Count::of(3);
    })
    .await;
    lots(&world, 20).await;
    let all = world.told(None).await;
    assert_eq!(all.len(), 20);
    let (mut seen, mut cursors) = (Vec::new(), vec![String::new()]);
    // Each time the reader dies before it has kept its last cursor, and begins again at the one before.
    let mut turn = 0;
    while cursors.len() < 2 || seen.last().is_none_or(|last: &Notice| last.position < 20) {
        let begin = cursors[cursors.len().saturating_sub(1 + turn % 2)].clone();
        let mut stream = watch(&world, from(&begin)).await.unwrap();
        for _ in 0..=(turn % 3) {
            let message = stream.next().await.unwrap().unwrap();
            assert!(message.notices.len() <= 3 && message.notices.is_sorted_by_key(|notice| notice.position));
            seen.extend(message.notices);
            cursors.push(message.cursor);
            if seen.last().is_some_and(|last| last.position == 20) {
                break;
            }
        }
        turn += 1;
    }
    assert!(seen.len() > all.len(), "something was delivered again");
    for notice in &all {
        let same: Vec<_> = seen.iter().filter(|other| other.position == notice.position).collect();
        assert!(!same.is_empty() && same.iter().all(|other| *other == notice), "{notice:?}");
    }
}

#[tokio::test]
async fn a_commit_wakes_the_relay_and_the_relay_the_streams() {
    let world = World::with(|options| {
        let hours = drawdown_service::config::Millis::from_millis(3_600_000);
        (options.notices.relay_interval_ms, options.notices.heartbeat_ms) = (hours, hours);
    })
    .await;
    world.priced().await;
    let stop = CancellationToken::new();
    let mut config = Options::default();
    config.notices.relay_interval_ms = drawdown_service::config::Millis::from_millis(3_600_000);
    let config = config.validate().unwrap().notices.relay;
    let relay = tokio::spawn(Relay::new(Arc::clone(&world.ledger), config).run(stop.clone()));
    let (buyer, producer) = (world.buyer(), world.producer().await);
    let request = WatchNoticesRequest { new_only: true, ..WatchNoticesRequest::default() };
    let mut stream = watch(&world, request).await.unwrap();
    let first = stream.next().await.unwrap().unwrap();
    assert!(first.notices.is_empty() && !first.cursor.is_empty());
    world.settle(producer, vec![calls(buyer, 1)]).await;
    let message = stream.next().await.unwrap().unwrap();
    assert_eq!(message.notices[0].kind(), NoticeKind::BelowZero);
    world.purchase(buyer, 100, None).await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap().notices[0].kind(), NoticeKind::LotAdded);
    stop.cancel();
    relay.await.unwrap();
}

#[tokio::test]
async fn a_quiet_stream_tells_its_cursor_and_ends_with_the_service() {
    let world = World::with(|options| {
        options.notices.heartbeat_ms = drawdown_service::config::Millis::from_millis(1);
    })
    .await;
    let buyers = lots(&world, 3).await;
    world.relay.look().await.unwrap();
    let request =
        WatchNoticesRequest { filter: Some(of_account(buyers[0])), ..WatchNoticesRequest::default() };
    let mut stream = watch(&world, request.clone()).await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap().notices.len(), 1);
    let quiet = stream.next().await.unwrap().unwrap();
    assert!(quiet.notices.is_empty());
    let resumed = WatchNoticesRequest { cursor: quiet.cursor, ..request };
    let mut stream = watch(&world, resumed).await.unwrap();
    assert!(stream.next().await.unwrap().unwrap().notices.is_empty(), "it leads behind the others' facts");
}

#[tokio::test]
async fn lists_have_pages_and_their_cursor_leads_into_a_stream() {
    let world = World::new().await;
    let buyers = lots(&world, 5).await;
    let all = world.told(None).await;
    let (mut read, mut page_token) = (Vec::new(), String::new());
    let cursor = loop {
        let page = list(&world, ListNoticesRequest { filter: None, page_size: 2, page_token }).await.unwrap();
        read.extend(page.notices);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break page.cursor;
        }
    };
    assert_eq!(read, all);
    world.purchase(buyers[0], 100, None).await.unwrap();
    world.relay.look().await.unwrap();
    let message = watch(&world, from(&cursor)).await.unwrap().next().await.unwrap().unwrap();
    assert_eq!(positions(&message.notices), [6]);
    let kinds = vec![NoticeKind::LotAdded.into(), NoticeKind::BelowZero.into()];
    assert_eq!(world.told(Some(NoticeFilter { kinds, ..of_account(buyers[0]) })).await.len(), 2);
    let kinds = vec![NoticeKind::BelowZero.into()];
    assert!(world.told(Some(NoticeFilter { kinds, ..NoticeFilter::default() })).await.is_empty());
}

#[tokio::test]
async fn a_cursor_that_does_not_belong_here_is_refused_with_what_is_wrong() {
    let (world, other) = (World::new().await, World::new().await);
    let buyers = lots(&world, 3).await;
    lots(&other, 3).await;
    let cursor = |world: &World| {
        let request = ListNoticesRequest::default();
        let notices = world.notices.clone();
        async move { notices.list_notices(Request::new(request)).await.unwrap().into_inner().cursor }
    };
    // Databases of tests may be clones of one: this one begins an order of its own.
    let reset = ResetAllShardsRequest { cause: "cloned".to_owned() };
    other.settlement.reset_all_shards(Request::new(reset)).await.unwrap();
    world.relay.look().await.unwrap();
    other.relay.look().await.unwrap();
    let (ours, theirs) = (cursor(&world).await, cursor(&other).await);
    let filtered = WatchNoticesRequest { filter: Some(of_account(buyers[0])), ..from(&ours) };
    let wrong = |outcome: Result<Messages, Status>| {
        let status = outcome.err().unwrap();
        let (code, reason, fields) = refusal(&status);
        assert_eq!((code, fields), (tonic::Code::InvalidArgument, vec!["cursor".to_owned()]));
        reason
    };
    assert_eq!(wrong(watch(&world, from("00")).await), "PAGE_TOKEN_INVALID");
    assert_eq!(wrong(watch(&world, from(&theirs)).await), "CURSOR_FOREIGN");
    assert_eq!(wrong(watch(&world, filtered).await), "CURSOR_FOREIGN");
    // The database was set back behind what a reader has seen.
    sqlx::raw_sql("update ledger.outbox_head set position = 1").execute(world.database.pool()).await.unwrap();
    assert_eq!(wrong(watch(&world, from(&ours)).await), "CURSOR_FOREIGN");
    sqlx::raw_sql("update ledger.outbox_head set position = 3").execute(world.database.pool()).await.unwrap();
    assert!(watch(&world, from(&ours)).await.is_ok());
    // What belongs to a restore begins a new order.
    let reset = ResetAllShardsRequest { cause: "restored".to_owned() };
    world.settlement.reset_all_shards(Request::new(reset)).await.unwrap();
    assert_eq!(wrong(watch(&world, from(&ours)).await), "CURSOR_FOREIGN");
}

#[tokio::test]
async fn filters_that_can_not_be_are_refused() {
    let world = World::new().await;
    let (buyer, other) = (world.buyer(), world.buyer());
    let ask = |filter: NoticeFilter| {
        list(&world, ListNoticesRequest { filter: Some(filter), ..ListNoticesRequest::default() })
    };
    let foreign = NoticeFilter { team_id: other.team.to_string(), ..of_account(buyer) };
    assert_eq!(reason(ask(foreign).await), "TEAM_NOT_OF_ACCOUNT");
    let unknown = NoticeFilter { team_id: TeamId::generate().to_string(), ..NoticeFilter::default() };
    assert_eq!(reason(ask(unknown).await), "TEAM_UNKNOWN");
    let wrong = NoticeFilter {
        account_id: "acct_1".to_owned(),
        team_id: AccountId::generate().to_string(),
        kinds: vec![0, 99],
    };
    let (_, _, fields) = refusal(&ask(wrong).await.unwrap_err());
    assert_eq!(fields, ["filter.account_id", "filter.team_id", "filter.kinds[0]", "filter.kinds[1]"]);
}

#[tokio::test]
async fn old_facts_are_removed_from_the_front_and_who_missed_some_is_told() {
    let world = World::with(|options| {
        options.notices.retention_secs = 86_400;
        options.notices.sweep_rows_max = drawdown_service::config::Count::of(2);
    })
    .await;
    lots(&world, 5).await;
    let begin = list(&world, ListNoticesRequest::default()).await.unwrap().cursor;
    assert_eq!(world.told(None).await.len(), 5);
    world.clock.advance(DAY);
    assert_eq!(world.relay.sweep().await.unwrap(), 0, "one day is kept");
    lots(&world, 2).await;
    let behind = list(&world, ListNoticesRequest::default()).await.unwrap().cursor;
    world.clock.advance(Duration::from_micros(1));
    assert_eq!(world.relay.sweep().await.unwrap(), 5);
    assert_eq!(world.relay.sweep().await.unwrap(), 0);
    assert_eq!(positions(&world.told(None).await), [6, 7]);
    let status = watch(&world, from(&begin)).await.err().unwrap();
    assert_eq!(refusal(&status).1, "CURSOR_EXPIRED");
    let rest = watch(&world, from(&behind)).await.unwrap().next().await.unwrap().unwrap();
    assert_eq!(positions(&rest.notices), [6, 7]);
    world.assert_clean().await;
}

#[tokio::test]
async fn an_instance_has_so_many_streams_and_no_more() {
    let world = World::with(|options| {
        options.notices.streams_max = drawdown_service::config::Count::of(1);
    })
    .await;
    let stream = watch(&world, from("")).await.unwrap();
    assert_eq!(refusal(&watch(&world, from("")).await.err().unwrap()).1, "STREAMS_EXHAUSTED");
    drop(stream);
    assert!(watch(&world, from("")).await.is_ok());
}
